// Package nonblock reads and writes sockets without telling Go's scheduler of it.
//
// The standard library tells the scheduler before every system call that the thread may be gone for long. On a process
// that is idle between two calls, as one that waits for a few thousand records a second is, this wakes the runtime's
// monitor each time, which then looks around every 20 us for a while: a seventh of what a node used. A socket that does
// not block needs none of it. Waiting is the network poller's business, as ever.
// The price: a goroutine that computes for long right after such a call is preempted only when a timer has woken the
// monitor.
package nonblock

import (
	"io"
	"net"
	"syscall"
)

// Wrap returns c with calls of this package, or c itself where it has no descriptor or this system is not known here.
// The connection has one reader and one writer at a time.
func Wrap(c net.Conn) net.Conn {
	s, ok := c.(syscall.Conn)
	if !ok || !supported {
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c
	}
	w := &conn{Conn: c, raw: raw}
	w.in.do = w.in.read
	w.out.do = w.out.write
	return w
}

type conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out call
}

// call is a read or a write under way; its closure is made once.
type call struct {
	p   []byte
	n   int
	err error
	do  func(fd uintptr) (done bool)
}

func (c *call) read(fd uintptr) bool {
	c.n, c.err = Read(fd, c.p)
	return c.err != syscall.EAGAIN //nolint:errorlint // an Errno, never wrapped
}

func (c *call) write(fd uintptr) bool {
	for c.n < len(c.p) {
		n, err := Write(fd, c.p[c.n:])
		c.n += n
		if err != nil {
			c.err = err
			return err != syscall.EAGAIN //nolint:errorlint // as above
		}
	}
	return true
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.p, c.in.n, c.in.err = p, 0, nil
	err := c.raw.Read(c.in.do)
	n, failed := c.in.n, c.in.err
	c.in.p = nil
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, c.failure("read", failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.out.p, c.out.n, c.out.err = p, 0, nil
	err := c.raw.Write(c.out.do)
	n, failed := c.out.n, c.out.err
	c.out.p = nil
	switch {
	case err != nil:
		return n, err
	case n < len(p):
		return n, c.failure("write", failed)
	}
	return n, nil
}

func (c *conn) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// SyscallConn gives access to the descriptor.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }
