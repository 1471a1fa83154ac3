package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// RandomFaults does one thing after another to the stack, drawn by a seed, while records flow, some in transactions,
// and while clients come and go and stop reading. POINTSMAN_SEED repeats a run's choices.
func RandomFaults(t testing.TB) {
	seed, err := strconv.ParseUint(os.Getenv("POINTSMAN_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("POINTSMAN_SEED=%d", seed)
	w := begin(t, stack.Options{Routers: 2, Nodes: 3, Partitions: 16})
	f := &fate{world: w, rng: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // choices of a test

	steady := keys("steady", size(w, 60, 300))
	for i, key := range steady {
		f.steady = append(f.steady, w.fleet.New(load.Options{Key: key, Reconnect: f.other(i)}))
	}
	w.must(w.fleet.Connect(w.ctx, f.steady, w.target))
	roaming := keys("roaming", size(w, 10, 40))
	for i, key := range roaming {
		c := w.fleet.New(load.Options{Key: key, ReadBuffer: 64 << 10, Reconnect: f.other(i)})
		c.Lagging()
		f.roaming = append(f.roaming, c)
	}
	w.must(w.fleet.Connect(w.ctx, f.roaming, w.target))
	all := append(append([]string(nil), steady...), roaming...)
	w.produce(all, size(w, 300.0, 800.0), 256)
	stopTransactions := w.transact(roaming, seed)
	defer stopTransactions()
	w.must(w.settled(30 * time.Second))
	stopRoaming := f.roam(seed)
	defer stopRoaming()

	for range size(w, 6, 12) {
		f.step()
	}
	stopRoaming()
	stopTransactions()
	w.finish()
}

// fate draws what happens next.
type fate struct {
	*world
	rng     *rand.Rand
	steady  []*load.Client
	roaming []*load.Client
}

// node is any node that runs.
func (f *fate) node() string {
	nodes := f.Nodes()
	return nodes[f.rng.IntN(len(nodes))].ID
}

// step makes one fault and waits until records flow to all steady clients again. There are three nodes after it.
func (f *fate) step() {
	f.t.Helper()
	again := func(err error) error {
		if err != nil {
			return err
		}
		_, err = f.AddNode(f.ctx)
		return err
	}
	second := func(do func() error) error { // do, and its opposite a moment later
		if err := do(); err != nil {
			return err
		}
		f.at(time.Now(), time.Second)
		return nil
	}
	victim, router := f.node(), f.rng.IntN(2)
	switch f.rng.IntN(9) {
	case 0:
		f.fault("kill and join", func() error { return again(f.KillNode(f.ctx, victim)) })
	case 1:
		f.fault("drain and join", func() error { return again(f.DrainNode(f.ctx, victim)) })
	case 2:
		f.fault("freeze", func() error {
			return stack.Freeze(f.ctx, f, victim, time.Duration(1+f.rng.IntN(size(f.world, 3, 9)))*time.Second)
		})
	case 3:
		f.fault("kill two and join two", func() error {
			if err := f.KillNode(f.ctx, victim); err != nil {
				return err
			}
			return again(again(f.KillNode(f.ctx, f.node())))
		})
	case 4:
		f.fault("etcd down", func() error {
			return errors.Join(second(func() error { return f.StopEtcd(f.ctx) }), f.StartEtcd(f.ctx))
		})
	case 5:
		f.fault("etcd wiped", func() error { return f.WipeEtcd(f.ctx) })
	case 6:
		f.fault("Kafka restarted", func() error {
			return errors.Join(f.StopKafka(f.ctx), f.StartKafka(f.ctx))
		})
	case 7:
		f.routerFault("router stopped", router, func() error { return f.StopRouter(f.ctx, router) })
	case 8:
		f.routerFault("router killed", router, func() error { return f.KillRouter(f.ctx, router) })
	}
}

func (f *fate) routerFault(name string, i int, end func() error) {
	f.t.Helper()
	f.fleet.ExpectEnds(f.target(i).Name, true)
	f.fault(name, end)
	f.must(f.StartRouter(f.ctx, i))
	f.fleet.ExpectEnds(f.target(i).Name, false)
}

// roam has clients go from router to router, stop reading and read again, until it is stopped.
func (f *fate) roam(seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	rng := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // choices of a test
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			c := f.roaming[rng.IntN(len(f.roaming))]
			switch rng.IntN(4) {
			case 0:
				c.StopReading()
			case 1:
				c.ReadAgain()
			default:
				c.ReadAgain()
				c.Sever()
				f.comeBack(ctx, c, rng.IntN(2))
			}
			pause(ctx, time.Duration(rng.IntN(200))*time.Millisecond)
		}
		// In the end everybody is there, and reads.
		for i, c := range f.roaming {
			c.ReadAgain()
			if !c.Connected() {
				f.comeBack(f.ctx, c, i)
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// comeBack connects a client to the first router that takes it.
func (f *fate) comeBack(ctx context.Context, c *load.Client, first int) {
	for ; ctx.Err() == nil; first++ {
		if err := c.Connect(ctx, f.target(first)); err == nil {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// transact writes in transactions, of which every third is aborted, until it is stopped.
func (w *world) transact(keys []string, seed uint64) (stop func()) {
	w.t.Helper()
	tx, err := load.Begin(w.ctx, w.Kafka(), w.Topic(), fmt.Sprintf("random-faults-%d", seed), time.Minute)
	w.must(err)
	ctx, cancel := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			err := func() error {
				if n > 0 {
					if err := tx.Again(); err != nil {
						return err
					}
				}
				for i := range 5 {
					key := keys[(5*n+i)%len(keys)]
					if err := tx.Produce(w.ctx, &kgo.Record{Key: []byte(key), Value: fmt.Appendf(nil, `{"transaction":%d}`, n)}); err != nil {
						return err
					}
				}
				return tx.End(w.ctx, n%3 != 1)
			}()
			if err != nil {
				w.t.Logf("transactions end after %d: %v", n, err)
				return
			}
			pause(ctx, 50*time.Millisecond)
		}
	})
	var once sync.Once
	return func() {
		once.Do(func() {
			cancel()
			wg.Wait()
			tx.Close()
		})
	}
}
