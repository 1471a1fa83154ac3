package linkserver

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

// listener hands out connections that notice a peer which makes no progress.
type listener struct {
	net.Listener
	timeout time.Duration
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: nonblock.Wrap(c), timeout: l.timeout}, nil
}

// writePiece is the largest write that must succeed within the timeout as a whole: a slow link may take long
// for a message, a stuck one takes none of it.
const writePiece = 64 << 10

// watchedConn fails a read or write that makes no progress for the timeout, once watch was called. Before that
// the HTTP server's own deadlines hold.
type watchedConn struct {
	net.Conn
	timeout time.Duration
	on      atomic.Bool
}

func (c *watchedConn) watch() { c.on.Store(true) }

func (c *watchedConn) Read(p []byte) (int, error) {
	if c.on.Load() {
		if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

func (c *watchedConn) Write(p []byte) (int, error) {
	if !c.on.Load() {
		return c.Conn.Write(p)
	}
	written := 0
	for {
		piece := p[written:min(len(p), written+writePiece)]
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(piece)
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}
