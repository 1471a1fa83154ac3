package hub

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/links"
)

// errSecondWelcome is a node that greets twice.
var errSecondWelcome = fmt.Errorf("a second welcome: %w", link.ErrMalformed)

// lane is one link and its streams; its Receiver methods feed the sessions. They are called by the link's reader.
type lane struct {
	h        *Hub
	link     *links.Link
	streams  *links.Streams[*Session]
	draining atomic.Bool

	// Owned by the reader.
	t       *turn
	targets []links.Target[*Session]
	frames  uint64
}

func newLane(h *Hub, l *links.Link) *lane {
	return &lane{h: h, link: l, streams: links.NewStreams[*Session]()}
}

// Begin implements links.Receiver.
func (ln *lane) Begin() {
	ln.t = ln.h.turn()
	ln.link.Hold()
}

// End implements links.Receiver: everybody who got something in this message is flushed once.
func (ln *lane) End(size int) {
	ln.t.end()
	ln.t = nil
	ln.link.Release()
	m := ln.h.cfg.Metrics
	m.Messages.Add(1)
	m.LinkBytes.Add(uint64(size))
	if ln.frames > 0 {
		m.Frames.Add(ln.frames)
		ln.frames = 0
	}
}

// Record implements link.RouterHandler.
func (ln *lane) Record(r *link.Record) error {
	t := ln.t
	t.forget()
	ln.frames++
	ln.targets = ln.streams.Owners(ln.targets[:0], r.Streams)
	for i, to := range ln.targets {
		s := to.Owner
		s.lock()
		if s.enter(t) {
			before := t.records
			t.live = to.Live
			known := s.core.Record(t.now, ln.link.ID, to.Number, r)
			switch {
			case !known:
				// It may have been detached since it was looked up.
				if owner, ok := ln.streams.Owner(to.Number); ok && owner == s {
					t.dropped++
				}
			case t.records == before && s.unpaid == 0:
				t.duplicates++
			}
			if s.full {
				s.flush(t)
			}
			s.leave(t)
		}
		s.unlock()
		ln.targets[i].Owner = nil
		t.flushWhenFull()
	}
	return nil
}

// visit feeds one session.
func (ln *lane) visit(stream uint64, event func(s *Session, now time.Time)) {
	s, ok := ln.streams.Owner(stream)
	if !ok {
		return // it was detached in the meantime
	}
	s.lock()
	defer s.unlock()
	if s.enter(ln.t) {
		event(s, ln.t.now)
		s.leave(ln.t)
	}
}

// Attached implements link.RouterHandler.
func (ln *lane) Attached(f link.Attached) error {
	ln.streams.Attached(f.Stream, f.Live)
	ln.visit(f.Stream, func(s *Session, now time.Time) {
		s.core.Attached(now, ln.link.ID, f)
		s.note(ln.t)
	})
	ln.t.flushWhenFull()
	return nil
}

// Checkpoint implements link.RouterHandler: one number, and the handovers that waited for it.
func (ln *lane) Checkpoint(f *link.Checkpoint) error {
	ln.streams.Checkpoint(f)
	buckets := *ln.h.buckets.Load()
	if f.Partition >= 0 && int(f.Partition) < len(buckets) && ln.h.pending.Load() > 0 {
		ln.h.poll(ln.t, buckets[f.Partition])
	}
	return nil
}

// Gap implements link.RouterHandler.
func (ln *lane) Gap(f link.Gap) error {
	ln.visit(f.Stream, func(s *Session, now time.Time) {
		s.core.Gap(now, ln.link.ID, f)
		s.note(ln.t)
	})
	return nil
}

// Closed implements link.RouterHandler.
func (ln *lane) Closed(f link.Closed) error {
	ln.visit(f.Stream, func(s *Session, now time.Time) {
		s.core.Closed(now, ln.link.ID, f)
		s.note(ln.t)
	})
	ln.streams.Remove(f.Stream)
	return nil
}

// Welcome implements link.RouterHandler; the greeting is over.
func (ln *lane) Welcome(*link.Welcome) error { return errSecondWelcome }

// Draining implements link.RouterHandler.
func (ln *lane) Draining() error {
	if !ln.draining.Swap(true) {
		ln.h.drain(ln.link.ID)
	}
	return nil
}
