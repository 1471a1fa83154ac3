package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// router is the other end: an HTTP server on pipes, so that a synctest bubble holds all of it. The test plays
// the router's part itself.
type router struct {
	t        *testing.T
	pipes    chan net.Conn
	requests chan *request
	http     *http.Client
	closed   chan struct{}
}

func newRouter(t *testing.T) *router {
	t.Helper()
	rt := &router{t: t, pipes: make(chan net.Conn), requests: make(chan *request), closed: make(chan struct{})}
	srv := &http.Server{Handler: rt}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case rt.pipes <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-rt.closed:
			return nil, errors.New("connection refused")
		}
	}}
	rt.http = &http.Client{Transport: transport}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(rt) })
	t.Cleanup(func() {
		_ = srv.Close()
		transport.CloseIdleConnections()
		wg.Wait()
	})
	return rt
}

func (rt *router) Accept() (net.Conn, error) {
	select {
	case c := <-rt.pipes:
		return c, nil
	case <-rt.closed:
		return nil, net.ErrClosed
	}
}

func (rt *router) Close() error   { close(rt.closed); return nil }
func (rt *router) Addr() net.Addr { return &net.TCPAddr{} }

func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := &request{rt: rt, w: w, r: r, answered: make(chan struct{})}
	select {
	case rt.requests <- req:
	case <-rt.closed:
		return
	}
	select {
	case <-req.answered:
	case <-rt.closed:
	}
}

// request is an upgrade that waits for the test's answer.
type request struct {
	rt       *router
	w        http.ResponseWriter
	r        *http.Request
	answered chan struct{}
}

// next waits for the client's next attempt.
func (rt *router) next() *request { return <-rt.requests }

func (r *request) query(name string) string { return r.r.URL.Query().Get(name) }

func (r *request) refuse(status int, reason string) {
	defer close(r.answered)
	http.Error(r.w, reason, status)
}

// accept upgrades; the returned socket is the test's to drive.
func (r *request) accept() *socket {
	r.rt.t.Helper()
	conn, err := websocket.Accept(r.w, r.r, &websocket.AcceptOptions{Subprotocols: []string{clientmsg.JSON}})
	if err != nil {
		r.rt.t.Fatalf("accept: %v", err)
	}
	close(r.answered)
	r.rt.t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t: r.rt.t, conn: conn}
}

type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

func (s *socket) send(msg []byte) {
	s.t.Helper()
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, msg); err != nil {
		s.t.Fatalf("send %s: %v", msg, err)
	}
}

func (s *socket) hello(cursor string, resumed bool) {
	s.t.Helper()
	s.send(clientmsg.AppendHello(nil, cursor, []byte("alice"), resumed, 10*time.Second))
}

func (s *socket) record(partition int32, offset int64, value string) {
	s.t.Helper()
	s.send(clientmsg.AppendRecord(nil, cursorAt(partition, offset+1), partition, offset, 1767323045006, nil, []byte(value), false, nil))
}

func (s *socket) close(code int, reason string) {
	s.t.Helper()
	if err := s.conn.Close(websocket.StatusCode(code), reason); err != nil {
		s.t.Fatalf("close: %v", err)
	}
}

// end waits for the client's close frame.
func (s *socket) end() websocket.StatusCode {
	_, _, err := s.conn.Read(context.WithoutCancel(s.t.Context()))
	return websocket.CloseStatus(err)
}

// cursorAt looks as a reader of the test wants it; to the client it is opaque.
func cursorAt(partition int32, next int64) string {
	return string('a'+partition) + "-" + time.Duration(next).String()
}

// start begins to connect; the test answers through rt meanwhile.
func (rt *router) start(cfg client.Config) <-chan *client.Client {
	cfg.HTTPClient = rt.http
	if cfg.URLs == nil {
		cfg.URLs = []string{"ws://one", "ws://two/other?zone=b"}
	}
	got := make(chan *client.Client, 1)
	go func() {
		c, err := client.Connect(rt.t.Context(), cfg)
		if err != nil {
			rt.t.Errorf("connect: %v", err)
		}
		got <- c
	}()
	return got
}

// connect gives a client with one open socket.
func (rt *router) connect(cfg client.Config) (*client.Client, *socket) {
	rt.t.Helper()
	got := rt.start(cfg)
	s := rt.next().accept()
	c := <-got
	if c == nil {
		rt.t.FailNow()
	}
	return c, s
}

// want takes the next event and fails where it is of another type.
func want[E client.Event](t *testing.T, c *client.Client) E {
	t.Helper()
	event, err := c.Next(t.Context())
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	e, ok := event.(E)
	if !ok {
		var zero E
		t.Fatalf("got %T %+v, want %T", event, event, zero)
	}
	return e
}

func gap(cursor string, partition int32, from, to int64, reason link.GapReason) []byte {
	return clientmsg.AppendGap(nil, cursor, partition, from, to, reason)
}
