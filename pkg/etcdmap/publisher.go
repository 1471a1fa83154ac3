package etcdmap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// minLeaseTTL is the shortest lease that etcd grants with its default timing.
const minLeaseTTL = 2 * time.Second

// PublisherConfig says what a node publishes.
type PublisherConfig struct {
	NodeID   string
	Node     directory.Node // Instance must be unique to this process
	LeaseTTL time.Duration  // whole seconds, at least 2 s; default 5 s
	// Lost is called when a wanted claim stands behind a newer one, once per winner. It is called from Run and must not
	// block. The claim stays wanted: it is written as soon as the winner's is gone or a newer one is set.
	Lost func(p int32, winner directory.Claim)
}

// Publisher keeps one node's registration and claims in etcd.
type Publisher struct {
	m   *Map
	cfg PublisherConfig
	log *zap.Logger

	kick       chan struct{} // something changed
	doubt      chan struct{} // the follower shall list again
	registered chan struct{} // closed after the first registration

	mu      sync.Mutex
	pub     *publication
	invalid error // the node's value cannot be published
	stop    context.CancelFunc
	done    chan struct{} // closed when Run has ended; nil before
	revoked bool
}

// NewPublisher prepares a publisher; Run does the work.
func (m *Map) NewPublisher(cfg PublisherConfig) *Publisher {
	if cfg.LeaseTTL <= 0 {
		cfg.LeaseTTL = 5 * time.Second
	}
	cfg.LeaseTTL = max(cfg.LeaseTTL, minLeaseTTL)
	p := &Publisher{
		m:          m,
		cfg:        cfg,
		log:        m.log, // the node's own, which names the node
		kick:       make(chan struct{}, 1),
		doubt:      make(chan struct{}, 1),
		registered: make(chan struct{}),
		pub:        newPublication(m.keys, cfg.NodeID, cfg.LeaseTTL, m.malformed.note),
	}
	p.invalid = directory.CheckID(cfg.NodeID)
	if err := p.pub.setNode(cfg.Node); err != nil {
		p.invalid = errors.Join(p.invalid, err)
	}
	return p
}

// Registered is closed after the first registration.
func (p *Publisher) Registered() <-chan struct{} { return p.registered }

// SetNode replaces the node's value. It returns at once; Run writes it.
func (p *Publisher) SetNode(n directory.Node) {
	p.change(func(pub *publication) {
		if err := pub.setNode(n); err != nil {
			p.log.Error("node value cannot be published", zap.Error(err))
		}
	})
}

// SetClaim wants the claim published: written if absent, older, or of the same instance, and again after every loss. It
// returns at once; what is set while a transaction is under way goes into the next one.
func (p *Publisher) SetClaim(part int32, c directory.Claim) {
	p.change(func(pub *publication) {
		if err := pub.setClaim(part, c); err != nil {
			p.log.Error("claim cannot be published", zap.Int32("partition", part), zap.Error(err))
		}
	})
}

// DropClaim stops wanting the claim. Nothing is deleted: a newer claim replaces it, or the lease ends.
func (p *Publisher) DropClaim(part int32) {
	p.change(func(pub *publication) { pub.dropClaim(part) })
}

// newest is the newest revision that the publication knows of.
func (p *Publisher) newest() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pub.mirror.revision
}

func (p *Publisher) change(f func(*publication)) {
	p.mu.Lock()
	f(p.pub)
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Run registers the node and keeps everything published until ctx ends; then it returns nil and leaves the lease to
// Revoke or to its end. ErrNodeIDTaken if another instance still holds the id after one lease time, and renews its lease,
// at the start or after this one had lost its lease. It may be called once.
func (p *Publisher) Run(ctx context.Context) error {
	ctx, leave, err := p.m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	if p.done != nil || p.invalid != nil || p.revoked {
		invalid := p.invalid
		p.mu.Unlock()
		if invalid != nil {
			return fmt.Errorf("publish node %q: %w", p.cfg.NodeID, invalid)
		}
		return errors.New("publisher was run before")
	}
	p.stop, p.done = cancel, make(chan struct{})
	p.mu.Unlock()
	defer close(p.done)

	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	owned.Go(func() {
		_ = p.m.follow(ctx, p.doubt, p.newest, func(c change) { // ends with ctx only
			p.m.noteTopic(c.events)
			p.change(func(pub *publication) { pub.observe(c) })
		})
	})
	err = p.publish(ctx, &owned)
	if ctx.Err() == nil {
		return err
	}
	if errors.Is(context.Cause(ctx), ErrClosed) {
		return ErrClosed
	}
	return nil
}

// publish takes one step after the other until ctx ends or the id turns out to be taken.
func (p *Publisher) publish(ctx context.Context, owned *sync.WaitGroup) error {
	delay := firstRetry
	for ctx.Err() == nil {
		p.mu.Lock()
		p.pub.topic = p.m.knownTopic()
		s := p.pub.next(time.Now())
		lease, registered := p.pub.lease, p.pub.registered
		p.mu.Unlock()
		p.report(s, registered)

		var err error
		switch {
		case s.err != nil:
			return s.err
		case s.ask != 0:
			err = p.askHolder(ctx, s.ask)
		case s.grant:
			err = p.grant(ctx, owned)
		case len(s.puts) > 0:
			err = p.commit(ctx, lease, s.puts)
		default:
			p.wait(ctx, s.until)
		}
		if err == nil {
			delay = firstRetry
			continue
		}
		pause(ctx, delay)
		delay = min(2*delay, longestRetry)
	}
	return nil
}

// report tells those who wait for it what a step found.
func (p *Publisher) report(s step, registered bool) {
	if registered {
		select {
		case <-p.registered:
		default:
			close(p.registered)
		}
	}
	if h := s.held; h != nil {
		p.log.Info("the node id is registered by another instance, waiting for its lease to end",
			zap.String("instance", h.instance), zap.String("addr", h.node.Addr))
	}
	for _, l := range s.lost {
		p.m.stats.claimsRefused.Add(1)
		p.log.Info("a newer claim stands in etcd, not replacing it", zap.Int32("partition", l.partition), zap.String("owner", l.winner.Node),
			zap.Int64("incarnation", l.winner.Incarnation), zap.Int32("generation", l.winner.Generation))
		if p.cfg.Lost != nil {
			p.cfg.Lost(l.partition, l.winner)
		}
	}
}

func (p *Publisher) wait(ctx context.Context, until time.Time) {
	var timeout <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-ctx.Done():
	case <-p.kick:
	case <-timeout:
	}
}

func (p *Publisher) askHolder(ctx context.Context, lease int64) error {
	var ttl, left time.Duration
	err := p.m.try(ctx, reading, func(ctx context.Context) (err error) {
		ttl, left, err = p.m.store.leaseTTL(ctx, lease)
		return err
	})
	if err != nil && !errors.Is(err, errLeaseGone) {
		return err
	}
	p.mu.Lock()
	p.pub.holderTTL(lease, ttl, left)
	p.mu.Unlock()
	return nil
}

func (p *Publisher) grant(ctx context.Context, owned *sync.WaitGroup) error {
	var lease int64
	err := p.m.try(ctx, writing, func(ctx context.Context) (err error) {
		lease, err = p.m.store.grant(ctx, p.cfg.LeaseTTL)
		return err
	})
	if err != nil {
		return err
	}
	p.m.stats.leasesGranted.Add(1)
	p.mu.Lock()
	p.pub.granted(lease)
	p.mu.Unlock()
	owned.Go(func() { p.keep(ctx, lease) })
	return nil
}

// keep renews the lease until it is gone or ctx ends. It has its own goroutine so that a slow transaction cannot
// cost the lease.
func (p *Publisher) keep(ctx context.Context, lease int64) {
	every := min(p.cfg.LeaseTTL/4, time.Second)
	for pause(ctx, every) {
		err := p.m.try(ctx, leasing, func(ctx context.Context) error { return p.m.store.keepAlive(ctx, lease) })
		if errors.Is(err, errLeaseGone) {
			p.lostLease(lease)
			return
		}
	}
}

func (p *Publisher) lostLease(lease int64) {
	var was bool
	p.change(func(pub *publication) { was = pub.leaseGone(lease) })
	if was {
		p.m.stats.leasesLost.Add(1)
		p.log.Warn("the node's lease in etcd has ended, publishing everything again")
	}
}

// errNotNews makes the publisher wait before it repeats a transaction that failed for reasons it did not learn.
var errNotNews = errors.New("the transaction failed and taught nothing")

func (p *Publisher) commit(ctx context.Context, lease int64, puts []write) error {
	var res commitResult
	err := p.m.try(ctx, writing, func(ctx context.Context) (err error) {
		res, err = p.m.store.commit(ctx, puts)
		return err
	})
	if errors.Is(err, errLeaseGone) {
		p.lostLease(lease)
		return nil
	}
	if err != nil {
		return err
	}
	if res.done {
		p.m.stats.puts.Add(uint64(len(puts)))
	}
	p.mu.Lock()
	news := p.pub.committed(puts, res)
	p.mu.Unlock()
	if !news {
		select {
		case p.doubt <- struct{}{}:
		default:
		}
		return errNotNews
	}
	return nil
}

// Revoke ends Run, waits for it, and ends the lease with everything published under it. It tries until ctx ends.
func (p *Publisher) Revoke(ctx context.Context) error {
	ctx, leave, err := p.m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	p.mu.Lock()
	p.revoked = true
	stop, done := p.stop, p.done
	p.mu.Unlock()
	if done == nil {
		return nil
	}
	stop()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("revoke lease: %w", context.Cause(ctx))
	}
	p.mu.Lock()
	lease := p.pub.lease
	p.pub.leaseGone(lease)
	p.mu.Unlock()
	if lease == 0 {
		return nil
	}
	delay := firstRetry
	for {
		err := p.m.try(ctx, writing, func(ctx context.Context) error { return p.m.store.revoke(ctx, lease) })
		if err == nil {
			return nil
		}
		if !pause(ctx, delay) {
			return fmt.Errorf("revoke lease: %w (last: %w)", context.Cause(ctx), err)
		}
		delay = min(2*delay, longestRetry)
	}
}
