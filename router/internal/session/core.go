package session

import (
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// A stream that a node closed is attached again after a while, longer each time.
const (
	reattachFirst = 100 * time.Millisecond
	reattachMost  = 2 * time.Second
)

// stream is one stream of the session. The zero value is none.
type stream struct {
	link     LinkID
	id       uint64
	attached bool  // Attached was received
	live     bool  // it was caught up when it was attached
	from     int64 // it delivers every record at or after from
	head     int64 // the node's head when it was attached
	left     int64 // credit the node may still use; negative after a large record
}

func (s *stream) is(l LinkID, id uint64) bool { return s.link != 0 && s.link == l && s.id == id }

// spent reports whether the node may send nothing on it.
func (s *stream) spent() bool { return s.link != 0 && s.left <= 0 }

// Core is the state machine of one client in one partition: nearly always that is all there is to it. A Feed adds
// what a key needs whose partition changes. It is not safe for concurrent use: its shell owns it.
type Core struct {
	cfg *Config
	out Output

	key       []byte
	topicID   [16]byte
	partition int32
	resumed   bool           // the client came with a cursor of this topic
	owed      link.GapReason // tell of this gap once attached, for the client cannot go on where it stopped
	greeted   bool           // hello was sent: next is valid
	waiting   bool           // the client was told that no node lives
	pending   bool           // the shell polls
	shut      bool           // nothing may come yet: the client was not greeted, and is not by this Core
	closures  int32
	start     link.Start // until greeted or after a topic was recreated: where to begin
	told      *told      // while a gap is owed: what next is a position in

	next   int64 // the cursor: everything below it was delivered; it only moves forward
	target LinkID
	// primary serves the client. During a handover next takes over from it; both serve.
	primary   stream
	secondary stream

	ledger  *ledger   // of all the session's Cores
	heardAt time.Time // when the client was last sent something

	reattachAt time.Time // zero, or when to attach again after a node closed the stream

	dropped uint64
}

// told is a place in a topic that is perhaps gone.
type told struct {
	topicID   [16]byte
	partition int32
	at        []Position // on a trail, every place
}

// New returns a session that has no stream yet; the first Route gives it one.
func New(cfg *Config, out Output, o Open) *Core {
	c := newCore(cfg, out, &ledger{window: cfg.Window, lanes: 1}, &o)
	return &c
}

func newCore(cfg *Config, out Output, book *ledger, o *Open) Core {
	return Core{
		cfg: cfg, out: out, key: o.Key, topicID: o.TopicID, partition: o.Partition, start: o.Start,
		resumed: o.Resumed && o.Gap == link.GapNone, owed: o.Gap, ledger: book, heardAt: o.Since,
	}
}

// Heard is when the client was last sent something.
func (c *Core) Heard() time.Time { return c.heardAt }

// Route says which up link should serve the session now; 0 means that no node lives.
func (c *Core) Route(now time.Time, target LinkID) {
	c.target = target
	if c.heardAt.IsZero() {
		c.heardAt = now // the first heartbeat counts from here
	}
	switch {
	case target == 0:
		if c.primary.link == 0 {
			c.wait(now)
		}
	case c.primary.link == 0:
		c.primary = c.attach(target)
	case target == c.primary.link:
		c.drop(&c.secondary)
		c.repair()
	case !c.primary.attached:
		// Nothing was promised from there yet.
		c.drop(&c.primary)
		c.drop(&c.secondary)
		c.primary = c.attach(target)
	case c.secondary.link != target:
		c.drop(&c.secondary)
		c.secondary = c.attach(target)
	}
	c.settle()
}

// LinkDown says that a link is gone with its streams.
func (c *Core) LinkDown(now time.Time, l LinkID) {
	if c.target == l {
		c.target = 0
	}
	if c.primary.link == l {
		c.join()
		c.lose(&c.primary)
		c.promote()
	}
	if c.secondary.link == l {
		c.lose(&c.secondary)
	}
	c.repair()
	c.settle()
	c.regrant()
}

// promote makes the secondary stream the only one.
func (c *Core) promote() {
	c.primary, c.secondary = c.secondary, stream{}
	c.repair()
}

// repair attaches the only stream again if it lacks something between the cursor and where it delivers from:
// another stream had it and is gone. As the only one, its word about a gap counts.
func (c *Core) repair() {
	if p := c.primary; p.link != 0 && p.attached && p.from > c.next && c.secondary.link == 0 {
		c.drop(&c.primary)
		c.primary = c.attach(p.link)
	}
}

// Attached says where a stream begins.
func (c *Core) Attached(now time.Time, l LinkID, a link.Attached) {
	s := c.find(l, a.Stream)
	if s == nil || s.attached {
		return
	}
	s.attached, s.from, s.head, s.live = true, a.Next, a.Head, a.Live
	c.closures = 0
	if s == &c.secondary {
		if !c.covers(s) && !c.covers(&c.primary) {
			// Neither has what comes next, and the third that had it was let go: ask the new one alone.
			c.drop(&c.primary)
			c.promote()
		}
		c.Poll(now)
		return
	}
	waited, owed := c.waiting, c.owed
	c.waiting, c.owed = false, link.GapNone
	if !c.greeted {
		c.greeted, c.next, c.told = true, a.Next, nil
		complete := c.resumed && a.Gap == link.GapNone
		c.out.Hello(Hello{Partition: c.partition, Next: a.Next, Resumed: complete})
		c.heardAt = now
		switch {
		case owed != link.GapNone:
			c.out.Gap(Gap{Partition: c.partition, From: a.Next, Next: a.Next, Reason: owed})
		case a.Gap != link.GapNone:
			c.out.Gap(Gap{Partition: c.partition, From: c.start.Value, Next: a.Next, Reason: a.Gap})
		}
		return
	}
	if owed != link.GapNone {
		c.next = a.Next
		c.out.Gap(Gap{Partition: c.partition, From: a.Next, Next: a.Next, Reason: owed})
		c.heardAt = now
		return
	}
	if a.Gap != link.GapNone && a.Next > c.next {
		c.gap(now, c.next, a.Next, a.Gap)
	} else if waited {
		c.out.Checkpoint(c.partition, c.next) // the wait is over
		c.heardAt = now
	}
}

// Record takes a record from a stream: it goes to the client if it is the next one, from whatever stream it
// comes, and is dropped if the client has it.
func (c *Core) Record(now time.Time, l LinkID, id uint64, r *link.Record) (known bool) {
	s := c.find(l, id)
	if s == nil || !s.attached {
		return false
	}
	cost := r.Cost()
	s.left -= cost
	c.ledger.under -= cost
	if r.Offset < c.next {
		c.dropped++
		c.regrant()
		return true
	}
	if s.from > c.next {
		// The stream lacks something before it that the other one has; the other one has this, too.
		s.from = r.Offset + 1
		c.regrant()
		return true
	}
	c.next = r.Offset + 1
	c.ledger.queued += cost
	c.heardAt = now
	c.out.Record(r)
	return true
}

// Gap says that records of a stream are out of reach.
func (c *Core) Gap(now time.Time, l LinkID, g link.Gap) {
	s := c.find(l, g.Stream)
	if s == nil || !s.attached {
		return
	}
	if g.Reason != link.GapTruncated && g.To <= c.next {
		return // the client has all of it
	}
	s.from = g.To
	other := &c.primary
	if s == other {
		other = &c.secondary
	}
	if c.covers(other) {
		return // the other stream has it
	}
	from, to := c.next, g.To
	if g.Reason != link.GapTruncated {
		from = max(from, g.From) // what lies below was sent
		if other.link != 0 && other.attached {
			// Both lack something: only what lies below both is out of reach.
			to = min(to, other.from)
		}
	}
	c.gap(now, min(from, to), to, g.Reason)
}

// covers reports whether a stream delivers everything from the cursor on.
func (c *Core) covers(s *stream) bool { return s.link != 0 && s.attached && s.from <= c.next }

func (c *Core) gap(now time.Time, from, to int64, reason link.GapReason) {
	c.next = to
	c.out.Gap(Gap{Partition: c.partition, From: from, Next: to, Reason: reason})
	c.heardAt = now
}

// Closed says that a node ended a stream.
func (c *Core) Closed(now time.Time, l LinkID, f link.Closed) {
	s := c.find(l, f.Stream)
	if s == nil {
		return
	}
	if s == &c.primary {
		c.join()
		c.lose(&c.primary)
		c.promote()
	} else {
		c.lose(&c.secondary)
	}
	c.reattachAt = now.Add(min(reattachFirst<<min(c.closures, 8), reattachMost))
	c.closures++
	c.repair()
	c.settle()
	c.regrant()
}

// Recreate says that the topic was created anew: the client is told of a gap, then gets the new topic's
// records from the oldest on. If the topic that the client knows is back before it was told (etcd showed an old
// state for a while), nothing has happened to it.
func (c *Core) Recreate(now time.Time, topicID [16]byte, partition int32) {
	c.drop(&c.primary)
	c.drop(&c.secondary)
	if c.owed == link.GapNone {
		c.told = &told{topicID: c.topicID, partition: c.partition}
	}
	c.topicID, c.partition = topicID, partition
	c.start, c.resumed = link.Start{Kind: link.StartEarliest}, false
	c.owed = link.GapNone
	if !c.greeted || c.told.topicID != topicID || c.told.partition != partition {
		c.owed = link.GapTopic
	}
	if c.target != 0 {
		c.primary = c.attach(c.target)
	}
	c.settle()
}

// Poll moves a pending handover on: the old stream is let go when the new one has reached the cursor.
func (c *Core) Poll(now time.Time) {
	if !c.reattachAt.IsZero() && !now.Before(c.reattachAt) {
		c.reattachAt = time.Time{}
		if c.target != 0 {
			c.Route(now, c.target)
		}
	}
	if s := &c.secondary; s.link != 0 && s.attached && s.from > c.next {
		c.join() // the old stream's checkpoints may have passed what the new one lacks
	}
	if s := &c.secondary; c.covers(s) {
		reached := int64(-1)
		if s.live {
			reached = s.head
		}
		if n, ok := c.out.Covered(s.link, s.id); ok {
			reached = max(reached, n)
		}
		if reached >= c.next {
			old := c.primary
			c.primary, c.secondary = c.secondary, stream{}
			c.drop(&old)
			c.regrant()
		}
	}
	c.settle()
}

// Written says that records of this cost have left the outbox.
func (c *Core) Written(now time.Time, cost int64) {
	c.ledger.queued -= cost
	c.regrant()
}

// Tick sends the heartbeat when it is due. It wants to be called at least ten times per heartbeat.
func (c *Core) Tick(now time.Time) {
	c.Poll(now)
	if now.Sub(c.heardAt) < c.cfg.Heartbeat*4/5 || c.ledger.queued > 0 {
		return // with something queued there is nothing to keep alive: the client does not read
	}
	if !c.greeted || c.primary.link == 0 || c.owed != link.GapNone {
		c.waiting = false
		c.wait(now)
		return
	}
	c.join()
	c.out.Checkpoint(c.partition, c.next)
	c.heardAt = now
}

// GoAway tells the client to reconnect, with its cursor. Between two lives of the topic there is none to tell: the
// client's own says more.
func (c *Core) GoAway(now time.Time, retryAfter time.Duration) {
	if !c.greeted || c.owed != link.GapNone {
		return
	}
	c.join()
	c.out.GoAway(c.partition, c.next, retryAfter)
	c.heardAt = now
}

// Cursor is where the client continues; ok is false before hello, and between two lives of the topic.
func (c *Core) Cursor() (partition int32, next int64, ok bool) {
	ok = c.greeted && c.owed == link.GapNone
	if ok {
		c.join()
	}
	return c.partition, c.next, ok
}

// Close ends the session: its streams are detached.
func (c *Core) Close() {
	c.drop(&c.primary)
	c.drop(&c.secondary)
	c.target = 0
	c.reattachAt = time.Time{}
	c.settle()
}

// placed reports whether next is a position in the topic.
func (c *Core) placed() bool { return c.greeted && c.owed == link.GapNone }

// Primary is the link that serves the session, 0 for none.
func (c *Core) Primary() LinkID { return c.primary.link }

// Serving reports whether a stream delivers everything from the cursor on.
func (c *Core) Serving() bool { return c.covers(&c.primary) || c.covers(&c.secondary) }

// Status is a session's state in numbers, for consoles and consistency checks.
type Status struct {
	Partition int32
	Next      int64
	Greeted   bool
	Primary   LinkID
	Secondary LinkID
	Stream    uint64 // of the primary link
	Queued    int64  // bytes of records in the outbox
	Left      int64  // credit under way on all streams
	Dropped   uint64 // duplicates, as handovers bring them
}

// Status returns the state as it is.
func (c *Core) Status() Status {
	return Status{
		Partition: c.partition, Next: c.next, Greeted: c.greeted,
		Primary: c.primary.link, Secondary: c.secondary.link, Stream: c.primary.id,
		Queued: c.ledger.queued, Left: c.primary.left + c.secondary.left, Dropped: c.dropped,
	}
}

func (c *Core) find(l LinkID, id uint64) *stream {
	switch {
	case c.primary.is(l, id):
		return &c.primary
	case c.secondary.is(l, id):
		return &c.secondary
	}
	return nil
}

// attach opens a stream from the cursor, or from where the client wished before there is one.
func (c *Core) attach(l LinkID) stream {
	c.reattachAt = time.Time{}
	s := stream{link: l}
	start := c.start
	if c.greeted && c.owed == link.GapNone {
		c.join()
		start = link.Start{Kind: link.StartCursor, Value: c.next}
	}
	if !c.shut {
		s.left = c.ledger.allowance(c.primary.left, c.elsewhere())
	}
	c.ledger.under += s.left
	s.id = c.out.Attach(l, link.Attach{
		Partition: c.partition, Key: c.key, Start: start, TopicID: c.topicID, Credit: s.left,
	})
	return s
}

func (c *Core) drop(s *stream) {
	if s.link != 0 {
		c.out.Detach(s.link, s.id)
	}
	c.lose(s)
}

// lose forgets a stream and the credit that was under way on it.
func (c *Core) lose(s *stream) {
	c.ledger.under -= s.left
	*s = stream{}
}

// elsewhere is what the session's other Cores have under way.
func (c *Core) elsewhere() int64 { return c.ledger.under - c.primary.left - c.secondary.left }

// join moves the cursor to what the serving link's checkpoints cover.
func (c *Core) join() {
	if c.greeted && c.covers(&c.primary) {
		if n, ok := c.out.Covered(c.primary.link, c.primary.id); ok && n > c.next {
			c.next = n
		}
	}
}

func (c *Core) regrant() {
	c.regrantOne(&c.primary, c.secondary.left)
	c.regrantOne(&c.secondary, c.primary.left)
}

func (c *Core) regrantOne(s *stream, other int64) {
	if s.link == 0 || c.shut {
		return
	}
	if give := c.ledger.grant(s.left, other, c.elsewhere()); give > 0 {
		s.left += give
		c.ledger.under += give
		c.out.Credit(s.link, s.id, give)
	}
}

// settle keeps the shell's polling in step with whether anything is pending.
func (c *Core) settle() {
	pending := c.secondary.link != 0 || !c.reattachAt.IsZero()
	if pending != c.pending {
		c.pending = pending
		c.out.Handover(pending)
	}
}

// wait tells the client once, and at each heartbeat, that no node lives.
func (c *Core) wait(now time.Time) {
	if c.waiting {
		return
	}
	c.waiting = true
	c.out.Waiting()
	c.heardAt = now
}
