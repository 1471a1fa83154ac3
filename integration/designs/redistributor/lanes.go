package redistributor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// giveUpAfter is how long a server may fail to take a bundle before what waits for it is dropped. Its clients have
	// their cursors, and when it lives after all it is told to have them join again.
	giveUpAfter = 10 * time.Second
	// laneBytes bounds what waits for one server.
	laneBytes = 64 << 20
	retryPace = 50 * time.Millisecond
	// deadAfterTries is how many bundles in a row a server may fail to take before its lane ends, and idleAfter how long
	// nothing but heads may go to one: a log in front of a server takes what nobody reads any more.
	deadAfterTries = 3
	idleAfter      = 5 * time.Minute
)

// ticket is a batch of one partition on its way to several servers. It is used up when all have it.
type ticket struct {
	next int64 // what may be committed then
	left atomic.Int32
}

func (t *ticket) done() { t.left.Add(-1) }

// lanes are the queues to the servers: one bundle at a time is under way to each, and whatever comes meanwhile is the
// next, so that batches grow with the load.
type lanes struct {
	// Static after construction.
	sender Sender
	log    *zap.Logger
	sent   func(bytes int)
	ctx    context.Context // ends with the redistributor
	wg     sync.WaitGroup

	mu   sync.Mutex
	open map[Place]*lane // guarded by mu
	owed map[Place]bool  // guarded by mu; servers whose lane ended with something dropped, to be told if they live after all
}

type lane struct {
	to   Place
	kick chan struct{}

	mu      sync.Mutex
	buf     []byte    // guarded by mu
	tickets []*ticket // guarded by mu; of what is in buf
	lost    bool      // guarded by mu; something was dropped and the server was not told yet
	gone    bool      // guarded by mu
	used    time.Time // guarded by mu; when something was added that is for a client
}

func newLanes(sender Sender, log *zap.Logger, sent func(bytes int)) *lanes {
	return &lanes{sender: sender, log: log, sent: sent, open: make(map[Place]*lane), owed: make(map[Place]bool)}
}

// add queues what fill appends; the ticket, if any, is done when the server has it.
func (ls *lanes) add(to Place, t *ticket, fill func(dst []byte) []byte) {
	ls.mu.Lock()
	l := ls.open[to]
	if l == nil {
		l = &lane{to: to, kick: make(chan struct{}, 1), lost: ls.owed[to]}
		delete(ls.owed, to)
		ls.open[to] = l
		ls.wg.Go(func() { ls.run(l) })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ls.mu.Unlock() // a lane that is open cannot end before this is in it
	l.used = time.Now()
	l.addLocked(t, fill)
}

// head queues for all servers that lanes lead to, and has it sent. It keeps no lane open.
func (ls *lanes) head(fill func(dst []byte) []byte) {
	for _, to := range ls.places() {
		ls.mu.Lock()
		l := ls.open[to]
		ls.mu.Unlock()
		if l == nil {
			continue
		}
		l.mu.Lock()
		l.addLocked(nil, fill)
		l.mu.Unlock()
		ls.flush(to)
	}
}

func (l *lane) addLocked(t *ticket, fill func(dst []byte) []byte) {
	if l.gone {
		return
	}
	if len(l.buf) > laneBytes {
		l.lost = true
		return
	}
	l.buf = fill(l.buf)
	if t != nil && (len(l.tickets) == 0 || l.tickets[len(l.tickets)-1] != t) {
		t.left.Add(1)
		l.tickets = append(l.tickets, t)
	}
}

// flush has everything that was added sent.
func (ls *lanes) flush(to Place) {
	ls.mu.Lock()
	l := ls.open[to]
	ls.mu.Unlock()
	if l == nil {
		return
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// places are the servers that lanes lead to.
func (ls *lanes) places() []Place {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	out := make([]Place, 0, len(ls.open))
	for p := range ls.open {
		out = append(out, p)
	}
	return out
}

func (ls *lanes) run(l *lane) {
	failed := 0
	for {
		select {
		case <-l.kick:
		case <-ls.ctx.Done():
			ls.end(l, false)
			return
		}
		if ls.retire(l) {
			return
		}
		bundle, tickets := l.take()
		if len(bundle) == 0 {
			continue
		}
		err := ls.deliver(l.to, bundle)
		for _, t := range tickets {
			t.done()
		}
		switch {
		case err == nil:
			failed = 0
			ls.sent(len(bundle))
		case errors.Is(err, ErrGone):
			ls.end(l, false)
			return
		case ls.ctx.Err() == nil:
			ls.log.Warn("gave up what waited for a server", zap.String("server", l.to.String()), zap.Int("bytes", len(bundle)), zap.Error(err))
			if failed++; failed == deadAfterTries {
				ls.end(l, true)
				return
			}
			l.mu.Lock()
			l.lost = true
			l.mu.Unlock()
		}
		// More may have come while this was under way.
		ls.flush(l.to)
	}
}

// retire ends a lane to which nothing for a client has gone for long.
func (ls *lanes) retire(l *lane) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost || time.Since(l.used) <= idleAfter {
		return false
	}
	ls.endLocked(l)
	return true
}

// end closes a lane. If something was dropped that the server may miss, the next lane to it begins with that.
func (ls *lanes) end(l *lane, owed bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if owed {
		ls.owed[l.to] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ls.endLocked(l)
}

// endLocked needs both locks: nobody can add to a lane that has ended but was found open.
func (ls *lanes) endLocked(l *lane) {
	delete(ls.open, l.to)
	l.gone = true
	for _, t := range l.tickets {
		t.done()
	}
	l.buf, l.tickets = nil, nil
}

func (l *lane) take() ([]byte, []*ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bundle, tickets := l.buf, l.tickets
	l.buf, l.tickets = nil, nil
	if l.lost && len(bundle) > 0 {
		l.lost = false
		bundle = append((&message{kind: kindReset}).append(nil), bundle...)
	}
	return bundle, tickets
}

// deliver tries until the server has the bundle, is gone, or time is up.
func (ls *lanes) deliver(to Place, bundle []byte) error {
	t := time.NewTicker(retryPace)
	defer t.Stop()
	for began := time.Now(); ; {
		err := ls.sender.Send(ls.ctx, to, bundle)
		if err == nil || errors.Is(err, ErrGone) || time.Since(began) > giveUpAfter {
			return err
		}
		select {
		case <-t.C:
		case <-ls.ctx.Done():
			return context.Cause(ls.ctx)
		}
	}
}
