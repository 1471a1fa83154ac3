package links

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the link's TCP connection below the WebSocket library: it notes when bytes last came, which is what
// liveness is judged by, and joins the library's small writes of one message into one system call.
type wire struct {
	net.Conn
	heard atomic.Int64 // Unix nanoseconds
	in    atomic.Int64 // bytes
	out   atomic.Int64 // bytes

	mu     sync.Mutex
	corked bool   // guarded by mu
	buf    []byte // guarded by mu; what was written while corked
}

// maxCork bounds what is held back; a message above it goes in several writes.
const maxCork = 512 << 10

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	w.heard.Store(time.Now().UnixNano())
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
		w.in.Add(int64(n))
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.writeLocked(p)
	}
	w.buf = append(w.buf, p...)
	if len(w.buf) < maxCork {
		return len(p), nil
	}
	if err := w.flushLocked(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *wire) writeLocked(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.out.Add(int64(n))
	return n, err
}

func (w *wire) flushLocked() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.writeLocked(w.buf)
	w.buf = w.buf[:0]
	if cap(w.buf) > maxCork/4 {
		w.buf = nil
	}
	return err
}

// cork holds writes back until uncork.
func (w *wire) cork() {
	w.mu.Lock()
	w.corked = true
	w.mu.Unlock()
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = false
	return w.flushLocked()
}

// SetDeadline and its like are the embedded connection's; a Write that is corked never waits.
var _ net.Conn = (*wire)(nil)
