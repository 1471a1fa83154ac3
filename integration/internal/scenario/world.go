// Package scenario holds the bodies of the tests over whole clusters: the same ones run in one process and over
// real processes with Apache Kafka and etcd, on whatever Stack they are given. Each ends with the checker's
// verdict on everything that every client received.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// world is one running stack with its clients and its producer.
type world struct {
	stack.Stack
	t     testing.TB
	ctx   context.Context
	fleet *load.Fleet

	faults []checker.Fault

	producing sync.WaitGroup
	stop      context.CancelFunc
	mu        sync.Mutex
	producer  *load.Producer
	failed    error // of the producer
}

// limit bounds a scenario: what does not come about in this time has failed.
func limit(kind stack.Kind) time.Duration {
	switch kind {
	case stack.InProcess:
		return 2 * time.Minute
	case stack.Compose:
		return 15 * time.Minute
	case stack.Existing:
		return 30 * time.Minute // commands that are not ours
	default:
		return 4 * time.Minute
	}
}

// begin starts a stack of the kind that the environment asks for.
func begin(t testing.TB, opts stack.Options) *world {
	t.Helper()
	return beginOn(t, kindOf(t), opts)
}

// beginOn starts a stack of a kind that the scenario needs.
func beginOn(t testing.TB, kind stack.Kind, opts stack.Options) *world {
	t.Helper()
	if opts.Logf == nil {
		opts.Logf = t.Logf
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit(kind))
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, fleet: load.NewFleet()}
	w.Stack = stack.StartKind(t, kind, opts)
	t.Cleanup(w.fleet.Close) // before the stack ends: its exit breaks nothing that counts
	p, err := load.NewProducer(w.Kafka(), w.Topic())
	w.must(err)
	t.Cleanup(p.Close)
	w.producer = p
	t.Cleanup(func() { _ = w.quiet() })
	return w
}

func kindOf(t testing.TB) stack.Kind {
	t.Helper()
	kind, err := stack.KindFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	return kind
}

// real reports whether programs run as processes over a real Kafka: then figures mean something.
func (w *world) real() bool {
	return w.Kind() == stack.Real || w.Kind() == stack.Secured || w.Kind() == stack.External
}

// size is small in one process, where the race detector and a shared machine take their share, large otherwise.
func size[T any](w *world, small, large T) T {
	if w.Kind() == stack.InProcess {
		return small
	}
	return large
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// target is router i, counted round.
func (w *world) target(i int) load.Target {
	routers := w.Routers()
	r := routers[i%len(routers)]
	return load.Target{Name: r.Name, URL: r.URL}
}

// keys makes n client keys.
func keys(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%04d", prefix, i)
	}
	return out
}

// connect adds one client for each key, spread over the routers, and waits for their hellos.
func (w *world) connect(keys []string, opts load.Options) []*load.Client {
	w.t.Helper()
	clients, err := w.fleet.Add(w.ctx, len(keys), func(i int) load.Options {
		o := opts
		o.Key = keys[i]
		return o
	}, w.target)
	w.must(err)
	return clients
}

// client adds one client on router i and waits for its hello.
func (w *world) client(i int, opts load.Options) *load.Client {
	w.t.Helper()
	clients, err := w.fleet.Add(w.ctx, 1, func(int) load.Options { return opts }, func(int) load.Target { return w.target(i) })
	w.must(err)
	return clients[0]
}

// put produces one record and waits for the broker's acknowledgement.
func (w *world) put(key, value string) {
	w.t.Helper()
	w.must(w.producer.Produce(w.ctx, &kgo.Record{Key: []byte(key), Value: []byte(value)}))
}

// produce keeps producing in the background until quiet.
func (w *world) produce(keys []string, rate float64, size int) {
	ctx, cancel := context.WithCancel(w.ctx)
	before := w.stop
	w.stop = func() {
		cancel()
		if before != nil {
			before()
		}
	}
	w.producing.Go(func() {
		if err := w.producer.Run(ctx, keys, rate, size); err != nil {
			w.mu.Lock()
			w.failed = err
			w.mu.Unlock()
		}
	})
}

// quiet ends what produce began, and waits until every record is acknowledged.
func (w *world) quiet() error {
	if w.stop != nil {
		w.stop()
	}
	w.producing.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// within is a deadline inside the scenario's.
func (w *world) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(w.ctx, d, fmt.Errorf("not within %s", d))
}

// settled waits until every connected client that is not slow on purpose has received a record stamped from now
// on. It needs a producer that reaches all keys.
func (w *world) settled(d time.Duration) error {
	ctx, cancel := w.within(d)
	defer cancel()
	stamp := time.Now().UnixMilli()
	return w.fleet.WaitFor(ctx, func(c *checker.Client) bool {
		if c.Lagging || len(c.Sessions) == 0 {
			return true
		}
		last := c.Sessions[len(c.Sessions)-1]
		for i := len(last.Events) - 1; i >= 0; i-- {
			if last.Events[i].Kind == checker.Record {
				return last.Events[i].Timestamp >= stamp
			}
		}
		return false
	})
}

// fault does something to the stack while records flow, and waits until every client receives again.
func (w *world) fault(name string, do func() error) checker.Fault {
	w.t.Helper()
	f := checker.Fault{Name: name, From: time.Now()}
	switch err := do(); {
	case errors.Is(err, stack.ErrUnsupported):
		w.t.Logf("%s: left out, a stack of kind %s cannot do it", name, w.Kind())
		return f
	case err != nil:
		w.t.Fatalf("%s: %v", name, err)
	}
	if err := w.settled(time.Minute); err != nil {
		w.t.Errorf("after %s records do not reach all clients again: %v", name, err)
	}
	f.Until = time.Now()
	w.faults = append(w.faults, f)
	return f
}

// at waits until so much of a run has passed.
func (w *world) at(begun time.Time, d time.Duration) {
	w.t.Helper()
	t := time.NewTimer(time.Until(begun.Add(d)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.ctx.Done():
		w.t.Fatal(context.Cause(w.ctx))
	}
}

// finish ends the producer, reads the topic, waits for all clients to have everything, and judges.
func (w *world) finish(allowed ...checker.Kind) *checker.Report {
	w.t.Helper()
	if err := w.quiet(); err != nil {
		w.t.Errorf("producer: %v", err)
	}
	r := w.judge()
	if err := r.Err(allowed...); err != nil {
		w.t.Error(err)
	}
	if err := w.fleet.Faults(); err != nil {
		w.t.Errorf("against the protocol: %v", err)
	}
	w.consistent()
	return r
}

// judge compares and prints; the caller decides what to make of it.
func (w *world) judge() *checker.Report {
	w.t.Helper()
	truth := w.truth()
	ctx, cancel := w.within(30 * time.Second)
	defer cancel()
	if err := w.fleet.WaitCaughtUp(ctx, truth); err != nil {
		w.t.Logf("not all clients have everything: %v", err)
	}
	r := checker.Check(truth, w.fleet.Histories(), w.faults)
	w.t.Logf("%s\n%s", w.t.Name(), r)
	return r
}

func (w *world) truth() *checker.Truth {
	w.t.Helper()
	truth, err := load.ReadTopic(w.ctx, w.Kafka(), w.Topic())
	w.must(err)
	return truth
}

// partitionOf is where the default partitioner of Kafka's own clients puts a key.
func (w *world) partitionOf(key string) int32 {
	p := kgo.StickyKeyPartitioner(nil).ForTopic(w.Topic())
	return int32(p.Partition(&kgo.Record{Key: []byte(key)}, int(w.Partitions()))) //nolint:gosec // less than Partitions
}

// sameLane makes a key, other than the given one, that lives in the same partition.
func (w *world) sameLane(key string) string {
	for i := 0; ; i++ {
		other := fmt.Sprintf("beside-%d", i)
		if w.partitionOf(other) == w.partitionOf(key) {
			return other
		}
	}
}
