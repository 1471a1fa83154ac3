package links

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/session"
)

const (
	// segment is how much is packed into one message: large enough to carry a batch of attaches, small enough
	// that a node can begin with the first while the rest is on its way.
	segment = 256 << 10
	// maxQueued bounds what waits for a node that does not read. Attaches of a million clients fit; a node that
	// lets more pile up is given up, because its streams are better served elsewhere.
	maxQueued = 128 << 20
	// keepBuffer is the largest read buffer that is kept between messages.
	keepBuffer = 1 << 20
)

// Errors that say why a link ended.
var (
	errSilent   = errors.New("nothing was heard for too long")
	errOverflow = errors.New("the node does not read")
	errStopped  = errors.New("the router is stopping")
)

// Link is one connection to one node instance. Its Send methods may be called by anybody and never block.
type Link struct {
	// Static after the handshake.
	ID       session.LinkID
	Node     string
	Instance string
	Version  string // the node program's
	Since    time.Time
	draining bool // the node said so with its Welcome

	log  *zap.Logger
	ws   *websocket.Conn
	wire *wire
	rtt  atomic.Int64 // nanoseconds of the last ping
	end  context.CancelCauseFunc

	kick chan struct{} // capacity 1: something is queued; never closed

	mu     sync.Mutex
	queue  [][]byte // guarded by mu; messages, each a sequence of whole frames
	size   int      // guarded by mu; of queue
	spare  [][]byte // guarded by mu; written messages, to be used again
	holds  int      // guarded by mu; while above 0 the writer is not woken
	failed bool     // guarded by mu; nothing is queued any more
}

// SendAttach queues an Attach frame.
func (l *Link) SendAttach(f *link.Attach) {
	l.mu.Lock()
	if b := l.tailLocked(); b != nil {
		l.queuedLocked(b, link.AppendAttach(*b, f))
	}
	l.mu.Unlock()
}

// SendCredit queues a Credit frame.
func (l *Link) SendCredit(f link.Credit) {
	l.mu.Lock()
	if b := l.tailLocked(); b != nil {
		l.queuedLocked(b, link.AppendCredit(*b, &f))
	}
	l.mu.Unlock()
}

// SendDetach queues a Detach frame.
func (l *Link) SendDetach(f link.Detach) {
	l.mu.Lock()
	if b := l.tailLocked(); b != nil {
		l.queuedLocked(b, link.AppendDetach(*b, &f))
	}
	l.mu.Unlock()
}

// Hold keeps frames back until as many Releases: those of one batch go out as few messages.
func (l *Link) Hold() {
	l.mu.Lock()
	l.holds++
	l.mu.Unlock()
}

// Release ends a Hold.
func (l *Link) Release() {
	l.mu.Lock()
	l.holds--
	l.wakeLocked()
	l.mu.Unlock()
}

// RTT is how long the last ping took, 0 before the first.
func (l *Link) RTT() time.Duration { return time.Duration(l.rtt.Load()) }

// Bytes are what was received and sent so far.
func (l *Link) Bytes() (in, out int64) { return l.wire.in.Load(), l.wire.out.Load() }

// Addr is the node's address as it was dialled.
func (l *Link) Addr() string { return l.wire.RemoteAddr().String() }

// Fail ends the link because of what its node did.
func (l *Link) Fail(err error) { l.end(err) }

func (l *Link) tailLocked() *[]byte {
	if l.failed {
		return nil
	}
	if n := len(l.queue); n > 0 && len(l.queue[n-1]) < segment {
		return &l.queue[n-1]
	}
	var b []byte
	if n := len(l.spare); n > 0 {
		b, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	l.queue = append(l.queue, b)
	return &l.queue[len(l.queue)-1]
}

func (l *Link) queuedLocked(b *[]byte, grown []byte) {
	l.size += len(grown) - len(*b)
	*b = grown
	if l.size > maxQueued {
		l.failed, l.queue, l.size = true, nil, 0
		l.end(errOverflow)
		return
	}
	l.wakeLocked()
}

func (l *Link) wakeLocked() {
	if l.holds > 0 || len(l.queue) == 0 {
		return
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// write sends what is queued until ctx ends or the connection fails.
func (l *Link) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
		}
		for {
			msg := l.take()
			if msg == nil {
				break
			}
			l.wire.cork()
			// The context must not end the write: half a message cannot be taken back, and the library would
			// watch the context at a price. Closing the connection ends it.
			err := l.ws.Write(context.Background(), websocket.MessageBinary, msg)
			if uncorked := l.wire.uncork(); err == nil {
				err = uncorked
			}
			l.give(msg)
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
	}
}

func (l *Link) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds > 0 || len(l.queue) == 0 {
		return nil
	}
	msg := l.queue[0]
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.size -= len(msg)
	return msg
}

func (l *Link) give(msg []byte) {
	const keep = 4
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spare) < keep {
		l.spare = append(l.spare, msg[:0])
	}
}

// read feeds what the node sends to h until the connection ends.
func (l *Link) read(h Receiver) error {
	dec := link.NewRouterDecoder()
	var buf []byte
	if l.draining {
		if err := h.Draining(); err != nil {
			return err
		}
	}
	for {
		msg, err := readMessage(l.ws, buf)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		h.Begin()
		err = dec.Decode(msg, h)
		h.End(len(msg))
		if err != nil {
			return fmt.Errorf("node's message: %w", err)
		}
		if buf = msg[:0]; cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// readMessage reads one binary message into buf, which grows as needed.
func readMessage(ws *websocket.Conn, buf []byte) ([]byte, error) {
	kind, r, err := ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageBinary {
		return nil, errors.New("a text message")
	}
	if cap(buf) == 0 {
		const first = 64 << 10
		buf = make([]byte, 0, first)
	}
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, err
		}
	}
}

// watch ends the link when nothing was heard for too long. A watcher that was itself not running (the process was
// stopped, the machine slept) begins to count anew: what was sent meanwhile still waits in the socket.
func (l *Link) watch(ctx context.Context, dead time.Duration) error {
	every := max(dead/12, time.Millisecond)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last, since := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := time.Now()
		if now.Sub(last) > dead/2 {
			since = now
		}
		last = now
		if now.UnixNano()-max(l.wire.heard.Load(), since.UnixNano()) > int64(dead) {
			return errSilent
		}
	}
}

// ping asks the node for a sign of life now and then.
func (l *Link) ping(ctx context.Context, every, patience time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		start := time.Now()
		ask, cancel := context.WithTimeout(ctx, patience)
		err := l.ws.Ping(ask)
		cancel()
		if err == nil {
			l.rtt.Store(int64(time.Since(start)))
		}
		// An error needs no answer here: either the reader sees the connection's end, or watch the silence.
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// reason is why a link ended, as a metric's label.
func reason(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, errSilent):
		return "silent"
	case errors.Is(err, errOverflow):
		return "overflow"
	case errors.Is(err, errStopped):
		return "stopped"
	case errors.Is(err, link.ErrMalformed):
		return "malformed"
	case errors.Is(err, ErrUnfit):
		return "unfit"
	case websocket.CloseStatus(err) >= 0:
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "broken"
}
