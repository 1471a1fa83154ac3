package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// connectAtOnce is how many clients of a fleet dial at the same time: enough to be quick, few enough that the
// machine under test does not measure its own crowd.
const connectAtOnce = 32

// Fleet is many clients. Add may not be called at the same time as Close; everything else may.
type Fleet struct {
	mu       sync.Mutex
	clients  []*Client
	expected map[string]time.Time // until when connections to a router were opened whose ends the test causes
}

// NewFleet makes an empty fleet.
func NewFleet() *Fleet { return &Fleet{expected: make(map[string]time.Time)} }

// ExpectEnds says that connections to the named router may end from now on, because the test stops it; on=false
// says the same of those only that were opened before. A client that does not read learns late of an end.
func (f *Fleet) ExpectEnds(router string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected[router] = time.Now()
	if on {
		f.expected[router] = time.Now().Add(24 * time.Hour)
	}
}

func (f *Fleet) expects(router string, opened time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return opened.Before(f.expected[router])
}

// New adds a client without connecting it.
func (f *Fleet) New(opts Options) *Client {
	if opts.Expected == nil {
		opts.Expected = f.expects
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if opts.Name == "" {
		opts.Name = fmt.Sprint(len(f.clients))
	}
	c := NewClient(opts)
	f.clients = append(f.clients, c)
	return c
}

// Add adds n clients, connects each to the router that where names, and waits for their hellos.
func (f *Fleet) Add(ctx context.Context, n int, options func(i int) Options, where func(i int) Target) ([]*Client, error) {
	added := make([]*Client, n)
	for i := range added {
		added[i] = f.New(options(i))
	}
	err := f.Connect(ctx, added, where)
	return added, err
}

// Connect connects clients, a few at a time, and waits for their hellos.
func (f *Fleet) Connect(ctx context.Context, clients []*Client, where func(i int) Target) error {
	return Each(clients, func(i int, c *Client) error {
		if err := c.Connect(ctx, where(i)); err != nil {
			return fmt.Errorf("client %s (key %s): %w", c.opts.Name, c.opts.Key, err)
		}
		return c.WaitHello(ctx)
	})
}

// Each does something with every client, a few at a time. It returns the first errors.
func Each(clients []*Client, do func(i int, c *Client) error) error {
	const enough = 5
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(connectAtOnce, len(clients)) {
		wg.Go(func() {
			for i := range next {
				if err := do(i, clients[i]); err != nil {
					mu.Lock()
					if len(errs) < enough {
						errs = append(errs, err)
					}
					mu.Unlock()
				}
			}
		})
	}
	for i := range clients {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// Clients lists the fleet.
func (f *Fleet) Clients() []*Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Client(nil), f.clients...)
}

// WaitFor waits until ok is true of every client.
func (f *Fleet) WaitFor(ctx context.Context, ok func(*checker.Client) bool) error {
	for _, c := range f.Clients() {
		if err := c.Wait(ctx, ok); err != nil {
			return err
		}
	}
	return nil
}

// WaitCaughtUp waits until every connected client has the newest record of its key.
func (f *Fleet) WaitCaughtUp(ctx context.Context, truth *checker.Truth) error {
	for _, c := range f.Clients() {
		var partition int32
		var offset int64
		err := c.Wait(ctx, func(s *checker.Client) bool {
			var behind bool
			partition, offset, behind = checker.Behind(truth, s)
			return !behind
		})
		if err != nil {
			return fmt.Errorf("wait for partition %d offset %d: %w", partition, offset, err)
		}
	}
	return nil
}

// Histories is a copy of what all clients saw.
func (f *Fleet) Histories() []checker.Client {
	clients := f.Clients()
	out := make([]checker.Client, len(clients))
	for i, c := range clients {
		out[i] = c.History()
	}
	return out
}

// Received is how many records all clients received so far.
func (f *Fleet) Received() int64 {
	var n int64
	for _, h := range f.Histories() {
		for i := range h.Sessions {
			for j := range h.Sessions[i].Events {
				if h.Sessions[i].Events[j].Kind == checker.Record {
					n++
				}
			}
		}
	}
	return n
}

// Faults joins what servers sent against the protocol.
func (f *Fleet) Faults() error {
	var errs []error
	for _, c := range f.Clients() {
		if err := c.Faults(); err != nil && len(errs) < 5 {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close ends all clients.
func (f *Fleet) Close() {
	for _, c := range f.Clients() {
		c.mu.Lock()
		c.leaving = true
		c.stop(errClosed)
		c.changed.Broadcast()
		c.mu.Unlock()
	}
	for _, c := range f.Clients() {
		c.Close()
	}
}
