package hub

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// SeveralWish is what a client with several keys asks for, checked as far as it can be without the table.
type SeveralWish struct {
	Keys [][]byte // to begin with, each once
	// Allowed are all keys that it may ask for, nil for any.
	Allowed [][]byte
	Cursors []cursor.Cursor // where to go on, those that name none of the keys have no meaning
	Start   link.Start      // of the keys that no cursor names
}

func (w *SeveralWish) of(key []byte) Wish {
	one := Wish{Key: key, Start: w.Start}
	if _, _, ok := cursor.Of(w.Cursors, key); ok {
		one.Cursors = w.Cursors
	}
	return one
}

// Socket is a client with several keys: a Session for each, one connection, and the lock that makes them one. What the
// keys share is decided by session.Several. It implements session.SeveralOutput and clientconn.Owner.
type Socket struct {
	// Static after construction.
	h       *Hub
	conn    *clientconn.Conn
	allowed map[string]struct{} // nil: any key

	place int // guarded by the list's mu

	mu    sync.Mutex
	core  *session.Several // guarded by mu
	keys  []*Session       // guarded by mu
	t     *turn            // guarded by mu; whose visit this is, nil between visits
	allow allowance        // guarded by mu
	ends  expiry           // guarded by mu; of the client's credentials
	dirty bool             // guarded by mu; some turn will flush it
	over  bool             // guarded by mu; its connection has ended
}

// sockets lists the sockets with several keys.
type sockets struct {
	mu     sync.Mutex
	list   []*Socket // guarded by mu; a socket knows its place
	closed bool      // guarded by mu; nothing is added any more
}

func (l *sockets) add(k *Socket) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	k.place = len(l.list)
	l.list = append(l.list, k)
	return true
}

func (l *sockets) remove(k *Socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.list) - 1
	moved := l.list[last]
	l.list[k.place], moved.place = moved, k.place
	l.list[last] = nil
	l.list = l.list[:last]
}

func (l *sockets) all() []*Socket {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

func (l *sockets) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// CheckSeveral tells whether a wish could be granted now, without granting it.
func (h *Hub) CheckSeveral(w *SeveralWish) error {
	v := h.view.Load()
	if v.fit != nil {
		return v.fit
	}
	if len(w.Keys) > h.cfg.MaxKeys {
		return ErrTooMany
	}
	resumed := false
	for _, key := range w.Keys {
		one := w.of(key)
		if _, err := v.resolve(one); err != nil {
			return err
		}
		resumed = resumed || one.Cursors != nil
	}
	if w.Cursors != nil && !resumed {
		return ErrNoCursor
	}
	return nil
}

// MaxKeys is how many keys a socket may have.
func (h *Hub) MaxKeys() int { return h.cfg.MaxKeys }

// ConnectSeveral begins a client with several keys on a connection. Until Serve is called nothing that it sends is seen.
func (h *Hub) ConnectSeveral(conn *clientconn.Conn, w *SeveralWish) (*Socket, error) {
	if err := h.CheckSeveral(w); err != nil {
		return nil, err
	}
	k := &Socket{h: h, conn: conn}
	if w.Allowed != nil {
		k.allowed = make(map[string]struct{}, len(w.Allowed))
		for _, key := range w.Allowed {
			k.allowed[string(key)] = struct{}{}
		}
	}
	conn.SetOwner(k)
	t := h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core = session.NewSeveral(t.now, &h.cfg.Session, k)
	// A drain after this finds it here, and waits for its lock; one before has closed the list.
	if !h.sockets.add(k) {
		return nil, ErrClosing
	}
	k.say(t, 0, func(dst []byte) []byte {
		return clientmsg.AppendHelloSeveral(dst, len(w.Keys), h.cfg.Session.Heartbeat)
	})
	for _, key := range w.Keys {
		if err := k.add(t, w.of(key)); err != nil {
			k.closeLocked(t)
			h.sockets.remove(k)
			return nil, err
		}
	}
	h.open.Add(1)
	h.cfg.Metrics.Connects.Inc()
	return k, nil
}

// Serve reads what the client sends until its connection ends, and ends it. message handles a text message.
func (k *Socket) Serve(message func(k *Socket, text []byte)) {
	k.conn.Serve(func(text []byte) { message(k, text) })
	t := k.h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closeLocked(t)
	k.h.sockets.remove(k)
	k.h.open.Add(-1)
	k.h.cfg.Metrics.Close(k.conn.Code())
}

// closeLocked ends all keys.
func (k *Socket) closeLocked(t *turn) {
	k.over = true
	for _, s := range k.keys {
		s.close(t)
	}
	k.keys = nil
}

// Conn is the client's connection.
func (k *Socket) Conn() *clientconn.Conn { return k.conn }

// Allowed are the keys that the client's credentials name, nil for any.
func (k *Socket) Allowed() [][]byte {
	if k.allowed == nil {
		return nil
	}
	keys := make([][]byte, 0, len(k.allowed))
	for key := range k.allowed {
		keys = append(keys, []byte(key))
	}
	return keys
}

// May reports whether the client may follow a key.
func (k *Socket) May(key []byte) bool {
	_, ok := k.allowed[string(key)]
	return ok || k.allowed == nil
}

// Follows reports whether the client has a key. Only its own messages change that.
func (k *Socket) Follows(key []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.find(key) >= 0
}

// Subscribe adds a key. The client is told when it is live; an error says why it cannot be added.
func (k *Socket) Subscribe(w Wish) error {
	t := k.h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.over:
		return ErrClosing
	case k.find(w.Key) >= 0:
		return ErrAlready
	case len(k.keys) >= k.h.cfg.MaxKeys:
		return ErrTooMany
	}
	return k.add(t, w)
}

// Unsubscribe takes a key away: nothing of it comes behind the message that says so.
func (k *Socket) Unsubscribe(key []byte) error {
	t := k.h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.find(key)
	if i < 0 {
		return ErrUnknown
	}
	s := k.keys[i]
	var c []byte
	if s.core != nil {
		c = t.cursorOfPlaces(k.core.Of(s.core))
	}
	k.say(t, 0, func(dst []byte) []byte { return clientmsg.AppendUnsubscribed(dst, c, key) })
	k.keys = slices.Delete(k.keys, i, i+1)
	s.close(t)
	k.core.Remove(s.core)
	return nil
}

// Refuse answers a message that asked for something that cannot be granted. The rest goes on.
func (k *Socket) Refuse(of string, key []byte, reason, detail string) {
	t := k.h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.say(t, 0, func(dst []byte) []byte { return clientmsg.AppendRefused(dst, of, key, reason, detail) })
	}
}

// Refuse tells a client with one key that it cannot have more or fewer.
func (s *Session) Refuse(of string, key []byte, reason, detail string) {
	t := s.h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	if s.enter(t) {
		s.say(func(dst []byte) []byte { return clientmsg.AppendRefused(dst, of, key, reason, detail) })
		s.leave(t)
	}
}

// Flooded reports whether so many answers wait for a client that it should be told no more.
func (h *Hub) Flooded(c *clientconn.Conn) bool {
	return int64(c.Queued()) > 2*h.cfg.Session.Window+flushAt
}

func (k *Socket) find(key []byte) int {
	return slices.IndexFunc(k.keys, func(s *Session) bool { return bytes.Equal(s.key, key) })
}

// add begins a key. The caller holds mu.
func (k *Socket) add(t *turn, w Wish) error {
	s := &Session{h: k.h, sock: k, conn: k.conn, key: w.Key, keyHash: cursor.Hash(w.Key), since: t.now, wish: &w}
	if err := s.begin(t); err != nil {
		return err
	}
	k.keys = append(k.keys, s)
	return nil
}

// join gives a session its core.
func (k *Socket) join(s *Session, o session.Open) {
	asked := session.Place{Key: s.keyHash}
	if topicID, feed, ok := cursor.Of(s.wish.Cursors, s.key); ok {
		asked.TopicID, asked.At = topicID, positions(feed)
	}
	s.core = k.core.Add(s, o, asked)
}

// rejoin gives a session that was not greeted another core.
func (k *Socket) rejoin(s *Session, o session.Open) {
	asked := k.core.Asked(s.core)
	k.core.Remove(s.core)
	s.core = k.core.Add(s, o, asked)
}

// say queues a control message that build appends; cost is what it counts in the window.
func (k *Socket) say(t *turn, cost int64, build func(dst []byte) []byte) {
	t.scratch = build(clientconn.Reserve(t.scratch[:0]))
	k.conn.Queue(clientconn.Seal(t.scratch, 0, clientconn.Text), cost)
	k.touch(t)
}

func (k *Socket) touch(t *turn) {
	if !k.dirty {
		k.dirty = true
		t.socks = append(t.socks, k)
	}
}

// flush makes one attempt to write what is queued and tells the core what has left.
func (k *Socket) flush(now time.Time) {
	if left := k.conn.Flush(); left > 0 {
		k.written(now, left)
	}
}

// Drained implements clientconn.Owner: the writer goroutine made progress.
func (k *Socket) Drained() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if left := k.conn.Collect(); left > 0 && !k.over {
		k.written(time.Now(), left)
	}
}

// Checkpoint implements session.SeveralOutput.
func (k *Socket) Checkpoint(waiting int) (cost int64) {
	c := k.t.cursorOfAll(k)
	cost = int64(len(c)) + clientmsg.CheckpointOverhead
	k.say(k.t, cost, func(dst []byte) []byte { return clientmsg.AppendCheckpointSeveral(dst, c, waiting) })
	return cost
}

// GoAway implements session.SeveralOutput.
func (k *Socket) GoAway(retryAfter time.Duration) {
	c := k.t.cursorOfAll(k)
	k.say(k.t, 0, func(dst []byte) []byte { return clientmsg.AppendGoAway(dst, c, retryAfter) })
}

// look is what the look at all clients does for one with several keys; its sessions are visited like others.
func (k *Socket) look(t *turn, since time.Time, sum *look) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.t = t
		sum.held(&k.allow, k.core.Full())
		if k.allow.owed > 0 {
			k.written(t.now, 0)
		}
		k.core.Tick(t.now)
		switch over, warn := k.ends.due(t.now); {
		case over:
			k.conn.Close(closecode.CredentialsExpired, expired)
			k.finish(t)
		case warn > 0:
			k.say(t, 0, func(dst []byte) []byte { return clientmsg.AppendExpiring(dst, warn) })
		}
		if slices.ContainsFunc(k.keys, func(s *Session) bool { return !s.over && s.core.Primary() == 0 }) {
			sum.waiting++
		}
		k.t = nil
	}
	k.conn.Check(t.now, since, k.h.cfg.Limits)
	sum.queued += int64(k.conn.Queued())
}

// finish ends the cores of a client that was told to go: nothing more is asked of the nodes.
func (k *Socket) finish(t *turn) {
	for _, s := range k.keys {
		if s.enter(t) {
			s.finish = true
			s.leave(t)
		}
	}
}

// goAway says goodbye to a client.
func (k *Socket) goAway(retryAfter time.Duration) {
	t := k.h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return
	}
	k.t = t
	k.core.GoAway(t.now, retryAfter)
	k.t = nil
	k.conn.Close(closecode.GoingAway, "the router is stopping")
	k.finish(t)
}

// Expires sets when the client's credentials end and when to tell it so. A zero end is none.
func (k *Socket) Expires(at, warn time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends.set(at, warn)
}

// Remind tells the client of the end of its credentials again, not before a time.
func (k *Socket) Remind(notBefore time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends.remind(notBefore)
}

// check looks whether the socket's account is that of its sessions and of its outbox.
func (k *Socket) check(i int, complain func(string, ...any)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return
	}
	st := k.core.Status()
	var under int64
	live := 0
	for _, s := range k.keys {
		if s.over {
			continue
		}
		live++
		for _, c := range s.core.Statuses(nil) {
			under += c.Left
		}
	}
	if owed := k.conn.Owed() + k.allow.owed; owed != st.Queued {
		complain("socket %d: the ledger says %d bytes queued, the outbox %d", i, st.Queued, owed)
	}
	if under != st.Under {
		complain("socket %d: the ledger says %d bytes under way, its sessions %d", i, st.Under, under)
	}
	if st.Keys != len(k.keys) {
		complain("socket %d: %d sessions, and a core of %d", i, len(k.keys), st.Keys)
	}
	if k.t != nil {
		complain("socket %d: a visit was not ended", i)
	}
}
