package simulate

import (
	"slices"

	"github.com/pointsmanhq/pointsman/proto/link"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// check compares a message with the log: a client's records are the truth of its key, in order, once, and nothing
// is passed over in silence.
func (c *client) check(m message) {
	w := c.w
	if m.kind == saysWaiting {
		return
	}
	t := w.kafka.topics[m.at.topicID]
	if t == nil {
		w.fail(c.id, "%s of a topic that never was", m)
	}
	if m.at.partition != w.partitionOf(c.key) {
		w.fail(c.id, "%s of partition %d, the key's is %d", m, m.at.partition, w.partitionOf(c.key))
	}
	p := t.parts[m.at.partition]
	if m.at.next > p.stable {
		w.fail(c.id, "%s: cursor %d lies above the last stable offset %d", m, m.at.next, p.stable)
	}
	if c.owed && m.kind != saysGap {
		w.fail(c.id, "%s: hello said that the resume was incomplete, and no gap follows", m)
	}
	if m.kind == saysHello {
		c.checkHello(m, p)
		return
	}
	if c.waited {
		w.fail(c.id, "%s before hello", m)
	}
	if m.kind == saysGap && m.reason == link.GapTopic {
		if !c.owed && c.at.topicID == m.at.topicID {
			w.fail(c.id, "%s: the topic is what it was", m)
		}
		c.checkFirst(m, p)
		c.owed = false
		return
	}
	if m.at.topicID != c.at.topicID {
		w.fail(c.id, "%s of another topic without a gap", m)
	}
	switch m.kind {
	case saysRecord:
		if m.record.Offset < c.at.next {
			w.fail(c.id, "record %d again: the cursor is %d", m.record.Offset, c.at.next)
		}
		if !p.genuine(c.key, m.record.Offset, m.record.Value) {
			w.fail(c.id, "record %d is not what the log holds for key %s", m.record.Offset, c.key)
		}
		c.complete(m, p, m.record.Offset)
	case saysGap:
		if !c.owed {
			w.checkGap(c.id, p, c.key, c.at.next, m.at.next, m.reason)
		}
		c.owed = false
	default:
		if m.at.next < c.at.next {
			w.fail(c.id, "%s: the cursor was %d", m, c.at.next)
		}
		c.complete(m, p, m.at.next)
	}
}

// complete fails if a record of the client's key below next was not delivered.
func (c *client) complete(m message, p *part, next int64) {
	if o := p.missing(c.key, c.at.next, next); o >= 0 {
		c.w.fail(c.id, "%s: record %d was not delivered, the cursor was %d", m, o, c.at.next)
	}
}

// checkGap fails if a record that a gap passes over could still be had.
func (w *world) checkGap(client int, p *part, key string, from, to int64, reason link.GapReason) {
	var reach int64 // what lies below is out of reach
	switch reason {
	case link.GapRetention:
		reach = p.start
	case link.GapReplayLimit:
		reach = w.outOfReach(p)
	default:
		w.fail(client, "gap %s from %d to %d: nothing of the kind happened", reason, from, to)
	}
	if to > reach {
		w.fail(client, "gap %s from %d to %d: everything from %d on is within reach", reason, from, to, reach)
	}
}

// outOfReach is what neither the log nor the replay limit lets a client have.
func (w *world) outOfReach(p *part) int64 {
	if w.set.replayLimit > 0 {
		return max(p.start, p.stable-w.set.replayLimit)
	}
	return p.start
}

// checkFirst fails if a topic's first position passes over something.
func (c *client) checkFirst(m message, p *part) {
	if o := p.missing(c.key, c.w.outOfReach(p), m.at.next); o >= 0 {
		c.w.fail(c.id, "%s: the topic's records begin with %d", m, o)
	}
}

func (c *client) checkHello(m message, p *part) {
	w := c.w
	if !c.waited {
		w.fail(c.id, "a second hello")
	}
	if !c.has {
		c.checkStart(m, p)
		return
	}
	if m.at.topicID != c.at.topicID {
		if m.resumed {
			w.fail(c.id, "hello: resumed, although the topic was recreated")
		}
		c.checkFirst(m, p)
		c.owed = true
		return
	}
	switch {
	case m.at.next < c.at.next:
		w.fail(c.id, "hello at %d, the cursor was %d", m.at.next, c.at.next)
	case m.at.next == c.at.next && !m.resumed:
		w.fail(c.id, "hello at the cursor %d without resumed", m.at.next)
	case m.at.next > c.at.next && m.resumed:
		w.fail(c.id, "hello at %d with resumed, the cursor was %d", m.at.next, c.at.next)
	case m.at.next > c.at.next:
		c.owed = true
		if reach := w.outOfReach(p); m.at.next > reach {
			w.fail(c.id, "hello at %d, the cursor was %d, and everything from %d on is within reach", m.at.next, c.at.next, reach)
		}
	}
}

// checkStart compares a first hello with what the client asked for.
func (c *client) checkStart(m message, p *part) {
	first := int64(-1)
	reach := c.w.outOfReach(p)
	switch v := c.start.Value; c.start.Kind {
	case link.StartEarliest:
		first = p.missing(c.key, reach, m.at.next)
	case link.StartOffset:
		first = p.missing(c.key, max(v, reach), m.at.next)
	case link.StartTime:
		if first = p.since(c.key, v); first >= 0 && first < reach {
			first = p.missing(c.key, reach, m.at.next)
		}
	}
	if first >= 0 && first < m.at.next {
		c.w.fail(c.id, "hello at %d: record %d should be delivered (start %d:%d)", m.at.next, first, c.start.Kind, c.start.Value)
	}
}

// checkSilence fails if a client heard nothing for too long although nothing was wrong with its router.
func (c *client) checkSilence(since int64) {
	k, w := c.conn, c.w
	r := k.r
	if r.proc.dead || r.proc.frozen || r.proc.thawed >= since || k.session == nil || k.session.over {
		return
	}
	w.fail(c.id, "%s said nothing for %dms", r.name, (w.now-since)/ms)
}

// checkDetach fails if a stream that serves is let go before the one that takes over has caught up: the client would
// see a pause, and a hole if the new one turns out to begin too late.
func (s *session) checkDetach(l router.LinkID, stream uint64) {
	h, st := s.held(l, stream), s.core.Status()
	if h == nil || !h.attached || s.served != l || st.Primary == 0 || st.Primary == l || s.r.lane(l) == nil || s.over {
		return
	}
	next := s.held(st.Primary, st.Stream)
	if next == nil || !next.attached || next.from > st.Next {
		s.r.w.fail(s.client.id, "%s: the stream on link %d is let go at %d before the one on link %d is attached there",
			s.r.name, l, st.Next, st.Primary)
	}
	if reached := max(next.reached, s.sentOn(st.Primary, st.Stream)); reached < st.Next {
		s.r.w.fail(s.client.id, "%s: the stream on link %d is let go at %d while the one on link %d has reached %d only",
			s.r.name, l, st.Next, st.Primary, reached)
	}
}

// sentOn is below which offset the node has sent everything on a stream.
func (s *session) sentOn(l router.LinkID, stream uint64) int64 {
	ln := s.r.lane(l)
	if ln == nil || ln.peer == nil {
		return -1
	}
	for _, t := range slices.Concat(ln.peer.streams, ln.peer.past) {
		if t.id == stream && t.attached {
			return t.pos
		}
	}
	return -1
}

// attachedAt and gapAt note what the session's streams have.
func (s *session) attachedAt(l router.LinkID, f link.Attached) {
	if h := s.held(l, f.Stream); h != nil {
		h.attached, h.from, h.reached = true, f.Next, f.Next
		if f.Live {
			h.reached = max(f.Next, f.Head)
		}
	}
}

func (s *session) gapAt(l router.LinkID, f link.Gap) {
	if h := s.held(l, f.Stream); h != nil {
		h.from = max(h.from, f.To)
	}
}

// noteGap remembers which streams covered what the client is told to be out of reach.
func (s *session) noteGap(g router.Gap) {
	if g.Reason == link.GapTopic || g.From >= g.Next {
		return
	}
	st := s.core.Status()
	for i := range s.streams {
		h := &s.streams[i]
		if h.attached && h.from <= g.From && (h.link == st.Primary || h.link == st.Secondary) {
			h.gaps = append(h.gaps, [2]int64{g.From, g.Next})
		}
	}
}

// suspect fails if a stream brings a record that the client was told to be out of reach.
func (s *session) suspect(l router.LinkID, stream uint64, offset int64) {
	h := s.held(l, stream)
	if h == nil {
		return
	}
	for _, g := range h.gaps {
		if offset >= g[0] && offset < g[1] {
			s.r.w.fail(s.client.id, "%s: record %d comes on link %d, and the client was told of a gap from %d to %d",
				s.r.name, offset, l, g[0], g[1])
		}
	}
}
