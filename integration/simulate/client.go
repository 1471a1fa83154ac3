package simulate

import (
	"fmt"
	"slices"

	"github.com/pointsmanhq/pointsman/proto/link"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// position is a client's cursor.
type position struct {
	topicID [16]byte
	list    []router.Position
}

// next is where it stands in a partition; false if it does not list it, or as done with.
func (p position) next(partition int32) (int64, bool) {
	for _, at := range p.list {
		if at.Partition == partition && at.Next != router.Done {
			return at.Next, true
		}
	}
	return 0, false
}

// behind reports whether somebody who knows of so many partitions cannot serve it.
func (p position) behind(partitions int32) bool {
	return slices.ContainsFunc(p.list, func(at router.Position) bool { return at.Partition >= partitions })
}

type kind uint8

const (
	saysHello kind = iota
	saysRecord
	saysCheckpoint
	saysGap
	saysWaiting
	saysGoAway
	saysUnsubscribed
)

// message is what a router tells a client.
type message struct {
	kind    kind
	at      position // the cursor it carries
	resumed bool
	// Of what it tells; the cursor may list more.
	partition int32
	next      int64
	record    *link.Record
	from      int64
	reason    link.GapReason
	cost      int64
	// On a socket with several keys: whose it is, nil for all, and where all of them are.
	to     *client
	places []router.Place
}

func (m message) String() string {
	switch m.kind {
	case saysHello:
		return fmt.Sprintf("hello at %v, resumed %t", m.at.list, m.resumed)
	case saysRecord:
		return fmt.Sprintf("record %d:%d, cursor %v", m.partition, m.record.Offset, m.at.list)
	case saysCheckpoint:
		return fmt.Sprintf("checkpoint %v %v", m.at.list, m.places)
	case saysGap:
		return fmt.Sprintf("gap %s from %d to %d in %d, cursor %v", m.reason, m.from, m.next, m.partition, m.at.list)
	case saysGoAway:
		return fmt.Sprintf("goaway at %v %v", m.at.list, m.places)
	case saysUnsubscribed:
		return fmt.Sprintf("unsubscribed at %v", m.at.list)
	}
	return "waiting"
}

// wish is what a client asks for when it connects.
type wish struct {
	start  link.Start
	cursor bool // begin at the cursor
	at     position
}

// client is one client, which reconnects with its cursor for as long as the run lasts. Its cursor is what the
// checks compare with the log.
type client struct {
	w     *world
	id    int
	name  string
	key   string
	proc  *proc // frozen while it does not read
	start link.Start
	pace  int64 // how long it takes over a message

	at      position
	has     bool // at is a cursor
	conn    *conn
	heard   int64
	away    bool     // it stays disconnected for a while
	mustGap bool     // hello said that the resume was incomplete: a gap has to follow
	group   *several // it is one key of
	follows bool     // the group follows it, or has asked for it
	leaving bool     // the group has asked for its end
	waited  bool     // on this connection nothing but waiting was heard yet
	records int

	base map[int32]int64 // by partition: below it nothing is owed to the client
	seen map[int32]int64 // by partition: below it everything was delivered or told to be out of reach
	seq  int             // of the newest record
}

// conn is one connection of a client.
type conn struct {
	client  *client
	r       *routerProc
	wish    wish
	session *session
	down    *pipe // to the client
	closed  bool
}

func (c *client) run() {
	c.proc.every(250*ms, func() bool {
		if c.away {
			return true
		}
		if c.conn == nil {
			c.connect()
			return true
		}
		// Whoever hears nothing for longer than the heartbeat connects anew.
		if since := max(c.heard, c.proc.thawed); c.w.now-since > c.patience() {
			c.checkSilence(since)
			c.disconnect("silence")
		}
		return true
	})
}

// patience is how long a client waits for a sign of life.
func (c *client) patience() int64 { return c.w.set.heartbeat + 2*sec }

func (c *client) connect() {
	w := c.w
	r := pick(w, w.routers)
	k := &conn{client: c, r: r, wish: wish{start: c.start, cursor: c.has, at: c.at}}
	c.conn, c.heard, c.mustGap, c.waited = k, w.now, false, true
	k.down = w.pipe(r.place, c.name, c.proc)
	k.down.handled = func() {
		if k.session != nil && len(k.session.outbox) > 0 {
			r.proc.after(w.delay(), func() { k.session.flush() })
		}
	}
	w.note(c.id, anywhere, "CLIENT %d connects to %s, cursor %t %v", c.id, r.name, c.has, c.at.list)
	if r.proc.dead {
		w.after(w.delay(), func() { c.proc.do(func() { k.lost() }) })
		return
	}
	w.after(w.delay(), func() {
		r.proc.do(func() {
			if !k.closed {
				r.connect(c, k)
			}
		})
	})
}

// deliver puts a message into the socket.
func (k *conn) deliver(m message) {
	size := m.cost + controlSize
	k.down.send(size, func() { k.client.hear(k, m) })
}

// refuse answers a client that cannot be served now.
func (k *conn) refuse() { k.down.send(0, k.lost) }

// closeAfter ends the connection after everything that is queued for the client.
func (k *conn) closeAfter() {
	if s := k.session; s != nil {
		for _, m := range s.outbox {
			k.deliver(m)
		}
		s.outbox = nil
	}
	k.down.send(0, k.lost)
}

// routerGone is the end of the router's process.
func (k *conn) routerGone(orderly bool) {
	if orderly {
		k.down.send(0, k.lost)
	}
}

// lost is how the client learns that its connection has ended.
func (k *conn) lost() {
	if c := k.client; c.conn == k {
		c.w.note(c.id, anywhere, "CLIENT %d: connection ended", c.id)
		c.conn, k.closed = nil, true
	}
}

func (c *client) disconnect(why string) {
	k := c.conn
	if k == nil {
		return
	}
	c.w.note(c.id, anywhere, "CLIENT %d disconnects: %s", c.id, why)
	c.conn, k.closed, k.down.closed = nil, true, true
	r := k.r
	c.w.after(c.w.delay(), func() {
		r.proc.do(func() {
			if k.session != nil {
				k.session.end()
			}
		})
	})
}

// hear takes a message, checks it and moves the cursor.
func (c *client) hear(k *conn, m message) {
	if c.conn != k {
		return
	}
	w := c.w
	c.heard = w.now
	if w.trace != nil {
		w.note(c.id, anywhere, "CLIENT %d hears %s", c.id, m)
	}
	c.check(m)
	switch m.kind {
	case saysWaiting:
	case saysGoAway:
		c.at = m.at
	default:
		c.at, c.has, c.waited = m.at, true, false
	}
	if m.kind == saysRecord {
		c.records++
		w.stats.Records++
	}
	if c.pace > 0 && !c.proc.frozen {
		c.proc.freeze()
		w.after(c.pace, c.proc.thaw)
	}
}
