package linkserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
)

// Link is one router's connection. Loops append frames to it; its writer sends all that is queued as one
// message whenever the connection is free.
type Link struct {
	// Static after construction, id and hello after admission.
	s      *Server
	conn   *websocket.Conn
	remote string
	since  time.Time
	ctx    context.Context
	cancel context.CancelCauseFunc
	id     partition.LinkID
	hello  link.Hello

	wake    chan struct{} // one place: the writer has something to look at
	written chan struct{} // closed when the writer has ended

	// Owned by the reader.
	partitions map[int32]*pile // all that ever had a stream here
	message    []int32         // partitions of the message at hand, in order of appearance

	sent, messages, records atomic.Uint64

	mu       sync.Mutex
	streams  map[uint64]int32   // guarded by mu; stream to partition
	out      []byte             // guarded by mu; frames that wait
	cuts     []int              // guarded by mu; where out must be cut into messages
	control  int                // guarded by mu; bytes of out that are not records
	refused  map[int32]struct{} // guarded by mu; partitions that were told there is no room
	ended    bool               // guarded by mu; nothing is taken any more
	inFlight int                // guarded by mu; bytes being written
	closing  *closing           // guarded by mu; close in order when out is empty
}

// pile collects the requests of one link message about one partition.
type pile struct{ events []runner.Event }

type closing struct {
	code   websocket.StatusCode
	reason string
}

func newLink(s *Server, conn *websocket.Conn, remote string) *Link {
	l := &Link{
		s: s, conn: conn, remote: remote, since: time.Now(),
		wake:       make(chan struct{}, 1),
		written:    make(chan struct{}),
		partitions: map[int32]*pile{},
		streams:    map[uint64]int32{},
		refused:    map[int32]struct{}{},
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// refusal is an error that the peer is told in a close frame.
type refusal struct {
	code websocket.StatusCode
	text string
}

func (r *refusal) Error() string { return r.text }

func refuse(code websocket.StatusCode, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// run carries the link from its Hello to its end.
func (l *Link) run() {
	log := l.s.log.With(zap.String("remote", l.remote))
	err := l.greet()
	if err == nil {
		log = log.With(zap.String("router", l.hello.Router), zap.Uint64("link", uint64(l.id)))
		log.Info("link opened", zap.String("build", l.hello.Build))
		go l.write()
		stop := context.AfterFunc(l.ctx, l.cut)
		err = l.read()
		l.end(err)
		stop()
		log.Info("link closed", zap.NamedError("cause", context.Cause(l.ctx)))
	} else {
		log.Warn("link refused", zap.Error(err))
	}
	l.cancel(err)
	var no *refusal
	switch {
	case errors.As(context.Cause(l.ctx), &no):
		// The close handshake may take its time: nobody waits for this connection any more.
		_ = l.conn.Close(no.code, clip(no.text))
	default:
		_ = l.conn.CloseNow()
	}
}

// cut ends a write that is under way when the link's context ends. The library could watch the context, at the price of
// four allocations a message.
func (l *Link) cut() {
	select {
	case <-l.written:
	default:
		_ = l.conn.CloseNow()
	}
}

// clip keeps a reason inside a close frame.
func clip(s string) string { return s[:min(len(s), 123)] }

// greet waits for Hello, checks it, and answers Welcome.
func (l *Link) greet() error {
	ctx, cancel := context.WithTimeout(l.ctx, l.s.cfg.HelloTimeout)
	defer cancel()
	l.conn.SetReadLimit(helloLimit)
	kind, msg, err := l.conn.Read(ctx)
	if err != nil {
		return fmt.Errorf("wait for hello: %w", err)
	}
	if kind != websocket.MessageBinary {
		return refuse(websocket.StatusUnsupportedData, "links carry binary messages")
	}
	// Only the first frame is looked at: nothing of an unknown peer is acted upon.
	first := &helloOnly{}
	if err := link.DecodeToNode(msg, first); err != nil {
		return refuse(websocket.StatusProtocolError, "%v", err)
	}
	if first.hello == nil {
		return refuse(websocket.StatusProtocolError, "the first frame must be hello")
	}
	l.hello = *first.hello
	if l.hello.Version != link.Version {
		return refuse(websocket.StatusPolicyViolation,
			"this node speaks link version %d, the router %d", link.Version, l.hello.Version)
	}
	if !l.s.trusts(l.hello.Token) {
		return refuse(websocket.StatusPolicyViolation, "the link token is not this node's")
	}
	l.hello.Token = ""
	l.conn.SetReadLimit(l.s.cfg.ReadLimit)
	welcome := l.s.cfg.Welcome()
	l.out = link.AppendWelcome(l.out, &welcome)
	draining, ok := l.s.admit(l)
	if !ok {
		return refuse(websocket.StatusGoingAway, "this node is stopping")
	}
	if draining {
		l.sayDraining()
	}
	l.Flush()
	return nil
}

// helloOnly takes a message that is one Hello.
type helloOnly struct{ hello *link.Hello }

var errHelloFirst = errors.New("hello comes first and alone")

func (h *helloOnly) Hello(f *link.Hello) error {
	if h.hello != nil {
		return errHelloFirst
	}
	c := *f
	h.hello = &c
	return nil
}
func (h *helloOnly) Attach(*link.Attach) error { return errHelloFirst }
func (h *helloOnly) Credit(link.Credit) error  { return errHelloFirst }
func (h *helloOnly) Detach(link.Detach) error  { return errHelloFirst }

// keepRead is the largest read buffer that a link keeps between messages, in bytes.
const keepRead = 256 << 10

// read takes the router's messages until the connection fails or breaks the protocol. Pings are answered
// meanwhile by the library.
func (l *Link) read() error {
	var buf bytes.Buffer
	for {
		kind, r, err := l.conn.Reader(l.ctx)
		if err != nil {
			return err
		}
		if kind != websocket.MessageBinary {
			return refuse(websocket.StatusUnsupportedData, "links carry binary messages")
		}
		buf.Reset()
		if _, err := buf.ReadFrom(r); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := l.handle(buf.Bytes()); err != nil {
			return err
		}
		if buf.Cap() > keepRead {
			buf = bytes.Buffer{}
		}
	}
}

// handle sorts a message's requests by partition and hands each partition its share, in order.
func (l *Link) handle(msg []byte) error {
	err := link.DecodeToNode(msg, (*requests)(l))
	for _, p := range l.message {
		pile := l.partitions[p]
		l.s.cfg.Handler.Deliver(l, p, pile.events)
		pile.events = nil // the loop has it
	}
	l.message = l.message[:0]
	if err != nil {
		return refuse(websocket.StatusProtocolError, "%v", err)
	}
	return nil
}

// requests receives a message's frames; it runs in the link's reader.
type requests Link

func (q *requests) add(p int32, e runner.Event) {
	pl := q.partitions[p]
	if pl == nil {
		pl = &pile{}
		q.partitions[p] = pl
	}
	if len(pl.events) == 0 {
		q.message = append(q.message, p)
	}
	pl.events = append(pl.events, e)
}

func (q *requests) Hello(*link.Hello) error { return errors.New("hello comes only once") }

func (q *requests) Attach(f *link.Attach) error {
	if f.Stream == 0 {
		return errors.New("stream 0 cannot be attached")
	}
	q.mu.Lock()
	_, taken := q.streams[f.Stream]
	if !taken {
		q.streams[f.Stream] = f.Partition
	}
	q.mu.Unlock()
	if taken {
		return fmt.Errorf("stream %d is attached already", f.Stream)
	}
	q.s.countStreams(1)
	a := *f
	a.Key = slices.Clone(f.Key)
	q.add(f.Partition, runner.Event{Kind: runner.Attach, Stream: f.Stream, Attach: &a})
	return nil
}

func (q *requests) Credit(f link.Credit) error {
	q.mu.Lock()
	p, ok := q.streams[f.Stream]
	q.mu.Unlock()
	if ok { // else it crossed our Closed
		q.add(p, runner.Event{Kind: runner.Credit, Stream: f.Stream, Bytes: f.Bytes})
	}
	return nil
}

func (q *requests) Detach(f link.Detach) error {
	q.mu.Lock()
	p, ok := q.streams[f.Stream]
	delete(q.streams, f.Stream)
	q.mu.Unlock()
	if ok {
		q.s.countStreams(-1)
		q.add(p, runner.Event{Kind: runner.Detach, Stream: f.Stream})
	}
	return nil
}

// end stops the writer and tells the loops. The link takes no frames after it.
func (l *Link) end(cause error) {
	l.shut()
	var no *refusal
	if errors.As(cause, &no) {
		// The end of the context would cut the connection if the writer is at work, and the close frame would be
		// lost: let it come to rest first.
		t := time.NewTimer(restTime)
		select {
		case <-l.written:
		case <-l.ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	l.cancel(cause)
	<-l.written
	l.s.forget(l)
	l.mu.Lock()
	streams := len(l.streams)
	l.streams = nil
	l.mu.Unlock()
	gone := make([]int32, 0, len(l.partitions))
	for p := range l.partitions {
		gone = append(gone, p)
	}
	slices.Sort(gone)
	l.s.cfg.Handler.Gone(l, gone)
	l.s.countStreams(-streams)
}

// restTime is how long a writer may take for the message at hand before a refused peer gets its close frame.
const restTime = time.Second

// shut drops what is queued and takes no more; the writer ends.
func (l *Link) shut() {
	l.mu.Lock()
	l.ended = true
	l.out, l.cuts, l.control = nil, nil, 0
	l.mu.Unlock()
	l.Flush()
}

// abort cuts the connection without a word to the peer.
func (l *Link) abort(cause error) {
	l.shut()
	l.cancel(cause)
}

func (l *Link) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := map[int32]struct{}{}
	for _, p := range l.streams {
		parts[p] = struct{}{}
	}
	return Status{
		ID: uint64(l.id), Router: l.hello.Router, Build: l.hello.Build, Remote: l.remote, Since: l.since,
		Streams: len(l.streams), Partitions: len(parts), Queued: int64(len(l.out) + l.inFlight),
		Sent: l.sent.Load(), Messages: l.messages.Load(), Records: l.records.Load(),
	}
}
