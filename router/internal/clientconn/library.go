package clientconn

import (
	"net"
	"time"
)

// librarySide is the Conn as the WebSocket library sees it.
type librarySide Conn

// Read reads what net/http left, then the socket. What the gate refuses ends the connection; the library gets what came
// before it.
func (l *librarySide) Read(p []byte) (int, error) {
	c := (*Conn)(l)
	if err := c.gate.refusal; err != nil {
		c.Close(err.code, err.reason)
		return 0, err
	}
	n, err := c.receive(p)
	n = c.gate.pass(p[:n])
	if n == 0 && c.gate.refusal != nil {
		return l.Read(p)
	}
	return n, err
}

// receive reads bytes as they came.
func (c *Conn) receive(p []byte) (int, error) {
	if len(c.replay) > 0 {
		n := copy(p, c.replay)
		if c.replay = c.replay[n:]; len(c.replay) == 0 {
			c.replay = nil
		}
		return c.read(p[:n])
	}
	n, err := c.net.Read(p)
	if n > 0 {
		if _, flood := c.read(p[:n]); flood != nil {
			return 0, flood
		}
	}
	return n, err
}

// read looks at what was read.
func (c *Conn) read(b []byte) (int, error) {
	now := time.Now().UnixNano()
	c.heard.Store(now)
	if !c.metered(b, now) {
		return 0, errFlood
	}
	return len(b), nil
}

// Write queues a control frame of the library's: it never writes anything else, and always whole frames.
func (l *librarySide) Write(p []byte) (int, error) {
	c := (*Conn)(l)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return 0, net.ErrClosed
	}
	code, isClose := closeOf(p)
	switch {
	case isClose:
		c.queueLocked(p, 0)
		if !c.closing {
			c.library = true
			c.closeQueuedLocked(code)
		}
	case c.writing:
		// The client floods us with pings and does not read: RFC 6455 lets us answer a later one.
		return len(p), nil
	default:
		c.queueLocked(p, 0)
	}
	c.flushLocked()
	return len(p), nil
}

// Close is called by the library when the close handshake is over or the connection failed.
func (l *librarySide) Close() error {
	c := (*Conn)(l)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing && c.closing && !c.shut {
		c.lastWrite = true
		return c.net.SetWriteDeadline(time.Now().Add(closeTime))
	}
	c.shutLocked()
	return nil
}

func (l *librarySide) LocalAddr() net.Addr                { return l.net.LocalAddr() }
func (l *librarySide) RemoteAddr() net.Addr               { return l.net.RemoteAddr() }
func (l *librarySide) SetDeadline(t time.Time) error      { return l.net.SetDeadline(t) }
func (l *librarySide) SetReadDeadline(t time.Time) error  { return l.net.SetReadDeadline(t) }
func (l *librarySide) SetWriteDeadline(t time.Time) error { return l.net.SetWriteDeadline(t) }
