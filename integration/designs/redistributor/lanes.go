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
}

type lane struct {
	to   Place
	kick chan struct{}

	mu      sync.Mutex
	buf     []byte    // guarded by mu
	tickets []*ticket // guarded by mu; of what is in buf
	lost    bool      // guarded by mu; something was dropped and the server was not told yet
	gone    bool      // guarded by mu
}

// add queues what fill appends; the ticket, if any, is done when the server has it.
func (ls *lanes) add(to Place, t *ticket, fill func(dst []byte) []byte) {
	ls.mu.Lock()
	l := ls.open[to]
	if l == nil {
		l = &lane{to: to, kick: make(chan struct{}, 1)}
		ls.open[to] = l
		ls.wg.Go(func() { ls.run(l) })
	}
	ls.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
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
	for {
		select {
		case <-l.kick:
		case <-ls.ctx.Done():
			l.end()
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
			ls.sent(len(bundle))
		case errors.Is(err, ErrGone):
			l.end()
			ls.mu.Lock()
			delete(ls.open, l.to)
			ls.mu.Unlock()
			return
		case ls.ctx.Err() == nil:
			ls.log.Warn("gave up what waited for a server", zap.String("server", l.to.String()), zap.Int("bytes", len(bundle)), zap.Error(err))
			l.mu.Lock()
			l.lost = true
			l.mu.Unlock()
		}
		// More may have come while this was under way.
		ls.flush(l.to)
	}
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

func (l *lane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	for _, t := range l.tickets {
		t.done()
	}
	l.buf, l.tickets = nil, nil
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
