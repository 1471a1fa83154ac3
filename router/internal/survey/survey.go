// Package survey asks the nodes of a stack, on their admin addresses, how far they have come, and puts their answers
// into the picture that a router, or etcd, gives of it.
package survey

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/overview"
)

const (
	// fresh is how long answers are shown again: several consoles cost the nodes no more than one.
	fresh = 900 * time.Millisecond
	// patience bounds one question. A node that is alive answers in milliseconds.
	patience = 1500 * time.Millisecond
	// sulk is how long a node that did not answer is left alone, so that it does not slow every look.
	sulk = 5 * time.Second
	// atOnce bounds the questions under way.
	atOnce = 16
)

// Answer is what one node said, or why it did not.
type Answer struct {
	Status *overview.Status // nil: Err says why
	Err    error

	until time.Time // it is not asked again before
}

// Answers are by the nodes' instances.
type Answers map[string]Answer

// Survey keeps the newest answers.
type Survey struct {
	ask  func(ctx context.Context, addr string) (*overview.Status, error)
	turn chan struct{} // holds one: whoever looks

	mu      sync.Mutex
	answers Answers // guarded by mu; not changed once it is here
}

// New returns a survey that has asked nobody yet.
func New() *Survey {
	return &Survey{ask: overview.Get, turn: make(chan struct{}, 1)}
}

// Look asks all nodes whose answer is not fresh and returns what is known. It takes at most about as long as the
// slowest node is waited for. When ctx ends it returns what there is.
func (s *Survey) Look(ctx context.Context, nodes []overview.Node) Answers {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return s.known()
	}
	defer func() { <-s.turn }()
	old := s.known()
	next := make(Answers, len(nodes))
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	now := time.Now()
	for _, n := range nodes {
		if a, ok := old[n.Instance]; ok && now.Before(a.until) {
			mu.Lock()
			next[n.Instance] = a
			mu.Unlock()
			continue
		}
		asking.Go(func() {
			slots <- struct{}{}
			a := s.question(ctx, n)
			<-slots
			mu.Lock()
			next[n.Instance] = a
			mu.Unlock()
		})
	}
	asking.Wait()
	if ctx.Err() != nil {
		return next // half of it says that nobody waited; not to be shown to others
	}
	s.mu.Lock()
	s.answers = next
	s.mu.Unlock()
	return next
}

func (s *Survey) known() Answers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

func (s *Survey) question(ctx context.Context, n overview.Node) Answer {
	status, err := s.put(ctx, n)
	wait := fresh
	if err != nil {
		wait = sulk
	}
	return Answer{Status: status, Err: err, until: time.Now().Add(wait)}
}

func (s *Survey) put(ctx context.Context, n overview.Node) (*overview.Status, error) {
	if n.Admin == "" {
		return nil, errors.New("it has no admin address; start it with --admin")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, err := s.ask(ctx, n.Admin)
	switch {
	case err != nil && far(n):
		return nil, fmt.Errorf("its admin address %s is for its own machine only; start it with --admin=:9081 behind a firewall to see its numbers here", n.Admin)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("its admin address %s does not answer within %s", n.Admin, patience)
	case err != nil:
		return nil, err
	case status.Instance != n.Instance && far(n):
		// Our own machine's node answered in its place.
		return nil, fmt.Errorf("its admin address %s is for its own machine only; start it with --admin=:9081 behind a firewall to see its numbers here", n.Admin)
	case status.Instance != n.Instance:
		return nil, fmt.Errorf("at its admin address %s another instance answers (%s)", n.Admin, status.Instance)
	}
	return status, nil
}

// far reports whether a node publishes an admin address that means another machine to each who reads it.
func far(n overview.Node) bool { return loopback(n.Admin) && !loopback(n.Addr) }

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
