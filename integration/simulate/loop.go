package simulate

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	node "github.com/pointsmanhq/pointsman/wsnode/simulated"
)

// loop is the shell of one partition loop, as the node's runner is: it carries out what the core asks.
type loop struct {
	n        *nodeProc
	id       int32
	core     *node.Loop
	topicID  [16]byte // whose offsets the core works with
	links    []*nodeLink
	reader   *reader
	reads    int
	findings int
	scans    int
	assigned bool
	head     int64
	nextTick time.Time
	ticking  bool
	retired  bool
}

func (n *nodeProc) loop(p int32, create bool) *loop {
	if lp := n.loops[p]; lp != nil || !create {
		return lp
	}
	w := n.w
	lp := &loop{n: n, id: p, topicID: n.topicID}
	lp.core = node.NewLoop(node.LoopConfig{
		Partition: p, Ring: n.ring, ReplayLimit: w.set.replayLimit, ScanBytes: w.set.scanBytes,
		Linger: time.Duration(w.set.linger),
	}, lp)
	n.loops[p] = lp
	return lp
}

// visit lets the core handle something, and does what the runner does after it.
func (lp *loop) visit(fn func(now time.Time)) {
	if lp.retired {
		return
	}
	now := lp.n.w.time()
	fn(now)
	if !now.Before(lp.nextTick) {
		lp.nextTick = lp.core.Tick(now)
	} else if most := now.Add(100 * time.Millisecond); len(lp.links) > 0 && lp.nextTick.After(most) {
		lp.nextTick = most
	}
	if lp.core.Idle(now) {
		lp.core.Close()
		lp.retired = true
		lp.n.loops[lp.id] = nil
		return
	}
	if !lp.ticking {
		lp.ticking = true
		lp.n.proc.after(max(0, int64(lp.nextTick.Sub(now))), func() {
			lp.ticking = false
			lp.visit(func(time.Time) {})
		})
	}
}

func (lp *loop) part() *part { return lp.n.w.kafka.topics[lp.topicID].parts[lp.id] }

func (lp *loop) attach(l *nodeLink, f *link.Attach) {
	if f.TopicID != ([16]byte{}) && f.TopicID != lp.topicID {
		lp.visit(func(time.Time) { l.closed(link.Closed{Stream: f.Stream, Reason: link.ClosedTopic}) })
		return
	}
	if !slices.Contains(lp.links, l) {
		lp.links = append(lp.links, l)
	}
	lp.visit(func(now time.Time) { lp.core.Attach(now, l.id, f) })
}

func (lp *loop) gone(l *nodeLink) {
	lp.visit(func(now time.Time) { lp.core.LinkGone(now, l.id) })
	lp.links = slices.DeleteFunc(lp.links, func(o *nodeLink) bool { return o == l })
}

// topicChanged moves the loop to the topic's next life.
func (lp *loop) topicChanged(id [16]byte) {
	lp.findings++ // an answer under way is about the old topic
	lp.visit(func(now time.Time) {
		old := lp.topicID
		lp.core.TopicChanged(now)
		lp.topicID = id
		if lp.n.w.trace != nil {
			lp.n.w.note(anyone, lp.id, "%s p%d topic changed from %x", lp.n.name, lp.id, old[:8])
		}
	})
}

func (lp *loop) link(id node.LinkID) *nodeLink {
	for _, l := range lp.links {
		if l.id == id {
			return l
		}
	}
	return nil
}

// Output of the core.

func (lp *loop) Attached(id node.LinkID, f link.Attached) {
	if l := lp.link(id); l != nil {
		l.attached(lp, f)
	}
}

func (lp *loop) Record(id node.LinkID, f *link.Record) {
	if l := lp.link(id); l != nil {
		l.record(lp, f)
	}
}

func (lp *loop) Checkpoint(id node.LinkID, f *link.Checkpoint) {
	if l := lp.link(id); l != nil {
		l.checkpoint(lp, f)
	}
}

func (lp *loop) Gap(id node.LinkID, f link.Gap) {
	if l := lp.link(id); l != nil {
		l.gap(lp, f)
	}
}

func (lp *loop) Closed(id node.LinkID, f link.Closed) {
	if l := lp.link(id); l != nil {
		l.closed(f)
	}
}

func (lp *loop) Room(id node.LinkID) bool {
	l := lp.link(id)
	return l != nil && l.room(lp.id)
}

// ask puts a question to Kafka about the loop's topic. answer gets nil when there is no answer.
func (lp *loop) ask(answer func(p *part)) {
	w, id := lp.n.w, lp.topicID
	w.after(w.delay(), func() {
		p := w.kafka.alive(id, lp.id)
		if lp.n.kafkaCut {
			p = nil
		}
		answer(p)
	})
}

// tell hands an answer back to the loop.
func (lp *loop) tell(fn func(now time.Time)) {
	lp.n.proc.after(lp.n.w.delay(), func() { lp.visit(fn) })
}

func (lp *loop) FindBounds() {
	lp.findings++
	number := lp.findings
	lp.ask(func(p *part) {
		if p == nil || p.lag > 0 && lp.n.w.chance(0.5) { // a new leader may not know the end yet
			lp.tell(func(now time.Time) {
				if number == lp.findings {
					lp.core.BoundsFailed(now)
				}
			})
			return
		}
		b := p.bounds()
		lp.tell(func(now time.Time) {
			if number == lp.findings {
				lp.core.Bounds(now, b)
			}
		})
	})
}

func (lp *loop) FindTime(request uint64, t int64) {
	id := lp.topicID
	lp.ask(func(p *part) {
		// A leader that does not know the end yet says so instead of "nothing is that new".
		if p == nil || p.lag > 0 {
			if !lp.retired && lp.topicID == id {
				lp.n.proc.after(100*ms, func() { lp.FindTime(request, t) })
			}
			return
		}
		offset, ok := p.offsetAt(t)
		w := lp.n.w
		w.after(w.rare(0, 300*ms), func() { // an index that is not in memory takes its time
			lp.tell(func(now time.Time) {
				if lp.topicID == id {
					lp.core.TimeFound(now, request, offset, ok)
				}
			})
		})
	})
}

func (lp *loop) Scan(from int64, maxBytes int32) {
	lp.n.w.stats.Scans++
	lp.scans++
	if lp.n.w.trace != nil {
		lp.n.w.note(anyone, lp.id, "%s p%d scans from %d", lp.n.name, lp.id, from)
	}
	if lp.scans > 1 {
		lp.n.w.fail(anyone, "%s p%d: two scans under way", lp.n.name, lp.id)
	}
	lp.ask(func(p *part) {
		w := lp.n.w
		done := func(fn func(now time.Time)) {
			lp.tell(func(now time.Time) {
				lp.scans--
				fn(now)
			})
		}
		switch {
		case p == nil || w.chance(0.02):
			done(lp.core.ScanFailed)
		case from < p.start || from > p.high():
			b := p.bounds()
			done(func(now time.Time) { lp.core.ScanOutOfRange(now, b) })
		default:
			n := 16 + int(maxBytes)/(w.set.valueMost+20)
			b := p.fetch(from, n/2+w.rng.IntN(n))
			done(func(now time.Time) { lp.core.Scanned(now, b) })
		}
	})
}

func (lp *loop) Read(from int64) {
	lp.Stop()
	lp.reads++
	lp.reader = &reader{lp: lp, number: lp.reads, id: lp.topicID, pos: from}
	lp.reader.fetchAfter(lp.n.w.delay())
}

func (lp *loop) Stop() {
	if lp.reader != nil {
		lp.reader.stopped = true
		lp.reader = nil
	}
}

func (lp *loop) Readable() { lp.n.claims.Readable(lp.n.w.time(), lp.id) }

func (lp *loop) Head(next int64) {
	lp.head = next
	if lp.assigned {
		lp.n.marks[lp.id] = next
	}
}

// reader is a live reader of one partition: it fetches, hands the batch over, and fetches again.
type reader struct {
	lp      *loop
	number  int
	id      [16]byte
	pos     int64
	stopped bool
	heard   bool // the loop knows the bounds
	fetches bool // a fetch is due
}

func (r *reader) fetchAfter(d int64) {
	if r.stopped || r.fetches {
		return
	}
	r.fetches = true
	w := r.lp.n.w
	w.after(d, func() {
		r.fetches = false
		if !r.stopped && !r.lp.n.proc.dead {
			r.fetch()
		}
	})
}

func (r *reader) fetch() {
	w, lp := r.lp.n.w, r.lp
	p := w.kafka.alive(r.id, lp.id)
	if p == nil || lp.n.kafkaCut {
		if !w.kafka.deleted && w.kafka.topic.id != r.id {
			return // ends: the topic's identity is checked and will say so
		}
		r.fetchAfter(w.between(50*ms, 400*ms))
		return
	}
	if r.pos < p.start || r.pos > p.high() && w.chance(0.5) {
		b := p.bounds()
		r.stopped = true
		r.hand(func(now time.Time) { lp.core.OutOfRange(now, b) })
		return
	}
	switch {
	// A reader's position is the source's business, and a source may get it wrong when it moves to another
	// connection or leader: whoever admits its batches has to look.
	case w.faults.sourceJumps && w.chance(0.02):
		r.pos, r.heard = w.between(p.start, max(p.start, p.lso())), false
	}
	b := p.fetch(r.pos, 1+w.rng.IntN(20))
	if b.Next == b.From && r.heard {
		p.waiting = append(p.waiting, r)
		return
	}
	r.heard, r.pos = true, b.Next
	r.hand(func(now time.Time) { lp.core.Batch(now, b) })
}

// hand gives the loop something, and goes on when the loop has taken it.
func (r *reader) hand(fn func(now time.Time)) {
	lp := r.lp
	lp.n.proc.after(lp.n.w.delay(), func() {
		if lp.reader == r {
			lp.visit(fn)
			r.fetchAfter(lp.n.w.delay() / 2)
		}
	})
}
