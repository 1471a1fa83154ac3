// Package socket is the client side that all designs share: the endpoint GET /v1/ws with the subprotocol
// pointsman.json.v1, cursors, checkpoints, and sockets that nobody waits for.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/cursor"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
)

const subprotocol = clientmsg.JSON

// Host is the design behind the sockets. Of one client its methods are called one after the other.
type Host interface {
	// Admit refuses clients of a partition that cannot be served here.
	Admit(partition int32) error
	// Attach begins the delivery; Detach ends it, after Attach has returned.
	Attach(c *Client)
	Detach(c *Client)
	// Covered is the place of the client's partition below which everything was sent to it, as far as the design
	// knows: it moves the cursors of clients that receive nothing.
	Covered(c *Client) int64
}

// Config says what a server serves.
type Config struct {
	TopicID    [16]byte
	Partitions int32
	Heartbeat  time.Duration // default 15 s, as the product's
	// DrainRate is how many clients a second are sent away at the end; default 1,000, so that those who take them in
	// keep serving the others.
	DrainRate int
	Logger    *zap.Logger
}

type metrics struct {
	clients   prometheus.GaugeFunc
	accepted  prometheus.Counter
	refused   prometheus.Counter
	delivered prometheus.Counter
	slow      prometheus.Counter
}

// Server accepts clients.
type Server struct {
	// Static after construction.
	cfg     Config
	host    Host
	part    partitioner.Partitioner
	metrics metrics
	shared  *shared

	ids    atomic.Uint64
	second atomic.Int64 // Unix nanoseconds, moved by Run: a clock for what needs no exact one

	mu      sync.Mutex
	clients map[uint64]*Client // guarded by mu
	ending  bool               // guarded by mu
	serving sync.WaitGroup     // one for each client; joined under mu while not ending
}

// New makes a server; its metrics go to the registry.
func New(cfg Config, host Host, reg prometheus.Registerer) (*Server, error) {
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	if cfg.DrainRate <= 0 {
		cfg.DrainRate = 1000
	}
	part, err := partitioner.New(partitioner.Murmur2)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, host: host, part: part, shared: &shared{}, clients: make(map[uint64]*Client)}
	s.second.Store(time.Now().UnixNano())
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "design", Name: name, Help: help})
	}
	s.metrics = metrics{
		clients: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "design", Name: "clients", Help: "Open client sockets."},
			func() float64 { return float64(len(s.Clients())) }),
		accepted:  counter("clients_accepted_total", "Client sockets opened."),
		refused:   counter("clients_refused_total", "Requests of clients that were refused."),
		delivered: counter("records_delivered_total", "Records written to client sockets."),
		slow:      counter("clients_slow_total", "Clients closed because they fell too far behind."),
	}
	for _, c := range []prometheus.Collector{s.metrics.clients, s.metrics.accepted, s.metrics.refused, s.metrics.delivered, s.metrics.slow} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return s, nil
}

// Delivered counts records that were queued for clients.
func (s *Server) Delivered(n int) { s.metrics.delivered.Add(float64(n)) }

// Clients lists the open ones.
func (s *Server) Clients() []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Client, 0, len(s.clients))
	for _, c := range s.clients {
		out = append(out, c)
	}
	return out
}

func (s *Server) now() time.Time { return time.Unix(0, s.second.Load()) }

var errBadRequest = errors.New("bad request")

// ServeHTTP upgrades one client's connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := s.wish(r)
	if err == nil {
		err = s.host.Admit(c.partition)
	}
	if err == nil {
		err = s.join()
	}
	if err != nil {
		s.metrics.refused.Inc()
		status := http.StatusServiceUnavailable
		if errors.Is(err, errBadRequest) {
			status = http.StatusBadRequest
		}
		http.Error(w, err.Error(), status)
		return
	}
	if c.conn, err = accept(w, r, s.shared); err != nil {
		s.serving.Done()
		s.metrics.refused.Inc()
		return // the library has answered
	}
	ending := s.begin(c)
	// The handler returns, and its buffers and grown stack with it: half the memory of a client that would stay in here.
	go s.follow(c, ending)
}

// begin makes the client known; ending says that it was only sent away.
func (s *Server) begin(c *Client) (ending bool) {
	s.metrics.accepted.Inc()
	c.lastSent = s.now()
	s.mu.Lock()
	s.clients[c.ID] = c
	ending = s.ending
	s.mu.Unlock()
	if ending {
		c.Move("the server is stopping")
	} else {
		s.host.Attach(c)
	}
	return ending
}

func (s *Server) follow(c *Client, ending bool) {
	defer s.serving.Done()
	c.conn.serve()
	if !ending {
		s.host.Detach(c)
	}
	s.mu.Lock()
	delete(s.clients, c.ID)
	s.mu.Unlock()
}

func (s *Server) join() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errors.New("the server is stopping")
	}
	s.serving.Add(1)
	return nil
}

// wish reads a request.
func (s *Server) wish(r *http.Request) (*Client, error) {
	q := r.URL.Query()
	key := []byte(q.Get("key"))
	if len(key) == 0 {
		return nil, fmt.Errorf("%w: no key", errBadRequest)
	}
	c := &Client{ID: s.ids.Add(1), key: key, hash: cursor.Hash(key), partition: s.part.Partition(key, s.cfg.Partitions), server: s, wish: feed.Latest}
	switch text, from := q.Get("cursor"), q.Get("from"); {
	case text != "":
		cur, err := cursor.Decode(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBadRequest, err)
		}
		f, ok := cur.For(key)
		if !ok {
			return nil, fmt.Errorf("%w: the cursor belongs to another key", errBadRequest)
		}
		// If the topic was created again, what the cursor says means nothing, and hello says that nothing was resumed.
		c.wish, c.resumed = feed.Oldest, cur.TopicID == s.cfg.TopicID
		if c.resumed {
			for _, p := range f.Positions {
				if p.Partition == c.partition {
					c.wish = p.Next
				}
			}
		}
	case from == "earliest":
		c.wish = feed.Oldest
	case from != "" && from != "latest":
		n, err := strconv.ParseInt(from, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%w: from is latest, earliest or an offset", errBadRequest)
		}
		c.wish = n
	}
	return c, nil
}

// Run serves clients on the listener until ctx ends, then sends them away, DrainRate of them a second, and returns
// when all have gone. Each is served until its own turn.
func (s *Server) Run(ctx context.Context, l net.Listener, more func(*http.ServeMux)) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+clientmsg.Path, s)
	if more != nil {
		more(mux)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(s.cfg.Logger.Named("http"))}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	rounds := 0
	for ctx.Err() == nil {
		select {
		case now := <-tick.C:
			s.second.Store(now.UnixNano())
			if rounds++; rounds%10 == 0 {
				s.look(now)
			}
		case err := <-served:
			return fmt.Errorf("serve clients: %w", err)
		case <-ctx.Done():
		}
	}
	s.drain()
	err := srv.Close()
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	s.shared.writers.Wait()
	return err
}

func (s *Server) look(now time.Time) {
	for _, c := range s.Clients() {
		c.Cover(s.host.Covered(c))
		c.look(now)
	}
}

func (s *Server) drain() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	clients := s.Clients()
	s.MoveAll(clients, "the server is stopping")
	gone := make(chan struct{})
	go func() { s.serving.Wait(); close(gone) }()
	t := time.NewTimer(2 * closeTime)
	defer t.Stop()
	select {
	case <-gone:
		return
	case <-t.C:
	}
	for _, c := range s.Clients() {
		c.conn.abort()
	}
	<-gone
}

// MoveAll sends clients away, DrainRate of them a second.
func (s *Server) MoveAll(clients []*Client, reason string) {
	const every = 10 * time.Millisecond
	t := time.NewTicker(every)
	defer t.Stop()
	each := max(1, s.cfg.DrainRate/100)
	for i, c := range clients {
		if i > 0 && i%each == 0 {
			<-t.C
		}
		c.Move(reason)
	}
}
