package scenario

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/earlier"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// RollingDeploy replaces every node and every router, one after another, by one of another version while ten thousand
// clients receive. It starts from the programs of the commit in integration/earlier-version, so the two versions work
// together in both directions: the first node is replaced under routers of before, the first router over nodes of before.
// At the end today's programs are drained once more, under all clients: a node moves them without breaking a socket, and
// a router spreads their reconnects.
func RollingDeploy(t testing.TB) {
	today := needPrograms(t)
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	building, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the earlier version is not built within 5 minutes"))
	defer cancel()
	before, commit, err := earlier.Build(building, root, filepath.Join(root, "integration", "earlier-version"), stack.Work(root))
	if errors.Is(err, earlier.ErrNoCommit) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}

	const nodes = 3
	replaceNode := func(w *world) {
		oldest := w.Nodes()[0]
		w.fault("node replaced", func() error {
			if err := w.DrainNode(w.ctx, oldest.ID); err != nil {
				return err
			}
			_, err := w.AddNode(w.ctx)
			return err
		})
		w.tellsDrain(oldest.ID, oldest.Log)
	}
	w := begin(t, stack.Options{Routers: 2, Nodes: nodes, Partitions: 64, Bin: before, RouterFlags: []string{"--drain-timeout=20s"}})
	clients := keys("client", crowd(t))
	connected := make([]*load.Client, len(clients))
	for i, key := range clients {
		connected[i] = w.fleet.New(load.Options{Key: key, Reconnect: w.other(i)})
	}
	w.must(w.fleet.Connect(w.ctx, connected, w.target))
	w.produce(clients, float64(len(clients))/4, 128) // each client hears of a pause of 4 s; together they hear of every millisecond
	w.must(w.settled(time.Minute))

	deploy, ok := w.Stack.(stack.Upgradable)
	if !ok {
		t.Fatal("the programs of this stack cannot be replaced")
	}
	w.must(deploy.UsePrograms(today))
	t.Logf("from %s to today's", commit)
	replaceNode(w)
	w.routerDrained(0, false) // the program of before may do as it likes
	for range nodes - 1 {
		replaceNode(w)
	}
	w.routerDrained(1, false) // now all clients are at today's router 0
	replaceNode(w)
	w.routerDrained(0, true)
	w.finish()
}

// other sends a client whose router ended to the next one.
func (w *world) other(i int) func(checker.Close) (load.Target, bool) {
	return func(checker.Close) (load.Target, bool) {
		i++
		return w.target(i), true
	}
}

// routerReplaced stops a router in order and starts it again; its clients go to another one meanwhile.
func (w *world) routerReplaced(i int) {
	w.t.Helper()
	name := w.target(i).Name
	w.fleet.ExpectEnds(name, true)
	w.fault("router replaced", func() error { return stack.RestartRouter(w.ctx, w, i) })
	w.fleet.ExpectEnds(name, false)
}
