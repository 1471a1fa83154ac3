package clientconn

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// reading is what a client's unfinished message costs. The reader writes it, whoever judges the client reads it.
type reading struct {
	begun atomic.Int64 // Unix nanoseconds, 0 between messages
	held  atomic.Int64 // bytes of memory
}

// next reads until a message is whole, and handles what comes before it. An error means that nothing more will come.
func (c *Conn) next() (op Opcode, data []byte, err error) {
	for {
		what, err := c.step()
		if err != nil {
			c.in.data, c.in.control = nil, nil
			c.reading.begun.Store(0)
			c.reading.held.Store(0)
			return 0, nil, err
		}
		c.weigh()
		switch what {
		case nothing:
		case wholeMessage:
			op, packed, data := c.in.message()
			if packed {
				if data, err = c.unpack(op, data); err != nil {
					c.reading.held.Store(0)
				}
			}
			c.reading.begun.Store(0)
			return op, data, err
		case wholePing:
			c.pong(c.in.control)
			c.in.control = nil
		case wholePong:
			c.in.control = nil
		case wholeClose:
			c.closed(c.in.control)
			return 0, nil, errClosed
		}
	}
}

// errClosed ends the reading of a client that said goodbye.
var errClosed = errors.New("the client closed the connection")

// weigh notes what the message under way costs.
func (c *Conn) weigh() {
	if c.in.kind == 0 {
		return
	}
	if c.reading.begun.Load() == 0 {
		c.reading.begun.Store(time.Now().UnixNano())
	}
	c.reading.held.Store(int64(cap(c.in.data)))
}

// step takes what was read already, or else reads once. What may not be ends the connection.
func (c *Conn) step() (what event, err error) {
	var bad *violation
	if len(c.unread) > 0 {
		var n int
		n, what, bad = c.in.take(c.unread)
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			c.unread = nil
		}
	} else if room := c.in.room(len(c.small)); room != nil {
		c.weigh()
		n, err := c.read(room)
		if n == 0 {
			return nothing, err
		}
		what, bad = c.in.filled(n)
	} else {
		n, err := c.read(c.small[:])
		c.unread = c.small[:n]
		if n == 0 {
			return nothing, err
		}
		return nothing, nil
	}
	if !c.metered(c.heard.Load()) {
		return nothing, errFlood
	}
	if bad != nil {
		c.Close(bad.code, bad.reason)
		return nothing, bad
	}
	return what, nil
}

func (c *Conn) read(p []byte) (int, error) {
	n, err := c.net.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// pong answers a ping.
func (c *Conn) pong(payload []byte) {
	var room [2 + maxControl]byte
	frame := append(append(room[:0], fin|byte(opPong), byte(len(payload))), payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing {
		return // the client floods us with pings and does not read: RFC 6455 lets us answer a later one
	}
	c.queueLocked(frame, 0)
	c.flushLocked()
}

// closed answers a client's close frame, unless that is the answer to ours, and closes the socket.
func (c *Conn) closed(payload []byte) {
	code := closecode.Normal
	if len(payload) >= 2 {
		code = int(binary.BigEndian.Uint16(payload))
	}
	var room [2 + maxControl]byte
	frame := append(append(room[:0], fin|byte(opClose), byte(len(payload))), payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing && !c.shut {
		c.queueLocked(frame, 0)
		c.closeQueuedLocked(code)
		c.code = ByClient
		c.flushLocked()
	}
	if c.writing && c.closing && !c.shut {
		c.lastWrite = true
		_ = c.net.SetWriteDeadline(time.Now().Add(closeTime))
		return
	}
	c.shutLocked()
}

// overdue reports whether a message was begun too long ago.
func (c *Conn) overdue(now, since int64, limit time.Duration) bool {
	begun := c.reading.begun.Load()
	return begun != 0 && limit > 0 && now-max(begun, since) > int64(limit)
}

// lateLocked closes a client whose message does not come to its end.
func (c *Conn) lateLocked() {
	var frame [2 + maxControl]byte
	c.queueLocked(appendClose(frame[:0], closecode.ControlTimeout, "the message did not come to its end in time"), 0)
	c.closeQueuedLocked(closecode.ControlTimeout)
	c.flushLocked()
	c.stopReadingLocked()
}

// stopReadingLocked makes the reader of an unfinished message let go of it. The caller has queued a close frame.
func (c *Conn) stopReadingLocked() {
	if c.reading.begun.Load() != 0 {
		_ = c.net.SetReadDeadline(time.Unix(1, 0)) // end sets its own
	}
}

// Message waits for the client's first message, no longer than until the deadline.
func (c *Conn) Message(deadline time.Time) (text []byte, err error) {
	if err := c.net.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	op, text, err := c.next()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case err != nil:
		c.noteEnd()
		return nil, err
	}
	if op != Text {
		c.refuseBinary()
		return nil, ErrRefused
	}
	c.reading.held.Store(0)
	return text, c.net.SetReadDeadline(time.Time{})
}
