package table

import (
	"slices"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/router/internal/session"
)

const (
	topicA = "00000000-0000-0000-0000-00000000000a"
	topicB = "00000000-0000-0000-0000-00000000000b"
)

func topic(id string, partitions int32) *directory.Topic {
	return &directory.Topic{V: 1, Group: "g", TopicID: id, Partitions: partitions, Partitioner: "murmur2"}
}

func node(instance string) directory.Node {
	return directory.Node{V: 1, Instance: instance, Addr: "127.0.0.1:1"}
}

func claim(instance string, incarnation int64, generation int32) directory.Claim {
	return directory.Claim{V: 1, Node: "node-" + instance, Instance: instance, Incarnation: incarnation, Generation: generation}
}

func up(id session.LinkID, instance string) Link {
	return Link{ID: id, Node: "node-" + instance, Instance: instance}
}

func draining(l Link) Link { l.Draining = true; return l }

func picture(partitions int32, claims map[int32]directory.Claim, instances ...string) Picture {
	p := Picture{Revision: 7, Topic: topic(topicA, partitions), Nodes: map[string]directory.Node{}, Claims: claims}
	for _, i := range instances {
		p.Nodes["node-"+i] = node(i)
	}
	return p
}

func build(t *testing.T, prev *Table, pic Picture, links ...Link) *Table {
	t.Helper()
	next, err := Build(prev, pic, links)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func routes(t *Table) []session.LinkID {
	var out []session.LinkID
	for p := range t.Partitions() {
		out = append(out, t.Route(p))
	}
	return out
}

func TestOwnerServesWhatItClaims(t *testing.T) {
	pic := picture(2, map[int32]directory.Claim{0: claim("a", 1, 5), 1: claim("b", 1, 5)}, "a", "b")
	tab := build(t, Empty(), pic, up(1, "a"), up(2, "b"))
	if got := routes(tab); !slices.Equal(got, []session.LinkID{1, 2}) {
		t.Errorf("routes = %v, want [1 2]", got)
	}
	if !tab.Owned(0) || !tab.Owned(1) {
		t.Error("owners are not reported as such")
	}
}

func TestPredecessorServesUntilTheNewOwnersLinkIsUp(t *testing.T) {
	before := build(t, Empty(), picture(1, map[int32]directory.Claim{0: claim("a", 1, 5)}, "a", "b", "c"), up(1, "a"), up(3, "c"))
	moved := picture(1, map[int32]directory.Claim{0: claim("b", 1, 6)}, "a", "b", "c")
	during := build(t, before, moved, up(1, "a"), up(3, "c"))
	if got := during.Route(0); got != 1 {
		t.Errorf("while the new owner is not linked the route is %d, want its predecessor 1", got)
	}
	after := build(t, during, moved, up(1, "a"), up(2, "b"), up(3, "c"))
	if got := after.Route(0); got != 2 {
		t.Errorf("route = %d, want the new owner 2", got)
	}
	back := build(t, after, moved, up(1, "a"), up(3, "c"))
	if got := back.Route(0); got != 1 {
		t.Errorf("after the new owner's death the route is %d, want its predecessor 1", got)
	}
}

func TestDrainingNodeServesUntilANewerClaimExists(t *testing.T) {
	pic := picture(1, map[int32]directory.Claim{0: claim("a", 1, 5)}, "a", "b")
	tab := build(t, Empty(), pic, draining(up(1, "a")), up(2, "b"))
	if got := tab.Route(0); got != 1 {
		t.Errorf("route = %d, want the draining owner 1", got)
	}
	pic.Claims = map[int32]directory.Claim{0: claim("c", 1, 6)} // c is not linked yet
	next := build(t, tab, pic, draining(up(1, "a")), up(2, "b"))
	if got := next.Route(0); got != 2 {
		t.Errorf("route = %d, want the stand-in 2: the draining node's claim is superseded", got)
	}
	alone := build(t, next, pic, draining(up(1, "a")))
	if got := alone.Route(0); got != 1 {
		t.Errorf("route = %d, want the draining node 1 as the last resort", got)
	}
}

func TestStandInsAreChosenAlikeAndSpread(t *testing.T) {
	pic := picture(300, nil, "a", "b", "c")
	one := build(t, Empty(), pic, up(1, "a"), up(2, "b"), up(3, "c"))
	// Another router numbers its links otherwise.
	other := build(t, Empty(), pic, up(9, "a"), up(8, "b"), up(7, "c"))
	counts := map[session.LinkID]int{}
	for p := range one.Partitions() {
		if one.Route(p)+other.Route(p) != 10 {
			t.Fatalf("partition %d: routers disagree: %d and %d", p, one.Route(p), other.Route(p))
		}
		counts[one.Route(p)]++
	}
	for l, n := range counts {
		if n < 60 || n > 140 {
			t.Errorf("link %d stands in for %d of 300 partitions", l, n)
		}
	}
	// Only the lost node's partitions move.
	less := build(t, one, pic, up(1, "a"), up(2, "b"))
	for _, p := range Moved(one, less) {
		if one.Route(p) != 3 {
			t.Errorf("partition %d moved from %d to %d", p, one.Route(p), less.Route(p))
		}
	}
}

func TestEmptyListKeepsNodesWhoseLinksLive(t *testing.T) {
	pic := picture(2, map[int32]directory.Claim{0: claim("a", 1, 5), 1: claim("b", 1, 5)}, "a", "b")
	full := build(t, Empty(), pic, up(1, "a"), up(2, "b"))
	wiped := build(t, full, Picture{Revision: 1}, up(1, "a"), up(2, "b"))
	if moved := Moved(full, wiped); len(moved) > 0 {
		t.Errorf("a wiped etcd moved partitions %v", moved)
	}
	if wiped.Topic == nil || wiped.Partitions() != 2 {
		t.Errorf("a wiped etcd took the topic away: %+v", wiped.Topic)
	}
	for _, n := range wiped.Nodes() {
		if n.Listed || n.Addr == "" {
			t.Errorf("node %s: listed=%v addr=%q, want what was known and not listed", n.ID, n.Listed, n.Addr)
		}
	}
	dead := build(t, wiped, Picture{Revision: 1}, up(2, "b"))
	if got := routes(dead); !slices.Equal(got, []session.LinkID{2, 2}) {
		t.Errorf("routes = %v, want the stand-in for partition 0", got)
	}
	if got := len(dead.Nodes()); got != 1 {
		t.Errorf("%d nodes, want the dead one gone", got)
	}
}

func TestNewerInstanceOfANodeDoesNotHideTheOldLink(t *testing.T) {
	old := build(t, Empty(), picture(1, map[int32]directory.Claim{0: claim("a", 1, 5)}, "a"), up(1, "a"))
	pic := picture(1, map[int32]directory.Claim{0: claim("a", 1, 5)})
	pic.Nodes["node-a"] = node("a2")
	tab := build(t, old, pic, up(1, "a"))
	if got := tab.Route(0); got != 1 {
		t.Errorf("route = %d, want the old instance's link", got)
	}
	if got := len(tab.Nodes()); got != 2 {
		t.Errorf("%d nodes, want both instances", got)
	}
}

func TestClaimsAreOrderedByIncarnationThenGeneration(t *testing.T) {
	pic := picture(1, map[int32]directory.Claim{0: claim("a", 1, 50)}, "a", "b")
	tab := build(t, Empty(), pic, up(1, "a"), up(2, "b"))
	pic.Claims = map[int32]directory.Claim{0: claim("b", 2, 1)}
	tab = build(t, tab, pic, up(1, "a"), up(2, "b"))
	if got := tab.Route(0); got != 2 {
		t.Errorf("route = %d, want the higher incarnation", got)
	}
	// A restored etcd shows the older claim again: what is known to be newer wins while its node lives.
	pic.Claims = map[int32]directory.Claim{0: claim("a", 1, 50)}
	tab = build(t, tab, pic, up(1, "a"), up(2, "b"))
	if got := tab.Route(0); got != 2 {
		t.Errorf("route = %d, want the newest claim that is known", got)
	}
}

func TestPartitionsNeverBecomeFewerWithinATopic(t *testing.T) {
	tab := build(t, Empty(), picture(8, nil, "a"), up(1, "a"))
	tab = build(t, tab, picture(4, nil, "a"), up(1, "a"))
	if got := tab.Partitions(); got != 8 {
		t.Errorf("%d partitions, want 8", got)
	}
	pic := picture(4, nil, "a")
	pic.Topic = topic(topicB, 4)
	tab = build(t, tab, pic, up(1, "a"))
	if got := tab.Partitions(); got != 4 {
		t.Errorf("%d partitions of the new topic, want 4", got)
	}
}

func TestRecreatedTopicForgetsOldClaims(t *testing.T) {
	tab := build(t, Empty(), picture(1, map[int32]directory.Claim{0: claim("a", 1, 5)}, "a", "b"), up(1, "a"), up(2, "b"))
	pic := picture(1, nil, "a", "b")
	pic.Topic = topic(topicB, 1)
	tab = build(t, tab, pic, up(1, "a"), up(2, "b"))
	if _, ok := tab.Claim(0); ok {
		t.Error("a claim of the old topic is still there")
	}
}

func TestNoNodeMeansNoRoute(t *testing.T) {
	tab := build(t, Empty(), picture(1, map[int32]directory.Claim{0: claim("a", 1, 5)}, "a"))
	if got := tab.Route(0); got != 0 {
		t.Errorf("route = %d, want none", got)
	}
	if got := Empty().Route(3); got != 0 {
		t.Errorf("route = %d in an empty table", got)
	}
}

func TestMalformedTopicIDIsAnError(t *testing.T) {
	pic := picture(1, nil)
	pic.Topic.TopicID = "nonsense"
	if _, err := Build(Empty(), pic, nil); err == nil {
		t.Error("no error")
	}
}

func TestPathOfAKeyThroughTheTopicsGrowth(t *testing.T) {
	const done = int64(session.Done)
	topic := &directory.Topic{TopicID: "00000000-0000-0000-0000-00000000000a", Partitions: 6, Growth: []directory.Growth{
		{Partitions: 2, Ends: []int64{10, 20}, Closed: []int64{11, 21}},
		{Partitions: 3, Ends: []int64{30, 40, 50}, From: []int64{31, 41, 51}},
	}}
	tab, err := Build(Empty(), Picture{Topic: topic}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// 7 lives in 1, 1, 1; 5 in 1, 2, 5; 8 in 0, 2, 2; 6 in 0, 0, 0; 9 in 1, 0, 3.
	for key, want := range map[int32][]session.Stage{
		7: nil, 6: nil,
		5: {{Partition: 1, Until: 20, Closed: 21}, {Partition: 2, Until: 50, Closed: -1}, {Partition: 5, Until: done, Closed: -1}},
		8: {{Partition: 0, Until: 10, Closed: 11}, {Partition: 2, Until: done, Closed: -1}},
		9: {{Partition: 1, Until: 20, Closed: 21}, {Partition: 0, Until: 30, Closed: -1}, {Partition: 3, Until: done, Closed: -1}},
	} {
		if got := tab.Path(func(n int32) int32 { return key % n }); !slices.Equal(got, want) {
			t.Errorf("key %d: got %+v, want %+v", key, got, want)
		}
	}
	// A node that starts with an empty etcd does not know of the growth; this router does, and knows of one more.
	next, err := Build(tab, Picture{Topic: &directory.Topic{TopicID: topic.TopicID, Partitions: 12}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []session.Stage{{Partition: 1, Until: 20, Closed: 21}, {Partition: 2, Until: 50, Closed: -1}, {Partition: 5, Until: 0, Closed: -1}, {Partition: 11, Until: done, Closed: -1}}
	if got := next.Path(func(n int32) int32 { return 11 % n }); !slices.Equal(got, want) {
		t.Errorf("after etcd was emptied: got %+v, want %+v", got, want)
	}
	if !Grew(tab, next) || Grew(next, next) {
		t.Error("growth was not noticed, or twice")
	}
}

func TestKeyThatComesBackGoesOnWhereItsEarlierStayEnded(t *testing.T) {
	const done = int64(session.Done)
	home := func(n int32) int32 { return 8 % n } // 0, 2, 0
	for _, tc := range []struct {
		name         string
		closed, from []int64
		want         int64
	}{
		{"nobody looked in time", []int64{120, 0, 0, 0}, nil, 120},
		{"the look was earlier", []int64{120, 0, 0, 0}, []int64{110, 0, 0, 0, 0, 0}, 120},
		{"the look was later", []int64{120, 0, 0, 0}, []int64{130, 0, 0, 0, 0, 0}, 130},
		{"the earlier stay is not over", nil, nil, 0},
	} {
		tab, err := Build(Empty(), Picture{Topic: &directory.Topic{TopicID: topicA, Partitions: 8, Growth: []directory.Growth{
			{Partitions: 4, Ends: []int64{100, 0, 0, 0}, Closed: tc.closed},
			{Partitions: 6, Ends: make([]int64, 6), From: tc.from},
		}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		closed := int64(-1)
		if tc.closed != nil {
			closed = tc.closed[0]
		}
		want := []session.Stage{
			{Partition: 0, Until: 100, Closed: closed}, {Partition: 2, Until: 0, Closed: -1},
			{Partition: 0, From: tc.want, Until: done, Closed: -1},
		}
		if got := tab.Path(home); !slices.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, want)
		}
	}
}
