package scenario

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// FirstRecord is one record from the topic to one client.
func FirstRecord(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1})
	w.client(0, load.Options{Key: "alice"})
	w.put("bob", `{"not":"for alice"}`)
	w.put("alice", `{"hello":"world"}`)
	if r := w.finish(); r.Received != 1 {
		t.Errorf("received %d records, want 1", r.Received)
	}
}

// NodeKilledMidStreamLosesNothing kills one of two nodes while a hundred clients receive.
func NodeKilledMidStreamLosesNothing(t testing.TB) {
	w := begin(t, stack.Options{})
	clients := keys("client", 100)
	w.connect(clients, load.Options{})
	w.produce(clients, size(w, 200.0, 500.0), 128)
	w.must(w.settled(30 * time.Second))
	w.at(time.Now(), time.Second)
	w.fault("SIGKILL", func() error { return w.KillNode(w.ctx, w.Nodes()[0].ID) })
	w.at(time.Now(), size(w, time.Second, 8*time.Second)) // Kafka notices after 6 s and gives the partitions away
	r := w.finish()
	// Kafka takes 6 s and more to notice; a stand-in does not wait for that.
	if longest := r.Faults[0].Max; longest > 4*time.Second {
		t.Errorf("longest pause %s: nobody stood in for the killed node", longest)
	}
}

// JoinDrainKillFreeze does each of them once while records flow to clients of two routers.
func JoinDrainKillFreeze(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Nodes: 3, Partitions: int32(size(rough(t), 16, 64))})
	clients := keys("client", size(w, 100, 1000))
	w.connect(clients, load.Options{})
	rate := size(w, 200.0, 1000.0)
	length := size(w, 12*time.Second, 60*time.Second)
	begun := time.Now()
	w.produce(clients, rate, 128)
	w.must(w.settled(30 * time.Second))

	w.at(begun, length*1/12)
	w.fault("join", func() error { _, err := w.AddNode(w.ctx); return err })
	w.at(begun, length*4/12)
	w.fault("drain (SIGTERM)", func() error { return w.DrainNode(w.ctx, w.Nodes()[0].ID) })
	w.at(begun, length*6/12)
	w.fault("kill (SIGKILL)", func() error { return w.KillNode(w.ctx, w.Nodes()[0].ID) })
	w.at(begun, length*9/12)
	w.fault("freeze (SIGSTOP 5 s)", func() error { return stack.Freeze(w.ctx, w, w.Nodes()[0].ID, 5*time.Second) })
	w.at(begun, length)
	w.finish()
}

// rough is a world for asking size before a stack runs.
func rough(t testing.TB) *world { return &world{Stack: kindOnly{kind: kindOf(t)}} }

type kindOnly struct {
	stack.Stack
	kind stack.Kind
}

func (k kindOnly) Kind() stack.Kind { return k.kind }

// busy is how much later than before records may reach a plain consumer while the product is judged.
const busy = 5 * time.Millisecond

// compareDelays holds the windows from the third mark on, in which one client did not read, against the first two.
// A window in which a plain consumer was late as well says something about the machine, and is left out. An effect
// of the slow client would be in every other window: the median one counts.
func (w *world) compareDelays(probe *load.Probe, marks []time.Time) {
	w.t.Helper()
	others := w.fleet.Histories()
	calm := checker.Between(others, marks[0], marks[2]).P99
	calmProbe := probe.P99(marks[0], marks[2])
	w.t.Logf("p99 of the others before: %s (a plain consumer: %s)", calm, calmProbe)
	var fair []time.Duration
	for i := 2; i+1 < len(marks); i++ {
		p99, plain := checker.Between(others, marks[i], marks[i+1]).P99, probe.P99(marks[i], marks[i+1])
		w.t.Logf("p99 of the others while one client does not read, window %d: %s (a plain consumer: %s)", i-1, p99, plain)
		if plain <= calmProbe+busy {
			fair = append(fair, p99)
		}
	}
	bound := max(calm*5/4, calm+5*time.Millisecond)
	slices.Sort(fair)
	switch {
	case len(fair) == 0:
		w.t.Log("the machine was too busy in every window to judge delays")
	case w.real() && checker.Quantile(fair, 0.5) > bound:
		w.t.Errorf("p99 of the others rose from %s to %s, above %s", calm, checker.Quantile(fair, 0.5), bound)
	}
}

// AllNodesDownSocketsStay kills every node: sockets stay, a newcomer is told to wait, and everything arrives when a
// node is back.
func AllNodesDownSocketsStay(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, RouterFlags: []string{"--heartbeat=1s"}})
	names := keys("client", 50)
	w.connect(names, load.Options{})
	w.produce(names, 200, 128)
	w.must(w.settled(30 * time.Second))
	newcomer := w.fleet.New(load.Options{Key: "newcomer"})
	w.fault("all nodes down", func() error {
		for _, n := range w.Nodes() {
			if err := w.KillNode(w.ctx, n.ID); err != nil {
				return err
			}
		}
		if err := newcomer.Connect(w.ctx, w.target(0)); err != nil {
			return err
		}
		// Everybody hears that it must wait, and a heartbeat's time after that still does.
		for _, times := range []int{1, 2} {
			if err := w.fleet.WaitFor(w.ctx, func(c *checker.Client) bool { return c.Sessions[0].Waiting >= times }); err != nil {
				return err
			}
		}
		w.produce([]string{"newcomer"}, 20, 64)
		_, err := w.AddNode(w.ctx)
		return err
	})
	w.finish()
}

// RouterStartsFirst: a router that starts before any node waits, says so, and heals by itself.
func RouterStartsFirst(t testing.TB) {
	w := begin(t, stack.Options{Nodes: -1})
	status, body := w.get(w.Routers()[0].Admin + "/readyz")
	t.Logf("/readyz before any node: %d %s", status, body)
	if status == 200 {
		t.Errorf("/readyz says that a router without nodes is ready: %s", body)
	}
	_, err := w.AddNode(w.ctx)
	w.must(err)
	w.eventually(30*time.Second, "the router is ready", func() error {
		if status, body := w.get(w.Routers()[0].Admin + "/readyz"); status != 200 {
			return errors.New(body)
		}
		return nil
	})
	w.client(0, load.Options{Key: "alice"})
	w.put("alice", `{"n":1}`)
	w.finish()
}
