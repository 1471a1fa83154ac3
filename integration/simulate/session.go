package simulate

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// session is the shell of one client's core, as the hub's session is: an outbox, a socket, and the core's effects.
type session struct {
	r         *routerProc
	core      *router.Session
	client    *client
	conn      *conn
	sock      *socket // it is one key of
	key       string
	partition int32
	topicID   [16]byte
	target    router.LinkID
	lost      router.LinkID
	pending   bool
	greeted   bool // hello was said
	over      bool

	outbox []message
	queued int64 // cost of records in the outbox

	// What the checks remember.
	streams []held
	served  []router.SessionStatus // before the visit at hand
	follows []int32                // partitions beside its own
}

// held is a stream as the router's shell knows it.
type held struct {
	link     router.LinkID
	part     int32
	id       uint64
	attached bool
	from     int64      // it delivers everything from here on
	reached  int64      // as far as the node said that everything was sent
	gaps     [][2]int64 // gaps that the client was told of although this stream covered them
}

// connect opens a session for a client, unless the router knows no topic yet or is about to stop.
func (r *routerProc) connect(c *client, k *conn) {
	w := r.w
	if r.table.Topic == nil || r.draining {
		k.refuse()
		return
	}
	if at := k.wish.at; k.wish.cursor && at.topicID == r.table.TopicID && at.behind(r.table.Partitions()) {
		k.refuse()
		return
	}
	s := &session{r: r, client: c, conn: k, key: c.key, partition: homeOf(c.key, r.table.Partitions()), topicID: r.table.TopicID}
	k.session = s
	s.core = router.NewSession(&r.cfg, s, s.resolve())
	r.sessions = append(r.sessions, s)
	w.stats.Connects++
	s.visit(func(now time.Time) { s.route(now, r.table) })
}

// resolve makes the client's wish concrete with the topic in force.
func (s *session) resolve() router.Open {
	wish := &s.conn.wish
	o := router.Open{Key: []byte(s.key), Partition: s.partition, TopicID: s.topicID}
	path := s.path(s.r.table)
	switch {
	case !wish.cursor:
		o.From(path, wish.start)
	case wish.at.topicID != s.topicID:
		o.Gap = link.GapTopic
		o.From(path, link.Start{Kind: link.StartEarliest})
	default:
		o.At(path, wish.at.list)
	}
	return o
}

// visit lets the core handle something and carries on what it left undone.
func (s *session) visit(fn func(now time.Time)) {
	if s.over {
		return
	}
	now := s.r.w.time()
	s.served = s.core.Statuses(s.served[:0])
	fn(now)
	for s.lost != 0 {
		l := s.lost
		s.lost = 0
		s.linkDown(now, l)
	}
	s.flush()
}

func (s *session) route(now time.Time, t *router.Table) {
	s.target = t.Route(s.partition)
	s.core.Route(now, t)
}

func (s *session) linkDown(now time.Time, l router.LinkID) {
	s.core.LinkDown(now, l)
	s.streams = slices.DeleteFunc(s.streams, func(h held) bool { return h.link == l })
	s.route(now, s.r.table)
}

func (s *session) recreate(now time.Time, t *router.Table) {
	if s.topicID == t.TopicID {
		return
	}
	s.topicID, s.partition = t.TopicID, homeOf(s.key, t.Partitions())
	if s.greeted {
		s.core.Recreate(now, t.TopicID, s.path(t), s.partition)
	} else {
		// The client was told nothing of the old topic; its cursor may well be of the new one.
		s.judge()
	}
	s.route(now, t)
}

// end is the client's end of the socket.
func (s *session) end() {
	if s.over {
		return
	}
	s.core.Close()
	s.over = true
	s.r.w.stats.Duplicates += s.core.Status().Dropped
	s.r.sessions = slices.DeleteFunc(s.r.sessions, func(o *session) bool { return o == s })
}

func (s *session) goAway() {
	s.visit(func(now time.Time) { s.core.GoAway(now, time.Millisecond) })
	s.conn.closeAfter()
	s.end()
}

// flush lets the socket take what it will.
func (s *session) flush() {
	if s.sock != nil {
		s.sock.flush()
		return
	}
	if s.over {
		return
	}
	left := int64(0)
	for len(s.outbox) > 0 && s.conn.down.bytes < s.r.w.set.socket {
		m := s.outbox[0]
		s.outbox = s.outbox[1:]
		left += m.cost
		s.conn.deliver(m)
	}
	if left > 0 {
		s.queued -= left
		s.core.Written(s.r.w.time(), left)
	}
}

func (s *session) say(m message) {
	m.at = position{topicID: s.topicID}
	if m.kind != saysWaiting {
		m.at.list = s.core.Positions(nil)
	}
	if s.sock != nil {
		m.to = s.client
		if m.kind == saysGap {
			m.places = s.sock.core.Places(nil)
		}
		s.sock.say(m)
		return
	}
	s.queued += m.cost
	s.outbox = append(s.outbox, m)
	w := s.r.w
	if w.trace != nil {
		w.note(s.client.id, s.partition, "%s says %s", s.r.name, m)
	}
	// One record per stream may be larger than what was left of the window.
	if most := w.set.window + 2*int64(w.set.valueMost+link.RecordOverhead+8); s.queued > most {
		w.fail(s.client.id, "%s: %d bytes wait for the client, the window is %d", s.r.name, s.queued, w.set.window)
	}
}

func (s *session) held(l router.LinkID, id uint64) *held {
	for i := range s.streams {
		if h := &s.streams[i]; h.link == l && h.id == id {
			return h
		}
	}
	return nil
}

// Output of the core.

func (s *session) Attach(l router.LinkID, f link.Attach) uint64 {
	ln := s.r.lane(l)
	if ln == nil {
		s.lost = l
		return 0
	}
	n, ok := ln.streams.Add(s, f.Partition)
	if !ok {
		s.lost = l
		return 0
	}
	f.Stream = n
	w := s.r.w
	s.streams = append(s.streams, held{link: l, part: f.Partition, id: n})
	if w.trace != nil {
		w.note(s.client.id, f.Partition, "%s attaches stream %d on %s, start %d:%d, credit %d", s.r.name, n, s.r.who(l), f.Start.Kind, f.Start.Value, f.Credit)
	}
	client := s.client.id
	ln.toNode.send(controlSize, func() { ln.peer.onAttach(&f, client) })
	return n
}

func (s *session) Detach(l router.LinkID, stream uint64) {
	w := s.r.w
	w.note(s.client.id, s.partition, "%s detaches stream %d on link %d", s.r.name, stream, l)
	s.checkDetach(l, stream)
	s.streams = slices.DeleteFunc(s.streams, func(h held) bool { return h.link == l && h.id == stream })
	if ln := s.r.lane(l); ln != nil && ln.streams.Remove(stream) {
		ln.toNode.send(controlSize, func() { ln.peer.onDetach(link.Detach{Stream: stream}) })
	}
}

func (s *session) Credit(l router.LinkID, stream uint64, bytes int64) {
	if s.r.w.trace != nil {
		s.r.w.note(s.client.id, s.partition, "%s gives stream %d on link %d %d bytes, %d wait for the client", s.r.name, stream, l, bytes, s.queued)
	}
	if ln := s.r.lane(l); ln != nil {
		ln.toNode.send(controlSize, func() { ln.peer.onCredit(link.Credit{Stream: stream, Bytes: bytes}) })
	}
}

func (s *session) Covered(l router.LinkID, stream uint64) (int64, bool) {
	if ln := s.r.lane(l); ln != nil {
		return ln.streams.Covered(stream)
	}
	return 0, false
}

func (s *session) Hello(h router.Hello) {
	s.greeted = true
	s.say(message{kind: saysHello, resumed: h.Resumed})
}

func (s *session) Record(f *link.Record) {
	s.say(message{kind: saysRecord, partition: f.Partition, next: f.Offset + 1, record: f, cost: f.Cost()})
}

func (s *session) Checkpoint(partition int32, next int64) {
	s.say(message{kind: saysCheckpoint, partition: partition, next: next})
}

func (s *session) Gap(g router.Gap) {
	s.r.w.stats.Gaps++
	s.noteGap(g)
	s.say(message{kind: saysGap, partition: g.Partition, next: g.Next, from: g.From, reason: g.Reason})
}

func (s *session) Waiting() { s.say(message{kind: saysWaiting}) }

func (s *session) GoAway(partition int32, next int64, _ time.Duration) {
	s.say(message{kind: saysGoAway, partition: partition, next: next})
}

func (s *session) Follow(partition int32) router.LinkID {
	if partition != s.partition && !slices.Contains(s.follows, partition) {
		s.follows = append(s.follows, partition)
	}
	return s.r.table.Route(partition)
}

func (s *session) Leave(partition int32) {
	s.follows = slices.DeleteFunc(s.follows, func(p int32) bool { return p == partition })
}

func (s *session) Handover(pending bool) {
	if s.pending == pending {
		s.r.w.fail(s.client.id, "%s: handover reported twice: %t", s.r.name, pending)
	}
	if s.pending = pending; pending {
		s.r.w.stats.Handovers++
		s.r.w.coincide(s.r.w.kafka.topics[s.topicID].parts[s.partition])
		s.r.poll()
	}
}
