package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/nodetest"
)

func TestClientGetsItsRecordsAndResumesAtItsCursor(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.claim(r.start("a"))
	r.append("alice", `"before"`)
	c := r.connect("alice")
	hello := c.next(clientmsg.TypeHello)
	if hello.Resumed || string(hello.Key) != "alice" || hello.Heartbeat != 15*time.Second {
		t.Errorf("hello %+v", hello)
	}
	r.append("alice", `"one"`)
	r.append("bob", `"not hers"`)
	first := c.record(1, `"one"`)
	r.append("alice", `"two"`)
	c.until(clientmsg.TypeRecord)

	again := r.connect("alice", "cursor", first.Cursor)
	if h := again.next(clientmsg.TypeHello); !h.Resumed {
		t.Error("the resume is said to be incomplete")
	}
	if m := again.next(clientmsg.TypeRecord); string(m.Value) != `"two"` {
		t.Errorf("resumed with %s", m.Value)
	}
	all := r.connect("alice", "from", "earliest")
	all.next(clientmsg.TypeHello)
	all.record(0, `"before"`)
	r.consistent()
}

func TestResumeByMessage(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.claim(r.start("a"))
	hello := r.connect("alice").next(clientmsg.TypeHello)
	r.append("alice", `1`)
	c := r.connect("alice", "resume", "message")
	if err := c.ws.Write(t.Context(), 1, []byte(`{"type":"resume","cursor":"`+hello.Cursor+`"}`)); err != nil {
		t.Fatal(err)
	}
	if h := c.next(clientmsg.TypeHello); !h.Resumed {
		t.Error("not resumed")
	}
	c.record(0, `1`)
}

func TestRecordCrossesTheLinkOnceForAllClientsOfAKey(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.claim(r.start("a"))
	const n = 50
	var clients []*client
	for range n {
		c := r.connect("alice")
		c.next(clientmsg.TypeHello)
		clients = append(clients, c)
	}
	r.append("alice", `"for all"`)
	var cursor string
	for i, c := range clients {
		m := c.record(0, `"for all"`)
		if i > 0 && m.Cursor != cursor {
			t.Errorf("client %d has another cursor", i)
		}
		cursor = m.Cursor
	}
	waitFor(t, "metrics", func() bool { return r.metric("records_delivered_total") == n })
	if got := r.metric("link_records_total"); got != 1 {
		t.Errorf("%v record frames for %d clients, want 1", got, n)
	}
	if got := r.metric("delivery_latency_seconds"); got != n {
		t.Errorf("%v latencies observed, want %d", got, n)
	}
}

func TestPlannedMoveIsSeamless(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b := r.start("a"), r.start("b")
	r.claim(a)
	c := r.connect("alice")
	c.next(clientmsg.TypeHello)
	n := 0
	for range 3 {
		for _, owner := range []*nodetest.Node{b, a} {
			r.append("alice", quoted(n))
			c.record(int64(n), quoted(n))
			n++
			r.claim(owner)
			other := a
			if owner == a {
				other = b
			}
			waitFor(t, "the old owner to be left", func() bool { return owner.Streams() == 1 && other.Streams() == 0 })
		}
	}
	if got := r.metric("handovers_total", "claim"); got != 6 {
		t.Errorf("%v handovers, want 6", got)
	}
	if a.Links() != 1 || b.Links() != 1 {
		t.Error("a move cost a link")
	}
	r.consistent()
}

func TestMoveWaitsForTheNewOwnersHead(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	b := nodetest.Start(t, r.log, "b", "b-1")
	b.Mute = true // it never says Attached
	r.list(b)
	r.put()
	r.linked(b)
	r.claim(a)
	c := r.connect("alice")
	c.next(clientmsg.TypeHello)
	r.claim(b)
	for i := range 5 {
		r.append("alice", quoted(i))
		c.record(int64(i), quoted(i))
	}
	if a.Streams() != 1 {
		t.Error("the old owner was left before the new one answered")
	}
	if got := r.hub.Pending(); got != 1 {
		t.Errorf("%d handovers pending, want 1", got)
	}
	r.consistent()
}

func TestKilledOwnersClientsAreServedByAStandIn(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b := r.start("a"), r.start("b")
	r.claim(a)
	var clients []*client
	const n = 100
	for i := range n {
		c := r.connect(fmt.Sprint("client-", i))
		c.next(clientmsg.TypeHello)
		clients = append(clients, c)
	}
	a.Kill()
	for i := range n {
		r.append(fmt.Sprint("client-", i), quoted(i))
	}
	for i, c := range clients {
		if m := c.next(clientmsg.TypeRecord); string(m.Value) != quoted(i) {
			t.Fatalf("client %d got %s", i, m.Value)
		}
	}
	if b.Streams() != n {
		t.Errorf("%d streams at the stand-in, want %d", b.Streams(), n)
	}
	if got := r.metric("handover_pause_seconds", "link_down"); got != n {
		t.Errorf("%v pauses observed, want %d", got, n)
	}
	r.consistent()
}

func TestFrozenOwnersClientsMoveAndItsLateRecordsAreDropped(t *testing.T) {
	r := newRig(t, rigOptions{dead: 300 * time.Millisecond})
	a, b := r.start("a"), r.start("b")
	r.claim(a)
	c := r.connect("alice")
	c.next(clientmsg.TypeHello)
	a.Freeze()
	for i := range 5 {
		r.append("alice", quoted(i))
		c.record(int64(i), quoted(i))
	}
	if b.Streams() != 1 {
		t.Errorf("%d streams at the stand-in", b.Streams())
	}
	a.Thaw()
	r.linked(a)
	waitFor(t, "the session to be back at its owner", func() bool { return a.Streams() == 1 && b.Streams() == 0 })
	r.append("alice", quoted(5))
	c.record(5, quoted(5))
	r.consistent()
}

func TestWithoutANodeClientsWaitAndAreToldSo(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: 200 * time.Millisecond})
	r.put()
	fresh := r.connect("alice")
	for range 3 {
		fresh.next(clientmsg.TypeWaiting) // again at every heartbeat
	}
	a := r.start("a")
	r.claim(a)
	fresh.until(clientmsg.TypeHello)
	fresh.until(clientmsg.TypeCheckpoint)
	a.Kill()
	fresh.until(clientmsg.TypeWaiting)
	waitFor(t, "the gauge", func() bool { return r.hub.Waiting() == 1 })
	r.append("alice", quoted(1))
	r.start("b")
	if m := fresh.until(clientmsg.TypeRecord); string(m.Value) != quoted(1) {
		t.Errorf("got %s", m.Value)
	}
	r.consistent()
}

func TestIdleClientsCursorMovesWithTheNodesCheckpoints(t *testing.T) {
	r := newRig(t, rigOptions{partitions: 1, heartbeat: 200 * time.Millisecond})
	a := r.start("a")
	r.claim(a)
	c := r.connect("alice")
	hello := c.next(clientmsg.TypeHello)
	for range 10 {
		r.append("bob", `1`)
	}
	a.Checkpoint(0)
	waitFor(t, "the cursor to move", func() bool { return c.next(clientmsg.TypeCheckpoint).Cursor != hello.Cursor })
	moved := c.next(clientmsg.TypeCheckpoint).Cursor
	r.append("alice", `2`)
	again := r.connect("alice", "cursor", moved)
	again.next(clientmsg.TypeHello)
	again.record(10, `2`)
}

func TestDrainingNodeServesUntilANewerClaim(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b := r.start("a"), r.start("b")
	r.claim(a)
	c := r.connect("alice")
	c.next(clientmsg.TypeHello)
	a.Drain()
	waitFor(t, "the table to know", func() bool {
		for _, n := range r.hub.Nodes(func(string) string { return "" }) {
			if n.Node == "a" && n.Draining {
				return true
			}
		}
		return false
	})
	if a.Streams() != 1 || b.Streams() != 0 {
		t.Error("the session left before the claim moved")
	}
	r.claim(b)
	waitFor(t, "the session to move", func() bool { return a.Streams() == 0 && b.Streams() == 1 })
}

func TestWipedEtcdMovesNobody(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	c := r.connect("alice")
	c.next(clientmsg.TypeHello)
	kept := r.pic
	r.pic.Topic, r.pic.Nodes, r.pic.Claims = nil, map[string]directory.Node{}, map[int32]directory.Claim{}
	r.put()
	r.append("alice", quoted(0))
	c.record(0, quoted(0))
	other := r.connect("alice", "from", "earliest")
	other.next(clientmsg.TypeHello)
	other.record(0, quoted(0))
	r.pic = kept
	r.put()
	r.append("alice", quoted(1))
	c.record(1, quoted(1))
	if a.Links() != 1 {
		t.Errorf("%d links, want the first one only", a.Links())
	}
}

func TestRecreatedTopicIsAGapThenItsRecords(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	c := r.connect("alice")
	c.next(clientmsg.TypeHello)
	for i := range 5 {
		r.append("alice", quoted(i))
	}
	var old string
	for i := range 5 {
		old = c.record(int64(i), quoted(i)).Cursor
	}
	id := [16]byte{1, 2, 3}
	r.log.Recreate(id)
	r.append("alice", `"new"`)
	r.pic.Topic.TopicID = directory.FormatTopicID(id)
	topic := *r.pic.Topic
	r.pic.Topic = &topic
	r.claim(a)
	if m := c.until(clientmsg.TypeGap); m.Reason != "topic" {
		t.Errorf("gap %+v", m)
	}
	c.record(0, `"new"`)
	late := r.connect("alice", "cursor", old)
	if h := late.next(clientmsg.TypeHello); h.Resumed {
		t.Error("a cursor of the old topic is said to be resumed")
	}
	if m := late.next(clientmsg.TypeGap); m.Reason != "topic" {
		t.Errorf("gap %+v", m)
	}
	late.record(0, `"new"`)
	r.consistent()
}

func TestUngreetedClientsWishIsJudgedAnewForARecreatedTopic(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.put()
	id := [16]byte{1, 2, 3}
	// This router has not heard of the new topic yet; the client has been served from it by another one.
	fromNew := cursor.Encode(cursor.Cursor{TopicID: id, Feeds: []cursor.Feed{{
		Key: cursor.Hash([]byte("alice")), Positions: []cursor.Position{{Partition: r.partition("alice"), Next: 1}},
	}}})
	c := r.connect("alice", "cursor", fromNew)
	c.next(clientmsg.TypeWaiting)
	r.log.Recreate(id)
	topic := *r.pic.Topic
	topic.TopicID = directory.FormatTopicID(id)
	r.pic.Topic = &topic
	r.append("alice", quoted(0))
	r.append("alice", quoted(1))
	r.claim(r.start("a"))
	if h := c.until(clientmsg.TypeHello); !h.Resumed {
		t.Error("a valid cursor was not resumed")
	}
	c.record(1, quoted(1))
	r.consistent()
}

// mover is a key that lives elsewhere among 8 partitions than among 4, and where.
func mover(t *testing.T) (key string, from, to int32) {
	t.Helper()
	m, err := partitioner.New("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		key = fmt.Sprint("key-", i)
		if from, to = m.Partition([]byte(key), 4), m.Partition([]byte(key), 8); from != to {
			return key, from, to
		}
	}
}

// grow adds partitions; ends and closed are those of partition p, closed < 0 is for not yet.
func (r *rig) grow(p int32, end, closed int64) {
	r.log.Partitions = 8
	g := directory.Growth{Partitions: 4, Ends: make([]int64, 4)}
	g.Ends[p] = end
	if closed >= 0 {
		g.Closed = make([]int64, 4)
		g.Closed[p] = closed
	}
	topic := *r.pic.Topic
	topic.Partitions, topic.Growth = 8, []directory.Growth{g}
	r.pic.Topic = &topic
	r.put()
}

// positions is what a cursor lists.
func positions(t *testing.T, text string) map[int32]int64 {
	t.Helper()
	c, err := cursor.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	for _, p := range c.Feeds[0].Positions {
		out[p.Partition] = p.Next
	}
	return out
}

func TestKeyThatMovesWhenPartitionsAreAddedIsFollowed(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: 300 * time.Millisecond})
	a := r.start("a")
	r.claim(a)
	key, from, to := mover(t)
	c := r.connect(key)
	first := c.next(clientmsg.TypeHello).Cursor
	r.log.Append(from, key, []byte(quoted(0)))
	single := c.record(0, quoted(0)).Cursor
	r.log.Append(from, key, []byte(quoted(1)))
	c.record(1, quoted(1))
	r.grow(from, 2, -1)
	r.log.Append(to, key, []byte(quoted(2)))
	m := c.until(clientmsg.TypeRecord)
	if got := positions(t, m.Cursor); m.Partition != to || len(got) != 2 || got[from] != 2 || got[to] != 1 {
		t.Fatalf("record of partition %d, cursor %v; want %d, and both positions", m.Partition, got, to)
	}
	both := m.Cursor
	// A producer that has not heard of the growth.
	r.log.Append(from, key, []byte(quoted(3)))
	if m := c.until(clientmsg.TypeRecord); m.Partition != from || m.Offset != 2 {
		t.Fatalf("got %d:%d, want the late record %d:2", m.Partition, m.Offset, from)
	}
	r.consistent()
	values := func(cursor string) (got []string) {
		c := r.connect(key, "cursor", cursor)
		if h := c.next(clientmsg.TypeHello); !h.Resumed {
			t.Errorf("a cursor at %v was not resumed", positions(t, cursor))
		}
		for len(got) == 0 || got[len(got)-1] != quoted(3) && got[len(got)-1] != quoted(2) || len(got) < 1 {
			got = append(got, string(c.until(clientmsg.TypeRecord).Value))
		}
		return got
	}
	if got := values(both); len(got) != 1 || got[0] != quoted(3) {
		t.Errorf("with both positions: got %q", got)
	}
	// Cursors from before the growth: the old partition to its end, then the rest.
	for text, skip := range map[string]int{first: 0, single: 1} {
		c := r.connect(key, "cursor", text)
		if h := c.next(clientmsg.TypeHello); !h.Resumed {
			t.Error("a cursor from before the growth was not resumed")
		}
		got := map[string]bool{}
		for i := skip; i < 4; i++ {
			m := c.until(clientmsg.TypeRecord)
			if i < 2 && string(m.Value) != quoted(i) {
				t.Errorf("got %s, want %s", m.Value, quoted(i))
			}
			got[string(m.Value)] = true
		}
		if len(got) != 4-skip {
			t.Errorf("got %v", got)
		}
	}
	r.grow(from, 2, 3)
	for len(positions(t, c.until(clientmsg.TypeCheckpoint).Cursor)) != 1 {
	}
	r.log.Append(to, key, []byte(quoted(4)))
	c.until(clientmsg.TypeRecord)
	if got := positions(t, c.until(clientmsg.TypeCheckpoint).Cursor); got[to] != 2 {
		t.Errorf("the last cursor lists %v", got)
	}
	r.consistent()
}

func TestRawClientsGetValuesOnly(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	c, resp, err := r.dial(url.Values{"key": {"alice"}}, clientmsg.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != clientmsg.Raw {
		t.Errorf("subprotocol %q", got)
	}
	waitFor(t, "the stream", func() bool { return a.Streams() == 1 })
	r.append("alice", "plain text")
	r.log.Append(r.partition("alice"), "alice", nil) // a tombstone
	r.log.Append(r.partition("alice"), "alice", []byte{0xff, 0xfe})
	for _, want := range []struct {
		kind  int
		value string
	}{{1, "plain text"}, {2, "\xff\xfe"}} {
		kind, msg, err := c.ws.Read(t.Context())
		if err != nil || int(kind) != want.kind || string(msg) != want.value {
			t.Errorf("got %d %q %v, want %+v", kind, msg, err, want)
		}
	}
	waitFor(t, "the ledger to be empty", func() bool { return len(r.hub.Consistency().Problems) == 0 })
	a.Gap("alice", 3, 10, link.GapRetention)
	if code, reason := c.closed(); code != closecode.RawGap {
		t.Errorf("closed with %d %q, want %d instead of a silent gap", code, reason, closecode.RawGap)
	}
}

func TestDrainTellsEverybodyAndTakesNobody(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.claim(r.start("a"))
	var clients []*client
	for i := range 20 {
		c := r.connect(fmt.Sprint("client-", i))
		c.next(clientmsg.TypeHello)
		clients = append(clients, c)
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			if m := c.until(clientmsg.TypeGoAway); m.Cursor == "" {
				t.Error("goaway without a cursor")
			}
			if code, _ := c.closed(); code != closecode.GoingAway {
				t.Errorf("closed with %d", code)
			}
		})
	}
	r.hub.Drain(context.Background(), patience)
	wg.Wait()
	if got := r.hub.Sessions(); got != 0 {
		t.Errorf("%d sessions are left", got)
	}
	if got := r.metric("client_closes_total", "1001"); got != 20 {
		t.Errorf("%v closes counted", got)
	}
	c := r.connect("late")
	if code, _ := c.closed(); code != closecode.GoingAway {
		t.Errorf("a late client was closed with %d", code)
	}
}

// TestStormLosesNothing moves, breaks and freezes nodes at random while records flow to many clients; each must get
// exactly its records, in order.
func TestStormLosesNothing(t *testing.T) {
	const clients, records = 60, 60
	r := newRig(t, rigOptions{partitions: 8, window: 8 << 10, dead: time.Second})
	nodes := []*nodetest.Node{r.start("a"), r.start("b"), r.start("c")}
	r.claim(nodes[0])
	r.claim(nodes[1], 0, 1, 2)
	var wg sync.WaitGroup
	for i := range clients {
		key := fmt.Sprint("client-", i%40) // some keys have several clients
		c := r.connect(key)
		c.next(clientmsg.TypeHello)
		wg.Go(func() {
			for n := range records {
				if m := c.until(clientmsg.TypeRecord); string(m.Value) != quoted(n) {
					t.Errorf("client %d (%s): record %d of partition %d is %s, want %s", i, key, m.Offset, m.Partition, m.Value, quoted(n))
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for n := range records {
		for k := range 40 {
			r.append(fmt.Sprint("client-", k), quoted(n))
		}
		r.disturb(rng, nodes)
		r.consistent()
	}
	wg.Wait()
	waitFor(t, "handovers to end", func() bool {
		for p := range r.log.Partitions {
			for _, n := range nodes {
				n.Checkpoint(p) // as nodes do all the time
			}
		}
		return r.hub.Pending() == 0
	})
	waitFor(t, "one stream per client", func() bool { return r.hub.Streams() == clients })
	r.consistent()
}
