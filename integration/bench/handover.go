package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	// glance is how finely the end of a handover is known. Each look costs the router a page of metrics, so when nothing
	// has happened for a while they are rare.
	glance     = 10 * time.Millisecond
	glanceRare = 250 * time.Millisecond
	// near is how long after an event sessions are expected to move.
	near = time.Second
	// quiet is how long no claim appears and no session moves when a handover counts as over.
	quiet = 2 * time.Second
)

// claims notes when each claim appears in etcd.
type claims struct {
	cl     *clientv3.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup
	news   chan struct{} // capacity 1; never closed

	mu   sync.Mutex
	seen []time.Time // guarded by mu
}

func (b *bench) watchClaims(ctx context.Context, x *subject) (*claims, error) {
	cl, err := clientv3.New(clientv3.Config{Endpoints: b.back.Etcd(), DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("watch claims: %w", err)
	}
	c := &claims{cl: cl, news: make(chan struct{}, 1)}
	ctx, c.cancel = context.WithCancel(ctx)
	prefix := directory.Keys{Prefix: x.stack.EtcdPrefix(), Topic: x.topic}.Claims()
	created := make(chan struct{})
	events := cl.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	c.wg.Go(func() {
		for answer := range events {
			now := time.Now()
			if answer.Created {
				close(created)
			}
			c.mu.Lock()
			for _, e := range answer.Events {
				if e.Type == clientv3.EventTypePut {
					c.seen = append(c.seen, now)
				}
			}
			c.mu.Unlock()
			select {
			case c.news <- struct{}{}:
			default: // it is known already
			}
		}
	})
	select {
	case <-created:
		return c, nil
	case <-ctx.Done():
		c.close()
		return nil, context.Cause(ctx)
	}
}

func (c *claims) list() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Time(nil), c.seen...)
}

// wait lets some time pass, little when something is going on, and none when a claim appears.
func (c *claims) wait(ctx context.Context, active bool) bool {
	d := glanceRare
	if active {
		d = glance
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.news:
	case <-ctx.Done():
		return false
	}
	return true
}

func (c *claims) close() {
	c.cancel()
	c.wg.Wait()
	_ = c.cl.Close()
}

// stretch is a time in which sessions were on their way from one link to another.
type stretch struct{ from, to time.Time }

// slowest is the longest time from a claim to the end of the moves that it caused: of the stretch that it fell into,
// or of the next one if that began before another claim came.
func slowest(appeared []time.Time, moves []stretch) time.Duration {
	var worst time.Duration
	for _, at := range appeared {
		for _, m := range moves {
			if m.to.After(at) && m.from.Before(at.Add(quiet/2)) {
				worst = max(worst, m.to.Sub(at))
				break
			}
		}
	}
	return worst
}

// handover changes the nodes under a steady rate, and measures until all clients are where they belong.
func (m *measurement) handover(ctx context.Context) error {
	watch, err := m.watchClaims(ctx, m.x)
	if err != nil {
		return err
	}
	defer watch.close()
	s, err := m.produce(ctx, m.s.Rate, m.rawKeys())
	if err != nil {
		return err
	}
	calm, err := m.steady(ctx, s)
	var move, later window
	if err == nil {
		move, err = m.move(ctx, watch)
	}
	if err == nil {
		later, err = m.steady(ctx, s)
	}
	if err != nil {
		_, stopped := s.stop()
		return errors.Join(err, stopped)
	}
	if err := m.finish(ctx, s, false); err != nil {
		return err
	}
	m.flow(&calm)
	f := m.figures
	f["p99_moving_ms"] = ms(move.seen.Delays.Quantile(0.99))
	f["p99_added_ms"] = f["p99_moving_ms"] - f["p99_ms"]
	f["worst_moving_ms"] = ms(move.seen.Delays.Worst)
	f["worst_added_ms"] = ms(move.seen.Delays.Worst - calm.seen.Delays.Worst)
	gained := func(name string) float64 { return move.then.routers[name] - move.before.routers[name] }
	moved := gained("pointsman_router_handovers_total")
	f["moved"] = moved
	if n := gained("pointsman_router_handover_pause_seconds_count"); n > 0 {
		f["pause_ms"] = gained("pointsman_router_handover_pause_seconds_sum") / n * 1000
	}
	if moved > 0 {
		// What the same time costs without a handover is taken off: with the nodes before and after it, and for a
		// killed node with those after it, among whom nearly all of that time passes.
		each := later.cores()
		if m.s.Work != kill {
			each = (each + calm.cores()) / 2
		}
		f["move_us"] = (move.to.since(&move.from) - each*move.to.at.Sub(move.from.at).Seconds()) / moved * 1e6
	}
	return nil
}

// move changes the nodes and follows the sessions.
func (m *measurement) move(ctx context.Context, watch *claims) (w window, err error) {
	if w.before, err = m.x.counters(ctx); err != nil {
		return w, err
	}
	if _, err = m.crowd.look(ctx); err != nil {
		return w, err
	}
	known := len(watch.list())
	w.from = m.meter.look()
	begun := time.Now()
	acted := make(chan error, 1)
	go func() { acted <- m.act(ctx) }() // received from below
	owned := func(err error) error {    // act has an owner that waits for it
		if acted != nil {
			err = errors.Join(err, <-acted)
		}
		return err
	}
	var moves []stretch
	var serving time.Time    // when all sessions had a stream again
	previous := begun        // the look before
	var coarse time.Duration // the longest time between two looks that were to be close
	moving, calm := false, begun
	for {
		select {
		case err = <-acted:
			if acted = nil; err != nil {
				return w, err
			}
		default:
		}
		at := time.Now()
		pending, streams, err := m.pending(ctx)
		if err != nil {
			return w, owned(err)
		}
		seen := watch.list()[known:]
		if moving || pending > 0 {
			if !moving {
				moves = append(moves, stretch{from: previous})
			}
			calm = at // the first look that finds nobody still ends the stretch
			moves[len(moves)-1].to = time.Now()
		}
		moving = pending > 0
		if streams < m.s.Clients {
			serving, calm = time.Time{}, at
		} else if serving.IsZero() {
			serving = time.Now()
		}
		if len(seen) > 0 && seen[len(seen)-1].After(calm) {
			calm = seen[len(seen)-1]
		}
		active := at.Sub(calm) < near
		if active {
			coarse = max(coarse, min(time.Since(previous), near))
		}
		previous = time.Now()
		if r := m.meter.look(); active || acted != nil { // a process that ends is counted as far as it was looked at
			w.to = r
		}
		if acted == nil && len(seen) > 0 && !serving.IsZero() && time.Since(calm) > quiet {
			break
		}
		if time.Since(begun) > time.Minute {
			return w, owned(fmt.Errorf("a minute after %s: %d claims appeared, %d sessions are moving, %d of %d have a stream", m.s.Work, len(seen), pending, streams, m.s.Clients))
		}
		if !watch.wait(ctx, active) {
			return w, owned(context.Cause(ctx))
		}
	}
	// What was over between two looks took less than lies between them.
	m.figures["handover_ms"] = ms(max(slowest(watch.list()[known:], moves), coarse))
	m.figures["glance_ms"] = ms(coarse)
	if w.seen, err = m.crowd.look(ctx); err != nil {
		return w, err
	}
	w.then, err = m.x.counters(ctx)
	return w, err
}

// act is what the scenario does to the nodes.
func (m *measurement) act(ctx context.Context) error {
	var err error
	switch m.s.Work {
	case join:
		_, err = m.x.stack.AddNode(ctx)
	case drain:
		err = m.x.stack.DrainNode(ctx, m.x.stack.Nodes()[0].ID)
	case kill:
		err = m.x.stack.KillNode(ctx, m.x.stack.Nodes()[0].ID)
	default:
		err = fmt.Errorf("%q is no handover", m.s.Work)
	}
	return err
}

// pending is how many sessions are on their way, and how many streams there are.
func (m *measurement) pending(ctx context.Context) (moving, streams int, err error) {
	for _, r := range m.x.stack.Routers() {
		got, err := scrape(ctx, r.Admin)
		if err != nil {
			return 0, 0, err
		}
		moving += int(got["pointsman_router_handovers_pending"])
		streams += int(got["pointsman_router_streams"])
	}
	return moving, streams, nil
}
