// Package clientconn is one client's WebSocket. The library does the handshake; the frames are ours: what comes in is
// read with no buffer but for the message under way, what goes out is prepared frames in one outbox, written with one
// system call for all that is queued. Of the library's connection an idle client would hold two kilobytes, and two more
// of stack.
//
// Nobody ever waits for a client. A flush is one attempt on the non-blocking descriptor, made by whoever had
// something to send; only while the socket is full (and always with TLS, whose writes cannot be attempted) a
// goroutine of the connection's own writes the rest. An idle client holds no buffer but the few bytes that a frame begins in.
package clientconn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

const (
	// smallRead fits a control frame, and is all that an idle client has of a buffer. What is larger is read into the
	// message's own memory.
	smallRead = 96
	// closeTime is how long the peer may take to answer a close frame, and the kernel to take what is queued.
	closeTime = 5 * time.Second
	// maxUnsent bounds what the kernel keeps of a client's bytes before it sends them: enough for any line at
	// full speed, because it is asked for more as soon as half of it has gone out.
	maxUnsent = 128 << 10
	// lingerBytes bounds what is read and thrown away from a client that was told to go.
	lingerBytes = 1 << 20
)

// Shared is what the connections of one router have in common.
type Shared struct {
	// ReadLimit bounds a client's message, in bytes.
	ReadLimit int64
	// MessageRate is how many frames a client may send per second, and MessageBurst how many at once; 0 for any number.
	MessageRate, MessageBurst int
	// Ended, if not nil, hears the Code of each socket that has ended.
	Ended func(code int)
	// PackFrom is the length of a payload from which on it is compressed for clients that can take it; 0: never, and no
	// client is told that it could be.
	PackFrom int

	buffers   bufferPool
	attempts  sync.Pool
	writers   sync.WaitGroup
	deflaters deflaters
}

// Wait waits for the writer goroutines of all connections; every connection must have been shut before.
func (s *Shared) Wait() { s.writers.Wait() }

// Owner hears from a connection's writer goroutine.
type Owner interface {
	// Drained says that bytes have left on the writer's own account: call Collect.
	Drained()
}

// Conn is one client's connection.
type Conn struct {
	// Static after Accept.
	shared *Shared
	net    net.Conn        // what bytes go through: TCP or TLS
	tcp    net.Conn        // what Abort closes: closing TLS would write
	raw    syscall.RawConn // nil when writes cannot be attempted on the descriptor
	owner  Owner           // set by Serve's caller before anything is queued
	from   string          // set by From
	packs  bool            // the client takes compressed messages, and may send them

	unread []byte          // owned by the reader: bytes of small, or those that net/http had read
	small  [smallRead]byte // owned by the reader
	in     inbound         // owned by the reader
	meter  bucket          // owned by the reader: frames that may still come

	renewals bucket // owned by the reader

	reading reading

	heard atomic.Int64 // Unix nanoseconds of the last byte from the client

	mu         sync.Mutex
	out        *buffer // guarded by mu; whole frames not yet handed to the socket, nil when empty
	off        int     // guarded by mu; what of out has left
	base       int     // guarded by mu; where in out a frame begins, see boundary
	cost       int64   // guarded by mu; of the records in out
	flying     int     // guarded by mu; bytes that the writer goroutine holds
	flyingCost int64   // guarded by mu; of the records in them
	flyingHeld int     // guarded by mu; memory that they take
	left       int64   // guarded by mu; cost that has left and was not collected
	progress   int64   // guarded by mu; Unix nanoseconds when the full socket last took bytes, or became full
	unsent     int     // guarded by mu; what the kernel held at the last look, see Check; -1 before
	pinged     int64   // guarded by mu; Unix nanoseconds of the last ping
	deadline   int64   // guarded by mu; Unix nanoseconds, not 0 once a close frame is queued
	code       int     // guarded by mu; of the close, see Code
	writing    bool    // guarded by mu; a writer goroutine owns the socket's sending side
	closing    bool    // guarded by mu; a close frame is queued, nothing may follow it
	lastWrite  bool    // guarded by mu; the writer shuts the connection when the queue is empty
	shut       bool    // guarded by mu; the socket is closed
	shed       bool    // guarded by mu; Shed was called
	trim       bool    // guarded by mu; the writer goroutine is to let go of what it holds, see Shed
}

// Accept upgrades a request that was found valid. The connection answers nothing until Serve is called.
func (s *Shared) Accept(w http.ResponseWriter, r *http.Request, subprotocol string) (*Conn, error) {
	c := &Conn{shared: s}
	opts := websocket.AcceptOptions{
		// Origins are checked before the upgrade, where a refusal can say more.
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
	}
	if s.PackFrom > 0 {
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	}
	if subprotocol != "" {
		opts.Subprotocols = []string{subprotocol}
	}
	ws, err := websocket.Accept(hijacker{w, c}, r, &opts)
	if err != nil {
		return nil, err
	}
	runtime.SetFinalizer(ws, nil) // it holds nothing of ours, and is garbage from here on
	c.packs = s.PackFrom > 0 && negotiated(w.Header().Get("Sec-WebSocket-Extensions"))
	c.in.limit, c.in.packs = int(s.ReadLimit), c.packs
	c.heard.Store(time.Now().UnixNano())
	return c, nil
}

// hijacker takes the connection over from net/http and gives the library nothing of it. The answer that the library
// makes goes out by itself: net/http would sort its head and add what no WebSocket needs.
type hijacker struct {
	http.ResponseWriter
	c *Conn
}

// WriteHeader implements http.ResponseWriter. What is no upgrade is left to net/http.
func (h hijacker) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("hijack: %w", err)
	}
	// A client may send right behind its request.
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n)
		h.c.unread = append([]byte(nil), early...)
	}
	h.c.attach(conn)
	_, _ = conn.Write(switching(h.Header())) // an empty socket takes it at once; a broken one is found by the reader
	const least = 16
	return taken{}, bufio.NewReadWriter(bufio.NewReaderSize(taken{}, least), bufio.NewWriterSize(taken{}, least)), nil
}

// switching is the answer that upgrades a connection.
func switching(h http.Header) []byte {
	b := make([]byte, 0, 256)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\n"...)
	for name, values := range h {
		for _, value := range values {
			b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// taken is the connection that the library is given. Nobody reads or writes it.
type taken struct{ net.Conn }

func (taken) Read([]byte) (int, error)    { return 0, net.ErrClosed }
func (taken) Write(b []byte) (int, error) { return 0, net.ErrClosed }
func (taken) Close() error                { return nil }

func (c *Conn) attach(conn net.Conn) {
	c.net, c.tcp = conn, conn
	t, secure := conn.(interface{ NetConn() net.Conn })
	if secure {
		c.tcp = t.NetConn()
	}
	sc, ok := c.tcp.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	limitUnsent(raw, maxUnsent)
	if canAttempt && !secure {
		c.raw = raw
	}
}

// SetOwner names who hears of the writer goroutine's progress; before the first Queue.
func (c *Conn) SetOwner(o Owner) { c.owner = o }

// Queue appends a whole frame; cost is that of the records in it. Frames behind a close frame are dropped. It returns
// how many bytes a Flush could write now.
func (c *Conn) Queue(frame []byte, cost int64) (flushable int) {
	c.mu.Lock()
	c.queueLocked(frame, cost)
	if c.out != nil && !c.writing {
		flushable = len(c.out.b) - c.off
	}
	c.mu.Unlock()
	return flushable
}

func (c *Conn) queueLocked(frame []byte, cost int64) {
	if c.shut || c.closing {
		c.left += cost
		return
	}
	if c.out == nil {
		c.out = c.shared.buffers.get(len(frame))
		c.off, c.base = 0, 0
	} else {
		if len(c.out.b)+len(frame) > cap(c.out.b) {
			c.base = boundary(c.out.b, c.base, c.off) - c.off // what has left is left behind
		}
		c.out, c.off = c.shared.buffers.extend(c.out, c.off, len(frame))
	}
	c.out.b = append(c.out.b, frame...)
	c.cost += cost
}

// Queued is how many bytes wait for the socket.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queuedLocked()
}

func (c *Conn) queuedLocked() int {
	n := c.flying
	if c.out != nil {
		n += len(c.out.b) - c.off
	}
	return n
}

// Owed is the cost of the records that are queued or have left without having been collected.
func (c *Conn) Owed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cost + c.flyingCost + c.left
}

// Flush writes what the socket takes at once and never blocks. It returns the cost of the records that have left
// since the last Flush or Collect, by whatever way.
func (c *Conn) Flush() (left int64) {
	c.mu.Lock()
	c.flushLocked()
	left, c.left = c.left, 0
	c.mu.Unlock()
	return left
}

// Collect is Flush without writing.
func (c *Conn) Collect() (left int64) {
	c.mu.Lock()
	left, c.left = c.left, 0
	c.mu.Unlock()
	return left
}

func (c *Conn) flushLocked() {
	if c.out == nil || c.writing || c.shut {
		return
	}
	if c.raw != nil {
		n, err := c.shared.attempt(c.raw, c.out.b[c.off:])
		if err != nil {
			c.shutLocked()
			return
		}
		if c.took(n); c.out == nil {
			return
		}
	}
	c.writing = true
	c.progress, c.unsent = time.Now().UnixNano(), -1
	c.shared.writers.Add(1)
	go c.write()
}

// took accounts for n bytes of out that the socket took. The cost of records leaves in proportion to the bytes, so
// that a slow client's credit comes back bit by bit, and exactly once all is gone.
func (c *Conn) took(n int) {
	if n == 0 {
		return
	}
	queued := len(c.out.b) - c.off
	if n == queued {
		c.left += c.cost
		c.cost = 0
		c.shared.buffers.put(c.out)
		c.out = nil
		return
	}
	part := c.cost * int64(n) / int64(queued)
	c.left += part
	c.cost -= part
	c.off += n
}

// write is the goroutine that exists while the socket is full. It takes the whole queue at a time.
func (c *Conn) write() {
	defer c.shared.writers.Done()
	for {
		c.mu.Lock()
		c.flyingHeld = 0
		if c.trim {
			c.trim = false // what was to be let go of has gone
			_ = c.net.SetWriteDeadline(time.Now().Add(closeTime))
		}
		if c.out == nil || c.shut {
			c.writing = false
			if c.lastWrite {
				c.shutLocked()
			}
			c.mu.Unlock()
			return
		}
		buf, off, base := c.out, c.off, c.base
		c.flying, c.flyingCost, c.flyingHeld = len(buf.b)-off, c.cost, cap(buf.b)
		c.out, c.off, c.base, c.cost = nil, 0, 0, 0
		c.mu.Unlock()
		for off < len(buf.b) {
			n, err := c.writeSome(buf.b[off:])
			off += n
			c.mu.Lock()
			if c.trim && !c.shut {
				rest, ok := c.trimLocked(buf, base, off)
				c.mu.Unlock()
				if !ok {
					break
				}
				buf, off, base = rest, 0, len(rest.b)
				continue
			}
			left := c.tookFlyingLocked(n, err)
			c.mu.Unlock()
			if left {
				c.owner.Drained()
			}
			if err != nil {
				break
			}
		}
		c.shared.buffers.put(buf)
	}
}

// tookFlyingLocked accounts for n bytes that the writer goroutine got rid of; left says that records were among them.
func (c *Conn) tookFlyingLocked(n int, err error) (left bool) {
	part := c.flyingCost
	if err == nil && n < c.flying {
		part = c.flyingCost * int64(n) / int64(c.flying)
	}
	c.flying -= n
	c.flyingCost -= part
	c.left += part
	if n > 0 {
		c.progress = time.Now().UnixNano()
	}
	if err != nil {
		c.flying = 0
		c.shutLocked()
	}
	return part > 0
}

// writeSome waits until the socket takes bytes and returns how many it took, so that progress is seen.
func (c *Conn) writeSome(b []byte) (int, error) {
	if c.raw != nil {
		return waitWrite(c.raw, b)
	}
	const record = 16 << 10 // TLS writes records of at most this
	return c.net.Write(b[:min(len(b), record)])
}

// Close queues a close frame as the last thing the client gets. The socket is closed when the client has answered,
// or by Check when it has not.
func (c *Conn) Close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.shut {
		return
	}
	var frame [2 + maxControl]byte
	c.queueLocked(appendClose(frame[:0], code, reason), 0)
	c.closeQueuedLocked(code)
	c.flushLocked()
}

func (c *Conn) closeQueuedLocked(code int) {
	c.closing = true
	c.deadline = time.Now().Add(closeTime).UnixNano()
	if c.code == 0 {
		c.code = code
	}
}

// Abort closes the socket without a word; code is what Code will tell.
func (c *Conn) Abort(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == 0 {
		c.code = code
	}
	c.shutLocked()
}

// ByClient stands for all close codes of clients: what they choose is not what the router did, and has no end.
const ByClient = -1

// Code is the close code that the socket ended with: ours if a close was sent, else ByClient, else 1006.
func (c *Conn) Code() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code
}

func (c *Conn) shutLocked() {
	if c.shut {
		return
	}
	c.shut = true
	c.left += c.cost
	c.cost = 0
	c.shared.buffers.put(c.out)
	c.out = nil
	_ = c.tcp.Close()
}

// Limits say when a client counts as dead.
type Limits struct {
	Ping  time.Duration // silence after which the client is asked
	Dead  time.Duration // silence after which it is given up, while nothing is queued for it
	Stall time.Duration // how long its socket may take no bytes while something is queued
	// Message is how long a message may take from its first frame to its last byte; 0 for any time.
	Message time.Duration
}

// Check looks after an idle or stuck client; it is called about once a second, never by a timer of the client's
// own. Nothing before since counts as silence: this process was not running then. A client that cannot answer
// because it does not read is alive while its socket takes bytes.
func (c *Conn) Check(now, since time.Time, l Limits) {
	t := now.UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return
	}
	alive := max(c.heard.Load(), c.progress, since.UnixNano())
	switch {
	case c.closing:
		if t > c.deadline {
			c.shutLocked()
		}
	case c.overdue(t, since.UnixNano(), l.Message):
		c.lateLocked()
	case c.writing:
		c.checkStallLocked(t, since.UnixNano(), int64(l.Stall))
	case t-alive > int64(l.Dead):
		c.giveUpLocked()
	case t-alive > int64(l.Ping) && t-c.pinged > int64(l.Ping):
		c.pinged = t
		c.queueLocked([]byte{fin | byte(opPing), 0}, 0)
		c.flushLocked()
	}
}

// checkStallLocked gives up a client whose socket takes nothing. A socket becomes writable in large steps only, so
// after a while the bytes that the peer acknowledged are looked at, too.
func (c *Conn) checkStallLocked(now, since, stall int64) {
	stuck := now - max(c.progress, since)
	if stuck <= stall/4 {
		return
	}
	if n, ok := unsent(c.raw); ok && n != c.unsent {
		if c.unsent >= 0 {
			c.progress = now
		}
		c.unsent = n
		return
	}
	if stuck > stall {
		c.code = closecode.DeadPeer
		c.shutLocked()
	}
}

// giveUpLocked closes a client that was silent for too long, and tells it, in case only its program hung.
func (c *Conn) giveUpLocked() {
	var frame [2 + maxControl]byte
	c.queueLocked(appendClose(frame[:0], closecode.DeadPeer, "nothing was heard for too long"), 0)
	c.closeQueuedLocked(closecode.DeadPeer)
	c.flushLocked()
}

// ErrRefused is what a message handler returns after it has closed the connection.
var ErrRefused = errors.New("refused")

// Serve reads until the connection ends and calls message for each text message; binary ones are refused. The
// connection is shut when it returns.
func (c *Conn) Serve(message func(text []byte)) {
	c.serve(false, func(_ Opcode, text []byte) { message(text) })
}

// serve is Serve, and calls message for binary messages, too, where they are taken.
func (c *Conn) serve(binary bool, message func(op Opcode, data []byte)) {
	defer c.end()
	for {
		op, data, err := c.next()
		if err != nil {
			c.noteEnd()
			return
		}
		if op == Binary && !binary {
			c.refuseBinary()
			return
		}
		if c.isClosing() {
			continue
		}
		message(op, data)
		c.reading.held.Store(0)
	}
}

func (c *Conn) refuseBinary() {
	c.Close(closecode.UnsupportedData, "clients may send control messages only, as text")
}

// Finish ends a connection that will not be served: it waits for the client's answer to a close frame.
func (c *Conn) Finish() { c.end() }

func (c *Conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// noteEnd remembers an end without a close frame.
func (c *Conn) noteEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == 0 {
		c.code = closecode.Abnormal // as browsers call it
	}
}

// end closes the socket. A client that was sent a close frame and has not answered yet is given time to read it:
// closing a socket with unread input resets it and may destroy what was sent.
func (c *Conn) end() {
	c.mu.Lock()
	linger := c.closing && !c.shut
	c.mu.Unlock()
	if linger {
		// Errors here mean that there is nobody left to wait for.
		_ = c.net.SetReadDeadline(time.Now().Add(closeTime))
		_, _ = io.CopyN(io.Discard, c.net, lingerBytes)
	}
	c.mu.Lock()
	c.shutLocked()
	code := c.code
	c.mu.Unlock()
	if c.shared.Ended != nil {
		c.shared.Ended(code)
	}
}
