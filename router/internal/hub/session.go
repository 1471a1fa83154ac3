package hub

import (
	"slices"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

// Session is one client key of a client: a core, the connection it speaks to, and the lock that makes them one. Nearly
// always that is the client; one with several keys is a Socket with a Session for each. It implements session.Output
// and clientconn.Owner.
type Session struct {
	// Static after construction.
	h       *Hub
	sock    *Socket // nil: the connection is this session's alone
	conn    *clientconn.Conn
	key     []byte
	keyHash uint64
	raw     bool
	since   time.Time

	place        int // guarded by the bucket's mu
	pendingPlace int // guarded by the bucket's mu

	mu       sync.Mutex     // see lock
	core     *session.Feed  // guarded by mu
	wish     *Wish          // guarded by mu; nil once the client was greeted
	t        *turn          // guarded by mu; whose visit this is, nil between visits
	bucket   *bucket        // guarded by mu
	part     int32          // guarded by mu; the bucket's partition
	topicID  [16]byte       // guarded by mu
	target   session.LinkID // guarded by mu; the last route it was told
	lost     session.LinkID // guarded by mu; a link that went down while a stream was attached to it
	away     *away          // guarded by mu; nil unless the session has to do with other partitions than its own
	allow    allowance      // guarded by mu
	unpaid   int64          // guarded by mu; cost of records that were accepted and need no bytes
	brokenAt int64          // guarded by mu; Unix nanoseconds since when no stream serves it, 0 while one does
	moving   string         // guarded by mu; the cause of the handover under way, empty for none
	within   *move          // guarded by mu; the last change of routes that the session was counted in, nil for none
	dirty    bool           // guarded by mu; some turn will flush it
	full     bool           // guarded by mu; so much is queued that it should be flushed within the batch
	pending  bool           // guarded by mu
	ends     expiry         // guarded by mu; of the client's credentials
	finish   bool           // guarded by mu; the core is to be ended when this visit is over
	over     bool           // guarded by mu; the core is ended, events are dropped
}

// lock takes the lock of the session: its own, or its socket's.
func (s *Session) lock() {
	if s.sock != nil {
		s.sock.mu.Lock()
		return
	}
	s.mu.Lock()
}

func (s *Session) unlock() {
	if s.sock != nil {
		s.sock.mu.Unlock()
		return
	}
	s.mu.Unlock()
}

// Connect begins a session on a connection. Until Serve is called nothing that the client sends is seen.
func (h *Hub) Connect(conn *clientconn.Conn, w Wish) (*Session, error) {
	s := &Session{h: h, conn: conn, key: w.Key, keyHash: cursor.Hash(w.Key), raw: w.Raw, since: time.Now(), wish: &w}
	conn.SetOwner(s)
	t := h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	if err := s.begin(t); err != nil {
		return nil, err
	}
	h.open.Add(1)
	h.cfg.Metrics.Connects.Inc()
	return s, nil
}

// begin puts the session among the others and gives it its first route. The caller holds the lock.
func (s *Session) begin(t *turn) error {
	h := s.h
	v := h.view.Load()
	o, err := v.resolve(*s.wish)
	if err != nil {
		return err
	}
	s.topicID, s.part = o.TopicID, v.partitioner.Partition(s.key, v.Partitions())
	s.bucket = h.bucket(s.part)
	// Whoever changes the table after this finds the session in its bucket and waits for its lock; so the view
	// taken after this is the newest that the session is not told of.
	if !s.bucket.add(s) {
		s.over = true
		return ErrClosing
	}
	h.keys.Add(1)
	s.enter(t)
	if s.sock != nil {
		s.sock.join(s, o)
	} else {
		s.core = session.NewFeed(&h.cfg.Session, s, o)
	}
	switch now := h.view.Load(); {
	case now.TopicID != s.topicID:
		s.recreate(t, now)
	case table.Grew(v.Table, now.Table):
		s.grow(t, now)
	default:
		s.route(t, now, "")
	}
	s.leave(t)
	return nil
}

// Serve reads what the client sends until its connection ends, and ends the session. message handles a text message.
func (s *Session) Serve(message func(s *Session, text []byte)) {
	s.conn.Serve(func(text []byte) { message(s, text) })
	s.end()
}

// Conn is the session's connection.
func (s *Session) Conn() *clientconn.Conn { return s.conn }

func (s *Session) end() {
	t := s.h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	s.close(t)
	s.h.open.Add(-1)
	s.h.cfg.Metrics.Close(s.conn.Code())
}

// close ends the core and takes the session from among the others. The caller holds the lock.
func (s *Session) close(t *turn) {
	if s.enter(t) {
		s.finish = true
		s.leave(t)
	}
	s.bucket.remove(s)
	s.h.keys.Add(-1)
}

// enter begins a visit; false when the session has ended. The caller holds mu.
func (s *Session) enter(t *turn) bool {
	if s.over {
		return false
	}
	s.t = t
	return true
}

// leave ends a visit: a link that went down while the core attached to it is reported now, and a core whose client was
// told to go is ended.
func (s *Session) leave(t *turn) {
	if s.finish {
		s.core.Close()
		s.lost, s.over = 0, true
		if s.brokenAt != 0 {
			s.within.healed(0)
		}
		s.moving, s.within, s.brokenAt = "", nil, 0
	}
	for s.lost != 0 {
		l := s.lost
		s.lost = 0
		if a := s.away; a != nil && len(a.lost) > 0 {
			s.lost, a.lost = a.lost[0], a.lost[1:]
		}
		s.linkDown(t, l, s.h.view.Load())
	}
	s.t = nil
}

// route tells the core where the table sends it. An empty cause is a session's first route.
func (s *Session) route(t *turn, v *view, cause string) {
	target := v.Route(s.part)
	// Whoever had no route was counted when it lost it, or was never served.
	if target != s.target && cause != "" && s.target != 0 {
		s.h.cfg.Metrics.Handovers.WithLabelValues(cause).Inc()
		s.handover(t, cause)
	}
	s.target = target
	s.core.Route(t.now, v)
	s.note(t)
}

// handover begins one, unless the client waits for a stream already: then it is part of the one under way.
func (s *Session) handover(t *turn, cause string) {
	if s.brokenAt != 0 {
		return
	}
	if s.moving != "" {
		s.finished(0, false) // another node takes over than the one that was to, and the old one serves on
	}
	s.moving = cause
	if s.within != t.move {
		s.within = t.move
		s.within.count()
	}
}

// linkDown tells the core that a link is gone, and routes it anew.
func (s *Session) linkDown(t *turn, l session.LinkID, v *view) {
	served := s.core.Primary() == l
	s.core.LinkDown(t.now, l)
	if served && !s.core.Serving() && s.moving == "" {
		s.handover(t, "link_down")
	}
	s.note(t)
	s.route(t, v, "link_down")
}

// note follows the handover under way: since when no stream serves the client, and whether it is over. It is called
// after events that may change that; a record cannot.
func (s *Session) note(t *turn) {
	switch {
	case s.moving == "":
	case !s.core.Serving():
		if s.brokenAt == 0 {
			s.brokenAt = t.now.UnixNano()
			s.within.broke()
		}
	case s.brokenAt != 0:
		pause := time.Duration(t.now.UnixNano() - s.brokenAt)
		s.brokenAt = 0
		s.finished(pause, true)
	case !s.pending:
		s.finished(0, false) // the old stream served until the new one had everything
	}
}

// finished ends a handover.
func (s *Session) finished(pause time.Duration, broken bool) {
	s.h.cfg.Metrics.Pause.WithLabelValues(s.moving).Observe(pause.Seconds())
	s.moving = ""
	if broken {
		s.within.healed(pause)
	}
}

// recreate moves the session to the table's new topic. A client that was not greeted yet was told nothing of the old
// one: its wish is judged anew, because its cursor may well be of the new topic.
func (s *Session) recreate(t *turn, v *view) {
	if v.fit != nil || s.topicID == v.TopicID {
		return
	}
	p := v.partitioner.Partition(s.key, v.Partitions())
	s.topicID, s.target = v.TopicID, v.Route(p)
	if s.wish != nil {
		s.judge(t, v, p)
		return
	}
	s.move(p)
	s.core.Recreate(t.now, v.TopicID, v.path(s.key), p)
	s.core.Route(t.now, v)
}

// judge begins the session of a client that was not greeted anew: what it wishes means something else now.
func (s *Session) judge(t *turn, v *view, p int32) {
	s.core.Close()
	s.move(p)
	o, err := v.resolve(*s.wish)
	if err != nil {
		s.conn.Close(closecode.TopicChanged, err.Error())
		s.finish = true
		return
	}
	if s.sock != nil {
		s.sock.rejoin(s, o)
	} else {
		o.Since = s.core.Heard()
		s.core = session.NewFeed(&s.h.cfg.Session, s, o)
	}
	s.core.Route(t.now, v)
}

// move puts the session into another partition's bucket.
func (s *Session) move(p int32) {
	s.part = p
	b := s.h.bucket(p)
	if b == s.bucket {
		return
	}
	if s.pending {
		s.bucket.setPending(s, false)
		b.setPending(s, true)
	}
	s.Leave(p) // where it was a guest
	s.bucket.remove(s)
	b.addAlways(s)
	s.bucket = b
}

// grow follows the key to where it lives since partitions were added, and lets go of where it lived when producers
// have all heard of it.
func (s *Session) grow(t *turn, v *view) {
	if v.fit != nil {
		return
	}
	p := v.partitioner.Partition(s.key, v.Partitions())
	path := v.path(s.key)
	if path == nil && p == s.part {
		return
	}
	s.target = v.Route(p)
	if s.wish != nil {
		s.judge(t, v, p)
		return
	}
	s.move(p)
	s.core.Grow(t.now, path)
	s.core.Route(t.now, v)
}

// away is what a session has to do with other partitions than its own.
type away struct {
	buckets []*bucket
	lost    []session.LinkID // beside Session.lost
}

// Follow implements session.Output. Whoever changes the table after this finds the session in the bucket.
func (s *Session) Follow(p int32) session.LinkID {
	if b := s.h.bucket(p); b != s.bucket && (s.away == nil || !slices.Contains(s.away.buckets, b)) {
		if s.away == nil {
			s.away = &away{}
		}
		s.away.buckets = append(s.away.buckets, b)
		b.setGuest(s, true)
	}
	return s.h.view.Load().Route(p)
}

// Leave implements session.Output.
func (s *Session) Leave(p int32) {
	b := s.h.bucket(p)
	if s.away == nil || !slices.Contains(s.away.buckets, b) {
		return
	}
	b.setGuest(s, false)
	s.away.buckets = slices.DeleteFunc(s.away.buckets, func(o *bucket) bool { return o == b })
	if len(s.away.buckets)+len(s.away.lost) == 0 {
		s.away = nil
	}
}

// lose notes a link that was found to be down.
func (s *Session) lose(l session.LinkID) {
	switch {
	case s.lost == 0 || s.lost == l:
		s.lost = l
	default:
		if s.away == nil {
			s.away = &away{}
		}
		s.away.lost = append(s.away.lost, l)
	}
}

// flush makes one attempt to write what is queued and tells the core what has left.
func (s *Session) flush(t *turn) {
	s.full = false
	if s.sock != nil {
		s.sock.flush(t.now)
		return
	}
	left := s.conn.Flush() + s.unpaid
	s.unpaid = 0
	if left > 0 {
		s.written(t, left)
	}
}

// Drained implements clientconn.Owner: the writer goroutine made progress.
func (s *Session) Drained() {
	t := s.h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	if left := s.conn.Collect(); left > 0 && s.enter(t) {
		s.written(t, left)
		s.leave(t)
	}
}

// touch puts the session on the turn's list of those to flush.
func (s *Session) touch() {
	if s.sock != nil {
		s.sock.touch(s.t)
		return
	}
	if !s.dirty {
		s.dirty = true
		s.t.dirty = append(s.t.dirty, s)
	}
}

// say queues a control message that build appends. Raw clients get none.
func (s *Session) say(build func(dst []byte) []byte) {
	if s.raw {
		return
	}
	t := s.t
	t.scratch = build(clientconn.Reserve(t.scratch[:0]))
	s.conn.Queue(clientconn.Seal(t.scratch, 0, clientconn.Text), 0)
	s.touch()
}

// Attach implements session.Output.
func (s *Session) Attach(l session.LinkID, f link.Attach) uint64 {
	ln := s.h.lane(l)
	if ln == nil {
		s.lose(l)
		return 0
	}
	n, ok := ln.streams.Add(s, f.Partition)
	if !ok {
		s.lose(l)
		return 0
	}
	f.Stream = n
	ln.link.SendAttach(&f)
	return n
}

// Detach implements session.Output.
func (s *Session) Detach(l session.LinkID, stream uint64) {
	if ln := s.h.lane(l); ln != nil && ln.streams.Remove(stream) {
		ln.link.SendDetach(link.Detach{Stream: stream})
	}
}

// Credit implements session.Output.
func (s *Session) Credit(l session.LinkID, stream uint64, bytes int64) {
	if ln := s.h.lane(l); ln != nil {
		ln.link.SendCredit(link.Credit{Stream: stream, Bytes: bytes})
	}
}

// Covered implements session.Output.
func (s *Session) Covered(l session.LinkID, stream uint64) (int64, bool) {
	if ln := s.h.lane(l); ln != nil {
		return ln.streams.Covered(stream)
	}
	return 0, false
}

// Hello implements session.Output.
func (s *Session) Hello(h session.Hello) {
	s.wish = nil
	c := s.t.cursorOf(s, h.Partition, h.Next)
	s.say(func(dst []byte) []byte {
		if s.sock != nil {
			return clientmsg.AppendSubscribed(dst, c, s.key, h.Resumed)
		}
		return clientmsg.AppendHello(dst, c, s.key, h.Resumed, s.h.cfg.Session.Heartbeat)
	})
}

// Record implements session.Output.
func (s *Session) Record(r *link.Record) {
	t := s.t
	cost := r.Cost()
	var frame []byte
	switch {
	case !s.raw:
		frame = t.jsonFrame(s, r)
	case r.Tombstone:
		s.unpaid += cost
		s.touch()
		return
	default:
		frame = t.rawFrame(r)
	}
	if from := s.conn.Packs(); from > 0 && clientconn.PayloadSize(frame) >= from {
		frame = t.pack(frame)
	}
	s.full = s.conn.Queue(frame, cost) >= flushAt
	s.touch()
	t.records++
	t.bytes += uint64(len(frame))
	if t.live && r.Timestamp > 0 {
		t.latency.Note(r.Timestamp)
	}
	if s.h.cfg.Faults.breakSocket() {
		s.conn.Abort(closecode.Abnormal)
	}
}

// Checkpoint implements session.Output.
func (s *Session) Checkpoint(partition int32, next int64) {
	c := s.t.cursorOf(s, partition, next)
	s.say(func(dst []byte) []byte { return clientmsg.AppendCheckpoint(dst, c) })
}

// Gap implements session.Output. Raw clients have no message for it and are closed instead of skipping.
func (s *Session) Gap(g session.Gap) {
	s.h.cfg.Metrics.Gaps.WithLabelValues(g.Reason.String()).Inc()
	if s.raw {
		s.conn.Close(closecode.RawGap, "records can no longer be delivered: "+g.Reason.String())
		s.finish = true
		return
	}
	from := g.From
	if from == g.Next {
		from = -1
	}
	if s.sock != nil {
		c := s.t.cursorOfAll(s.sock)
		s.say(func(dst []byte) []byte {
			return clientmsg.AppendGapOf(dst, c, s.key, g.Partition, from, g.Next, g.Reason)
		})
		return
	}
	c := s.t.cursorOf(s, g.Partition, g.Next)
	s.say(func(dst []byte) []byte {
		return clientmsg.AppendGap(dst, c, g.Partition, from, g.Next, g.Reason)
	})
}

// Waiting implements session.Output.
func (s *Session) Waiting() { s.say(clientmsg.AppendWaiting) }

// GoAway implements session.Output.
func (s *Session) GoAway(partition int32, next int64, retryAfter time.Duration) {
	c := s.t.cursorOf(s, partition, next)
	s.say(func(dst []byte) []byte { return clientmsg.AppendGoAway(dst, c, retryAfter) })
}

// Handover implements session.Output.
func (s *Session) Handover(pending bool) {
	if pending == s.pending {
		return
	}
	s.pending = pending
	s.bucket.setPending(s, pending)
	if !pending {
		s.h.pending.Add(-1)
		return
	}
	if s.h.pending.Add(1) == 1 {
		select {
		case s.h.poke <- struct{}{}:
		default:
		}
	}
}
