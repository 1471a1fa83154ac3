package socket

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
)

// Client is one client's socket and its place in the partition of its key.
type Client struct {
	// Static after construction.
	ID        uint64
	key       []byte
	hash      uint64
	partition int32
	wish      int64 // an offset, feed.Latest or feed.Oldest
	resumed   bool
	server    *Server
	conn      *conn

	// Guarded by conn.mu.
	next     int64
	greeted  bool
	live     bool // everything at or after next comes by itself
	lastSent time.Time

	// State belongs to the design behind the socket, and is always of one type.
	State atomic.Value
}

// Key is the client key.
func (c *Client) Key() []byte { return c.key }

// Partition is the one that the client's key lives in.
func (c *Client) Partition() int32 { return c.partition }

// From is where the client wants to begin: an offset, feed.Latest or feed.Oldest.
func (c *Client) From() int64 { return c.wish }

// Next is the place below which everything was sent; From before the hello.
func (c *Client) Next() int64 {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if !c.greeted {
		return c.wish
	}
	return c.next
}

// Begin sends the hello: delivery begins at next. Only the first call counts.
func (c *Client) Begin(next int64, complete bool) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if c.greeted {
		return
	}
	c.greeted, c.next = true, next
	buf := make([]byte, headerRoom, 256)
	c.sendLocked(seal(clientmsg.AppendHello(buf, c.cursor(next), c.key, c.resumed && complete, c.server.cfg.Heartbeat)))
	c.conn.flushLocked()
}

// Gap tells that what lies below to can no longer be delivered.
func (c *Client) Gap(to int64) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if !c.greeted || to <= c.next {
		return
	}
	from := c.next
	c.next = to
	buf := make([]byte, headerRoom, 256)
	c.sendLocked(seal(clientmsg.AppendGap(buf, c.cursor(to), c.partition, from, to, link.GapRetention)))
}

// Waiting tells a client that it has to be patient.
func (c *Client) Waiting() {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.sendLocked(seal(clientmsg.AppendWaiting(make([]byte, headerRoom, 64))))
	c.conn.flushLocked()
}

// Record queues a frame of Frame's; what lies below the client's place is dropped. Flush sends it.
func (c *Client) Record(frame []byte, offset int64) (taken bool) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if !c.greeted || offset < c.next || c.conn.closing || c.conn.shut {
		return false
	}
	if c.conn.unsentLocked() > maxUnsent {
		c.server.metrics.slow.Inc()
		c.conn.closeLocked(closecode.SlowClient, "too far behind; the cursor still holds")
		return false
	}
	c.next = offset + 1
	c.sendLocked(frame)
	return true
}

// Missed queues a record that was made before the client came.
func (c *Client) Missed(r *feed.Record) {
	frame, _ := c.server.Frame(nil, c.hash, r)
	if c.Record(frame, r.Offset) {
		c.server.Delivered(1)
	}
	const enough = 16 << 10
	c.conn.mu.Lock()
	if c.conn.unsentLocked() > enough {
		c.conn.flushLocked()
	}
	c.conn.mu.Unlock()
}

// Live says that the client has everything below next and that what comes is for it.
func (c *Client) Live(next int64) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.next, c.live = max(c.next, next), true
	c.conn.flushLocked()
}

// IsLive reports whether Live was called.
func (c *Client) IsLive() bool {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return c.live
}

// Flush writes what is queued, as far as the socket takes it.
func (c *Client) Flush() {
	c.conn.mu.Lock()
	c.conn.flushLocked()
	c.conn.mu.Unlock()
}

// Room reports whether a catch-up may go on.
func (c *Client) Room() bool {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return c.conn.unsentLocked() < maxUnsent/4 || c.conn.shut
}

// Gone reports whether the socket is closed.
func (c *Client) Gone() bool {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return c.conn.shut || c.conn.closing
}

// Cover moves the client's place up to where everything was sent. The next checkpoint tells the client.
func (c *Client) Cover(next int64) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if c.greeted && next > c.next {
		c.next = next
	}
}

// Move closes the socket because its partition is, or will be, served elsewhere.
func (c *Client) Move(reason string) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	text := ""
	if c.greeted {
		text = c.cursor(c.next)
	}
	c.sendLocked(seal(clientmsg.AppendGoAway(make([]byte, headerRoom, 256), text, 0)))
	c.conn.closeLocked(closecode.GoingAway, reason)
}

// Refuse closes the socket; the client may come again.
func (c *Client) Refuse(code int, reason string) { c.conn.close(code, reason) }

func (c *Client) cursor(next int64) string {
	return string(cursor.AppendSingle(make([]byte, 0, cursor.SingleRoom), c.server.cfg.TopicID, c.hash, c.partition, next, 0))
}

func (c *Client) sendLocked(frame []byte) {
	c.lastSent = c.server.now()
	c.conn.queueLocked(frame)
}

// look sends a checkpoint to a client that heard nothing for a while, and gives up one that is silent itself.
func (c *Client) look(now time.Time) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	every := c.server.cfg.Heartbeat
	if c.greeted && now.Sub(c.lastSent) > every*2/3 {
		c.sendLocked(seal(clientmsg.AppendCheckpoint(make([]byte, headerRoom, 256), c.cursor(c.next))))
		c.conn.queueLocked([]byte{fin | opPing, 0})
		// Clients that came together need not be looked after together.
		c.lastSent = now.Add(-rand.N(every / 3)) //nolint:gosec // jitter
		c.conn.flushLocked()
	}
	if now.Sub(time.Unix(0, c.conn.heard.Load())) > 3*every && c.conn.unsentLocked() == 0 {
		c.conn.closeLocked(closecode.DeadPeer, "nothing was heard for too long")
	}
}

// Frame makes the message of a record, for every client of its key.
func (s *Server) Frame(buf []byte, hash uint64, r *feed.Record) (frame, grown []byte) {
	var text [cursor.SingleRoom]byte
	var room [headerRoom]byte
	cur := cursor.AppendSingle(text[:0], s.cfg.TopicID, hash, r.Partition, r.Offset+1, 0)
	buf = append(buf[:0], room[:]...)
	buf = clientmsg.AppendRecord(buf, cur, r.Partition, r.Offset, r.Timestamp, r.Headers, r.Value, r.Value == nil, nil)
	return seal(buf), buf // a frame of up to 64 KiB aliases buf
}

// Hash binds the client's cursors to its key.
func (c *Client) Hash() uint64 { return c.hash }
