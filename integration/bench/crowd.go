package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/lean"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

const (
	// perWorker is how many clients a load process has: a process may open 20,000 files on many machines.
	perWorker = 10_000
	// addresses is how many addresses the clients of a load process come from: a router lets none have all places, or all
	// handshakes, and one has some 28,000 ports.
	addresses = 4
	// atOnce is how many connections all workers together have in the making.
	atOnce = 256
)

// crowd is all clients, in several processes.
type crowd struct {
	workers []*lean.Worker
	procs   []*procs.Process
	keys    []string
	one     bool
}

// sources are the addresses that a load process connects from.
func sources(worker int) []string {
	out := make([]string, addresses)
	for i := range out {
		out[i] = fmt.Sprintf("127.0.1.%d", worker*addresses+i+1)
	}
	return out
}

// keysOf makes n names whose partitions are taken in turn, so that clients and records are spread evenly.
func keysOf(prefix string, n int) []string {
	hash := kgo.StickyKeyPartitioner(nil).ForTopic("any")
	out := make([]string, n)
	for i := range out {
		for try := 0; ; try++ {
			key := fmt.Sprintf("%s-%d-%d", prefix, i, try)
			if hash.Partition(&kgo.Record{Key: []byte(key)}, partitions) == i%partitions {
				out[i] = key
				break
			}
		}
	}
	return out
}

// gather starts the load processes of a scenario.
func (b *bench) gather(ctx context.Context, topic string, s *Scenario) (*crowd, error) {
	c := &crowd{keys: keysOf("client", s.Clients), one: s.OneKey}
	if s.OneKey {
		for i := range c.keys {
			c.keys[i] = c.keys[0]
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for i := range (s.Clients + perWorker - 1) / perWorker {
		p, err := procs.Start(procs.Spec{
			Name: "load", Path: filepath.Join(b.opts.Bin, "bench"), Log: filepath.Join(b.dir, fmt.Sprintf("%s-load-%d.log", topic, i)),
			Args: []string{"load", l.Addr().String()},
		})
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.procs = append(c.procs, p)
		w, err := lean.Accept(ctx, l)
		if err != nil {
			return nil, errors.Join(err, errors.New(p.Tail(5)), c.close())
		}
		c.workers = append(c.workers, w)
	}
	return c, nil
}

func (c *crowd) close() error {
	var errs []error
	for _, w := range c.workers {
		errs = append(errs, w.Close())
	}
	for _, p := range c.procs {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}

// connect connects all clients, and returns how that went.
func (c *crowd) connect(ctx context.Context, x *subject, s *Scenario) (lean.Joined, error) {
	var all lean.Joined
	parts := make([]lean.Joined, len(c.workers))
	var errs []error
	var calls []<-chan error
	for i, w := range c.workers {
		from := i * perWorker
		keys := c.keys[from:min(len(c.keys), from+perWorker)]
		j := lean.Join{
			Targets: x.targets, Path: x.path, Keys: keys, First: int64(from), OneKey: c.one, Sources: sources(i),
			AtOnce: max(1, atOnce/len(c.workers)), Hello: x.hello, Slow: s.Slow, Within: 2 * time.Minute,
		}
		if c.one {
			j.First = 0
		}
		call := w.Begin(j, &parts[i])
		done := make(chan error, 1)
		go func() { done <- (<-call.Done).Error }() // ends with the call, and that with the worker
		calls = append(calls, done)
	}
	for _, done := range calls {
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-ctx.Done():
			return all, context.Cause(ctx)
		}
	}
	for i := range parts {
		p := &parts[i]
		all.Connected += p.Connected
		if all.First == 0 || p.First != 0 && p.First < all.First {
			all.First = p.First
		}
		all.Last = max(all.Last, p.Last)
		all.Took.Join(&p.Took)
	}
	return all, errors.Join(errs...)
}

// each asks all workers and joins what they saw.
func (c *crowd) each(ctx context.Context, ask func(w *lean.Worker) (lean.Seen, error)) (lean.Seen, error) {
	type answer struct {
		seen lean.Seen
		err  error
	}
	answers := make(chan answer, len(c.workers)) // nobody is left waiting when ctx ends first
	for _, w := range c.workers {
		go func() {
			seen, err := ask(w)
			answers <- answer{seen, err}
		}()
	}
	var all lean.Seen
	var errs []error
	for range c.workers {
		select {
		case a := <-answers:
			s := &a.seen
			all.Records += s.Records
			all.Bytes += s.Bytes
			all.Open += s.Open
			all.Slow += s.Slow
			all.Faults += s.Faults
			all.Last = max(all.Last, s.Last)
			all.Delays.Join(&s.Delays)
			all.First = append(all.First, s.First...)
			errs = append(errs, a.err)
		case <-ctx.Done():
			return all, context.Cause(ctx)
		}
	}
	return all, errors.Join(errs...)
}

func (c *crowd) look(ctx context.Context) (lean.Seen, error) {
	return c.each(ctx, func(w *lean.Worker) (lean.Seen, error) { return w.Look() })
}

func (c *crowd) arm(ctx context.Context, epoch int64) error {
	_, err := c.each(ctx, func(w *lean.Worker) (lean.Seen, error) { return lean.Seen{}, w.Arm(epoch) })
	return err
}

func (c *crowd) await(ctx context.Context, d lean.Due) (lean.Seen, error) {
	return c.each(ctx, func(w *lean.Worker) (lean.Seen, error) { return w.Await(d) })
}

// complain is what was wrong, as one error.
func complain(s *lean.Seen) error {
	if s.Faults == 0 {
		return nil
	}
	first := slices.Compact(s.First)
	return fmt.Errorf("%d faults: %s", s.Faults, strings.Join(first[:min(3, len(first))], "; "))
}
