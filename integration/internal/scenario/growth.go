package scenario

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// PartitionsAdded: the topic grows twice under clients whose keys move, while producers write by the old count for a
// while, and then while they wait. Nothing is lost or repeated, no socket is closed, and where producers waited each
// key's records come in their order, to clients that were there and to those that come back with an older cursor.
// Others were away over both growths.
func PartitionsAdded(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Partitions: 4})
	names := keys("client", size(w, 24, 100))
	clients := w.connect(names, load.Options{})
	away := w.connect(names, load.Options{})
	longer := w.connect(names, load.Options{})
	w.must(w.producer.Burst(w.ctx, names, 3*len(names), 64))
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truth()))
	w.sendAway(away)
	w.sendAway(longer)
	w.must(w.producer.Burst(w.ctx, names, 2*len(names), 64))

	// Quiet: everything was acknowledged before, and what follows is written by the new count. An open transaction
	// holds the old partitions up: what lies in the new ones is there first, and has to wait.
	tx, err := load.Begin(w.ctx, w.Kafka(), w.Topic(), "held", time.Minute)
	w.must(err)
	defer tx.Close()
	w.must(tx.Burst(w.ctx, names, len(names), 64))
	w.must(w.producer.Burst(w.ctx, names, len(names), 64))
	w.moves(names, 4, 6)
	w.grow(6)
	fresh, err := load.NewProducer(w.Kafka(), w.Topic())
	w.must(err)
	defer fresh.Close()
	w.must(fresh.Burst(w.ctx, names, 4*len(names), 64))
	w.claimed(6)
	w.rejoin(away)
	w.must(tx.End(w.ctx, true))
	w.ordered(slices.Concat(clients, away))

	// Under producers that go by the old count.
	stale, err := load.NewProducer(w.Kafka(), w.Topic(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	w.must(err)
	defer stale.Close()
	w.grow(12)
	w.must(stale.BurstOf(w.ctx, 3*len(names), func(i int) *kgo.Record {
		n := int32(6)
		if i%3 == 1 {
			n = 12
		}
		key := names[i%len(names)]
		r := load.Sample(key, int64(i), 64)
		r.Partition = partitionAmong(key, n)
		return r
	}))
	w.rejoin(longer)
	w.claimed(12)
	w.kept(w.finish(), len(clients)+2*len(away)+2*len(longer))
}

// PartitionsLetGo: producers hear of added partitions soon (--producer-metadata-age), so the old partition of a key that
// moved is let go of. Clients that were away until then come back with older cursors, and the topic grows again.
func PartitionsLetGo(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Partitions: 4, NodeFlags: []string{"--producer-metadata-age=300ms"}})
	names := keys("client", size(w, 24, 100))
	clients := w.connect(names, load.Options{})
	away := w.connect(names, load.Options{})
	longer := w.connect(names, load.Options{})
	w.must(w.producer.Burst(w.ctx, names, 2*len(names), 64))
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truth()))
	w.sendAway(away)
	w.sendAway(longer)
	w.must(w.producer.Burst(w.ctx, names, len(names), 64))

	w.moves(names, 4, 6)
	w.grow(6)
	fresh, err := load.NewProducer(w.Kafka(), w.Topic())
	w.must(err)
	defer fresh.Close()
	w.must(fresh.Burst(w.ctx, names, 2*len(names), 64))
	w.letGo(fresh, names, clients)
	w.rejoin(away)
	w.letGo(fresh, names, slices.Concat(clients, away))

	// No key comes back to where it was at first: their order would not be promised.
	w.moves(names, 6, 12)
	w.grow(12)
	last, err := load.NewProducer(w.Kafka(), w.Topic())
	w.must(err)
	defer last.Close()
	w.must(last.Burst(w.ctx, names, 2*len(names), 64))
	w.letGo(last, names, slices.Concat(clients, away))
	w.rejoin(longer)
	all := slices.Concat(clients, away, longer)
	w.letGo(last, names, all)
	w.ordered(all)
	w.kept(w.finish(), len(clients)+2*len(away)+2*len(longer))
}

// letGo waits until every client's cursor lists the key's partition alone. Cursors come with records.
func (w *world) letGo(producer *load.Producer, names []string, clients []*load.Client) {
	w.t.Helper()
	w.eventually(time.Minute, "old partitions to be let go of", func() error {
		for _, c := range clients {
			at, err := load.ReadCursor(c.Cursor(), c.Key())
			if err != nil {
				return err
			}
			if len(at) != 1 {
				w.must(producer.Burst(w.ctx, names, len(names), 64))
				return fmt.Errorf("key %s is followed in %v", c.Key(), at)
			}
		}
		return nil
	})
}

// sendAway disconnects clients, which keep their cursors.
func (w *world) sendAway(clients []*load.Client) {
	w.t.Helper()
	w.must(load.Each(clients, func(_ int, c *load.Client) error {
		c.Lagging()
		return c.Disconnect(w.ctx)
	}))
}

// rejoin connects clients with the cursors that they have.
func (w *world) rejoin(clients []*load.Client) {
	w.t.Helper()
	w.must(w.fleet.Connect(w.ctx, clients, func(i int) load.Target { return w.target(i) }))
}

// kept expects so many sessions, and that all of them were resumed where they should.
func (w *world) kept(r *checker.Report, want int) {
	w.t.Helper()
	if r.Sessions != want {
		w.t.Errorf("%d sessions, want %d: sockets were not kept", r.Sessions, want)
	}
	for _, c := range w.fleet.Histories() {
		if last := c.Sessions[len(c.Sessions)-1]; last.Resumed && !last.Complete {
			w.t.Errorf("client %s: hello said that the resume was not complete", c.Name)
		}
	}
}

// moves expects a good part of the keys to move.
func (w *world) moves(names []string, before, after int32) {
	w.t.Helper()
	moved := 0
	for _, key := range names {
		if partitionAmong(key, before) != partitionAmong(key, after) {
			moved++
		}
	}
	if moved < len(names)/4 {
		w.t.Fatalf("only %d of %d keys move", moved, len(names))
	}
}

// ordered waits until clients have everything, and expects it in the order in which it was made: the stamps of each
// client's events must not go back.
func (w *world) ordered(clients []*load.Client) {
	w.t.Helper()
	ctx, cancel := w.within(time.Minute)
	defer cancel()
	truth := w.truth()
	for _, c := range clients {
		w.must(c.Wait(ctx, func(c *checker.Client) bool {
			_, _, behind := checker.Behind(truth, c)
			return !behind
		}))
	}
	for _, c := range clients {
		h := c.History()
		newest, late := int64(0), 0
		var first checker.Event
		for _, s := range h.Sessions {
			for _, e := range s.Events {
				if e.Kind != checker.Record {
					continue
				}
				if e.Timestamp < newest {
					if late++; late == 1 {
						first = e
					}
				}
				newest = max(newest, e.Timestamp)
			}
		}
		if late > 0 {
			w.t.Errorf("client %s (key %s): %d records come after later ones, first partition %d offset %d", h.Name, h.Key, late, first.Partition, first.Offset)
		}
	}
}

// grow adds partitions and waits until every router knows.
func (w *world) grow(partitions int32) {
	w.t.Helper()
	w.must(load.AddPartitions(w.ctx, w.Kafka(), w.Topic(), partitions))
	for _, r := range w.Routers() {
		w.eventually(30*time.Second, fmt.Sprintf("%s to know %d partitions", r.Name, partitions), func() error {
			status, body := w.get(r.Admin + "/api/v1/assignments")
			var list []struct{}
			if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != int(partitions) {
				return fmt.Errorf("HTTP %d, %d partitions, %w", status, len(list), err)
			}
			return nil
		})
	}
}

// claimed waits until the group has assigned all partitions, and no stand-in serves any.
func (w *world) claimed(partitions int) {
	w.t.Helper()
	w.eventually(time.Minute, "all partitions to be claimed", func() error {
		_, body := w.get(w.Routers()[0].Admin + "/api/v1/assignments")
		var list []struct {
			Partition int32  `json:"partition"`
			Node      string `json:"node"`
			StandIn   bool   `json:"stand_in"`
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			return fmt.Errorf("assignments: %w", err)
		}
		owned := 0
		for _, a := range list {
			if a.Node != "" && !a.StandIn {
				owned++
			}
		}
		if owned != partitions || len(list) != partitions {
			return fmt.Errorf("%d of %d partitions are claimed: %s", owned, len(list), body)
		}
		return nil
	})
}

// partitionAmong is where a key lives among so many partitions.
func partitionAmong(key string, partitions int32) int32 {
	p := kgo.StickyKeyPartitioner(nil).ForTopic("")
	return int32(p.Partition(&kgo.Record{Key: []byte(key)}, int(partitions))) //nolint:gosec // less than partitions
}
