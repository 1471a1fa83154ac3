package redistributor

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/socket"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

const (
	// joinAgain is when a client that no redistributor has taken up, or that hears nothing more while it catches up,
	// joins again.
	joinAgain  = time.Second
	sweepEvery = 250 * time.Millisecond
)

// Server keeps client sockets and reads no topic. Asking Kafka for the topic's id and size at its start is all that it
// has to do with it.
type Server struct {
	base     program.Base
	sockets  *socket.Server
	lis      net.Listener
	presence Presence
	receiver Receiver

	mu     sync.Mutex
	joins  uint64                 // guarded by mu; so far
	byJoin map[uint64]*resident   // guarded by mu
	byKey  map[string][]*resident // guarded by mu
	heads  []int64                // guarded by mu; by partition
	asked  []int64                // guarded by mu; heads when Held was called
	proven []int64                // guarded by mu; heads that are known to be true
	buf    []byte                 // guarded by mu
}

// resident is a client here. Guarded by Server.mu.
type resident struct {
	*socket.Client
	join  uint64
	live  bool
	asked time.Time // when it joined, or heard something since
	told  bool      // that it has to wait
}

// NewServer opens the clients' address. Choose gets the place that the server is.
func NewServer(base program.Base, listen string, choose func(at Place, partitions int32) (Presence, Receiver, error)) (_ *Server, err error) {
	t, err := topic.Open(base.Kafka)
	if err != nil {
		return nil, err
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	s := &Server{
		base: base, byJoin: make(map[uint64]*resident), byKey: make(map[string][]*resident),
		heads: make([]int64, t.Partitions), asked: make([]int64, t.Partitions), proven: make([]int64, t.Partitions),
	}
	s.sockets, err = socket.New(socket.Config{TopicID: t.ID, Partitions: t.Partitions, Logger: base.Logger}, s, base.Registry)
	if err != nil {
		return nil, err
	}
	if s.lis, err = program.Listen(listen); err != nil {
		return nil, err
	}
	place := Place{Instance: base.ID + "-" + rand.Text()[:10], Addr: s.lis.Addr().String()}
	if s.presence, s.receiver, err = choose(place, t.Partitions); err != nil {
		return nil, errors.Join(err, s.lis.Close())
	}
	return s, nil
}

// Run serves until ctx ends, then sends the clients away.
func (s *Server) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var parts sync.WaitGroup
	for _, run := range []func() error{
		func() error { return s.presence.Run(working, s) },
		func() error { return s.receiver.Run(working, s.take) },
	} {
		parts.Go(func() {
			if err := run(); err != nil {
				fail(err)
			}
		})
	}
	parts.Go(func() { s.sweep(working) })
	err := s.sockets.Run(serving, s.lis, func(mux *http.ServeMux) { s.receiver.Mount(mux, s.take) })
	cause := context.Cause(serving)
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	stop()
	parts.Wait()
	return errors.Join(err, cause)
}

// Admit implements socket.Host: any client may come to any server.
func (s *Server) Admit(int32) error { return nil }

// Attach implements socket.Host.
func (s *Server) Attach(c *socket.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &resident{Client: c}
	c.State.Store(r)
	key := string(c.Key())
	s.byKey[key] = append(s.byKey[key], r)
	s.joinLocked(r)
}

// joinLocked begins the client's delivery anew, from its place on. Answers to earlier joins no longer count.
func (s *Server) joinLocked(r *resident) {
	delete(s.byJoin, r.join)
	s.joins++
	r.join, r.live, r.asked = s.joins, false, time.Now()
	s.byJoin[r.join] = r
	s.presence.Join(r.Partition(), Join{ID: r.join, Key: r.Key(), From: r.Next()})
}

// Detach implements socket.Host.
func (s *Server) Detach(c *socket.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := c.State.Load().(*resident)
	if !ok {
		return
	}
	delete(s.byJoin, r.join)
	key := string(c.Key())
	rest := slices.DeleteFunc(s.byKey[key], func(o *resident) bool { return o == r })
	if len(rest) > 0 {
		s.byKey[key] = rest
		return
	}
	delete(s.byKey, key)
	s.presence.Leave(c.Partition(), c.Key())
}

// Covered implements socket.Host.
func (s *Server) Covered(c *socket.Client) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := c.State.Load().(*resident)
	if !ok || !r.live {
		return -1
	}
	return s.proven[c.Partition()]
}

// Held implements Holder.
func (s *Server) Held() []Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.asked, s.heads)
	out := make([]Held, 0, len(s.byKey))
	for key, list := range s.byKey {
		out = append(out, Held{Partition: list[0].Partition(), Key: key})
	}
	return out
}

// Proven implements Holder.
func (s *Server) Proven() {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.proven, s.asked)
}

// Lost implements Holder: the clients begin anew where they are, before anything else can reach them.
func (s *Server) Lost(keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lostLocked(keys)
}

func (s *Server) lostLocked(keys []string) {
	if keys == nil {
		for _, list := range s.byKey {
			for _, r := range list {
				s.joinLocked(r)
			}
		}
		return
	}
	for _, key := range keys {
		for _, r := range s.byKey[key] {
			s.joinLocked(r)
		}
	}
}

// sweep has clients join again that wait for too long.
func (s *Server) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			s.mu.Lock()
			for _, r := range s.byJoin {
				if r.live || now.Sub(r.asked) < joinAgain {
					continue
				}
				if !r.told {
					r.told = true
					r.Waiting()
				}
				s.joinLocked(r)
			}
			s.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// take delivers a bundle.
func (s *Server) take(bundle []byte) error {
	var touched []*resident
	delivered := 0
	s.mu.Lock()
	err := parse(bundle, func(m *message) {
		switch m.kind {
		case kindReset:
			s.lostLocked(nil) // before what follows can move a cursor past the hole
		case kindHead:
			if int(m.partition) < len(s.heads) {
				s.heads[m.partition] = max(s.heads[m.partition], m.offset)
			}
		case kindRecord:
			if m.join == 0 {
				n := len(touched)
				touched = s.recordLocked(m, touched)
				delivered += len(touched) - n
				return
			}
			s.answerLocked(m)
		default:
			s.answerLocked(m)
		}
	})
	s.mu.Unlock()
	for _, r := range touched {
		r.Flush()
	}
	s.sockets.Delivered(delivered)
	return err
}

// recordLocked gives a live record to all clients of its key.
func (s *Server) recordLocked(m *message, touched []*resident) []*resident {
	var frame []byte
	for _, r := range s.byKey[string(m.record.Key)] {
		if !r.live {
			continue // its catch-up will bring it
		}
		if frame == nil {
			frame, s.buf = s.sockets.Frame(s.buf, r.Hash(), &m.record)
		}
		if r.Record(frame, m.offset) {
			touched = append(touched, r)
		}
	}
	return touched
}

// answerLocked is what a redistributor says to one client's join.
func (s *Server) answerLocked(m *message) {
	r := s.byJoin[m.join]
	if r == nil {
		return // it has gone, or joined again since
	}
	r.asked = time.Now()
	switch m.kind {
	case kindAttached:
		r.Begin(m.offset, m.complete)
	case kindRecord:
		r.Missed(&m.record)
	case kindGap:
		r.Gap(m.offset)
	case kindCaughtUp:
		r.live = true
		r.Live(m.offset)
	}
}

var _ feed.Listener = (*socket.Client)(nil)
