package continuity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
)

// mark is one event of a client in 24 bytes: ten thousand clients that receive for ten minutes leave millions.
type mark struct {
	offset    uint32 // of a record; where a checkpoint or gap points
	stamp     int32  // of a record, milliseconds since the run's epoch; when it arrived for the others
	late      uint32 // arrival less stamp, in microseconds
	sum       uint32 // of a record; for a gap the index of its reason
	partition uint16
	ahead     uint16 // where a record's cursor points, less its offset
	kind      checker.EventKind
	backlog   bool
}

// listener is one client and what it received.
type listener struct {
	// Static after construction.
	*load.Client
	epoch     int64 // milliseconds
	key       string
	partition int32
	slow      bool

	newest atomic.Int64 // stamp of the newest record, milliseconds since the Unix epoch
	next   atomic.Int64 // where its newest cursor points, in its key's partition

	mu       sync.Mutex
	marks    []mark   // guarded by mu
	sessions []int    // guarded by mu; index of each session's first mark
	reasons  []string // guarded by mu
}

// note keeps an event. It is called under the client's lock.
func (l *listener) note(session int, e checker.Event) {
	at := e.At / int64(time.Millisecond)
	m := mark{kind: e.Kind, partition: uint16(e.Partition), backlog: e.Backlog} //nolint:gosec // fewer partitions than that
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.sessions) <= session {
		l.sessions = append(l.sessions, len(l.marks))
	}
	if e.Kind == checker.Record {
		m.offset, m.stamp, m.sum = uint32(e.Offset), int32(e.Timestamp-l.epoch), e.Sum //nolint:gosec // a run's records and milliseconds
		m.late = uint32(min(max(0, e.At/1000-e.Timestamp*1000), 1<<32-1))              //nolint:gosec // clipped
		m.ahead = uint16(min(max(0, e.Next-e.Offset), 1<<16-1))                        //nolint:gosec // clipped; what is too large counts as wrong
		l.newest.Store(max(l.newest.Load(), e.Timestamp))
	} else {
		m.offset, m.stamp = uint32(e.Next), int32(at-l.epoch) //nolint:gosec // as above
		m.late = uint32(e.At / 1000 % 1000)                   //nolint:gosec // below a thousand
		if e.Kind == checker.Gap {
			m.sum = uint32(len(l.reasons)) //nolint:gosec // few
			l.reasons = append(l.reasons, e.Reason)
		}
	}
	if e.Partition == l.partition && e.Next > l.next.Load() {
		l.next.Store(e.Next)
	}
	l.marks = append(l.marks, m)
}

// at is when the mark's event arrived, in microseconds since the epoch.
func (m *mark) at() int64 { return int64(m.stamp)*1000 + int64(m.late) }

func (m *mark) event(l *listener) checker.Event {
	e := checker.Event{Kind: m.kind, Partition: int32(m.partition), At: (l.epoch*1000 + m.at()) * 1000, Backlog: m.backlog}
	switch m.kind {
	case checker.Record:
		e.Offset, e.Next, e.Sum = int64(m.offset), int64(m.offset)+int64(m.ahead), m.sum
		e.Timestamp = l.epoch + int64(m.stamp)
	case checker.Gap:
		e.Next, e.Reason = int64(m.offset), l.reasons[m.sum]
	case checker.Checkpoint:
		e.Next = int64(m.offset)
	}
	return e
}

// history is what the client saw, in the form that is judged.
func (l *listener) history() checker.Client {
	c := l.History()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range c.Sessions {
		from, to := len(l.marks), len(l.marks)
		if i < len(l.sessions) {
			from = l.sessions[i]
		}
		if i+1 < len(l.sessions) {
			to = l.sessions[i+1]
		}
		events := make([]checker.Event, 0, to-from)
		for j := from; j < to; j++ {
			events = append(events, l.marks[j].event(l))
		}
		c.Sessions[i].Events = events
	}
	return c
}

// crowd is all clients.
type crowd struct {
	fleet  *load.Fleet
	all    []*listener
	epoch  int64
	target func(i int) load.Target
}

// gather makes the clients without connecting them. One in slowShare stops reading now and then, and goes to another
// router by itself: it is judged on everything but its pauses.
func gather(keys []string, partitionOf func(string) int32, slowShare int, target func(i int) load.Target) *crowd {
	c := &crowd{fleet: load.NewFleet(), epoch: time.Now().UnixMilli(), target: target}
	for i, key := range keys {
		l := &listener{epoch: c.epoch, key: key, partition: partitionOf(key), slow: slowShare > 0 && i%slowShare == slowShare-1}
		l.next.Store(-1)
		where := i
		opts := load.Options{Key: key, Note: l.note, Reconnect: func(checker.Close) (load.Target, bool) {
			where++
			return target(where), true
		}}
		if l.slow {
			opts.ReadBuffer = 32 << 10
		}
		l.Client = c.fleet.New(opts)
		if l.slow {
			l.Lagging()
		}
		c.all = append(c.all, l)
	}
	return c
}

func (c *crowd) connect(ctx context.Context) error {
	clients := make([]*load.Client, len(c.all))
	for i, l := range c.all {
		clients[i] = l.Client
	}
	return c.fleet.Connect(ctx, clients, c.target)
}

// behind counts the clients, but the slow ones, that have not received anything stamped at or after a moment.
func (c *crowd) behind(stamp time.Time) (n int, first *listener) {
	ms := stamp.UnixMilli()
	for _, l := range c.all {
		if !l.slow && l.newest.Load() < ms {
			if n == 0 {
				first = l
			}
			n++
		}
	}
	return n, first
}

// settled waits until no client is behind.
func (c *crowd) settled(ctx context.Context, stamp time.Time) error {
	for {
		n, first := c.behind(stamp)
		if n == 0 {
			return nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("%d clients receive nothing that was made since %s, the first is client %s (key %s, partition %d): %w",
				n, stamp.Format(clock), first.History().Name, first.key, first.partition, context.Cause(ctx))
		}
	}
}

// caughtUp waits until every client has the newest record of its key.
func (c *crowd) caughtUp(ctx context.Context, truth *checker.Truth) error {
	for _, l := range c.all {
		_, last, ok := truth.Last(l.key)
		for ok && l.next.Load() <= last {
			if !pause(ctx, 10*time.Millisecond) {
				return fmt.Errorf("client %s (key %s, partition %d) is at %d, its last record at %d: %w", l.History().Name, l.key, l.partition, l.next.Load(), last, context.Cause(ctx))
			}
		}
	}
	return nil
}

// deafMost is how long a slow client stops reading at most: well below --client-timeout, after which a router gives up
// a client that answers no ping and has taken everything that was queued for it.
const deafMost = 30 * time.Second

// roam has the slow clients stop reading, read again and change their router, until the returned function is
// called; then they all read, and are connected.
func (c *crowd) roam(ctx context.Context, seed uint64) (stop func()) {
	var slow []*listener
	for _, l := range c.all {
		if l.slow {
			slow = append(slow, l)
		}
	}
	if len(slow) == 0 {
		return func() {}
	}
	within, cancel := context.WithCancel(ctx)
	rng := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // choices of a test
	deaf := make(map[*listener]time.Time) // until when
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause(within, time.Duration(float64(8*time.Second)/float64(len(slow))*(0.5+rng.Float64()))) {
			for l, until := range deaf {
				if time.Now().After(until) {
					l.ReadAgain()
					delete(deaf, l)
				}
			}
			l := slow[rng.IntN(len(slow))]
			if rng.IntN(2) == 0 && deaf[l].IsZero() {
				deaf[l] = time.Now().Add(time.Duration(rng.Int64N(int64(deafMost))))
				l.StopReading()
				continue
			}
			l.ReadAgain()
			delete(deaf, l)
			l.Sever()
			c.comeBack(within, l, rng.IntN(100))
		}
		for i, l := range slow {
			l.ReadAgain()
			if !l.Connected() {
				c.comeBack(ctx, l, i)
			}
		}
	})
	var once sync.Once
	return func() {
		once.Do(func() {
			cancel()
			wg.Wait()
		})
	}
}

// goHome has the clients of router i, which were elsewhere while it was away, come back to it: otherwise the router
// that never stops would have all of them in the end.
func (c *crowd) goHome(ctx context.Context, i int) error {
	home := c.target(i)
	var away []*load.Client
	for j, l := range c.all {
		if l.slow || c.target(j) != home {
			continue
		}
		if s := l.History().Sessions; len(s) > 0 && s[len(s)-1].Router != home.Name {
			away = append(away, l.Client)
		}
	}
	return load.Each(away, func(_ int, l *load.Client) error {
		if err := l.Disconnect(ctx); err != nil {
			return err
		}
		for at := i; ; at++ {
			if err := l.Connect(ctx, c.target(at)); err == nil {
				return nil
			}
			if !pause(ctx, 20*time.Millisecond) {
				return context.Cause(ctx)
			}
		}
	})
}

// comeBack connects a client to the first router that takes it.
func (c *crowd) comeBack(ctx context.Context, l *listener, first int) {
	for ; ctx.Err() == nil; first++ {
		if err := l.Connect(ctx, c.target(first)); err == nil {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// pause waits for d; it is false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const clock = "15:04:05.000"
