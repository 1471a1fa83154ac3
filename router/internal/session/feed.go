package session

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// Routes says which up link should serve a partition; 0 means that no node lives.
type Routes interface{ Route(partition int32) LinkID }

// Feed is one client key of a session, in all the partitions where its records may be. Nearly always that is one,
// and a Feed is a Core and nothing more. When partitions were added and the key moved, there is a trail as well.
// Like a Core it is driven by its shell, one event at a time, and must not be copied.
type Feed struct {
	core  Core // the only one; not in use while there is a trail, but for its account
	trail *trail
	book  ledger // unless the key is one of several
	lanes int32  // Cores that the account counts
	joint bool   // the key is one of several: somebody else keeps the account and sends heartbeats
}

// NewFeed returns a session that has no stream yet; the first Route gives it one.
func NewFeed(cfg *Config, out Output, o Open) *Feed {
	f := &Feed{book: ledger{window: cfg.Window}}
	f.open(cfg, out, &f.book, o)
	return f
}

func (f *Feed) open(cfg *Config, out Output, book *ledger, o Open) {
	f.core = newCore(cfg, out, book, &o)
	f.count(1)
	if o.Path != nil {
		f.begin(o)
	}
}

// count tells the account how many Cores there are.
func (f *Feed) count(lanes int) {
	n := int32(lanes) //nolint:gosec // a handful
	f.core.ledger.add(n - f.lanes)
	f.lanes = n
}

// Heard is when the client was last sent something.
func (f *Feed) Heard() time.Time {
	if f.trail != nil {
		return f.trail.heard()
	}
	return f.core.heardAt
}

// Route says which links should serve the session now.
func (f *Feed) Route(now time.Time, to Routes) {
	if f.trail != nil {
		f.trail.route(now, to)
		f.follow(now)
		return
	}
	f.core.Route(now, to.Route(f.core.partition))
}

// LinkDown says that a link is gone with its streams.
func (f *Feed) LinkDown(now time.Time, l LinkID) {
	if f.trail != nil {
		for _, ln := range f.trail.lanes {
			ln.core.LinkDown(now, l)
		}
		f.follow(now)
		return
	}
	f.core.LinkDown(now, l)
}

// Attached says where a stream begins.
func (f *Feed) Attached(now time.Time, l LinkID, a link.Attached) {
	if f.trail != nil {
		if c := f.trail.find(l, a.Stream); c != nil {
			c.Attached(now, l, a)
			f.follow(now)
		}
		return
	}
	f.core.Attached(now, l, a)
}

// Record takes a record from a stream.
func (f *Feed) Record(now time.Time, l LinkID, id uint64, r *link.Record) (known bool) {
	if f.trail != nil {
		if c := f.trail.find(l, id); c != nil {
			known = c.Record(now, l, id, r)
			if f.trail.reaches(c) {
				f.follow(now)
			}
		}
		return known
	}
	return f.core.Record(now, l, id, r)
}

// Gap says that records of a stream are out of reach.
func (f *Feed) Gap(now time.Time, l LinkID, g link.Gap) {
	if f.trail != nil {
		if c := f.trail.find(l, g.Stream); c != nil {
			c.Gap(now, l, g)
			f.follow(now)
		}
		return
	}
	f.core.Gap(now, l, g)
}

// Closed says that a node ended a stream.
func (f *Feed) Closed(now time.Time, l LinkID, e link.Closed) {
	if f.trail != nil {
		if c := f.trail.find(l, e.Stream); c != nil {
			c.Closed(now, l, e)
			f.follow(now)
		}
		return
	}
	f.core.Closed(now, l, e)
}

// Poll moves pending handovers on, and the key from one partition to the next.
func (f *Feed) Poll(now time.Time) {
	if f.trail != nil {
		for _, ln := range f.trail.lanes {
			ln.core.Poll(now)
		}
		f.follow(now)
		return
	}
	f.core.Poll(now)
}

// Written says that records of this cost have left the outbox.
func (f *Feed) Written(now time.Time, cost int64) {
	if f.trail != nil {
		f.core.ledger.queued -= cost
		f.trail.regrant()
		return
	}
	f.core.Written(now, cost)
}

func (f *Feed) regrant() {
	if f.trail != nil {
		f.trail.regrant()
		return
	}
	f.core.regrant()
}

// Tick sends the heartbeat when it is due. It wants to be called at least ten times per heartbeat.
func (f *Feed) Tick(now time.Time) {
	if f.joint {
		f.Poll(now)
		return
	}
	if f.trail == nil {
		f.core.Tick(now)
		return
	}
	f.Poll(now)
	if f.trail == nil {
		f.core.Tick(now)
		return
	}
	f.trail.beat(now)
}

// GoAway tells the client to reconnect, with its cursor.
func (f *Feed) GoAway(now time.Time, retryAfter time.Duration) {
	if f.trail == nil {
		f.core.GoAway(now, retryAfter)
		return
	}
	if c := f.trail.at(); f.trail.placed() {
		f.trail.join()
		f.trail.out.GoAway(c.partition, c.next, retryAfter)
	}
}

// Close ends the session: its streams are detached.
func (f *Feed) Close() {
	if f.trail == nil {
		f.core.Close()
		return
	}
	for _, ln := range f.trail.lanes {
		ln.core.Close()
		f.trail.out.Leave(ln.core.partition)
	}
	if f.trail.pending {
		f.trail.pending = false
		f.trail.out.Handover(false)
	}
}

// Cursor is where the client continues, in the partition whose turn it is; ok is false before hello, and between two
// lives of the topic.
func (f *Feed) Cursor() (partition int32, next int64, ok bool) {
	if f.trail == nil {
		return f.core.Cursor()
	}
	c := f.trail.at()
	if ok = f.trail.placed(); ok {
		f.trail.join()
	}
	return c.partition, c.next, ok
}

// Several reports whether the cursor lists more than one partition.
func (f *Feed) Several() bool { return f.trail != nil }

// Positions appends the cursor: where the client is in each partition that it lists. There is none before hello and
// between two lives of the topic.
func (f *Feed) Positions(dst []Position) []Position {
	if f.trail == nil {
		if f.core.placed() {
			dst = append(dst, Position{f.core.partition, f.core.next})
		}
		return dst
	}
	return f.trail.positions(dst)
}

// Place is where the client continues, and in which topic: that of its cursor, also between two lives of the topic, when
// it has not been told yet. There is none before hello.
func (f *Feed) Place() (topicID [16]byte, at []Position, ok bool) {
	c := &f.core
	if t := f.trail; t != nil {
		c = &t.lanes[0].core
		if t.placed() {
			t.join()
			return c.topicID, t.positions(nil), true
		}
		if !t.greeted {
			return topicID, nil, false
		}
	} else if c.placed() {
		c.join()
		return c.topicID, []Position{{c.partition, c.next}}, true
	}
	switch {
	case !c.greeted || c.owed == link.GapNone:
		return topicID, nil, false
	case c.told.at != nil:
		return c.told.topicID, c.told.at, true
	}
	return c.told.topicID, []Position{{c.told.partition, c.next}}, true
}

// Full reports whether a stream has no credit until the client's socket takes some of what is queued.
func (f *Feed) Full() bool {
	if f.core.ledger.queued == 0 {
		return false
	}
	if f.trail != nil {
		return slices.ContainsFunc(f.trail.lanes, func(ln *lane) bool { return ln.core.primary.spent() })
	}
	return f.core.primary.spent()
}

// Primary is the link that serves the session, 0 for none.
func (f *Feed) Primary() LinkID {
	if f.trail != nil {
		return f.trail.at().primary.link
	}
	return f.core.primary.link
}

// Serving reports whether a stream delivers everything from the cursor on; on a trail, in the partition whose turn it is.
func (f *Feed) Serving() bool {
	if f.trail != nil {
		return f.trail.at().Serving()
	}
	return f.core.Serving()
}

// Status returns the state as it is; on a trail that of the partition whose turn it is.
func (f *Feed) Status() Status {
	if f.trail != nil {
		return f.trail.at().Status()
	}
	return f.core.Status()
}

// Statuses appends the state of every partition.
func (f *Feed) Statuses(dst []Status) []Status {
	if f.trail == nil {
		return append(dst, f.core.Status())
	}
	for _, ln := range f.trail.lanes {
		dst = append(dst, ln.core.Status())
	}
	return dst
}

// Recreate says that the topic was created anew; partition is the key's in the new topic, path its way there if it
// has one. A Route has to follow.
func (f *Feed) Recreate(now time.Time, topicID [16]byte, path []Stage, partition int32) {
	if at, ok := f.before(topicID); ok {
		f.settleOn(now, topicID, path, partition, at)
		return
	}
	var at []Position
	if f.trail != nil {
		at = f.trail.positions(nil)
		f.collapse()
	}
	first := partition
	if len(path) > 1 {
		first = path[0].Partition
	}
	f.core.target = 0
	f.core.Recreate(now, topicID, first)
	if at != nil {
		f.core.told.at = at
	}
	if len(path) > 1 {
		f.lead(path)
	}
}

// before is where the client was in a topic that is back before the client was told that it had gone.
func (f *Feed) before(topicID [16]byte) ([]Position, bool) {
	c := &f.core
	if f.trail != nil {
		c = &f.trail.lanes[0].core
	}
	switch {
	case !c.greeted || c.owed == link.GapNone || c.told.topicID != topicID:
		return nil, false
	case c.told.at != nil:
		return c.told.at, true
	}
	return []Position{{c.told.partition, c.next}}, true
}

// Grow says that the key's path is another: partitions were added, or producers have all heard of it. path is nil
// for a key that never moved; then nothing changes. The client was greeted. A Route has to follow.
func (f *Feed) Grow(now time.Time, path []Stage) {
	if len(path) < 2 {
		return
	}
	if t := f.trail; t != nil {
		t.path, t.cur, t.began = path, 0, now
		for _, ln := range t.lanes {
			t.out.Follow(ln.core.partition) // the key's last partition was perhaps another one before
		}
		t.reached = max(0, reached(path, t.positions(nil)))
		f.follow(now)
		return
	}
	if !f.core.placed() {
		f.Recreate(now, f.core.topicID, path, path[len(path)-1].Partition)
		return
	}
	at := []Position{{f.core.partition, f.core.next}}
	if plan, ok := Resume(path, at); !ok || plan.Simple(path) && plan.Lanes[0].Partition == f.core.partition {
		return
	}
	f.lead(path)
	f.follow(now)
}
