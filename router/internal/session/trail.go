package session

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// eager is how long after a stage began the shell is asked to poll whether the stage is over: at first that is
// likely to be so in a moment, and later a Tick is soon enough.
const eager = 3 * time.Second

// trail is a key's way from partition to partition. Stage after stage is delivered: nothing of the next partition
// before the one at hand has reached the stage's end. A partition that was left is read on for what producers write
// there who have not heard of the move, until it is known to be closed and everything below that was delivered.
type trail struct {
	f       *Feed
	out     Output // the session's
	path    []Stage
	lanes   []*lane // in order of their stages; never none, for the stage that was reached last has one
	done    []int32
	cur     int // the stage at hand
	reached int // the latest one that was begun
	greeted bool
	pending bool // the shell polls
	began   time.Time
	beatAt  time.Time
}

// lane is a Core of one partition and what it tells its shell.
type lane struct {
	t        *trail
	core     Core
	held     bool // its turn is over and will come again: it has no stream
	greeted  bool // it said hello
	complete bool
	gaps     []Gap // before the client was greeted
}

// begin sets out on the path of a client that was not greeted yet.
func (f *Feed) begin(o Open) {
	t := f.start(o.Path)
	t.reached, t.done, t.beatAt = o.Plan.Reached, o.Plan.Done, o.Since
	for _, p := range o.Plan.Lanes {
		each := o
		each.Partition, each.Start = p.Partition, p.Start
		c := newCore(f.core.cfg, nil, f.core.ledger, &each)
		c.shut = len(o.Plan.Lanes) > 1
		t.add(c)
	}
}

// lead turns the only Core into a trail's.
func (f *Feed) lead(path []Stage) {
	t := f.start(path)
	t.greeted, t.pending, t.beatAt = f.core.greeted, f.core.pending, f.core.heardAt
	ln := t.add(f.core)
	ln.greeted = t.greeted
	t.reached = max(0, reached(path, []Position{{ln.core.partition, 0}}))
}

// settleOn goes on at positions of a topic that is back.
func (f *Feed) settleOn(now time.Time, topicID [16]byte, path []Stage, partition int32, at []Position) {
	if f.trail != nil {
		f.collapse()
	}
	c := &f.core
	c.drop(&c.primary)
	c.drop(&c.secondary)
	c.topicID, c.owed, c.told, c.target, c.reattachAt = topicID, link.GapNone, nil, 0, time.Time{}
	path, plan, ok := resume(path, partition, at)
	switch {
	case !ok:
		c.partition, c.start, c.owed = partition, link.Start{Kind: link.StartEarliest}, link.GapMoved
		c.told = &told{topicID: topicID, partition: at[0].Partition, at: at}
	case plan.Simple(path):
		c.partition, c.next = plan.Lanes[0].Partition, plan.Lanes[0].Start.Value
	default:
		model := *c
		model.pending = false
		t := f.start(path)
		t.greeted, t.pending, t.reached, t.done = true, c.pending, plan.Reached, plan.Done
		t.beatAt = c.heardAt // what the client heard last counts on: the topic's return told it nothing
		for _, p := range plan.Lanes {
			model.partition, model.next = p.Partition, p.Start.Value
			t.add(model).greeted = true
		}
		f.follow(now)
		return
	}
	c.settle()
}

func (f *Feed) start(path []Stage) *trail {
	f.trail = &trail{f: f, out: f.core.out, path: path}
	return f.trail
}

// collapse makes the oldest Core the only one again; the others end.
func (f *Feed) collapse() {
	t := f.trail
	for _, ln := range t.lanes[1:] {
		ln.core.Close()
	}
	for _, ln := range t.lanes {
		t.out.Leave(ln.core.partition)
	}
	f.alone(t.lanes[0])
}

// alone ends the trail: what is left is one Core.
func (f *Feed) alone(ln *lane) {
	t := f.trail
	heard := t.heard()
	f.core, f.trail = ln.core, nil
	f.core.out, f.core.heardAt = t.out, heard
	f.core.shut = false
	f.count(1)
	if f.core.pending != t.pending {
		t.out.Handover(f.core.pending)
	}
}

// add gives the trail one more Core, which asks nothing of anybody yet.
func (t *trail) add(c Core) *lane {
	ln := &lane{t: t, core: c}
	ln.core.out = ln
	t.lanes = append(t.lanes, ln)
	t.f.count(len(t.lanes))
	t.out.Follow(c.partition)
	return ln
}

func (t *trail) find(l LinkID, stream uint64) *Core {
	for _, ln := range t.lanes {
		if ln.core.find(l, stream) != nil {
			return &ln.core
		}
	}
	return nil
}

func (t *trail) lane(partition int32) *lane {
	for _, ln := range t.lanes {
		if ln.core.partition == partition {
			return ln
		}
	}
	return nil
}

// at is the Core whose turn it is.
func (t *trail) at() *Core {
	if ln := t.lane(t.path[t.cur].Partition); ln != nil {
		return &ln.core
	}
	return &t.lanes[0].core
}

func (t *trail) route(now time.Time, to Routes) {
	if t.beatAt.IsZero() {
		t.beatAt = now // the first heartbeat counts from here
	}
	for _, ln := range t.lanes {
		if target := to.Route(ln.core.partition); !ln.held {
			ln.core.Route(now, target)
		}
	}
}

func (t *trail) regrant() {
	for _, ln := range t.lanes {
		ln.core.regrant()
	}
}

func (t *trail) join() {
	for _, ln := range t.lanes {
		ln.core.join()
	}
}

// placed reports whether the cursor is one.
func (t *trail) placed() bool {
	return t.greeted && !slices.ContainsFunc(t.lanes, func(ln *lane) bool { return !ln.core.placed() })
}

func (t *trail) positions(dst []Position) []Position {
	if !t.placed() {
		return dst
	}
	for _, ln := range t.lanes {
		dst = append(dst, Position{ln.core.partition, ln.core.next})
	}
	for _, p := range t.done {
		dst = append(dst, Position{p, Done})
	}
	return dst
}

func (t *trail) heard() time.Time {
	at := t.beatAt
	if !t.greeted {
		return at // what a Core says is kept back
	}
	for _, ln := range t.lanes {
		if ln.core.heardAt.After(at) {
			at = ln.core.heardAt
		}
	}
	return at
}

// reaches reports whether a Core has come to the end of the stage at hand.
func (t *trail) reaches(c *Core) bool {
	s := &t.path[t.cur]
	return t.greeted && c.partition == s.Partition && c.next >= s.Until
}

// follow goes from stage to stage as far as everything is delivered, and drops what is over. It must not be called
// from within a Core's own event.
func (f *Feed) follow(now time.Time) {
	t := f.trail
	if !t.placed() {
		t.settle(now)
		return
	}
	if t.began.IsZero() {
		t.began = now
	}
	t.join()
	for t.cur < len(t.path)-1 {
		s := &t.path[t.cur]
		if ln := t.lane(s.Partition); ln != nil && ln.core.next < s.Until {
			break
		}
		t.cur++
		t.began = now
		if t.cur > t.reached {
			t.reached = t.cur
			t.open(now, &t.path[t.cur])
		}
	}
	t.turns(now)
	t.prune()
	if len(t.lanes) == 1 && len(t.done) == 0 && t.cur == len(t.path)-1 {
		f.alone(t.lanes[0])
		f.core.regrant()
		return
	}
	t.settle(now)
}

// open begins a stage.
func (t *trail) open(now time.Time, s *Stage) {
	t.done = slices.DeleteFunc(t.done, func(p int32) bool { return p == s.Partition })
	if t.lane(s.Partition) != nil {
		return // it has been read on
	}
	model := &t.lanes[0].core
	ln := t.add(Core{
		cfg: model.cfg, key: model.key, topicID: model.topicID, partition: s.Partition, greeted: true, next: s.From,
		ledger: model.ledger, heardAt: model.heardAt,
	})
	ln.greeted = true
	ln.core.Route(now, t.out.Follow(s.Partition))
}

// turns lets a partition wait whose turn comes again while another one is at hand.
func (t *trail) turns(now time.Time) {
	at := t.path[t.cur].Partition
	for _, ln := range t.lanes {
		p := ln.core.partition
		held := false
		for j := t.cur + 1; j < len(t.path) && p != at; j++ {
			held = held || t.path[j].Partition == p
		}
		switch {
		case held && !ln.held:
			ln.held = true
			ln.core.Close()
		case !held && ln.held:
			ln.held = false
			ln.core.Route(now, t.out.Follow(p))
		}
	}
}

// prune drops the partitions that are over.
func (t *trail) prune() {
	over := func(ln *lane) bool { return finished(t.path, Position{ln.core.partition, ln.core.next}, t.cur) }
	if !slices.ContainsFunc(t.lanes, over) {
		return
	}
	var ended []*lane
	lanes := make([]*lane, 0, len(t.lanes))
	for _, ln := range t.lanes {
		if over(ln) {
			ended = append(ended, ln)
		} else {
			lanes = append(lanes, ln)
		}
	}
	t.lanes = lanes
	for _, ln := range ended {
		p := ln.core.partition
		ln.core.Close()
		t.out.Leave(p)
		if between(t.path, p, t.reached) {
			t.done = append(t.done, p)
		}
	}
	t.f.count(len(t.lanes))
	t.regrant()
}

// settle keeps the shell's polling in step.
func (t *trail) settle(now time.Time) {
	pending := t.greeted && t.cur < len(t.path)-1 && now.Sub(t.began) < eager
	for _, ln := range t.lanes {
		pending = pending || ln.core.pending
	}
	if pending != t.pending {
		t.pending = pending
		t.out.Handover(pending)
	}
}

// beat sends the heartbeat when it is due.
func (t *trail) beat(now time.Time) {
	f := t.f
	first := t.at()
	if now.Sub(t.heard()) < first.cfg.Heartbeat*4/5 || f.core.ledger.queued > 0 {
		return
	}
	t.beatAt = now
	if !t.placed() || first.primary.link == 0 {
		t.out.Waiting()
		return
	}
	t.join()
	t.out.Checkpoint(first.partition, first.next)
}

// greet tells the client where it begins once that is known of every partition.
func (t *trail) greet(h Hello) {
	for _, ln := range t.lanes {
		if !ln.greeted {
			return
		}
		h.Resumed = h.Resumed && ln.complete
	}
	t.greeted = true
	t.out.Hello(h)
	for _, ln := range t.lanes {
		for _, g := range ln.gaps {
			t.out.Gap(g)
		}
		ln.gaps = nil
	}
	for _, ln := range t.lanes {
		ln.core.shut = false
	}
	t.regrant()
}

// A lane is its Core's Output.

func (ln *lane) Attach(l LinkID, a link.Attach) uint64 { return ln.t.out.Attach(l, a) }

func (ln *lane) Detach(l LinkID, stream uint64) { ln.t.out.Detach(l, stream) }

func (ln *lane) Credit(l LinkID, stream uint64, bytes int64) { ln.t.out.Credit(l, stream, bytes) }

func (ln *lane) Covered(l LinkID, stream uint64) (int64, bool) { return ln.t.out.Covered(l, stream) }

func (ln *lane) Hello(h Hello) {
	ln.greeted, ln.complete = true, h.Resumed
	ln.t.greet(h)
}

func (ln *lane) Record(r *link.Record) { ln.t.out.Record(r) }

// Checkpoint implements Output: a Core's own is that its wait is over.
func (ln *lane) Checkpoint(partition int32, next int64) {
	if ln.t.placed() {
		ln.t.out.Checkpoint(partition, next)
	}
}

func (ln *lane) Gap(g Gap) {
	if g.Reason == link.GapTruncated {
		// What the stage was to reach is not there any more.
		for i := range ln.t.path {
			if s := &ln.t.path[i]; s.Partition == g.Partition && i < len(ln.t.path)-1 {
				s.Until = min(s.Until, g.Next)
			}
		}
	}
	if !ln.t.greeted {
		ln.gaps = append(ln.gaps, g)
		return
	}
	ln.t.out.Gap(g)
}

func (ln *lane) Waiting() { ln.t.out.Waiting() }

// GoAway implements Output; the trail says goodbye itself.
func (ln *lane) GoAway(int32, int64, time.Duration) {}

// Handover implements Output; the trail asks for polling itself.
func (ln *lane) Handover(bool) {}

func (ln *lane) Follow(partition int32) LinkID { return ln.t.out.Follow(partition) }

func (ln *lane) Leave(partition int32) { ln.t.out.Leave(partition) }
