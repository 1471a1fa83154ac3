package playground

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// kind is what a button does.
type kind string

const (
	addNode       kind = "add"
	drainNode     kind = "drain"
	killNode      kind = "kill"
	freezeNode    kind = "freeze"
	restartRouter kind = "restart-router"
	stopEtcd      kind = "stop-etcd"
	startEtcd     kind = "start-etcd"
	// byItself is no button: a process that ended unasked, for example by a kill from a shell.
	byItself kind = "ended"
)

const (
	freezeTime = 5 * time.Second
	// actionTime bounds an orderly stop; the product's own limit is shorter.
	actionTime = 2 * time.Minute
)

// errUnfit is a button that makes no sense now; the page shows why.
var errUnfit = errors.New("not now")

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errUnfit}, args...)...)
}

// act begins what a button asks for and returns; the world shows how it goes. target is a node's or router's name,
// empty for any. It is called while ctx, the playground's own, has not ended.
func (p *Playground) act(ctx context.Context, k kind, target string) error {
	do, target, err := p.prepare(k, target)
	if err != nil {
		return err
	}
	id := p.world.begin(k, target)
	p.actions.Go(func() {
		ctx, cancel := context.WithTimeoutCause(ctx, actionTime, fmt.Errorf("not done within %v", actionTime))
		defer cancel()
		name, err := do(ctx)
		p.world.finish(id, name, err)
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(p.cfg.Err, "playground: %s %s: %v\n", k, name, err)
		}
	})
	return nil
}

// deed does something and names what it was done to.
type deed func(ctx context.Context) (string, error)

// prepare chooses the target and gives it its new state, so that two presses do not choose the same one.
func (p *Playground) prepare(k kind, target string) (do deed, name string, err error) {
	w := p.world
	w.change(func() {
		switch k {
		case addNode:
			if w.runningLocked() >= maxNodes {
				err = unfit("%d nodes are enough for one machine; drain or kill one first", maxNodes)
				return
			}
			do = p.add
		case drainNode, killNode, freezeNode:
			var n *node
			if n, err = w.chooseNodeLocked(k, target); err == nil {
				name = n.ID
				do = p.nodeDeedLocked(k, n)
			}
		case restartRouter:
			var i int
			if i, err = w.chooseRouterLocked(target); err == nil {
				w.routers[i].State = draining
				name = w.routers[i].Name
				do = p.restart(i, name)
			}
		case stopEtcd, startEtcd:
			name = "etcd"
			do, err = p.etcdDeedLocked(k)
		default:
			err = unfit("there is no action %q", k)
		}
	})
	return do, name, err
}

// chooseNodeLocked is the named node, or any that lives.
func (w *world) chooseNodeLocked(k kind, id string) (*node, error) {
	fit := func(n *node) bool {
		return n.State == live || k == killNode && (n.State == frozen || n.State == starting)
	}
	if id != "" {
		switch n := w.nodeLocked(id); {
		case n == nil:
			return nil, unfit("there is no %s", id)
		case !fit(n):
			return nil, unfit("%s is %s", id, n.State)
		default:
			return n, nil
		}
	}
	var all []*node
	for _, n := range w.nodes {
		if n.State == live {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil, unfit("no node is live; add one")
	}
	return all[rand.IntN(len(all))], nil
}

// chooseRouterLocked is the named router, or the one with the most clients.
func (w *world) chooseRouterLocked(name string) (int, error) {
	best := -1
	for i, r := range w.routers {
		switch {
		case name != "" && r.Name != name:
		case r.State != live && r.State != dead && r.State != waiting:
			if name != "" {
				return 0, unfit("%s is %s", name, r.State)
			}
		case best < 0 || r.Sessions > w.routers[best].Sessions:
			best = i
		}
	}
	switch {
	case best >= 0:
		return best, nil
	case name != "":
		return 0, unfit("there is no %s", name)
	}
	return 0, unfit("no router is live")
}

func (p *Playground) add(ctx context.Context) (string, error) {
	n, err := p.stack.AddNode(ctx)
	if n.ID == "" {
		return "", err
	}
	p.world.change(func() {
		shown := p.world.addLocked(n, starting)
		switch {
		case !shown.ended.IsZero():
			err = nil // killed while it started
		case err == nil:
			shown.State = live
		case p.world.etcd != live:
			err = errors.New("it waits for etcd")
		}
	})
	return n.ID, err
}

func (p *Playground) nodeDeedLocked(k kind, n *node) deed {
	id := n.ID
	switch k {
	case drainNode:
		n.State = draining
		return func(ctx context.Context) (string, error) {
			err := p.stack.DrainNode(ctx, id)
			p.world.setNode(id, gone)
			return id, err
		}
	case killNode:
		n.State, n.Until, n.ended = dead, 0, time.Now()
		return func(ctx context.Context) (string, error) { return id, p.stack.KillNode(ctx, id) }
	default:
		n.State, n.Until = frozen, time.Now().Add(freezeTime).UnixMilli()
		return func(ctx context.Context) (string, error) { return id, p.freeze(ctx, id) }
	}
}

// freeze holds a node still; somebody may kill it meanwhile.
func (p *Playground) freeze(ctx context.Context, id string) error {
	err := stack.Freeze(ctx, p.stack, id, freezeTime)
	p.world.change(func() {
		n := p.world.nodeLocked(id)
		if n == nil || !n.ended.IsZero() {
			err = nil // there was nothing left to thaw
			return
		}
		n.State, n.Until = live, 0
	})
	return err
}

func (p *Playground) restart(i int, name string) deed {
	set := func(s state) {
		pid := p.stack.Routers()[i].PID
		p.world.change(func() {
			r := p.world.routers[i]
			r.State, r.PID, r.Sessions = s, pid, 0
		})
	}
	return func(ctx context.Context) (string, error) {
		if err := p.stack.StopRouter(ctx, i); err != nil {
			// It has gone all the same, and clients want it back.
			fmt.Fprintf(p.cfg.Err, "playground: %s did not stop in order: %v\n", name, err)
		}
		set(starting)
		if err := p.stack.StartRouter(ctx, i); err != nil {
			set(dead)
			return name, err
		}
		set(waiting) // until watch hears that it knows the topic
		return name, nil
	}
}

func (p *Playground) etcdDeedLocked(k kind) (deed, error) {
	w := p.world
	want := map[kind]state{stopEtcd: live, startEtcd: stopped}[k]
	switch {
	case w.etcd == foreign:
		return nil, unfit("this etcd is somebody else's")
	case w.etcd != want:
		return nil, unfit("etcd is %s", w.etcd)
	}
	if k == stopEtcd {
		w.etcd = stopped
		return func(ctx context.Context) (string, error) { return "etcd", p.stack.StopEtcd(ctx) }, nil
	}
	w.etcd = starting
	return func(ctx context.Context) (string, error) {
		err := p.stack.StartEtcd(ctx)
		now := live
		if err != nil {
			now = stopped
		}
		w.change(func() { w.etcd = now })
		return "etcd", err
	}, nil
}

// buttons are the kinds that the page may ask for.
func buttons() []kind {
	return []kind{addNode, drainNode, killNode, freezeNode, restartRouter, stopEtcd, startEtcd}
}

func isButton(k kind) bool { return slices.Contains(buttons(), k) }
