package survey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/overview"
)

// nodes answer by address.
type nodes struct {
	mu    sync.Mutex
	asked map[string]int
	says  map[string]*overview.Status // nil: refused
}

func (n *nodes) ask(_ context.Context, addr string) (*overview.Status, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[addr]++
	if s := n.says[addr]; s != nil {
		return s, nil
	}
	return nil, errors.New("connection refused")
}

func TestAnswersAreMergedByWhoServes(t *testing.T) {
	one := &overview.Status{
		Instance: "i1",
		Nodes:    []overview.Node{{ID: "n1", Instance: "i1", Streams: 3, Memory: 7, Lag: 5}},
		Partitions: []overview.Partition{
			{Partition: 0, Node: "n1", Reading: true, Head: 10, Lag: 5, Streams: 3},
			{Partition: 1, Node: "n1", Reading: true, Head: 99}, // it owned this one before
		},
		Routers:    []overview.Router{{ID: "r1", Nodes: 1, Streams: 2}, {ID: "r2", Nodes: 1, Streams: 1}},
		Mismatches: []overview.Mismatch{{Partition: 0, Offset: 4, Node: "n1"}},
	}
	far := &overview.Status{Instance: "other", Nodes: []overview.Node{{Instance: "other"}}}
	n := &nodes{asked: map[string]int{}, says: map[string]*overview.Status{"10.0.0.1:9081": one, "127.0.0.1:9081": far, "10.0.0.4:9081": far}}
	s := &overview.Status{
		Routers: []overview.Router{{ID: "r1", Self: true, Sessions: 2}},
		Nodes: []overview.Node{
			{ID: "n1", Instance: "i1", Addr: "10.0.0.1:9080", Admin: "10.0.0.1:9081"},
			{ID: "n2", Instance: "i2", Addr: "10.0.0.2:9080", Admin: "10.0.0.2:9081"},
			{ID: "n3", Instance: "i3", Addr: "10.0.0.3:9080", Admin: "127.0.0.1:9081"},
			{ID: "n4", Instance: "i4", Addr: "10.0.0.4:9080", Admin: "10.0.0.4:9081"},
			{ID: "n5", Instance: "i5", Addr: "10.0.0.5:9080"},
		},
		Partitions: []overview.Partition{{Partition: 0, Node: "n1"}, {Partition: 1, Node: "n2"}},
	}
	v := New()
	v.ask = n.ask
	Merge(s, v.Look(t.Context(), s.Nodes))
	if p := s.Partitions[0]; !p.Reading || p.Head != 10 || p.Lag != 5 || p.Streams != 3 {
		t.Errorf("partition 0: %+v", p)
	}
	if p := s.Partitions[1]; p.Reading || p.Head != 0 {
		t.Errorf("partition 1 has the numbers of a node that does not serve it: %+v", p)
	}
	if got := fmt.Sprintf("%s %d %d %s %d", s.Routers[0].ID, s.Routers[0].Sessions, s.Routers[0].Streams, s.Routers[1].ID, s.Routers[1].Streams); got != "r1 2 2 r2 1" {
		t.Errorf("routers: %s", got)
	}
	if s.Nodes[0].Streams != 3 || !s.Nodes[0].Heard() || len(s.Mismatches) != 1 {
		t.Errorf("node 1: %+v, mismatches %v", s.Nodes[0], s.Mismatches)
	}
	for i, want := range map[int]string{1: "refused", 2: "its own machine only", 3: "another instance", 4: "no admin address"} {
		if !strings.Contains(s.Nodes[i].Unheard, want) {
			t.Errorf("%s: %q, want %q in it", s.Nodes[i].ID, s.Nodes[i].Unheard, want)
		}
	}
	// Whoever looks at once costs the nodes nothing, and a node that does not answer is left alone for longer.
	v.Look(t.Context(), s.Nodes)
	for addr, times := range n.asked {
		if times != 1 {
			t.Errorf("%s was asked %d times", addr, times)
		}
	}
}

func TestLookEndsWithItsAsker(t *testing.T) {
	v := New()
	v.ask = func(ctx context.Context, _ string) (*overview.Status, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := v.Look(ctx, []overview.Node{{ID: "n", Instance: "i", Admin: "127.0.0.1:1", Addr: "127.0.0.1:2"}})
	if len(v.known()) != 0 {
		t.Errorf("an answer that nobody waited for was kept: %v", got)
	}
}
