// Package linkserver is the node's end of the links: it accepts routers, checks who they are, and carries
// frames between their WebSocket connections and the partition loops.
package linkserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
)

// Handler is where the requests of routers go; a *runner.Runner.
type Handler interface {
	// Deliver may wait; while it does, the link is not read.
	Deliver(l runner.Link, p int32, events []runner.Event)
	Writable(l runner.Link, p int32)
	// Gone comes once, after the link's last Deliver.
	Gone(l runner.Link, partitions []int32)
}

// Config is fixed for a server's life. Zero durations and sizes mean the defaults named there.
type Config struct {
	// Welcome answers a router's Hello.
	Welcome func() link.Welcome
	// Token must be in a router's Hello; empty asks for none.
	Token string
	// TLS, if not nil, is used by Serve.
	TLS *tls.Config
	// HelloTimeout is how long a connection may take to say who it is. 5 s.
	HelloTimeout time.Duration
	// Timeout is how long a link may make no progress, in writing or (routers ping every second) in reading,
	// before it is closed. 30 s.
	Timeout time.Duration
	// Buffer bounds what waits for one link, in bytes: half of it collects frames while the other half is
	// being written. 4 MiB.
	Buffer int64
	// ControlBuffer bounds the frames that are always taken, in bytes: beyond it the link is closed. 16 MiB.
	ControlBuffer int64
	// ReadLimit bounds a message from a router, in bytes. 32 MiB: all streams of a large router may move here at once.
	ReadLimit int64

	Handler Handler
	Logger  *zap.Logger
}

func (c *Config) defaults() {
	set := func(v *int64, to int64) {
		if *v <= 0 {
			*v = to
		}
	}
	if c.HelloTimeout <= 0 {
		c.HelloTimeout = 5 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	set(&c.Buffer, 4<<20)
	set(&c.ControlBuffer, 16<<20)
	set(&c.ReadLimit, 32<<20)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
}

// helloLimit bounds the first message, from a peer that nobody knows yet.
const helloLimit = 64 << 10

// Server accepts links.
type Server struct {
	// Static after construction.
	cfg   Config
	log   *zap.Logger
	token [sha256.Size]byte
	// maxMessage is the protocol's limit; tests lower it.
	maxMessage int

	streams  atomic.Int64 // of all links
	attached atomic.Uint64
	empty    chan struct{} // poked when the last stream has left
	wg       sync.WaitGroup

	mu       sync.Mutex
	nextID   partition.LinkID
	links    map[partition.LinkID]*Link
	draining bool
	closed   bool
	opened   uint64
}

// New returns a server without links.
func New(cfg Config) *Server {
	cfg.defaults()
	return &Server{
		cfg: cfg, log: cfg.Logger, token: sha256.Sum256([]byte(cfg.Token)), maxMessage: link.MaxMessage,
		empty: make(chan struct{}, 1),
		links: map[partition.LinkID]*Link{},
	}
}

type connKey struct{}

// Serve accepts links on l until ctx ends or Close is called.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+link.Path, s)
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: s.cfg.HelloTimeout,
		ErrorLog:          zap.NewStdLog(s.log.Named("http")),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	var in net.Listener = listener{l, s.cfg.Timeout}
	if s.cfg.TLS != nil {
		in = tls.NewListener(in, s.cfg.TLS)
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(in); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve links on %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP carries one link from its handshake to its end.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !offers(r, link.Subprotocol) {
		http.Error(w, "this is a link for Pointsman routers; it needs the subprotocol "+link.Subprotocol, http.StatusBadRequest)
		return
	}
	if !s.enter() {
		http.Error(w, "this node is stopping", http.StatusServiceUnavailable)
		return
	}
	defer s.wg.Done()
	// Links are opened by programs: an Origin header says nothing about them, the token does.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{link.Subprotocol}, InsecureSkipVerify: true,
	})
	if err != nil {
		s.log.Debug("link handshake failed", zap.String("remote", r.RemoteAddr), zap.Error(err))
		return
	}
	if c, ok := r.Context().Value(connKey{}).(*watchedConn); ok {
		c.watch()
	}
	l := newLink(s, conn, r.RemoteAddr)
	l.run()
}

// enter counts a handler that Close waits for.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

func offers(r *http.Request, protocol string) bool {
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			if strings.TrimSpace(p) == protocol {
				return true
			}
		}
	}
	return false
}

// admit gives a link that has said Hello its number, and reports whether it should hear Draining.
func (s *Server) admit(l *Link) (draining, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, false
	}
	s.nextID++
	s.opened++
	l.id = s.nextID
	s.links[l.id] = l
	return s.draining, true
}

func (s *Server) forget(l *Link) {
	s.mu.Lock()
	delete(s.links, l.id)
	s.mu.Unlock()
}

func (s *Server) trusts(token string) bool {
	if s.cfg.Token == "" {
		return true
	}
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], s.token[:]) == 1
}

func (s *Server) countStreams(n int) {
	if n > 0 {
		s.attached.Add(uint64(n)) // first: whoever reads the other count before this one sees no stream that it lacks
	}
	if n != 0 && s.streams.Add(int64(n)) == 0 {
		select {
		case s.empty <- struct{}{}:
		default:
		}
	}
}

func (s *Server) snapshot() []*Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Link, 0, len(s.links))
	for _, l := range s.links {
		all = append(all, l)
	}
	return all
}

// Drain tells every router, also those that come later, that this node wants to stop.
func (s *Server) Drain() {
	s.mu.Lock()
	already := s.draining
	s.draining = true
	s.mu.Unlock()
	if already {
		return
	}
	for _, l := range s.snapshot() {
		l.sayDraining()
	}
}

// WaitEmpty returns nil when no link has a stream, else when ctx ends.
func (s *Server) WaitEmpty(ctx context.Context) error {
	for s.streams.Load() > 0 {
		select {
		case <-s.empty:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Disconnect closes every link in order: what is queued goes out, then a close frame with code and reason.
// New links may still come.
func (s *Server) Disconnect(code websocket.StatusCode, reason string) {
	for _, l := range s.snapshot() {
		l.finish(code, reason)
	}
}

// Close refuses new links, closes the others in order within grace, then at once, and waits for them.
func (s *Server) Close(grace time.Duration, code websocket.StatusCode, reason string) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); s.wg.Wait() }()
	if grace > 0 {
		s.Disconnect(code, reason)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-done:
			return
		case <-t.C:
		}
	}
	for _, l := range s.snapshot() {
		l.abort(errClosed)
	}
	<-done
}

var errClosed = errors.New("the node stops at once")

// Status is one link in numbers.
type Status struct {
	ID         uint64    `json:"id"`
	Router     string    `json:"router"`
	Build      string    `json:"build,omitempty"`
	Remote     string    `json:"remote"`
	Since      time.Time `json:"since"`
	Streams    int       `json:"streams"`
	Partitions int       `json:"partitions"`
	Queued     int64     `json:"queued_bytes"`
	Sent       uint64    `json:"sent_bytes"`
	Messages   uint64    `json:"messages"`
	Records    uint64    `json:"records"`
}

// Totals are sums over all links that there ever were.
type Totals struct {
	Links    int
	Opened   uint64
	Streams  int64
	Attached uint64 // streams that there ever were
}

// Status returns the links, in order of their opening, and the sums.
func (s *Server) Status() ([]Status, Totals) {
	links := s.snapshot()
	all := make([]Status, 0, len(links))
	for _, l := range links {
		all = append(all, l.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return int(a.ID) - int(b.ID) })
	s.mu.Lock()
	defer s.mu.Unlock()
	streams := s.streams.Load()
	return all, Totals{Links: len(s.links), Opened: s.opened, Streams: streams, Attached: s.attached.Load()}
}
