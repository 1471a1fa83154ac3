// Package table is the router's picture of who serves what: the nodes it has a link to, the claims they made, and
// for each partition the link that should serve it. A Table is immutable and replaced whole; building one is a pure
// function of the previous one, of what etcd says and of the links that are up.
//
// etcd is a map, not a part of delivery: a node that etcd no longer shows stays in the table, with its last claims,
// for as long as its link is alive.
package table

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// Picture is what etcd said at one revision. Topic is nil when the key is absent or malformed.
type Picture struct {
	Revision int64
	At       time.Time
	Topic    *directory.Topic
	Nodes    map[string]directory.Node // by node id
	Claims   map[int32]directory.Claim
}

// Link is a link that is up: its node said Welcome on it.
type Link struct {
	ID       session.LinkID
	Node     string
	Instance string
	Draining bool // the node said so on the link
}

// Node is a row of the table: what etcd or a link tells of a node instance.
type Node struct {
	directory.Node
	ID       string
	Link     session.LinkID // 0 while no link is up
	Listed   bool           // etcd shows this instance
	Draining bool           // by etcd or by the link
}

// maxClaims bounds the older claims kept for a partition. A claim is only ever used while its instance's link is
// up, so what matters is that the last few owners in a row are remembered during a rolling restart.
const maxClaims = 4

// Table says which link serves which partition. It is immutable.
type Table struct {
	Revision int64
	At       time.Time // when etcd said it
	// Topic is nil until etcd described the topic once.
	Topic   *directory.Topic
	TopicID [16]byte

	nodes  map[string]Node // by instance
	claims [][]directory.Claim
	routes []session.LinkID
	// standIns are the links that may serve what nobody claims, see standIn.
	standIns []Node
}

// Empty is the table before anything is known.
func Empty() *Table { return &Table{} }

// Build makes the table that follows prev from what etcd says now and the links that are up. A picture without a
// topic keeps the topic of prev: etcd was wiped, and its nodes will write everything again.
func Build(prev *Table, pic Picture, up []Link) (*Table, error) {
	t := &Table{Revision: pic.Revision, At: pic.At, Topic: prev.Topic, TopicID: prev.TopicID}
	if pic.Topic != nil {
		id, err := directory.ParseTopicID(pic.Topic.TopicID)
		if err != nil {
			return nil, err
		}
		next := *pic.Topic
		// A restored etcd may show fewer partitions than a node has already proved: they never become fewer.
		if prev.Topic != nil && id == prev.TopicID && next.Partitions < prev.Topic.Partitions {
			next.Partitions = prev.Topic.Partitions
			next.Growth = nil
		}
		if prev.Topic != nil && id == prev.TopicID && next.Partitions > prev.Topic.Partitions && !slices.ContainsFunc(next.Growth, func(g directory.Growth) bool { return g.Partitions == prev.Topic.Partitions }) {
			// Whoever wrote this did not see the growth. Keys are followed all the same, in no particular order.
			next.Growth = directory.MergeGrowth(next.Growth, []directory.Growth{{
				Partitions: prev.Topic.Partitions, Ends: make([]int64, prev.Topic.Partitions), Since: pic.At,
			}})
		}
		// Nor is what is known of their growth forgotten: a node that starts with an empty etcd knows nothing of it.
		if prev.Topic != nil && id == prev.TopicID && (len(prev.Topic.Growth) > 0 || len(next.Growth) > 0) {
			next.Growth = directory.MergeGrowth(next.Growth, prev.Topic.Growth)
		}
		t.Topic, t.TopicID = &next, id
	}
	t.nodes = nodes(prev, pic, up)
	for _, n := range t.nodes {
		if n.Link != 0 {
			t.standIns = append(t.standIns, n)
		}
	}
	slices.SortFunc(t.standIns, func(a, b Node) int { return cmp.Compare(a.Link, b.Link) })
	if t.Topic == nil {
		return t, nil
	}
	sameTopic := t.TopicID == prev.TopicID
	t.claims = make([][]directory.Claim, t.Topic.Partitions)
	t.routes = make([]session.LinkID, t.Topic.Partitions)
	for p := range t.Topic.Partitions {
		var old []directory.Claim
		if sameTopic && int(p) < len(prev.claims) {
			old = prev.claims[p]
		}
		now, ok := pic.Claims[p]
		t.claims[p] = t.merge(now, ok, old)
		t.routes[p] = t.route(p)
	}
	return t, nil
}

// nodes joins what etcd lists with the links that are up.
func nodes(prev *Table, pic Picture, up []Link) map[string]Node {
	out := make(map[string]Node, len(pic.Nodes)+len(up))
	for id, n := range pic.Nodes {
		out[n.Instance] = Node{Node: n, ID: id, Listed: true, Draining: n.Draining}
	}
	for _, l := range up {
		n, listed := out[l.Instance]
		if !listed {
			// Missing from etcd, or replaced there by a newer instance, and yet alive.
			n = prev.nodes[l.Instance]
			n.ID, n.Instance, n.Listed = l.Node, l.Instance, false
		}
		n.Link = l.ID
		n.Draining = n.Draining || l.Draining
		out[l.Instance] = n
	}
	return out
}

// merge puts etcd's claim before the older ones of nodes that are still linked: until the link to a new owner is up,
// its predecessor serves on, and a claim that etcd lost is still true while its node lives.
func (t *Table) merge(now directory.Claim, ok bool, old []directory.Claim) []directory.Claim {
	var out []directory.Claim
	if ok {
		out = append(out, now)
	}
	for _, c := range old {
		if n := t.nodes[c.Instance]; n.Link == 0 || ok && c.Instance == now.Instance {
			continue
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b directory.Claim) int {
		switch {
		case a.Newer(b):
			return -1
		case b.Newer(a):
			return 1
		}
		return 0
	})
	return out[:min(len(out), maxClaims)]
}

// route is the owner: the newest claim whose node's link is up. A node that drains serves what it claimed until a
// newer claim exists, and is no choice after that.
func (t *Table) route(p int32) session.LinkID {
	for i, c := range t.claims[p] {
		n := t.nodes[c.Instance]
		if n.Link == 0 || i > 0 && n.Draining {
			continue
		}
		return n.Link
	}
	return t.standIn(p)
}

// standIn chooses by rendezvous hash over the linked nodes, so that all routers that see the same nodes agree, and
// only the partitions of a lost node move. Nodes that drain are a last resort.
func (t *Table) standIn(p int32) session.LinkID {
	var best session.LinkID
	var bestScore uint64
	bestDraining := true
	for _, n := range t.standIns {
		score := rendezvous(n.ID, n.Instance, p)
		better := best == 0 || bestDraining && !n.Draining ||
			bestDraining == n.Draining && score > bestScore
		if better {
			best, bestScore, bestDraining = n.Link, score, n.Draining
		}
	}
	return best
}

// rendezvous is FNV-1a over both names and the partition, mixed so that near partitions scatter.
func rendezvous(id, instance string, p int32) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{id, "/", instance} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	h ^= uint64(uint32(p)) * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Partitions is how many the topic has, 0 before it is known.
func (t *Table) Partitions() int32 { return int32(len(t.routes)) }

// Path is where a key lived and lives, nil if it never moved; home tells its partition among so many. The slice is
// the caller's.
func (t *Table) Path(home func(partitions int32) int32) []session.Stage {
	if t.Topic == nil || len(t.Topic.Growth) == 0 {
		return nil
	}
	growth := t.Topic.Growth
	moved := false
	now := home(t.Topic.Partitions)
	for i := range growth {
		moved = moved || home(growth[i].Partitions) != now
	}
	if !moved {
		return nil
	}
	path := make([]session.Stage, 0, len(growth)+1)
	for i := 0; i <= len(growth); i++ {
		p, until, closed := now, int64(session.Done), int64(-1)
		if i < len(growth) {
			p = home(growth[i].Partitions)
			until = growth[i].Ends[p]
			if len(growth[i].Closed) > 0 {
				closed = growth[i].Closed[p]
			}
		}
		if n := len(path); n > 0 && path[n-1].Partition == p {
			path[n-1].Until, path[n-1].Closed = until, closed
			continue
		}
		from := int64(0)
		if i > 0 && int(p) < len(growth[i-1].From) {
			from = growth[i-1].From[p]
		}
		for _, s := range path {
			// Whoever comes back here without a place of its own has let go of the earlier stay, at its end.
			if s.Partition == p {
				from = max(from, s.Closed)
			}
		}
		path = append(path, session.Stage{Partition: p, From: from, Until: until, Closed: closed})
	}
	return path
}

// Route is the link that should serve a partition, 0 when no node lives.
func (t *Table) Route(p int32) session.LinkID {
	if p < 0 || int(p) >= len(t.routes) {
		return 0
	}
	return t.routes[p]
}

// Claim is the newest claim of a partition, whether its node is linked or not.
func (t *Table) Claim(p int32) (directory.Claim, bool) {
	if p < 0 || int(p) >= len(t.claims) || len(t.claims[p]) == 0 {
		return directory.Claim{}, false
	}
	return t.claims[p][0], true
}

// Owned reports whether the partition's route is a node that claims it, not a stand-in.
func (t *Table) Owned(p int32) bool {
	l := t.Route(p)
	if l == 0 {
		return false
	}
	return slices.ContainsFunc(t.claims[p], func(c directory.Claim) bool { return t.nodes[c.Instance].Link == l })
}

// Nodes lists the nodes, by id and instance.
func (t *Table) Nodes() []Node {
	return slices.SortedFunc(maps.Values(t.nodes), func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Instance, b.Instance))
	})
}

// ByLink is the node of a link that is up.
func (t *Table) ByLink(l session.LinkID) (Node, bool) {
	for _, n := range t.standIns {
		if n.Link == l {
			return n, true
		}
	}
	return Node{}, false
}

// Grew reports whether a later table of the same topic knows more of its growth.
func Grew(old, next *Table) bool {
	if old.Topic == nil || next.Topic == nil || old.TopicID != next.TopicID {
		return false
	}
	return !directory.SameGrowth(old.Topic.Growth, next.Topic.Growth)
}

// Moved lists the partitions whose route differs between two tables.
func Moved(old, next *Table) []int32 {
	var moved []int32
	for p := range max(old.Partitions(), next.Partitions()) {
		if old.Route(p) != next.Route(p) {
			moved = append(moved, p)
		}
	}
	return moved
}
