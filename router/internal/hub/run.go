package hub

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
)

const (
	// looks is into how many parts a look at all sessions is divided, so that it disturbs nobody.
	looks = 10
	// pollEvery is how often pending handovers are looked at, beside their checkpoints.
	pollEvery = 20 * time.Millisecond
	// asleep is a pause of this goroutine after which clients' silence is counted anew: the process was stopped.
	asleep = 2 * time.Second
)

// Run looks after all sessions until ctx ends: heartbeats, pings, stuck sockets, pending handovers. There is no timer
// per client.
func (h *Hub) Run(ctx context.Context) {
	// A core wants a tick at least ten times per heartbeat.
	round := min(time.Second, h.cfg.Session.Heartbeat/10)
	every := max(round/looks, time.Millisecond)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	polls := time.NewTimer(pollEvery)
	defer polls.Stop()
	armed := true
	part, last, since := 0, time.Now(), time.Now()
	var sum look
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := time.Now()
			if now.Sub(last) > asleep {
				since = now
			}
			last = now
			h.look(part, since, &sum)
			if part++; part == looks {
				h.waiting.Store(sum.waiting)
				h.queued.Store(sum.queued)
				h.full.Store(sum.full)
				h.paced.Store(sum.paced)
				part, sum = 0, look{}
			}
		case <-h.poke:
			if !armed {
				armed = true
				polls.Reset(pollEvery)
			}
		case <-polls.C:
			h.pollAll()
			if armed = h.pending.Load() > 0; armed {
				polls.Reset(pollEvery)
			}
		}
	}
}

// look is what one round over all sessions adds up.
type look struct {
	waiting int64
	queued  int64
	full    int64
	paced   int64
}

// held counts a client that a limit holds back: its rate, while credit waits to be given back, or else its window.
func (l *look) held(a *allowance, full bool) {
	switch {
	case a.owed > 0:
		l.paced++
	case full:
		l.full++
	}
}

// look visits every looks-th partition's sessions.
func (h *Hub) look(part int, since time.Time, sum *look) {
	t := h.turn()
	defer t.end()
	buckets := *h.buckets.Load()
	for p := part; p < len(buckets); p += looks {
		for _, s := range buckets[p].snapshot(t) {
			s.lock()
			if s.enter(t) {
				s.core.Tick(t.now)
				s.note(t)
				if s.sock != nil {
					s.leave(t)
					s.unlock()
					continue
				}
				sum.held(&s.allow, s.core.Full())
				if s.allow.owed > 0 {
					s.written(t, 0)
				}
				s.expire(t)
				if s.core.Primary() == 0 {
					sum.waiting++
				}
				s.leave(t)
			}
			s.conn.Check(t.now, since, h.cfg.Limits)
			sum.queued += int64(s.conn.Queued())
			s.unlock()
		}
		t.flushWhenFull()
	}
	for i, k := range h.sockets.all() {
		if i%looks == part {
			k.look(t, since, sum)
			t.flushWhenFull()
		}
	}
}

// pollAll polls the pending sessions of all partitions.
func (h *Hub) pollAll() {
	if h.pending.Load() == 0 {
		return
	}
	t := h.turn()
	defer t.end()
	for _, b := range *h.buckets.Load() {
		h.poll(t, b)
	}
}

func (h *Hub) poll(t *turn, b *bucket) {
	for _, s := range b.snapshotPending(t) {
		s.lock()
		if s.enter(t) {
			s.core.Poll(t.now)
			s.note(t)
			s.leave(t)
		}
		s.unlock()
	}
}

// client is a session that has its connection for itself, or a socket with several keys.
type client interface {
	goAway(retryAfter time.Duration)
	shed() (freed int64)
	Conn() *clientconn.Conn
}

// clients lists all clients.
func (h *Hub) clients() []client {
	var all []client
	for _, b := range *h.buckets.Load() {
		b.mu.Lock()
		for _, s := range b.sessions {
			if s.sock == nil {
				all = append(all, s)
			}
		}
		b.mu.Unlock()
	}
	for _, k := range h.sockets.all() {
		all = append(all, k)
	}
	return all
}

// Drain ends all sessions in an orderly way: no new ones, then goaway and a close for each, in random order, paced
// over the time there is, so that the other routers are not stormed. It returns when all have gone, or time is up and
// the rest was cut off.
func (h *Hub) Drain(ctx context.Context, timeout time.Duration) {
	h.refuse()
	all := h.clients()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	const (
		tick    = 20 * time.Millisecond  // a timer for every client would be the slowest part of it
		slowest = 10 * time.Millisecond  // for one client: few need no long goodbye
		longest = 100 * time.Millisecond // what a pause of this process counts for at most, so that no burst follows it
	)
	before, end := time.Now(), time.Now().Add(timeout)
	last := before.Add(timeout * 9 / 10) // those who go last need time to answer
	due := 1.0
	for i := 0; i < len(all); {
		for ; due >= 1 && i < len(all); due-- {
			// They come one by one, so they may come back soon; the jitter is for those whose pace was too fast.
			all[i].goAway(rand.N(time.Second))
			i++
		}
		if i == len(all) || !pause(ctx, tick/2+rand.N(tick)) {
			break
		}
		now := time.Now()
		passed := min(now.Sub(before), longest)
		before = now
		// Always three quarters of what is left of the time for all who are left: whoever falls behind is not hurried
		// at one moment, but by and by.
		left := max(last.Sub(now)*3/4, passed)
		due += max(float64(len(all)-i)*float64(passed)/float64(left), float64(passed)/float64(slowest))
	}
	for h.open.Load() > 0 && time.Now().Before(end) {
		if !pause(ctx, pollEvery) {
			break
		}
	}
}

// goAway says goodbye to a client.
func (s *Session) goAway(retryAfter time.Duration) {
	t := s.h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	if !s.enter(t) {
		return
	}
	s.core.GoAway(t.now, retryAfter)
	s.conn.Close(closecode.GoingAway, "the router is stopping")
	s.finish = true
	s.leave(t)
}

// Cut ends all sessions at once, without a word, and waits for their goroutines.
func (h *Hub) Cut() {
	h.refuse()
	for _, c := range h.clients() {
		c.Conn().Abort(closecode.GoingAway)
	}
	h.strayMu.Lock()
	h.cut = true
	for c := range h.strays {
		c.Abort(closecode.GoingAway)
	}
	h.strayMu.Unlock()
	h.serve.Wait()
	h.conns.Wait()
}

// refuse closes the registry: from now on Connect gives ErrClosing.
func (h *Hub) refuse() {
	h.change.Lock()
	defer h.change.Unlock()
	h.closing = true
	for _, b := range *h.buckets.Load() {
		b.close()
	}
	h.sockets.close()
}

// Go runs a client's goroutine, which Cut waits for. After Cut it runs nothing and returns false: a request may be
// upgraded while the router ends.
func (h *Hub) Go(f func()) bool {
	h.strayMu.Lock()
	defer h.strayMu.Unlock()
	if h.cut {
		return false
	}
	h.serve.Go(f)
	return true
}

// Stray notes a connection that is no session (yet), so that Cut ends it, until done is called.
func (h *Hub) Stray(c *clientconn.Conn) (done func()) {
	h.strayMu.Lock()
	defer h.strayMu.Unlock()
	h.strays[c] = struct{}{}
	if h.cut {
		c.Abort(closecode.GoingAway)
	}
	return func() {
		h.strayMu.Lock()
		defer h.strayMu.Unlock()
		delete(h.strays, c)
	}
}

// pause waits; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
