package playground

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

const (
	watchEvery = 100 * time.Millisecond
	askTime    = 500 * time.Millisecond
)

// assignment and member are the parts of the routers' admin API that the page shows.
type assignment struct {
	Partition int32  `json:"partition"`
	Node      string `json:"node"`
	StandIn   bool   `json:"stand_in"`
	Claimed   string `json:"claimed_by"`
	Sessions  int    `json:"sessions"`
}

type member struct {
	Node   string `json:"node"`
	Linked bool   `json:"linked"`
}

// watch keeps the world true until ctx ends: who serves what, and which process has gone.
func (p *Playground) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		p.ask(ctx)
		p.census()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask asks all routers and believes the first that serves.
func (p *Playground) ask(ctx context.Context) {
	now, _ := p.world.look()
	told := false
	for i, r := range now.Routers {
		if r.State != live && r.State != waiting {
			continue
		}
		var assignments []assignment
		if err := get(ctx, r.Admin+"/api/v1/assignments", &assignments); err != nil {
			continue
		}
		sessions := 0
		partitions := make([]partition, len(assignments))
		for _, a := range assignments {
			sessions += a.Sessions
			if int(a.Partition) < len(partitions) {
				partitions[a.Partition] = partition{Node: a.Node, StandIn: a.StandIn, Claimed: a.Claimed}
			}
		}
		state := live
		if len(assignments) == 0 {
			state = waiting
		}
		if r.Sessions != sessions || r.State != state {
			p.world.change(func() { p.world.updateLocked(i, state, sessions) })
		}
		if told || state != live {
			continue
		}
		told = true
		if !slices.Equal(partitions, now.Partitions) {
			p.world.change(func() { p.world.partitions = partitions })
		}
		if slices.ContainsFunc(now.Nodes, func(n node) bool { return n.State == starting }) {
			p.greet(ctx, r.Admin)
		}
	}
	if !told && len(now.Partitions) > 0 {
		p.world.change(func() { p.world.partitions = nil })
	}
}

// updateLocked writes down what a router says of itself; a button may have been pressed for it meanwhile.
func (w *world) updateLocked(i int, s state, sessions int) {
	if r := w.routers[i]; r.State == live || r.State == waiting {
		r.State, r.Sessions = s, sessions
	}
}

// greet calls those live that a router has reached. A node that is added while etcd is away gets there late.
func (p *Playground) greet(ctx context.Context, admin string) {
	var members []member
	if err := get(ctx, admin+"/api/v1/nodes", &members); err != nil {
		return
	}
	for _, m := range members {
		if !m.Linked {
			continue
		}
		p.world.change(func() {
			if n := p.world.nodeLocked(m.Node); n != nil && n.State == starting {
				n.State = live
			}
		})
	}
}

// census finds new nodes, what ended by itself or by somebody's hand, and forgets nodes long gone.
func (p *Playground) census() {
	for _, n := range p.stack.Nodes() {
		now, _ := p.world.look()
		i := slices.IndexFunc(now.Nodes, func(shown node) bool { return shown.ID == n.ID })
		switch {
		case i < 0:
			p.world.change(func() { p.world.addLocked(n, starting) })
		case n.Ended != "" && now.Nodes[i].ended.IsZero() && now.Nodes[i].State != draining:
			fmt.Fprintf(p.cfg.Err, "playground: %s ended by itself: %s; its log ends with:\n%s\n", n.ID, n.Ended, procs.Tail(n.Log, 10))
			id := p.world.begin(byItself, n.ID)
			p.world.setNode(n.ID, dead)
			p.world.finish(id, n.ID, nil)
		}
	}
	for i, r := range p.stack.Routers() {
		now, _ := p.world.look()
		if r.Ended != "" && (now.Routers[i].State == live || now.Routers[i].State == waiting) {
			fmt.Fprintf(p.cfg.Err, "playground: %s ended by itself: %s; its log ends with:\n%s\n", r.Name, r.Ended, procs.Tail(r.Log, 10))
			id := p.world.begin(byItself, r.Name)
			p.world.change(func() { p.world.routers[i].State, p.world.routers[i].Sessions = dead, 0 })
			p.world.finish(id, r.Name, nil)
		}
	}
	now, _ := p.world.look()
	old := func(n node) bool { return !n.ended.IsZero() && time.Since(n.ended) > shownAfter }
	if slices.ContainsFunc(now.Nodes, old) {
		p.world.change(func() {
			p.world.nodes = slices.DeleteFunc(p.world.nodes, func(n *node) bool { return old(*n) })
		})
	}
}

func get(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
