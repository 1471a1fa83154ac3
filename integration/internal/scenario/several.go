package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/pkg/client"
)

// SeveralKeys follows many keys on each socket while nodes are killed, and a router: half of the sockets come back at
// the other one with the cursor of all their keys. POINTSMAN_SEVERAL_SOCKETS says how many sockets there are.
func SeveralKeys(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Nodes: 3, Partitions: 64, RouterFlags: []string{"--heartbeat=2s"}})
	sockets, each := size(w, 20, 150), size(w, 10, 50)
	if n, err := strconv.Atoi(os.Getenv("POINTSMAN_SEVERAL_SOCKETS")); err == nil && n > 0 {
		sockets = n
	}
	all := keys("device", sockets*each/5) // some devices are on five dashboards
	var away atomic.Bool                  // of the second router
	clients := make([]*load.Several, 0, sockets)
	routers := []load.Target{w.target(0), w.target(1)}
	for i := range sockets {
		mine := make([]string, 0, each)
		for k := range each {
			mine = append(mine, all[(i*37+k*len(all)/each)%len(all)])
		}
		c := load.OpenSeveral(w.ctx, fmt.Sprintf("socket-%d", i), mine, func(int) load.Target {
			if away.Load() {
				return routers[0]
			}
			return routers[i%2]
		})
		t.Cleanup(c.Close)
		clients = append(clients, c)
	}
	every := func(what string, ok func(c *load.Several) bool) {
		t.Helper()
		w.eventually(90*time.Second, what, func() error {
			for i, c := range clients {
				if !ok(c) {
					return fmt.Errorf("not for socket %d", i)
				}
			}
			return nil
		})
	}
	every("all keys are live", (*load.Several).Live)
	w.produce(all, min(float64(len(all))*5, 1500), 100)
	flows := func(after string) {
		t.Helper()
		stamp := time.Now().UnixMilli()
		every("records reach all keys after "+after, func(c *load.Several) bool { return c.Since(stamp) })
	}
	flows("the start")
	kill := func() {
		t.Helper()
		w.must(w.KillNode(w.ctx, w.Nodes()[0].ID))
	}
	kill()
	flows("a node's death")
	_, err := w.AddNode(w.ctx)
	w.must(err)
	kill()
	every("a checkpoint has named all keys", (*load.Several).Combined)
	away.Store(true)
	w.must(w.KillRouter(w.ctx, 1))
	flows("the death of a node and a router")
	_, err = w.AddNode(w.ctx)
	w.must(err)
	kill()
	flows("a third node's death")
	if err := w.quiet(); err != nil {
		t.Errorf("producer: %v", err)
	}
	truth := w.truth()
	every("all keys have everything", func(c *load.Several) bool { return c.CaughtUp(truth) })
	w.must(w.StartRouter(w.ctx, 1))
	w.consistent()
	judge := checker.NewJudge(truth)
	resumes, combined := 0, 0
	for _, c := range clients {
		c.Close()
		n, all, err := c.Judge(judge)
		resumes, combined = resumes+n, combined+all
		if err != nil {
			t.Errorf("against the protocol: %v", err)
		}
	}
	r := judge.Report()
	t.Logf("%d sockets of %d keys; %d came back, %d of them with a combined cursor\n%s", sockets, each, resumes, combined, r)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if resumes > sockets/2 {
		t.Errorf("%d sockets came back, although only %d lost their router", resumes, sockets/2)
	}
	if combined < sockets/2 {
		t.Errorf("only %d sockets came back with a combined cursor", combined)
	}
}

// SeveralKeysInGo: the Go client follows several keys on one connection; one is added later, and one is left and followed
// again behind where it was left, over the death of a node and of routers.
func SeveralKeysInGo(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Nodes: 2})
	names := keys("several", 6)
	late, pausing := names[5], names[4]
	cfg := client.Config{URLs: []string{w.Routers()[0].URL, w.Routers()[1].URL}, From: "earliest", MaxBackoff: time.Second, DialTimeout: 2 * time.Second}
	for _, key := range names[:5] {
		cfg.Keys = append(cfg.Keys, []byte(key))
	}
	c, err := client.Connect(w.ctx, cfg)
	w.must(err)
	var mu sync.Mutex
	got := map[string][]Got{}
	paused := make(chan string, 1)
	ctx, stop := context.WithCancel(w.ctx)
	var following sync.WaitGroup
	following.Go(func() {
		for event, err := range c.Events(ctx) {
			switch e := event.(type) {
			case *client.Record:
				mu.Lock()
				got[string(e.Key)] = append(got[string(e.Key)], Got{e.Partition, e.Offset})
				mu.Unlock()
			case *client.Unsubscribed:
				paused <- e.Cursor
			case *client.Refused:
				t.Errorf("%s of %s was refused: %s", e.Of, e.Key, e.Detail)
			case *client.Disconnected:
				t.Logf("%v", e.Err)
			case nil:
				if ctx.Err() == nil {
					t.Errorf("next: %v", err)
				}
			}
		}
	})
	t.Cleanup(func() {
		stop()
		following.Wait()
		_ = c.Close()
	})
	followers := make([]Follower, 0, len(names))
	for _, key := range names {
		followers = append(followers, Follower{Name: "pkg/client of " + key, Key: key, Look: func() ([]Got, int, int) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(got[key]), int(c.Stats().Connections), 0
		}})
	}
	w.produce(names, 60, 128)
	w.caughtUp(followers[:5], flowing)
	w.must(c.Subscribe([]byte(late), client.Start{From: "earliest"}))
	w.must(c.Unsubscribe([]byte(pausing)))
	var at string
	select {
	case at = <-paused:
	case <-w.ctx.Done():
		t.Fatal("unsubscribe is not answered")
	}
	w.must(w.KillNode(w.ctx, w.Nodes()[0].ID))
	others := append(slices.Clone(followers[:4]), followers[5])
	w.caughtUp(others, flowing)
	had, _, _ := followers[4].Look()
	for i := range 2 {
		w.must(w.KillRouter(w.ctx, i))
		w.caughtUp(others, flowing)
		w.must(w.StartRouter(w.ctx, i))
	}
	if now, _, _ := followers[4].Look(); len(now) != len(had) {
		t.Errorf("%d records came of the key that is not followed", len(now)-len(had))
	}
	w.must(c.Subscribe([]byte(pausing), client.Start{Cursor: at}))
	w.caughtUp(followers, flowing)
	w.must(w.quiet())
	w.caughtUp(followers, 0)
	for _, f := range followers {
		got, connected, _ := f.Look()
		lost, repeated, reordered := w.compare(f.Key, got)
		t.Logf("%s: %d records, %d connections; %d lost, %d repeated, %d reordered", f.Name, len(got), connected, lost, repeated, reordered)
		if lost != 0 || repeated != 0 || reordered != 0 || connected != 3 {
			t.Errorf("%s did not get what the topic holds", f.Name)
		}
	}
}
