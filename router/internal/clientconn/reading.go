package clientconn

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// inflating is about what the library holds while a compressed message is read.
const inflating = 48 << 10

// reading is what a client's unfinished message costs. The reader writes it, whoever judges the client reads it.
type reading struct {
	begun atomic.Int64 // Unix nanoseconds, 0 between messages
	held  atomic.Int64 // bytes of memory
}

// readMessage reads what is left of a message. Its memory counts until done is called.
func (c *Conn) readMessage(r io.Reader) (data []byte, err error) {
	c.reading.begun.Store(time.Now().UnixNano())
	defer c.reading.begun.Store(0)
	extra := 0
	if c.packs {
		extra = inflating
	}
	data = make([]byte, 0, readBuffer)
	for {
		if len(data) == cap(data) {
			grown := make([]byte, len(data), 2*cap(data))
			copy(grown, data)
			data = grown
		}
		c.reading.held.Store(int64(cap(data) + extra))
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			c.reading.held.Store(0)
			return nil, err
		}
	}
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
	kind, r, err := c.ws.Reader(context.Background())
	if err == nil {
		text, err = c.readMessage(r)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case err != nil:
		c.noteEnd(err)
		return nil, err
	}
	if kind != websocket.MessageText {
		c.refuseBinary()
		return nil, ErrRefused
	}
	if !c.valid(text) {
		return nil, ErrRefused
	}
	c.reading.held.Store(0)
	return text, c.net.SetReadDeadline(time.Time{})
}
