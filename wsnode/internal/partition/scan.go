package partition

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// A stream that gets little out of a pass (it trickles credit) waits before it may start another one, longer
// each time, so that it cannot make the node read the log over and over.
const (
	passWorth     = 4 << 10 // bytes that make a pass worth its while
	passDelayLow  = 50 * time.Millisecond
	passDelayHigh = 5 * time.Second
	// passHold is how long a full link may hold up a pass that others are in, too.
	passHold = 50 * time.Millisecond
	// A pass over longPass offsets and more waits for company until nobody has come for a while, so that clients that
	// come back together share it.
	longPass    = 4096
	company     = 100 * time.Millisecond
	companyMost = time.Second
	// turnBack is which part of its way a pass may read again for those that came late.
	turnBack = 8
	// The last answer is kept for streams that run out of credit within it, for a while after its last use. A batch of
	// Kafka's comes whole, however little was asked for, and is a megabyte at most by default.
	keepFor  = 2 * passDelayHigh
	keepMost = 2 << 20
)

// scan is the catch-up read that all streams share which the ring does not reach back to. It goes forward
// only within a pass; a stream that runs out of credit drops out until the next pass.
type scan struct {
	active  bool
	waiting bool // a Scan was asked for and not answered
	stale   bool // its answer is of no use
	pos     int64
	members []*stream
	wanting []*stream // wait for the next pass
	retryAt time.Time
	retries int
	bytes   uint64
	reads   uint64 // answers
	told    int64  // the position last told in a checkpoint
	again   int64  // offsets that the pass went back so far

	firstCame, lastCame time.Time // of the newcomers that wait for a pass

	// The last answer: a stream that used its credit up in the middle of it goes on in memory.
	kept               []source.Record
	keptFrom, keptNext int64
	keptAt             time.Time

	// What of the last answer waits for a link to have room again. Reading on without its streams would mean
	// reading the same again for them.
	rest      []source.Record
	restNext  int64 // where the answer ends
	heldBy    *attachment
	holdUntil time.Time
}

func (c *scan) reset() {
	c.active, c.members, c.wanting = false, nil, nil
	c.rest, c.heldBy = nil, nil
	c.stale = c.waiting
	c.retryAt, c.retries = time.Time{}, 0
	c.firstCame, c.lastCame = time.Time{}, time.Time{}
	c.forget()
}

// forget lets go of the last answer.
func (c *scan) forget() { c.kept, c.keptFrom, c.keptNext = nil, 0, 0 }

// wantScan puts a stream into the pass if that has not gone past it, else in line for the next one.
func (l *Loop) wantScan(now time.Time, s *stream) {
	if s.inPass || s.wanting {
		return
	}
	if limit := l.cfg.ReplayLimit; limit > 0 && l.head-s.next > limit {
		l.skip(s, l.head-limit, link.GapReplayLimit)
		if s.next >= l.ring.low {
			l.serve(now, s)
			return
		}
	}
	if l.scan.active && s.next >= l.scan.pos {
		l.join(s)
		return
	}
	s.wanting = true
	l.scan.wanting = append(l.scan.wanting, s)
	if !s.passed {
		if l.scan.firstCame.IsZero() {
			l.scan.firstCame = now
		}
		l.scan.lastCame = now
	}
}

func (l *Loop) join(s *stream) {
	s.inPass, s.passed, s.passBytes = true, true, 0
	l.scan.members = append(l.scan.members, s)
}

// leave takes a stream that cannot be sent more out of the pass.
func (l *Loop) leave(now time.Time, s *stream) {
	s.inPass = false
	s.hint = none
	if s.credit > 0 || s.passBytes >= passWorth {
		s.passDelay = 0 // the link was full, or the pass was worth it
	} else {
		s.passDelay = min(max(2*s.passDelay, passDelayLow), passDelayHigh)
	}
	s.passAfter = now.Add(s.passDelay)
}

// skip tells a stream that what lies below to is out of reach.
func (l *Loop) skip(s *stream, to int64, reason link.GapReason) {
	l.out.Gap(s.link.id, link.Gap{Stream: s.id, From: s.next, To: to, Reason: reason})
	s.next, s.hint = to, none
}

// advanceScan begins a pass if streams wait for one, and asks for its next batch.
func (l *Loop) advanceScan(now time.Time) {
	c := &l.scan
	if l.phase != reading || c.waiting || now.Before(c.retryAt) {
		return
	}
	for {
		if c.rest != nil && !l.feed(now) {
			return
		}
		if !c.active && !l.beginPass(now) {
			if len(c.kept) > 0 && now.Sub(c.keptAt) > keepFor {
				c.forget()
			}
			return
		}
		c.members = slices.DeleteFunc(c.members, func(s *stream) bool { return s.gone || !s.inPass })
		if len(c.members) == 0 {
			c.active = false
			continue
		}
		// What lies below everybody who is left need not be read.
		c.pos = max(c.pos, slices.MinFunc(c.members, func(a, b *stream) int { return cmp.Compare(a.next, b.next) }).next)
		if c.pos >= c.keptFrom && c.pos < c.keptNext {
			i, _ := slices.BinarySearchFunc(c.kept, c.pos, func(r source.Record, o int64) int { return cmp.Compare(r.Offset, o) })
			c.rest, c.restNext, c.keptAt = c.kept[i:], c.keptNext, now
			continue
		}
		if l.goBack(now) {
			continue
		}
		if c.pos >= l.ring.low {
			l.endPass(now)
			return
		}
		c.waiting = true
		l.out.Scan(c.pos, l.cfg.ScanBytes)
		return
	}
}

// beginPass starts at the lowest cursor that may start a pass; whoever is above it comes along.
func (l *Loop) beginPass(now time.Time) bool {
	c := &l.scan
	l.takeAlong(math.MaxInt64) // nobody; who cannot come is forgotten
	from, found := int64(0), false
	for _, s := range c.wanting {
		if !now.Before(s.passAfter) && (!found || s.next < from) {
			from, found = s.next, true
		}
	}
	if !found || l.ring.low-from >= longPass && now.Before(c.lastCame.Add(company)) && now.Before(c.firstCame.Add(companyMost)) {
		return false
	}
	c.active, c.pos, c.members, c.again = true, from, c.members[:0], 0
	c.firstCame, c.lastCame = time.Time{}, time.Time{}
	l.takeAlong(from)
	return true
}

// takeAlong lets those join the pass who wait at or above a position.
func (l *Loop) takeAlong(from int64) {
	c := &l.scan
	c.wanting = slices.DeleteFunc(c.wanting, func(s *stream) bool {
		switch {
		case s.gone || s.state != behind || s.credit <= 0:
			s.wanting = false // credit or nothing brings it back
		case s.next < from:
			return false
		default:
			s.wanting = false
			l.join(s)
		}
		return true
	})
}

// goBack takes the pass back to streams that came after it had gone by, if that is cheap: another pass for them would
// read everything from there to the end. It is bounded over the whole pass, so that who comes late again and again
// does not keep it from getting on.
func (l *Loop) goBack(now time.Time) bool {
	c := &l.scan
	if len(c.wanting) == 0 {
		return false
	}
	// From the lowest position x with again+pos-x <= (ring.low-x)/turnBack on.
	floor := (turnBack*(c.again+c.pos) - l.ring.low) / (turnBack - 1)
	to := c.pos
	for _, s := range c.wanting {
		if s.next < to && s.next > floor && s.state == behind && s.credit > 0 && !s.gone && !now.Before(s.passAfter) {
			to = s.next
		}
	}
	if to == c.pos {
		return false
	}
	c.again += c.pos - to
	c.pos = to
	l.takeAlong(to)
	return true
}

// endPass moves the streams of the pass over to the ring, which reaches back to where the scan is.
func (l *Loop) endPass(now time.Time) {
	c := &l.scan
	c.active = false
	members := c.members
	c.members = nil
	for _, s := range members {
		if s.gone || !s.inPass {
			continue
		}
		s.inPass = false
		s.passDelay = 0
		s.next, s.hint = max(s.next, c.pos), none
		if s.next >= l.head {
			l.toLive(s)
		} else {
			l.serve(now, s)
		}
	}
	if len(c.wanting) > 0 {
		l.advanceScan(now)
	}
}

// Scanned answers Scan.
func (l *Loop) Scanned(now time.Time, b *source.Batch) {
	c := &l.scan
	c.waiting = false
	c.retryAt, c.retries = time.Time{}, 0
	c.bytes += uint64(b.Bytes)
	c.reads++
	if stale := c.stale; stale || l.phase != reading || !c.active || b.From > c.pos {
		c.stale = false
		l.advanceScan(now)
		return
	}
	if b.Next <= c.pos {
		// Nothing was learned: the broker has nothing there yet (a lagging leader). Ask again later.
		c.retryAt = now.Add(retryFirst)
		return
	}
	c.kept, c.keptFrom, c.keptNext, c.keptAt = b.Records, b.From, b.Next, now
	if c.kept == nil {
		c.kept = []source.Record{}
	}
	l.advanceScan(now)
	if b.Bytes > keepMost {
		c.forget()
	}
}

// feed hands what was scanned to the streams of the pass, as far as their links take it, and reports whether that
// was all.
func (l *Loop) feed(now time.Time) bool {
	c := &l.scan
	for i := range c.rest {
		rec := &c.rest[i]
		if !rec.HasKey || rec.Offset < c.pos {
			continue
		}
		if l.holds(now, rec) {
			c.rest = c.rest[i:]
			l.passed(rec.Offset)
			return false
		}
		l.replay(now, rec)
	}
	c.rest, c.heldBy = nil, nil
	l.passed(c.restNext)
	return true
}

// passed moves the pass forward: everything below to was sent to whoever is in it.
func (l *Loop) passed(to int64) {
	c := &l.scan
	c.pos = max(c.pos, to)
	for _, s := range c.members {
		if s.inPass && !s.gone {
			s.next = max(s.next, c.pos)
		}
	}
}

// holds reports whether the pass has to wait before a record, because a link that wants it has no room. If that
// takes too long and others could go on, the link's streams leave the pass.
func (l *Loop) holds(now time.Time, rec *source.Record) bool {
	k, ok := l.keys[string(rec.Key)]
	if !ok {
		return false
	}
	c := &l.scan
	for _, g := range k.groups {
		if !g.awaits(rec.Offset) || l.out.Room(g.link.id) {
			continue
		}
		if c.heldBy != g.link {
			c.heldBy, c.holdUntil = g.link, now.Add(passHold)
		}
		if now.Before(c.holdUntil) || !l.othersWait(g.link) {
			return true
		}
		for _, s := range g.link.behind {
			if s.inPass {
				s.next = max(s.next, rec.Offset)
				l.leave(now, s)
			}
		}
	}
	c.heldBy = nil
	return false
}

// awaits reports whether the pass may send the record at offset to one of the group's streams.
func (g *group) awaits(offset int64) bool {
	for _, s := range g.behind {
		if s.inPass && s.credit > 0 && s.next <= offset {
			return true
		}
	}
	return false
}

// othersWait reports whether streams of other links, with room, are in the pass or wait for the next one.
func (l *Loop) othersWait(not *attachment) bool {
	for _, at := range l.links {
		if at != not && slices.ContainsFunc(at.behind, func(s *stream) bool { return s.inPass || s.wanting }) && l.out.Room(at.id) {
			return true
		}
	}
	return false
}

// replay sends one scanned record to the streams of the pass that want it. Their links had room when they were asked
// (see holds); another partition may have filled one since, and then it takes this record all the same.
func (l *Loop) replay(now time.Time, rec *source.Record) {
	k, ok := l.keys[string(rec.Key)]
	if !ok {
		return
	}
	big := l.big(rec)
	l.fill(rec)
	cost := l.frame.Cost()
	for _, g := range k.groups {
		l.ids = l.ids[:0]
		for _, s := range g.behind {
			if !s.inPass || rec.Offset < s.next {
				continue
			}
			if big {
				l.pass(s, rec.Offset)
				continue
			}
			if s.credit <= 0 {
				s.next = rec.Offset
				l.leave(now, s)
				continue
			}
			s.credit -= cost
			s.next = rec.Offset + 1
			s.passBytes += cost
			l.ids = append(l.ids, s.id)
		}
		if len(l.ids) > 0 {
			l.frame.Streams = l.ids
			l.out.Record(g.link.id, &l.frame)
			l.sent += uint64(len(l.ids))
		}
	}
}

// ScanFailed answers Scan; it is asked again after a while.
func (l *Loop) ScanFailed(now time.Time) {
	c := &l.scan
	c.waiting, c.stale = false, false
	c.retryAt = now.Add(min(retryFirst<<min(c.retries, 10), retryMost))
	c.retries++
}

// ScanOutOfRange answers Scan: the offset lies outside the log, which has these bounds.
func (l *Loop) ScanOutOfRange(now time.Time, b source.Bounds) {
	c := &l.scan
	c.waiting = false
	if c.stale || l.phase != reading || !c.active {
		c.stale = false
		l.advanceScan(now)
		return
	}
	if b.Start <= c.pos {
		// The log ends below the scan: the live reader decides whether it was truncated.
		c.retryAt = now.Add(recheckAfter)
		return
	}
	l.bounds.Start = max(l.bounds.Start, b.Start)
	for _, at := range l.links {
		for _, s := range slices.Clone(at.behind) {
			if s.next < b.Start && s.next < l.ring.low { // what the ring still has is not lost
				l.skip(s, min(b.Start, l.ring.low), link.GapRetention)
			}
		}
	}
	c.pos = min(b.Start, l.ring.low)
	l.advanceScan(now)
}
