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
	under, err := stack.OpenBackend(t.Context(), stack.Processes, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := under.Close(); err != nil {
			t.Error(err)
		}
	})
	cache := miniredis.RunT(t)
	for _, d := range arena.Designs() {
		t.Run(d.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := under.CreateTopic(ctx, d.Name, 8); err != nil {
				t.Fatal(err)
			}
			a, err := arena.Open(ctx, arena.Options{
				Design: d.Name, Servers: 2, Kafka: under.Kafka(), Etcd: under.Etcd(), Topic: d.Name, Partitions: 8,
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
			quiet(ctx, t, a, d.Name)
			if err := a.Shutdown(ctx); err != nil {
				t.Errorf("it does not end in order: %v", err)
			}
			if d.Name != "pointsman" && len(a.Members()) > 0 {
				t.Errorf("left are %v", a.Members())
			}
		})
	}
}

func quiet(ctx context.Context, t *testing.T, a arena.Arena, topic string) {
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
	p, err := load.NewProducer(a.Brokers(), topic, load.Bulk()...)
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
	truth, err := load.ReadTopic(ctx, a.Brokers(), topic)
	must(err)
	must(fleet.WaitCaughtUp(ctx, truth))
	must(fleet.Faults())
	rep := checker.Check(truth, fleet.Histories(), nil)
	if err := rep.Err(); err != nil || rep.Expected != 3*records {
		t.Fatalf("due %d, want %d; %v\n%s", rep.Expected, 3*records, err, rep)
	}
}
