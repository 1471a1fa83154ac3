package simulate

import (
	"fmt"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// several is a client with several keys on one socket. What is owed for a key is judged by a client of its own, which
// has no connection: it is told the messages of its key, and its part of those that are for all keys.
type several struct {
	w     *world
	name  string
	proc  *proc
	pace  int64
	all   []*client // its keys, in the order in which they came
	conn  *severalConn
	heard int64
	away  bool
}

// severalConn is one connection of it.
type severalConn struct {
	g      *several
	r      *routerProc
	sock   *socket
	down   *pipe
	closed bool
}

const (
	// mostKeys is how many keys a client with several has at most.
	mostKeys = 12
	// controlCost is what a checkpoint counts in the window.
	controlCost = 256
)

// addSeveral brings a client with several keys.
func (w *world) addSeveral() {
	g := &several{w: w, name: fmt.Sprintf("s%d", len(w.several))}
	g.proc = &proc{w: w, name: g.name}
	if w.chance(0.3) {
		g.pace = w.between(5*ms, 100*ms)
	}
	w.several = append(w.several, g)
	for range 1 + w.rng.IntN(w.set.keys) {
		g.addKey()
	}
	g.run()
}

// addKey gives it a key that it has not had yet; nil if there is none.
func (g *several) addKey() *client {
	w := g.w
	key := w.key(w.rng.IntN(w.set.keys))
	if len(g.all) >= mostKeys || slices.ContainsFunc(g.all, func(c *client) bool { return c.key == key }) {
		return nil
	}
	c := &client{w: w, id: len(w.clients), key: key, group: g, waited: true, follows: true}
	c.name = fmt.Sprintf("%s/c%d", g.name, c.id)
	c.proc = g.proc
	c.wishes()
	w.clients = append(w.clients, c)
	g.all = append(g.all, c)
	w.note(c.id, anywhere, "CLIENT %d of %s key %s, partitions %v, start %d:%d", c.id, g.name, key, w.kafka.topic.homes(key), c.start.Kind, c.start.Value)
	return c
}

func (g *several) run() {
	g.proc.every(250*ms, func() bool {
		switch {
		case g.away:
		case g.conn == nil:
			g.connect()
		default:
			if since := max(g.heard, g.proc.thawed); g.w.now-since > g.w.set.heartbeat+2*sec {
				r, s := g.conn.r, g.conn.sock
				if !r.proc.dead && !r.proc.frozen && r.proc.thawed < since && s != nil && !s.over {
					g.w.fail(g.all[0].id, "%s said nothing for %dms", r.name, (g.w.now-since)/ms)
				}
				g.disconnect()
			}
		}
		return true
	})
}

func (g *several) connect() {
	w := g.w
	r := pick(w, w.routers)
	k := &severalConn{g: g, r: r}
	g.conn, g.heard = k, w.now
	for _, c := range g.all {
		c.mustGap, c.waited, c.leaving = false, true, false
		w.note(c.id, anywhere, "CLIENT %d connects with %s to %s, cursor %t %v", c.id, g.name, r.name, c.has, c.at.list)
	}
	k.down = w.pipe(r.place, g.name, g.proc)
	k.down.handled = func() {
		if k.sock != nil && len(k.sock.outbox) > 0 {
			r.proc.after(w.delay(), func() { k.sock.flush() })
		}
	}
	if r.proc.dead {
		w.after(w.delay(), func() { g.proc.do(func() { k.lost() }) })
		return
	}
	w.after(w.delay(), func() {
		r.proc.do(func() {
			if !k.closed {
				r.connectSeveral(k)
			}
		})
	})
}

func (k *severalConn) lost() {
	if k.g.conn == k {
		k.g.conn, k.closed = nil, true
	}
}

func (g *several) disconnect() {
	k := g.conn
	if k == nil {
		return
	}
	g.conn, k.closed, k.down.closed = nil, true, true
	g.w.after(g.w.delay(), func() {
		k.r.proc.do(func() {
			if k.sock != nil {
				k.sock.end()
			}
		})
	})
}

// trouble lets it go away, not read, or forget its cursors.
func (g *several) trouble() {
	w := g.w
	switch w.rng.IntN(3) {
	case 0:
		g.proc.freeze()
		w.after(w.rare(200*ms, 10*sec), g.proc.thaw)
	case 1:
		g.away = true
		g.disconnect()
		w.after(w.rare(50*ms, 8*sec), func() { g.away = false })
	default:
		g.disconnect()
		for _, c := range g.all {
			if w.chance(0.3) {
				c.wishes()
			}
		}
	}
}

// change adds a key to the open socket, or takes one away.
func (g *several) change() bool {
	k := g.conn
	if k == nil || k.sock == nil {
		return false
	}
	var c *client
	if g.w.chance(0.3) {
		c = g.addKey()
	}
	if c == nil {
		c = pick(g.w, g.all)
		if c.leaving || c.follows && c.waited {
			return false
		}
		c.leaving = c.follows
		c.follows = !c.follows
	}
	add := !c.leaving
	if add {
		c.waited, c.mustGap = true, false
	}
	g.w.note(c.id, anywhere, "CLIENT %d of %s: add %t", c.id, g.name, add)
	g.w.after(g.w.delay(), func() {
		k.r.proc.do(func() {
			switch {
			case k.closed || k.sock.over:
			case add:
				if !k.sock.add(c) {
					k.sock.hangUp()
				}
			default:
				k.sock.remove(c)
			}
		})
	})
	return true
}

// hear takes a message.
func (g *several) hear(k *severalConn, m message) {
	if g.conn != k {
		return
	}
	g.heard = g.w.now
	if m.to != nil && !m.to.follows && !m.to.leaving {
		g.w.fail(m.to.id, "%s, and the key was taken away", m)
	}
	for _, c := range g.all {
		switch place, ok := m.place(c); {
		case m.to == c:
			c.take(m)
		case m.to != nil && m.kind != saysGap || !ok || !c.follows && !c.leaving:
		case c.waited:
			// Not live yet: it goes on where it said itself, and if it said nothing there is nothing to say.
			if !c.has || place.topicID != c.at.topicID || !slices.Equal(place.list, c.at.list) {
				g.w.fail(c.id, "%s at %v, which is not live; its cursor is %v, %t", m, place.list, c.at.list, c.has)
			}
		default:
			c.take(message{kind: saysCheckpoint, at: place})
		}
	}
	if m.kind == saysUnsubscribed {
		m.to.leaving = false
	}
	if g.pace > 0 && !g.proc.frozen {
		g.proc.freeze()
		g.w.after(g.pace, g.proc.thaw)
	}
}

// take is hear for one key.
func (c *client) take(m message) {
	if c.w.trace != nil {
		c.w.note(c.id, anywhere, "CLIENT %d hears %s", c.id, m)
	}
	if m.kind == saysUnsubscribed {
		if c.waited {
			return
		}
		m.kind = saysCheckpoint
	}
	c.check(m)
	c.at, c.has, c.waited = m.at, true, false
	if m.kind == saysRecord {
		c.records++
		c.w.stats.Records++
	}
}

// place is what a message for all keys says of one.
func (m message) place(c *client) (position, bool) {
	for _, p := range m.places {
		if p.Key == uint64(c.id) {
			return position{topicID: p.TopicID, list: p.At}, true
		}
	}
	return position{}, false
}

// socket is the router's end: the shell of what the keys share.
type socket struct {
	r      *routerProc
	conn   *severalConn
	core   *router.Several
	keys   []*session
	outbox []message
	queued int64
	over   bool
}

func (r *routerProc) connectSeveral(k *severalConn) {
	if r.table.Topic == nil || r.draining {
		k.down.send(0, k.lost)
		return
	}
	s := &socket{r: r, conn: k}
	s.core = router.NewSeveral(r.w.time(), &r.cfg, s)
	k.sock = s
	r.sockets = append(r.sockets, s)
	r.w.stats.Connects++
	for _, c := range k.g.all {
		if c.follows && !s.add(c) {
			s.hangUp()
			return
		}
	}
}

// add begins a key; false when the router is too far behind for its cursor.
func (k *socket) add(c *client) bool {
	r := k.r
	if c.has && c.at.topicID == r.table.TopicID && c.at.behind(r.table.Partitions()) {
		return false
	}
	s := &session{
		r: r, client: c, conn: &conn{client: c, r: r, wish: wish{start: c.start, cursor: c.has, at: c.at}}, sock: k,
		key: c.key, partition: homeOf(c.key, r.table.Partitions()), topicID: r.table.TopicID,
	}
	asked := router.Place{Key: uint64(c.id)}
	if c.has {
		asked.TopicID, asked.At = c.at.topicID, c.at.list
	}
	s.core = k.core.Add(s, s.resolve(), asked)
	k.keys = append(k.keys, s)
	r.sessions = append(r.sessions, s)
	s.visit(func(now time.Time) { s.route(now, r.table) })
	return true
}

func (k *socket) find(c *client) *session {
	for _, s := range k.keys {
		if s.client == c {
			return s
		}
	}
	return nil
}

func (k *socket) remove(c *client) {
	s := k.find(c)
	if s == nil {
		return
	}
	m := message{kind: saysUnsubscribed, to: c}
	for _, p := range k.core.Of(s.core) {
		m.at = position{topicID: p.TopicID, list: p.At}
	}
	k.say(m)
	k.keys = slices.DeleteFunc(k.keys, func(o *session) bool { return o == s })
	s.end()
	k.core.Remove(s.core)
	k.flush()
}

// rejoin gives a key that was not greeted another core.
func (k *socket) rejoin(s *session) {
	asked := k.core.Asked(s.core)
	k.core.Remove(s.core)
	s.core = k.core.Add(s, s.resolve(), asked)
}

func (k *socket) tick(now time.Time) {
	if !k.over {
		k.core.Tick(now)
		k.flush()
	}
}

func (k *socket) flush() {
	if k.over {
		return
	}
	left := int64(0)
	for len(k.outbox) > 0 && k.conn.down.bytes < k.r.w.set.socket {
		m := k.outbox[0]
		k.outbox = k.outbox[1:]
		left += m.cost
		k.deliver(m)
	}
	if left > 0 {
		k.queued -= left
		k.core.Written(left)
	}
}

func (k *socket) deliver(m message) {
	c := k.conn
	c.down.send(m.cost+controlSize, func() { c.g.hear(c, m) })
}

// hangUp ends the connection behind everything that is queued.
func (k *socket) hangUp() {
	for _, m := range k.outbox {
		k.deliver(m)
	}
	k.outbox = nil
	k.conn.down.send(0, k.conn.lost)
	k.end()
}

func (k *socket) end() {
	if k.over {
		return
	}
	k.over = true
	for _, s := range slices.Clone(k.keys) {
		s.end()
	}
	k.r.sockets = slices.DeleteFunc(k.r.sockets, func(o *socket) bool { return o == k })
}

func (k *socket) goAway() {
	if k.over {
		return
	}
	k.core.GoAway(k.r.w.time(), time.Millisecond)
	k.hangUp()
}

func (k *socket) say(m message) {
	w := k.r.w
	k.queued += m.cost
	k.outbox = append(k.outbox, m)
	if w.trace != nil {
		for _, s := range k.keys {
			if m.to == nil || m.to == s.client {
				w.note(s.client.id, s.partition, "%s says %s", k.r.name, m)
			}
		}
	}
	// One record per stream may be larger than what was left of the window, and a checkpoint comes on top.
	if most := k.core.Status().Window + 2*int64(len(k.keys))*int64(w.set.valueMost+link.RecordOverhead+8) + controlCost; k.queued > most {
		w.fail(anyone, "%s: %d bytes wait for %s, the window is %d", k.r.name, k.queued, k.conn.g.name, w.set.window)
	}
}

// Checkpoint implements the core's output.
func (k *socket) Checkpoint(int) int64 {
	k.r.w.stats.Checkpoints++
	k.say(message{kind: saysCheckpoint, places: k.core.Places(nil), cost: controlCost})
	return controlCost
}

// GoAway implements the core's output.
func (k *socket) GoAway(time.Duration) {
	k.say(message{kind: saysGoAway, places: k.core.Places(nil)})
}

// unrest says what is wrong with what the keys share, once all is at rest.
func (g *several) unrest() string {
	if g.conn == nil || g.conn.sock == nil || g.conn.sock.over {
		return "it is not connected"
	}
	k := g.conn.sock
	st := k.core.Status()
	under := int64(0)
	for _, s := range k.keys {
		for _, c := range s.core.Statuses(nil) {
			under += c.Left
		}
	}
	switch {
	case st.Keys != len(k.keys):
		return fmt.Sprintf("%d keys, and %d in the core", len(k.keys), st.Keys)
	case st.Queued != k.queued:
		return fmt.Sprintf("%d bytes wait for it, the account says %d", k.queued, st.Queued)
	case st.Under != under:
		return fmt.Sprintf("credit leaked: %d bytes are under way, the account says %d", under, st.Under)
	}
	return ""
}
