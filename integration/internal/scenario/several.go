package scenario

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
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
