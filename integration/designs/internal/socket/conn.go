package socket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

const (
	// closeTime is how long a client may take to answer a close frame.
	closeTime = 2 * time.Second
	// maxUnsent bounds what may wait for one client: 1 MiB is seconds of the fastest feed, and a thousand stuck
	// clients still fit into a small machine.
	maxUnsent = 1 << 20
)

// conn is one WebSocket. The library does the handshake and is not needed after it, as in the product: an idle client
// holds a hundred bytes to read into, and a goroutine's smallest stack. What goes out is whole frames in one outbox,
// written with one system call by whoever had something to send. Only while the socket is full a goroutine writes the
// rest, so nobody waits for a client.
type conn struct {
	// Static after accept.
	net net.Conn
	raw syscall.RawConn

	replay []byte          // owned by the reader: what net/http had read already
	small  [smallRead]byte // owned by the reader
	in     inbound
	heard  atomic.Int64 // Unix nanoseconds of the last bytes from the client

	shared *shared

	mu      sync.Mutex
	out     []byte // guarded by mu; whole frames, but for what has left of the first
	flying  int    // guarded by mu; bytes that the writer goroutine holds
	writing bool   // guarded by mu; a writer goroutine owns the sending side
	closing bool   // guarded by mu; a close frame is queued, nothing may follow it
	shut    bool   // guarded by mu
}

// shared is what all connections of a server have in common.
type shared struct {
	boxes   outboxes
	writers sync.WaitGroup
}

// outboxes are shared by all connections: a client holds one only while something waits for it.
type outboxes struct{ pool sync.Pool }

const outboxSize = 4 << 10

func (o *outboxes) get() []byte {
	if b, ok := o.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, outboxSize)
}

func (o *outboxes) put(b []byte) {
	if cap(b) == outboxSize {
		o.pool.Put(&b)
	}
}

func accept(w http.ResponseWriter, r *http.Request, sh *shared) (*conn, error) {
	c := &conn{shared: sh}
	ws, err := websocket.Accept(hijacker{w, c}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled, Subprotocols: []string{subprotocol},
	})
	if err != nil {
		return nil, fmt.Errorf("accept a client: %w", err)
	}
	runtime.SetFinalizer(ws, nil) // it holds nothing of ours, and is garbage from here on
	c.heard.Store(time.Now().UnixNano())
	return c, nil
}

// hijacker takes the connection over from net/http and gives the library nothing of it.
type hijacker struct {
	http.ResponseWriter
	c *conn
}

// WriteHeader implements http.ResponseWriter. What is no upgrade is left to net/http.
func (h hijacker) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("hijack: %w", err)
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n)
		h.c.replay = append([]byte(nil), early...)
	}
	h.c.net = nc
	if sc, ok := nc.(syscall.Conn); ok {
		if h.c.raw, err = sc.SyscallConn(); err != nil {
			return nil, nil, fmt.Errorf("hijack: %w", err)
		}
	}
	_, _ = nc.Write(switching(h.Header())) // an empty socket takes it at once; a broken one is found by the reader
	const least = 16
	return taken{}, bufio.NewReadWriter(bufio.NewReaderSize(taken{}, least), bufio.NewWriterSize(taken{}, least)), nil
}

// switching is the answer that upgrades a connection.
func switching(h http.Header) []byte {
	b := []byte("HTTP/1.1 101 Switching Protocols\r\n")
	for name, values := range h {
		for _, value := range values {
			b = fmt.Appendf(b, "%s: %s\r\n", name, value)
		}
	}
	return append(b, "\r\n"...)
}

// taken is the connection that the library is given. Nobody reads or writes it.
type taken struct{ net.Conn }

func (taken) Read([]byte) (int, error)  { return 0, net.ErrClosed }
func (taken) Write([]byte) (int, error) { return 0, net.ErrClosed }
func (taken) Close() error              { return nil }

func (c *conn) queueLocked(frame []byte) {
	if c.closing || c.shut {
		return
	}
	if c.out == nil {
		c.out = c.shared.boxes.get()
	}
	c.out = append(c.out, frame...)
}

func (c *conn) flushLocked() {
	if len(c.out) == 0 || c.writing || c.shut {
		return
	}
	if c.raw != nil {
		n, err := attempt(c.raw, c.out)
		if err != nil {
			c.shutLocked()
			return
		}
		if n == len(c.out) {
			c.shared.boxes.put(c.out)
			c.out = nil
			return
		}
		c.out = append(c.out[:0], c.out[n:]...)
	}
	c.writing = true
	c.shared.writers.Add(1)
	go c.write()
}

// attempt writes what the socket takes at once.
func attempt(raw syscall.RawConn, b []byte) (n int, err error) {
	tried := raw.Write(func(fd uintptr) bool {
		for {
			n, err = nonblock.Write(fd, b)
			if !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	})
	if errors.Is(err, syscall.EAGAIN) {
		return 0, nil
	}
	return max(n, 0), errors.Join(err, tried)
}

// write is the goroutine that exists while the socket is full.
func (c *conn) write() {
	defer c.shared.writers.Done()
	for {
		c.mu.Lock()
		if len(c.out) == 0 || c.shut {
			c.writing = false
			c.mu.Unlock()
			return
		}
		buf := c.out
		c.out, c.flying = nil, len(buf)
		c.mu.Unlock()
		_, err := c.net.Write(buf)
		c.mu.Lock()
		c.flying = 0
		if err != nil {
			c.shutLocked()
		}
		c.mu.Unlock()
		c.shared.boxes.put(buf)
	}
}

func (c *conn) unsentLocked() int { return len(c.out) + c.flying }

// close queues a close frame; the socket is closed when the client has answered or closeTime is over.
func (c *conn) close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(code, reason)
}

func (c *conn) closeLocked(code int, reason string) {
	if c.closing || c.shut {
		return
	}
	frame := []byte{fin | opClose, byte(2 + len(reason)), byte(code >> 8), byte(code)}
	c.queueLocked(append(frame, reason...))
	c.closing = true
	c.flushLocked()
	_ = c.net.SetReadDeadline(time.Now().Add(closeTime)) // the reader ends then, and with it the connection
}

func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutLocked()
}

func (c *conn) shutLocked() {
	if c.shut {
		return
	}
	c.shut, c.out = true, nil
	_ = c.net.Close() // nothing to save
}

// headerRoom is the room before a payload that seal needs.
const headerRoom = 4

// seal makes a text frame of the payload buf[headerRoom:], in place. One frame serves every client.
func seal(buf []byte) []byte {
	n := len(buf) - headerRoom
	switch {
	case n <= 125:
		buf[2], buf[3] = fin|opText, byte(n)
		return buf[2:]
	case n <= 0xffff:
		buf[0], buf[1] = fin|opText, 126
		binary.BigEndian.PutUint16(buf[2:], uint16(n))
		return buf
	}
	long := make([]byte, 0, n+10)
	long = append(long, fin|opText, 127)
	long = binary.BigEndian.AppendUint64(long, uint64(n))
	return append(long, buf[headerRoom:]...)
}
