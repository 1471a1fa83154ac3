package hub

import (
	"fmt"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// Assignment is who serves a partition.
type Assignment struct {
	Partition  int32     `json:"partition"`
	Node       string    `json:"node,omitempty"`     // that serves it; empty when no node lives
	Instance   string    `json:"instance,omitempty"` // of that node
	Link       uint64    `json:"link,omitempty"`
	StandIn    bool      `json:"stand_in"` // the node has not claimed it
	Claimed    string    `json:"claimed_by,omitempty"`
	Remembered bool      `json:"remembered,omitempty"` // that claim is not in etcd any more, but its node is linked
	Generation int32     `json:"generation,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Sessions   int       `json:"sessions"`
}

// NodeStatus is what is known of a node.
type NodeStatus struct {
	Node       string    `json:"node"`
	Instance   string    `json:"instance"`
	Addr       string    `json:"addr"`
	Admin      string    `json:"admin,omitempty"`
	Version    string    `json:"version,omitempty"`
	Zone       string    `json:"zone,omitempty"`
	Started    time.Time `json:"started,omitzero"`
	Listed     bool      `json:"listed"` // etcd shows it
	Draining   bool      `json:"draining"`
	Linked     bool      `json:"linked"`
	Link       uint64    `json:"link,omitempty"`
	LinkSince  time.Time `json:"link_since,omitzero"`
	LinkError  string    `json:"link_error,omitempty"` // why it is not linked
	RTT        float64   `json:"rtt_ms,omitempty"`
	Streams    int       `json:"streams"`
	Partitions int       `json:"partitions"` // that are routed to it
}

// Assignments lists all partitions.
func (h *Hub) Assignments() []Assignment {
	v := h.view.Load()
	out := make([]Assignment, 0, v.Partitions())
	for p := range v.Partitions() {
		out = append(out, h.assignment(v, p))
	}
	return out
}

// Assignment is one partition's; false for one that does not exist.
func (h *Hub) Assignment(p int32) (Assignment, bool) {
	v := h.view.Load()
	if p < 0 || p >= v.Partitions() {
		return Assignment{}, false
	}
	return h.assignment(v, p), true
}

func (h *Hub) assignment(t *view, p int32) Assignment {
	a := Assignment{Partition: p}
	b := h.bucket(p)
	b.mu.Lock()
	a.Sessions = len(b.sessions)
	b.mu.Unlock()
	if c, ok := t.Claim(p); ok {
		a.Claimed, a.Generation, a.Since = c.Node, c.Generation, c.Since
		_, listed := t.claims[p]
		a.Remembered = !listed
	}
	if n, ok := t.ByLink(t.Route(p)); ok {
		a.Node, a.Instance, a.Link = n.ID, n.Instance, uint64(n.Link)
		a.StandIn = !t.Owned(p)
	}
	return a
}

// Nodes lists the nodes; why tells the reason for which an instance is not linked.
func (h *Hub) Nodes(why func(instance string) string) []NodeStatus {
	v := h.view.Load()
	routed := map[session.LinkID]int{}
	for p := range v.Partitions() {
		routed[v.Route(p)]++
	}
	out := []NodeStatus{}
	for _, n := range v.Nodes() {
		s := NodeStatus{
			Node: n.ID, Instance: n.Instance, Addr: n.Addr, Admin: n.Admin, Version: n.Version, Zone: n.Zone,
			Started: n.Started, Listed: n.Listed, Draining: n.Draining, Linked: n.Link != 0, Link: uint64(n.Link),
		}
		if ln := h.lane(n.Link); ln != nil {
			s.LinkSince, s.Streams, s.Partitions = ln.link.Since, ln.streams.Len(), routed[n.Link]
			s.RTT = float64(ln.link.RTT().Microseconds()) / 1000
		} else {
			s.LinkError = why(n.Instance)
		}
		out = append(out, s)
	}
	return out
}

// TableDump is the table in force as operators see it.
type TableDump struct {
	Revision    int64            `json:"revision"`
	Age         string           `json:"age"`
	Topic       *directory.Topic `json:"topic"`
	Assignments []Assignment     `json:"assignments"`
}

// Dump is the table in force.
func (h *Hub) Dump() TableDump {
	v := h.view.Load()
	d := TableDump{Revision: v.Revision, Topic: v.Topic, Assignments: h.Assignments()}
	if !v.At.IsZero() {
		d.Age = time.Since(v.At).Round(time.Millisecond).String()
	}
	return d
}

// Consistency is the outcome of a look at whether the parts agree with each other.
type Consistency struct {
	Sessions int      `json:"sessions"`
	Streams  int      `json:"streams"`
	Problems []string `json:"problems"` // empty when all is well; the first few
}

// maxProblems bounds the list: the first ones tell what is wrong.
const maxProblems = 20

// Consistency visits every session under its lock: its streams must be known to their links as its own, its bucket and
// partition must agree, and its ledger must be that of its outbox. It must find nothing, at any moment.
func (h *Hub) Consistency() Consistency {
	c := Consistency{Problems: []string{}}
	complain := func(format string, args ...any) {
		if len(c.Problems) < maxProblems {
			c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
		}
	}
	for p, b := range *h.buckets.Load() {
		b.mu.Lock()
		sessions := append([]*Session(nil), b.sessions...)
		b.mu.Unlock()
		for i, s := range sessions {
			s.lock()
			if !s.over {
				c.Sessions++
				h.checkLocked(s, p, i, complain)
			}
			s.unlock()
		}
	}
	for i, k := range h.sockets.all() {
		k.check(i, complain)
	}
	for _, ln := range *h.lanes.Load() {
		c.Streams += ln.streams.Len()
	}
	return c
}

func (h *Hub) checkLocked(s *Session, partition, i int, complain func(string, ...any)) {
	var states [4]session.Status
	several := s.core.Several()
	pending := false
	for _, st := range s.core.Statuses(states[:0]) {
		b := h.bucket(st.Partition)
		if b != s.bucket && (!several || s.away == nil || !slices.Contains(s.away.buckets, b)) || s.bucket != h.bucket(s.part) {
			complain("partition %d, session %d: it is of partition %d and its core of %d", partition, i, s.part, st.Partition)
		}
		if st.Primary != 0 {
			switch ln := h.lane(st.Primary); {
			case ln == nil:
				complain("partition %d, session %d: its link %d is not there", partition, i, st.Primary)
			default:
				if owner, ok := ln.streams.Owner(st.Stream); !ok || owner != s {
					complain("partition %d, session %d: link %d does not know its stream %d", partition, i, st.Primary, st.Stream)
				}
			}
		}
		if st.Secondary != 0 && h.lane(st.Secondary) == nil {
			complain("partition %d, session %d: its new link %d is not there", partition, i, st.Secondary)
		}
		pending = pending || st.Secondary != 0
	}
	if pending && !s.pending {
		complain("partition %d, session %d: a handover that nobody polls", partition, i)
	}
	st := s.core.Status()
	if owed := s.conn.Owed() + s.unpaid + s.allow.owed; s.sock == nil && owed != st.Queued {
		complain("partition %d, session %d: the ledger says %d bytes queued, the outbox %d", partition, i, st.Queued, owed)
	}
	if s.t != nil {
		complain("partition %d, session %d: a visit was not ended", partition, i)
	}
}

// Numbers for metrics.

// Sessions is how many clients there are.
func (h *Hub) Sessions() int64 { return h.open.Load() }

// Keys is how many client keys they follow.
func (h *Hub) Keys() int64 { return h.keys.Load() }

// Waiting is how many of them had no serving stream, for one of their keys at least, at the last look.
func (h *Hub) Waiting() int64 { return h.waiting.Load() }

// Pending is how many have a handover under way.
func (h *Hub) Pending() int64 { return h.pending.Load() }

// Queued is how many bytes waited for clients' sockets at the last look.
func (h *Hub) Queued() int64 { return h.queued.Load() }

// Full is how many clients were sent no more at the last look because their window is used up.
func (h *Hub) Full() int64 { return h.full.Load() }

// Paced is how many clients were sent no more at the last look because their rate is used up.
func (h *Hub) Paced() int64 { return h.paced.Load() }

// LinksUp is how many links the table has.
func (h *Hub) LinksUp() int {
	n := 0
	for _, node := range h.view.Load().Nodes() {
		if node.Link != 0 {
			n++
		}
	}
	return n
}

// Served counts the partitions, those that a stand-in serves, and those that nobody serves.
func (h *Hub) Served() (all, stoodIn, unserved int) {
	v := h.view.Load()
	for p := range v.Partitions() {
		switch {
		case v.Route(p) == 0:
			unserved++
		case !v.Owned(p):
			stoodIn++
		}
	}
	return int(v.Partitions()), stoodIn, unserved
}

// NodesListed is how many nodes etcd lists.
func (h *Hub) NodesListed() int {
	n := 0
	for _, node := range h.view.Load().Nodes() {
		if node.Listed {
			n++
		}
	}
	return n
}

// Streams is how many streams there are on all links.
func (h *Hub) Streams() int {
	n := 0
	for _, ln := range *h.lanes.Load() {
		n += ln.streams.Len()
	}
	return n
}
