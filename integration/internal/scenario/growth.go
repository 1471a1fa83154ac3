package scenario

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// PartitionsAdded: the topic grows twice under clients whose keys move, while producers write by the old count for a
// while, and then while they wait. Nothing is lost or repeated, no socket is closed, and where producers waited each
// key's records come in their order. Clients that were away over both growths come back with their old cursors.
func PartitionsAdded(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Partitions: 4})
	names := keys("client", size(w, 24, 100))
	clients := w.connect(names, load.Options{})
	away := w.connect(names, load.Options{})
	w.must(w.producer.Burst(w.ctx, names, 3*len(names), 64))
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truth()))
	w.must(load.Each(away, func(_ int, c *load.Client) error {
		c.Lagging()
		return c.Disconnect(w.ctx)
	}))
	w.must(w.producer.Burst(w.ctx, names, 2*len(names), 64))

	// Quiet: everything was acknowledged before, and what follows is written by the new count.
	w.grow(6)
	w.ordered(clients, names, 4, 6)
	w.claimed(6)

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
	w.must(w.fleet.Connect(w.ctx, away, func(i int) load.Target { return w.target(i) }))
	w.claimed(12)
	r := w.finish()
	if want := len(clients) + 2*len(away); r.Sessions != want {
		t.Errorf("%d sessions, want %d: sockets were not kept", r.Sessions, want)
	}
	for _, c := range w.fleet.Histories() {
		if last := c.Sessions[len(c.Sessions)-1]; last.Resumed && !last.Complete {
			t.Errorf("client %s: hello said that the resume was not complete", c.Name)
		}
	}
}

// ordered produces to every key by the new count and expects what comes to be in the order in which it was made: the
// stamps of each client's events must not go back.
func (w *world) ordered(clients []*load.Client, names []string, before, after int32) {
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
	fresh, err := load.NewProducer(w.Kafka(), w.Topic())
	w.must(err)
	defer fresh.Close()
	w.must(fresh.Burst(w.ctx, names, 4*len(names), 64))
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
		newest := int64(0)
		for _, s := range h.Sessions {
			for _, e := range s.Events {
				if e.Kind != checker.Record {
					continue
				}
				if e.Timestamp < newest {
					w.t.Errorf("client %s (key %s): partition %d offset %d comes after a record that was made later", h.Name, h.Key, e.Partition, e.Offset)
				}
				newest = max(newest, e.Timestamp)
			}
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
