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
	if t == nil || len(m.at.list) == 0 {
		w.fail(c.id, "%s of a topic that never was, or of nowhere", m)
	}
	if c.mustGap && m.kind != saysGap {
		w.fail(c.id, "%s: hello said that the resume was incomplete, and no gap follows", m)
	}
	if m.kind == saysHello {
		c.checkHello(m, t)
		return
	}
	if c.waited {
		w.fail(c.id, "%s before hello", m)
	}
	if m.kind == saysGap && m.reason == link.GapTopic {
		if !c.mustGap && c.at.topicID == m.at.topicID {
			w.fail(c.id, "%s: the topic is what it was", m)
		}
		c.checkFirst(m, t)
		c.mustGap = false
		return
	}
	if m.at.topicID != c.at.topicID {
		w.fail(c.id, "%s of another topic without a gap", m)
	}
	if w.forgotten {
		// Where the key was before nobody can tell: what is listed from now on begins where it begins.
		for _, at := range m.at.list {
			if _, known := c.at.next(at.Partition); known || at.Next == router.Done {
				continue
			}
			if m.kind == saysRecord && at.Partition == m.partition {
				at.Next = m.record.Offset
			}
			c.base[at.Partition] = max(c.base[at.Partition], at.Next)
		}
	}
	switch m.kind {
	case saysRecord:
		c.checkRecord(m, t)
	case saysGap:
		if m.reason == link.GapMoved {
			if !w.forgotten {
				w.fail(c.id, "%s: nobody forgot how the topic grew", m)
			}
			c.owes(t, nil)
		} else if !c.mustGap {
			w.checkGap(c.id, t.parts[m.partition], c.key, c.base[m.partition], m.next, m.reason)
		}
		c.base[m.partition] = max(c.base[m.partition], m.next)
		c.mustGap = false
	}
	c.complete(m, t)
}

func (c *client) checkRecord(m message, t *topic) {
	w, p := c.w, t.parts[m.partition]
	if next, ok := m.at.next(m.partition); !ok || next != m.record.Offset+1 {
		w.fail(c.id, "%s: its cursor does not lie behind it", m)
	}
	if m.record.Offset < c.seen[m.partition] {
		w.fail(c.id, "%s again: everything below %d was delivered", m, c.seen[m.partition])
	}
	if !p.genuine(c.key, m.record.Offset, m.record.Value) {
		w.fail(c.id, "%s is not what the log holds for key %s", m, c.key)
	}
	if o := p.missing(c.key, c.base[m.partition], m.record.Offset); o >= 0 {
		w.fail(c.id, "%s: record %d was not delivered, the cursor was %v", m, o, c.at.list)
	}
	seq := p.entries[p.find(m.record.Offset)].seq
	if w.set.quiet && seq < c.seq && !t.returns(c.key) && !w.forgotten {
		w.fail(c.id, "%s: it was made before another one that was delivered, and its producer waited", m)
	}
	c.seq = max(c.seq, seq)
}

// complete fails if a record of the client's key that the cursor covers was not delivered, and notes what it covers.
func (c *client) complete(m message, t *topic) {
	w := c.w
	homes := t.homes(c.key)
	for _, at := range c.at.list {
		// What is not listed any more has nothing left.
		if _, ok := m.at.next(at.Partition); !ok && at.Next != router.Done && c.at.topicID == m.at.topicID {
			if o := t.parts[at.Partition].missing(c.key, c.base[at.Partition], t.parts[at.Partition].stable); o >= 0 {
				w.fail(c.id, "%s: partition %d is let go, and its record %d was not delivered", m, at.Partition, o)
			}
		}
	}
	for _, at := range m.at.list {
		if at.Next == router.Done {
			continue
		}
		if !slices.Contains(homes, at.Partition) {
			w.fail(c.id, "%s of partition %d, the key's are %v", m, at.Partition, homes)
		}
		p := t.parts[at.Partition]
		most := p.stable
		if before, ok := c.at.next(at.Partition); !ok || c.at.topicID != m.at.topicID {
			most = p.end // where a key moves to may lie in an open transaction
		} else if at.Next < before {
			w.fail(c.id, "%s: the cursor was %v", m, c.at.list)
		} else if before > most {
			most = before
		}
		if at.Next > most {
			w.fail(c.id, "%s: cursor %d of partition %d lies above the last stable offset %d", m, at.Next, at.Partition, p.stable)
		}
		from := c.base[at.Partition]
		if m.kind == saysRecord && at.Partition == m.partition {
			from = m.record.Offset + 1
		}
		if o := p.missing(c.key, from, at.Next); o >= 0 {
			w.fail(c.id, "%s: record %d of partition %d was not delivered, the cursor was %v", m, o, at.Partition, c.at.list)
		}
		c.base[at.Partition] = max(c.base[at.Partition], at.Next)
		c.seen[at.Partition] = max(c.seen[at.Partition], at.Next)
	}
}

// owed is from where on everything in a partition is due.
func (c *client) owed(partition int32) int64 { return c.base[partition] }

// owes forgets what was due. In partitions that the cursor does not list everything is that comes from now on, or,
// with all, everything there is.
func (c *client) owes(t *topic, all []router.Position) {
	if all != nil || c.base == nil || c.at.topicID != t.id {
		c.base, c.seen, c.seq = map[int32]int64{}, map[int32]int64{}, 0
	}
	if all == nil {
		for _, p := range t.parts {
			c.base[p.id] = max(c.base[p.id], p.stable)
		}
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
func (c *client) checkFirst(m message, t *topic) {
	c.owes(t, m.at.list)
	for _, at := range m.at.list {
		p := t.parts[at.Partition]
		if o := p.missing(c.key, c.w.outOfReach(p), at.Next); o >= 0 {
			c.w.fail(c.id, "%s: the topic's records begin with %d", m, o)
		}
		c.base[at.Partition] = at.Next
	}
	c.complete(m, t)
}

func (c *client) checkHello(m message, t *topic) {
	w := c.w
	if !c.waited {
		w.fail(c.id, "a second hello")
	}
	if !c.has {
		c.checkStart(m, t)
		return
	}
	if m.at.topicID != c.at.topicID {
		if m.resumed {
			w.fail(c.id, "hello: resumed, although the topic was recreated")
		}
		c.checkFirst(m, t)
		c.mustGap = true
		return
	}
	further, known := false, false
	for _, at := range m.at.list {
		before, ok := c.at.next(at.Partition)
		known = known || ok
		if !ok || at.Next <= before || at.Next == router.Done || m.resumed {
			continue // complete finds what is not as it should be
		}
		further = true
		// Until the hello one partition may have gone on over what is not the key's while another was asked for.
		p := t.parts[at.Partition]
		if o := p.missing(c.key, max(before, w.outOfReach(p)), at.Next); o >= 0 {
			w.fail(c.id, "%s: the cursor was %v, and record %d of partition %d is within reach", m, c.at.list, o, at.Partition)
		}
		c.base[at.Partition] = max(c.base[at.Partition], at.Next)
	}
	switch {
	case !m.resumed && !further && w.forgotten && !known:
		c.at, c.base = position{topicID: t.id}, nil
		c.owes(t, nil)
		for _, at := range m.at.list {
			c.base[at.Partition] = at.Next
		}
	case !m.resumed && !further && !c.began(t, m):
		w.fail(c.id, "%s without resumed, the cursor was %v", m, c.at.list)
	}
	c.mustGap = !m.resumed
	c.complete(m, t)
}

// began reports whether a resume began with a partition that the cursor did not list, and lacks what the log lacks.
func (c *client) began(t *topic, m message) bool {
	for _, at := range m.at.list {
		if _, ok := c.at.next(at.Partition); !ok && at.Next > 0 && at.Next <= c.w.outOfReach(t.parts[at.Partition]) {
			c.base[at.Partition] = max(c.base[at.Partition], at.Next)
			return true
		}
	}
	return false
}

// checkStart compares a first hello with what the client asked for.
func (c *client) checkStart(m message, t *topic) {
	c.at = position{}
	all := m.at.list
	if c.start.Kind != link.StartEarliest {
		all = nil
		c.base = nil
	}
	c.owes(t, all)
	for _, at := range m.at.list {
		if at.Next == router.Done {
			continue
		}
		p := t.parts[at.Partition]
		first := int64(-1)
		reach := c.w.outOfReach(p)
		switch v := c.start.Value; c.start.Kind {
		case link.StartEarliest:
			first = p.missing(c.key, reach, at.Next)
		case link.StartOffset:
			if at.Partition == m.at.list[len(m.at.list)-1].Partition {
				first = p.missing(c.key, max(v, reach), at.Next)
			}
		case link.StartTime:
			if first = p.since(c.key, v); first >= 0 && first < reach {
				first = p.missing(c.key, reach, at.Next)
			}
		}
		if first >= 0 && first < at.Next {
			c.w.fail(c.id, "%s: record %d should be delivered (start %d:%d)", m, first, c.start.Kind, c.start.Value)
		}
		c.base[at.Partition] = at.Next
	}
	c.complete(m, t)
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
	h := s.held(l, stream)
	if h == nil || !h.attached || s.r.lane(l) == nil || s.over {
		return
	}
	of := func(states []router.SessionStatus) router.SessionStatus {
		for _, st := range states {
			if st.Partition == h.part {
				return st
			}
		}
		return router.SessionStatus{}
	}
	st := of(s.core.Statuses(nil))
	if of(s.served).Primary != l || st.Primary == 0 || st.Primary == l {
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
	for i := range s.streams {
		if h := &s.streams[i]; h.attached && h.from <= g.From && h.part == g.Partition {
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
