package runner

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

const (
	// inboxSize bounds the messages that wait for a loop. One message is one link message's share of requests,
	// so a few are enough to keep the loop busy; who comes with more waits.
	inboxSize = 32
	// drainMost bounds how many messages are handled before frames are flushed, so that the first does not wait
	// for the last.
	drainMost = 16
	// tickMost is the longest a loop with streams goes without a Tick.
	tickMost = 100 * time.Millisecond
	// statusEvery is how often a loop's numbers are refreshed; they cost a pass over the streams behind.
	statusEvery = 500 * time.Millisecond
	// greetWait is how long requests of routers wait for a check of the topic's identity when the last one is old: a
	// process that was frozen would otherwise go on in the name of a topic that may be gone. While Kafka is away no
	// check comes, and routers are served all the same.
	greetWait = time.Second
	// waitingMost bounds the requests that wait for that.
	waitingMost = 4 * inboxSize
	askFirst    = 50 * time.Millisecond
	askMost     = 2 * time.Second
)

type messageKind uint8

const (
	fromLink messageKind = iota
	writable
	linkGone
	assign
	revoke
	topicChanged
	refresh
	// What Kafka says; admitted only while the topic's identity is vouched for.
	boundsFound
	liveBatch
	liveOutside
	liveStopped // the reader will not go on by itself
	scanned
	scanOutside
	// Failures carry no data.
	boundsFailed
	scanFailed
	timeFound
)

// message is one thing for a loop to handle.
type message struct {
	kind    messageKind
	ok      bool
	link    Link
	events  []Event
	number  uint64 // of the reader or the question that this answers
	request uint64 // of timeFound
	offset  int64
	topicID [16]byte
	bounds  source.Bounds
	batch   *source.Batch
	arrived time.Time
	err     error           // of boundsFailed and scanFailed
	done    chan<- struct{} // of refresh
}

// loop runs one partition.Loop.
type loop struct {
	// Static after construction.
	r         *Runner
	partition int32
	core      *partition.Loop
	inbox     chan message
	// live carries one batch at a time from the Kafka reader, apart from inbox so that a full one never keeps
	// routers waiting; while a batch is on hold the reader waits.
	live   chan message
	ctx    context.Context
	cancel context.CancelFunc
	status atomic.Pointer[partition.Status]
	failed atomic.Pointer[time.Time] // when a live reader failed last

	pins int // guarded by Runner.mu; who is about to post

	// Owned by run.
	now       time.Time
	topicID   [16]byte
	asks      context.Context // of questions about this topic
	forget    context.CancelFunc
	links     map[partition.LinkID]Link
	dirty     []Link // have frames that were not flushed
	assigned  bool
	ring      int64
	head      int64
	reader    *sink  // the live reader under way, nil for none
	reads     uint64 // numbers of readers
	findings  uint64 // numbers of FindBounds
	times     []timeQuestion
	timing    bool      // a helper works on times
	held      []message // wait for the topic's identity to be verified; one of each kind at most
	doubt     time.Time // data that came before is admitted only if a check began after this moment
	waiting   []message // requests of routers that wait for a check, and what came after them
	waitUntil time.Time // they are served then in any case
	inVain    time.Time // the last good check when that happened
	waited    bool      // inVain is set
	nextTick  time.Time
	statusAt  time.Time
	admitted  int64 // offsets below were counted by Config.Admitted
	admitting bool

	complained bool // of a question that fails again and again
}

type timeQuestion struct {
	request uint64
	t       int64
}

func newLoop(r *Runner, p int32, topicID [16]byte) *loop {
	lp := &loop{
		r: r, partition: p, topicID: topicID,
		inbox: make(chan message, inboxSize), live: make(chan message),
		links: map[partition.LinkID]Link{},
		ring:  r.ringShare.Load(),
	}
	lp.ctx, lp.cancel = context.WithCancel(r.ctx)
	lp.asks, lp.forget = context.WithCancel(lp.ctx)
	cfg := r.cfg.Loop
	cfg.Partition, cfg.Ring = p, lp.ring
	var out partition.Output = (*output)(lp)
	if r.cfg.Output != nil {
		out = r.cfg.Output(out)
	}
	lp.core = partition.New(cfg, out)
	lp.status.Store(&partition.Status{Partition: p})
	return lp
}

// post waits until the loop takes m or has ended. A loop that is pinned ends only with the runner.
func (lp *loop) post(m message) {
	select {
	case lp.inbox <- m:
	case <-lp.ctx.Done():
	}
}

func (lp *loop) run() {
	defer lp.r.wg.Done()
	defer lp.cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var live <-chan message
		var verified <-chan struct{}
		if len(lp.held) == 0 {
			live = lp.live
		}
		if len(lp.held) > 0 || len(lp.waiting) > 0 {
			_, verified = lp.r.cfg.Identity.Verified()
			if lp.heldReady() || len(lp.waiting) > 0 && lp.fresh() { // verified between the last look and this one
				closed := make(chan struct{})
				close(closed)
				verified = closed
			}
		}
		select {
		case m := <-lp.inbox:
			lp.now = time.Now()
			lp.handle(m)
		case m := <-live:
			lp.now = time.Now()
			lp.handle(m)
		case <-verified:
			lp.now = time.Now()
		case <-timer.C:
			lp.now = time.Now()
		case <-lp.ctx.Done():
			lp.core.Close()
			return
		}
		lp.drainInbox(drainMost)
		lp.serveWaiting()
		lp.admitHeld()
		lp.tick()
		lp.flush()
		if len(lp.waiting) == 0 && lp.core.Idle(lp.now) && lp.r.retire(lp) {
			return
		}
		timer.Reset(max(0, lp.nextTick.Sub(lp.now)))
	}
}

// drainInbox handles up to n waiting messages (all for n < 0).
func (lp *loop) drainInbox(n int) {
	for ; n != 0; n-- {
		select {
		case m := <-lp.inbox:
			lp.handle(m)
		default:
			return
		}
	}
}

func (lp *loop) tick() {
	if share := lp.r.ringShare.Load(); share != lp.ring {
		lp.ring = share
		lp.core.SetRing(share)
	}
	if !lp.now.Before(lp.nextTick) {
		lp.nextTick = lp.core.Tick(lp.now)
	} else if limit := lp.now.Add(tickMost); len(lp.links) > 0 && lp.nextTick.After(limit) {
		lp.nextTick = limit // what happened may have made something due earlier
	}
	if len(lp.waiting) > 0 && lp.nextTick.After(lp.waitUntil) {
		lp.nextTick = lp.waitUntil
	}
	if lp.now.Sub(lp.statusAt) >= statusEvery {
		lp.statusAt = lp.now
		lp.publish()
	}
}

func (lp *loop) publish() {
	st := lp.core.Status()
	lp.status.Store(&st)
}

func (lp *loop) flush() {
	for i, l := range lp.dirty {
		l.Flush()
		lp.dirty[i] = nil
	}
	lp.dirty = lp.dirty[:0]
}

func (lp *loop) handle(m message) {
	switch m.kind {
	case fromLink, linkGone:
		if lp.mustWait(m) {
			lp.waiting = append(lp.waiting, m)
			return
		}
		lp.serve(m)
	case writable:
		lp.core.LinkWritable(lp.now, m.link.ID())
	case assign:
		lp.assigned, lp.statusAt = true, time.Time{}
		lp.core.Assign(lp.now, m.offset)
	case revoke:
		lp.assigned, lp.statusAt = false, time.Time{}
		lp.core.Revoke(lp.now)
	case topicChanged:
		if lp.topicID != m.topicID {
			lp.topicID = m.topicID
			lp.forgetAsks()
			lp.findings++ // an answer under way is about the old topic
			lp.admitting = false
			lp.times = nil
			lp.core.TopicChanged(lp.now)
		}
	case refresh:
		lp.publish()
		m.done <- struct{}{}
	case boundsFailed:
		if m.number == lp.findings {
			lp.complain("bounds of a partition not found; asking until they are", m.err)
			lp.core.BoundsFailed(lp.now)
		}
	case scanFailed:
		lp.complain("catch-up read failed; trying until it succeeds", m.err)
		lp.core.ScanFailed(lp.now)
	case timeFound:
		lp.timing = false
		lp.core.TimeFound(lp.now, m.request, m.offset, m.ok)
		lp.askTime()
	default:
		lp.data(m)
	}
}

// mustWait reports whether a router's requests wait for a check of the topic's identity. Those that come after ones
// that wait do, too: requests of a link are handled in order.
func (lp *loop) mustWait(m message) bool {
	if len(lp.waiting) > 0 {
		return true
	}
	if !slices.ContainsFunc(m.events, func(e Event) bool { return e.Kind == Attach }) || lp.fresh() {
		return false
	}
	if began, _ := lp.r.cfg.Identity.Verified(); lp.waited && began.Equal(lp.inVain) {
		return false // Kafka is away
	}
	lp.waitUntil = lp.now.Add(greetWait)
	lp.r.cfg.Identity.Recheck()
	return true
}

// serveWaiting serves the requests that wait once a check vouches for the topic, or none came in time.
func (lp *loop) serveWaiting() {
	if len(lp.waiting) == 0 {
		return
	}
	switch {
	case lp.fresh():
		lp.drainInbox(-1) // as in admitHeld
	case lp.now.Before(lp.waitUntil) && len(lp.waiting) < waitingMost:
		return
	default:
		lp.inVain, _ = lp.r.cfg.Identity.Verified()
		lp.waited = true
	}
	waiting := lp.waiting
	lp.waiting = nil
	for _, m := range waiting {
		lp.serve(m)
	}
}

// fresh reports whether the last good check of the topic's identity is recent enough to greet somebody.
func (lp *loop) fresh() bool {
	began, _ := lp.r.cfg.Identity.Verified()
	return !began.IsZero() && age(began, lp.now) <= lp.r.cfg.TrustFor
}

// age is how old a check was at a moment. The monotonic clock stands still while the machine sleeps, the wall clock may
// be set: the larger age counts.
func age(began, at time.Time) time.Duration {
	return max(at.Sub(began), at.Round(0).Sub(began.Round(0)))
}

// serve handles what a link asks, or its end.
func (lp *loop) serve(m message) {
	if m.kind == linkGone {
		lp.core.LinkGone(lp.now, m.link.ID())
		delete(lp.links, m.link.ID())
		return
	}
	lp.fromLink(m.link, m.events)
}

func (lp *loop) fromLink(l Link, events []Event) {
	for i := range events {
		switch e := &events[i]; e.Kind {
		case Attach:
			if e.Attach.TopicID != ([16]byte{}) && e.Attach.TopicID != lp.topicID {
				l.Closed(link.Closed{Stream: e.Stream, Reason: link.ClosedTopic})
				lp.dirty = append(lp.dirty, l)
				continue
			}
			lp.links[l.ID()] = l
			lp.core.Attach(lp.now, l.ID(), e.Attach)
		case Detach:
			lp.core.Detach(lp.now, l.ID(), e.Stream)
		case Credit:
			lp.core.Credit(lp.now, l.ID(), e.Stream, e.Bytes)
		}
	}
}

// data admits what Kafka said, or puts it on hold until a check vouches for the topic.
func (lp *loop) data(m message) {
	if m.kind == liveOutside || m.kind == scanOutside || m.kind == liveStopped {
		// This is what a recreated topic looks like: ask before believing it.
		lp.distrust(m.arrived)
	}
	if len(lp.held) > 0 || !lp.trusted(m) {
		lp.held = append(lp.held, m)
		lp.r.cfg.Identity.Recheck()
		return
	}
	lp.admit(m)
}

// forgetAsks ends the questions under way: they are about a topic that is gone.
func (lp *loop) forgetAsks() {
	lp.forget()
	lp.asks, lp.forget = context.WithCancel(lp.ctx)
}

// complain logs the first of a row of failures.
func (lp *loop) complain(what string, err error) {
	if !lp.complained && !errors.Is(err, context.Canceled) {
		lp.complained = true
		lp.r.log.Warn(what, zap.Int32("partition", lp.partition), zap.Error(err))
	}
}

func (lp *loop) distrust(since time.Time) {
	if since.After(lp.doubt) {
		lp.doubt = since
	}
	lp.r.cfg.Identity.Recheck()
}

// trusted reports whether a check that is good for m has been made.
func (lp *loop) trusted(m message) bool {
	began, _ := lp.r.cfg.Identity.Verified()
	if began.IsZero() || !began.After(lp.doubt) {
		return false
	}
	if failed := lp.failed.Load(); failed != nil && !began.After(*failed) {
		return false
	}
	return age(began, m.arrived) <= lp.r.cfg.TrustFor
}

func (lp *loop) heldReady() bool { return len(lp.held) > 0 && lp.trusted(lp.held[0]) }

func (lp *loop) admitHeld() {
	for lp.heldReady() {
		// A change of the topic is posted before the check that found it counts as good: whatever it said
		// comes first.
		lp.drainInbox(-1)
		if !lp.heldReady() {
			return
		}
		m := lp.held[0]
		lp.held = append(lp.held[:0], lp.held[1:]...)
		lp.admit(m)
	}
	if len(lp.held) == 0 {
		lp.held = nil
	}
}

// current reports whether a message belongs to the live reader that is under way.
func (lp *loop) current(m message) bool { return lp.reader != nil && m.number == lp.reader.number }

func (lp *loop) admit(m message) {
	switch m.kind {
	case boundsFound:
		if m.number == lp.findings {
			lp.complained = false
			lp.core.Bounds(lp.now, m.bounds)
		}
	case liveBatch:
		if lp.current(m) {
			lp.observe(m.batch)
			lp.core.Batch(lp.now, m.batch)
		}
	case liveOutside:
		if lp.current(m) {
			lp.core.OutOfRange(lp.now, m.bounds)
		}
	case liveStopped:
		if lp.current(m) { // and the topic is what it was: a broker was behind
			(*output)(lp).Read(lp.head)
		}
	case scanned:
		lp.complained = false
		lp.core.Scanned(lp.now, m.batch)
	case scanOutside:
		lp.core.ScanOutOfRange(lp.now, m.bounds)
	}
}

// observe shows each record once to Config.Admitted, although a reader may read it again.
func (lp *loop) observe(b *source.Batch) {
	if lp.r.cfg.Admitted == nil {
		return
	}
	seen := *b
	if lp.admitting {
		i := 0
		for i < len(seen.Records) && seen.Records[i].Offset < lp.admitted {
			i++
		}
		seen.Records = seen.Records[i:]
	}
	lp.admitting, lp.admitted = true, max(b.Next, lp.admitted)
	lp.r.cfg.Admitted(lp.partition, &seen)
}

func (lp *loop) stopReader() {
	if lp.reader != nil {
		lp.reader.stop()
		lp.reader = nil
	}
}

// help runs a helper that the runner waits for. It must end soon after the loop's context does.
func (lp *loop) help(f func()) {
	lp.r.wg.Add(1) // the loop itself holds the group open
	go func() {
		defer lp.r.wg.Done()
		f()
	}()
}

// askTime lets one helper at a time answer the FindTime questions.
func (lp *loop) askTime() {
	if lp.timing || len(lp.times) == 0 {
		return
	}
	q := lp.times[0]
	lp.times = lp.times[1:]
	lp.timing = true
	topic, ctx := lp.topicID, lp.asks
	lp.help(func() {
		// Without an answer the stream would start at the end and miss what was asked for: ask until there is one.
		for delay := askFirst; ctx.Err() == nil; delay = min(2*delay, askMost) {
			var offset int64
			var ok bool
			err := lp.gated(ctx, lp.r.asking, func() (err error) {
				offset, ok, err = lp.r.cfg.Log.OffsetAt(ctx, topic, lp.partition, q.t)
				return err
			})
			if err == nil {
				lp.post(message{kind: timeFound, request: q.request, offset: offset, ok: ok})
				return
			}
			lp.r.log.Debug("offset for time not found yet", zap.Int32("partition", lp.partition), zap.Error(err))
			t := time.NewTimer(delay)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
		lp.post(message{kind: timeFound, request: q.request}) // nobody waits for it any more, but the next may be asked
	})
}

// gated runs f while holding one of the gate's places.
func (lp *loop) gated(ctx context.Context, gate chan struct{}, f func() error) error {
	select {
	case gate <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-gate }()
	return f()
}

// sink receives what one live reader reads.
type sink struct {
	lp      *loop
	number  uint64
	stopped chan struct{}
}

func (s *sink) stop() { close(s.stopped) }

func (s *sink) Batch(b *source.Batch) { s.post(message{kind: liveBatch, batch: b}) }

func (s *sink) OutOfRange(b source.Bounds) { s.post(message{kind: liveOutside, bounds: b}) }

func (s *sink) Failed(err error) {
	if errors.Is(err, ErrStopped) {
		s.post(message{kind: liveStopped})
		return
	}
	// Not through the mailbox: whoever tells of failures must not wait while data is on hold.
	now := time.Now()
	s.lp.failed.Store(&now)
	s.lp.r.cfg.Identity.Recheck()
}

func (s *sink) post(m message) {
	m.number, m.arrived = s.number, time.Now()
	select {
	case s.lp.live <- m:
	case <-s.stopped:
	case <-s.lp.ctx.Done():
	}
}
