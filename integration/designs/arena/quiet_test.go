package arena_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// TestDesignsDeliverEverythingWhenNothingHappens has every design deliver a few thousand records to fifty clients,
// half of whom come back with their cursors in the middle of it.
func TestDesignsDeliverEverythingWhenNothingHappens(t *testing.T) {
	under := stack.StartKind(t, stack.InProcess, stack.Options{Routers: -1, Nodes: -1, Topic: "unused"})
	cache := miniredis.RunT(t)
	for _, d := range arena.Designs() {
		t.Run(d.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			topic := stack.StartKind(t, stack.External, stack.Options{Routers: -1, Nodes: -1, Topic: d.Name, KafkaAddrs: under.Kafka(), EtcdAddrs: under.Etcd(), Bin: "none is run"})
			a, err := arena.Open(ctx, arena.Options{
				Design: d.Name, Servers: 2, Kafka: topic.Kafka(), Etcd: topic.Etcd(), Topic: topic.Topic(), Partitions: topic.Partitions(),
				Redis: cache.Addr(), Launch: arena.InProcess{}, Dir: filepath.Join(t.TempDir(), d.Name), Logf: t.Logf,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
			quiet(ctx, t, a, topic)
		})
	}
}

func quiet(ctx context.Context, t *testing.T, a arena.Arena, topic stack.Stack) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	where := func(i int) load.Target {
		all := a.Entrances()
		return all[i%len(all)]
	}
	keys := make([]string, 50)
	for i := range keys {
		keys[i] = fmt.Sprintf("client-%d", i)
	}
	fleet := load.NewFleet()
	defer fleet.Close()
	clients, err := fleet.Add(ctx, len(keys), func(i int) load.Options { return load.Options{Key: keys[i]} }, where)
	must(err)
	p, err := load.NewProducer(topic.Kafka(), topic.Topic(), load.Bulk()...)
	must(err)
	defer p.Close()
	const records = 2000
	burst := func() {
		must(p.BurstOf(ctx, records, func(i int) *kgo.Record { return load.Sample(keys[i%len(keys)], int64(i), 128) }))
	}
	burst()
	// They leave with what they have by then, and come back to the next server.
	half := clients[:len(clients)/2]
	must(load.Each(half, func(_ int, c *load.Client) error { return c.Disconnect(ctx) }))
	burst()
	must(load.Each(half, func(i int, c *load.Client) error {
		if err := c.Connect(ctx, where(i+1)); err != nil {
			return err
		}
		return c.WaitHello(ctx)
	}))
	burst()
	truth, err := load.ReadTopic(ctx, topic.Kafka(), topic.Topic())
	must(err)
	must(fleet.WaitCaughtUp(ctx, truth))
	must(fleet.Faults())
	rep := checker.Check(truth, fleet.Histories(), nil)
	if err := rep.Err(); err != nil || rep.Expected != 3*records {
		t.Fatalf("due %d, want %d; %v\n%s", rep.Expected, 3*records, err, rep)
	}
}
