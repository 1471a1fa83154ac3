package linkserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
)

// patience bounds every wait of these tests; it is reached only when one fails.
const patience = 10 * time.Second

// node is a server with a handler that writes down what it hears.
type node struct {
	t    *testing.T
	s    *Server
	addr string

	heard chan string
	links chan runner.Link // of the first request of each link
	known sync.Map
	hold  chan struct{} // if not nil, Deliver waits for it
}

func (n *node) Deliver(l runner.Link, p int32, events []runner.Event) {
	if _, known := n.known.LoadOrStore(l.ID(), true); !known {
		n.links <- l
	}
	if n.hold != nil {
		<-n.hold
	}
	for _, e := range events {
		switch e.Kind {
		case runner.Attach:
			n.heard <- fmt.Sprintf("attach %d to %d key %s", e.Stream, p, e.Attach.Key)
		case runner.Detach:
			n.heard <- fmt.Sprintf("detach %d of %d", e.Stream, p)
		case runner.Credit:
			n.heard <- fmt.Sprintf("credit %d of %d: %d", e.Stream, p, e.Bytes)
		}
	}
}

func (n *node) Writable(_ runner.Link, p int32) { n.heard <- fmt.Sprintf("writable %d", p) }

func (n *node) Gone(_ runner.Link, ps []int32) { n.heard <- fmt.Sprintf("gone %v", ps) }

func serveNode(t *testing.T, change ...func(*Config)) *node {
	t.Helper()
	n := &node{t: t, heard: make(chan string, 10000), links: make(chan runner.Link, 100)}
	cfg := Config{
		Handler: n, Welcome: func() link.Welcome { return link.Welcome{Node: "n1", Instance: "i1", Partitions: 8} },
	}
	for _, c := range change {
		c(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.s, n.addr = New(cfg), l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.s.Serve(ctx, l) }()
	t.Cleanup(func() {
		n.s.Close(0, websocket.StatusGoingAway, "")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return n
}

func (n *node) expect(want ...string) {
	n.t.Helper()
	for _, w := range want {
		if got := take(n.t, n.heard); got != w {
			n.t.Fatalf("node heard %q, want %q", got, w)
		}
	}
}

func take[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// router is the other end.
type router struct {
	t    *testing.T
	conn *websocket.Conn
}

func (n *node) dial() *router {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+n.addr+link.Path, &websocket.DialOptions{Subprotocols: []string{link.Subprotocol}})
	if err != nil {
		n.t.Fatal(err)
	}
	conn.SetReadLimit(link.MaxMessage)
	n.t.Cleanup(func() { _ = conn.CloseNow() })
	return &router{n.t, conn}
}

// connect dials, says hello and takes the welcome.
func (n *node) connect() *router {
	n.t.Helper()
	r := n.dial()
	r.send(hello())
	if got := r.frames(); len(got) != 1 || got[0] != "welcome n1 i1" {
		n.t.Fatalf("router got %q, want a welcome", got)
	}
	return r
}

// attached connects a router with one stream on partition 0 and returns the node's end too.
func (n *node) attached() (*router, runner.Link) {
	n.t.Helper()
	r := n.connect()
	r.send(attach(1, 0, "k"))
	l := take(n.t, n.links)
	n.expect("attach 1 to 0 key k")
	return r, l
}

func hello() []byte {
	return link.AppendHello(nil, &link.Hello{Router: "r1", Version: link.Version, Token: "secret"})
}

func attach(stream uint64, p int32, key string) []byte {
	return link.AppendAttach(nil, &link.Attach{
		Stream: stream, Partition: p, Key: []byte(key), Start: link.Start{Kind: link.StartLatest}, Credit: 1000,
	})
}

func (r *router) send(frames ...[]byte) {
	r.t.Helper()
	var msg []byte
	for _, f := range frames {
		msg = append(msg, f...)
	}
	if err := r.conn.Write(context.Background(), websocket.MessageBinary, msg); err != nil {
		r.t.Fatal(err)
	}
}

// frames reads one message.
func (r *router) frames() []string {
	r.t.Helper()
	got, err := r.read()
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *router) read() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, msg, err := r.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	var h frameLog
	err = link.DecodeToRouter(msg, &h)
	return h, err
}

// refused reads until the node closes and returns its code and reason.
func (r *router) refused() (websocket.StatusCode, string) {
	r.t.Helper()
	for {
		_, err := r.read()
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if errors.As(err, &ce) {
			return ce.Code, ce.Reason
		}
		return -1, err.Error()
	}
}

func (r *router) expectRefusal(code websocket.StatusCode, word string) {
	r.t.Helper()
	if got, reason := r.refused(); got != code || !strings.Contains(reason, word) {
		r.t.Errorf("closed with %d %q, want %d with %q", got, reason, code, word)
	}
}

// frameLog writes frames down as text.
type frameLog []string

func (h *frameLog) add(format string, args ...any) error {
	*h = append(*h, fmt.Sprintf(format, args...))
	return nil
}
func (h *frameLog) Welcome(f *link.Welcome) error  { return h.add("welcome %s %s", f.Node, f.Instance) }
func (h *frameLog) Attached(f link.Attached) error { return h.add("attached %d", f.Stream) }
func (h *frameLog) Record(f *link.Record) error    { return h.add("record %d", f.Offset) }
func (h *frameLog) Checkpoint(f *link.Checkpoint) error {
	return h.add("checkpoint %d %d", f.Partition, f.Next)
}
func (h *frameLog) Gap(f link.Gap) error       { return h.add("gap %d", f.Stream) }
func (h *frameLog) Closed(f link.Closed) error { return h.add("closed %d", f.Stream) }
func (h *frameLog) Draining() error            { return h.add("draining") }
