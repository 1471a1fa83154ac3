package partition

import (
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
	told    int64 // the position last told in a checkpoint
}

func (c *scan) reset() {
	c.active, c.members, c.wanting = false, nil, nil
	c.stale = c.waiting
	c.retryAt, c.retries = time.Time{}, 0
}

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
}

func (l *Loop) join(s *stream) {
	s.inPass, s.passBytes = true, 0
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
	if !c.active && !l.beginPass(now) {
		return
	}
	c.members = slices.DeleteFunc(c.members, func(s *stream) bool { return s.gone || !s.inPass })
	if len(c.members) == 0 {
		c.active = false
		if len(c.wanting) == 0 || !l.beginPass(now) {
			return
		}
	}
	if c.pos >= l.ring.low {
		l.endPass(now)
		return
	}
	c.waiting = true
	l.out.Scan(c.pos, l.cfg.ScanBytes)
}

// beginPass starts at the lowest cursor that may start a pass; whoever is above it comes along.
func (l *Loop) beginPass(now time.Time) bool {
	c := &l.scan
	if len(c.wanting) == 0 {
		return false
	}
	c.wanting = slices.DeleteFunc(c.wanting, func(s *stream) bool {
		if s.gone || s.state != behind || s.credit <= 0 || !l.out.Room(s.link.id) {
			s.wanting = false // credit, room or nothing brings it back
			return true
		}
		return false
	})
	from, found := int64(0), false
	for _, s := range c.wanting {
		if !now.Before(s.passAfter) && (!found || s.next < from) {
			from, found = s.next, true
		}
	}
	if !found {
		return false
	}
	c.active, c.pos, c.members = true, from, c.members[:0]
	c.wanting = slices.DeleteFunc(c.wanting, func(s *stream) bool {
		if s.next < from {
			return false
		}
		s.wanting = false
		l.join(s)
		return true
	})
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
	if stale := c.stale; stale || l.phase != reading || !c.active || b.From > c.pos {
		c.stale = false
		l.advanceScan(now)
		return
	}
	c.bytes += uint64(b.Bytes)
	for i := range b.Records {
		if rec := &b.Records[i]; rec.HasKey && rec.Offset >= c.pos {
			l.replay(now, rec)
		}
	}
	if b.Next <= c.pos {
		// Nothing was learned: the broker has nothing there yet (a lagging leader). Ask again later.
		c.retryAt = now.Add(retryFirst)
		return
	}
	c.pos = b.Next
	for _, s := range c.members {
		if s.inPass && !s.gone {
			s.next = max(s.next, c.pos)
		}
	}
	l.advanceScan(now)
}

// replay sends one scanned record to the streams of the pass that want it.
func (l *Loop) replay(now time.Time, rec *source.Record) {
	k, ok := l.keys[string(rec.Key)]
	if !ok {
		return
	}
	big := l.big(rec)
	l.fill(rec)
	cost := l.frame.Cost()
	for _, g := range k.groups {
		if len(g.behind) == 0 {
			continue
		}
		room := l.out.Room(g.link.id)
		l.ids = l.ids[:0]
		for _, s := range g.behind {
			if !s.inPass || rec.Offset < s.next {
				continue
			}
			if big {
				l.pass(s, rec.Offset)
				continue
			}
			if !room || s.credit <= 0 {
				s.next = rec.Offset
				l.leave(now, s)
				if room && s.credit > 0 {
					l.wantScan(now, s)
				}
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
