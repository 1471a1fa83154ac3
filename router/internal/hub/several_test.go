package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/router/internal/nodetest"
)

// several opens a client of several keys; more are name, value pairs of the query.
func (r *rig) several(keys []string, more ...string) *client {
	r.t.Helper()
	q := url.Values{"key": keys, "several": {"true"}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	c, resp, err := r.dial(q)
	if err != nil {
		r.t.Fatalf("connect: %v, %+v", err, resp)
	}
	if h := c.next(clientmsg.TypeHello); !h.Several || int(h.Keys) != len(keys) || h.Cursor != "" || h.Key != nil {
		r.t.Fatalf("hello %+v", h)
	}
	return c
}

// live reads until so many keys are live and gives their cursors.
func (c *client) live(n int, resumed bool) map[string]string {
	c.t.Helper()
	at := map[string]string{}
	for len(at) < n {
		m := c.until(clientmsg.TypeSubscribed)
		if m.Cursor == "" || m.Resumed != resumed || at[string(m.Key)] != "" {
			c.t.Fatalf("subscribed %+v, want resumed %t", m, resumed)
		}
		at[string(m.Key)] = m.Cursor
	}
	return at
}

func (c *client) send(msg []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, msg); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) refused(reason string) {
	c.t.Helper()
	if m := c.until(clientmsg.TypeRefused); m.Reason != reason || m.Detail == "" {
		c.t.Fatalf("refused with %q %q, want %q", m.Reason, m.Detail, reason)
	}
}

func TestKeysOfASocketAreFollowedEachByItself(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: time.Second})
	a := r.start("a")
	r.claim(a)
	keys := []string{"alice", "bob", "carol", "dave", "erin"}
	c := r.several(keys)
	c.live(len(keys), false)
	for i := range 3 {
		for _, key := range keys {
			r.append(key, fmt.Sprintf(`"%s %d"`, key, i))
		}
	}
	newest, seen, all := map[string]string{}, map[string]int{}, ""
	for n := 0; n < 3*len(keys) || all == ""; {
		msg, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		m, err := clientmsg.Parse(msg)
		if err != nil {
			t.Fatal(err)
		}
		switch m.Type {
		case clientmsg.TypeRecord:
			key := string(m.Key)
			if want := fmt.Sprintf(`"%s %d"`, key, seen[key]); string(m.Value) != want {
				t.Fatalf("%s, want %s", m.Value, want)
			}
			list, err := cursor.Decode(m.Cursor)
			if f, ok := list.For(m.Key); err != nil || !ok || len(list.Feeds) != 1 || f.Positions[0].Next != m.Offset+1 {
				t.Fatalf("cursor of %s: %+v, %v", key, list, err)
			}
			seen[key]++
			newest[key] = m.Cursor
			n++
		case clientmsg.TypeCheckpoint:
			all = m.Cursor
			if list, err := cursor.Decode(all); err != nil || len(list.Feeds) != len(keys) || m.Waiting != 0 {
				t.Fatalf("%s: %+v, %v", msg, list, err)
			}
		}
	}
	// One key goes on behind the checkpoint: the joined cursor says so, whatever the checkpoint said.
	r.append("bob", `"bob 3"`)
	newest["bob"] = c.until(clientmsg.TypeRecord).Cursor
	again := r.several(keys, "cursor", all+"."+newest["bob"])
	again.live(len(keys), true)
	for _, key := range keys {
		r.append(key, `"new"`)
	}
	got := map[string]bool{}
	for range keys {
		m := again.until(clientmsg.TypeRecord)
		if string(m.Value) != `"new"` || got[string(m.Key)] {
			t.Fatalf("%s of %s came again", m.Value, m.Key)
		}
		got[string(m.Key)] = true
	}
	// The part of one key is a cursor for a client with one.
	one := r.connect("bob", "cursor", newest["bob"])
	if h := one.next(clientmsg.TypeHello); !h.Resumed || h.Several {
		t.Fatalf("hello %+v", h)
	}
	if m := one.next(clientmsg.TypeRecord); m.Key != nil || string(m.Value) != `"new"` {
		t.Fatalf("%+v", m)
	}
	if got := r.hub.Sessions(); got != 3 {
		t.Errorf("%d clients, want 3", got)
	}
	if got := r.hub.Keys(); got != 11 {
		t.Errorf("%d keys, want 11", got)
	}
	if list, total := r.hub.Clients([]byte("bob"), 10); total != 3 || list[0].Keys != 5 || list[0].Cursor == "" || list[2].Keys != 0 {
		t.Errorf("%d clients of bob: %+v", total, list)
	}
	r.consistent()
}

func TestKeysComeAndGoOnAnOpenSocket(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	c := r.several(nil)
	for i := range 3 {
		r.append("alice", quoted(i))
	}
	c.send(clientmsg.AppendSubscribe(nil, []byte("alice"), "", "earliest"))
	c.live(1, false)
	for i := range 3 {
		if m := c.record(int64(i), quoted(i)); string(m.Key) != "alice" {
			t.Fatalf("%+v", m)
		}
	}
	c.send(clientmsg.AppendUnsubscribe(nil, []byte("alice")))
	gone := c.next(clientmsg.TypeUnsubscribed)
	if string(gone.Key) != "alice" || gone.Cursor == "" {
		t.Fatalf("%+v", gone)
	}
	for i := range 3 {
		r.append("alice", quoted(i+3))
	}
	c.send(clientmsg.AppendSubscribe(nil, []byte("alice"), gone.Cursor, ""))
	c.live(1, true)
	for i := range 3 {
		c.record(int64(i+3), quoted(i+3))
	}
	bobs := cursor.Encode(cursor.Cursor{TopicID: nodetest.TopicID(), Feeds: []cursor.Feed{{
		Key: cursor.Hash([]byte("bob")), Positions: []cursor.Position{{Partition: 0}}}}})
	for _, tt := range []struct {
		msg    []byte
		reason string
	}{
		{clientmsg.AppendSubscribe(nil, []byte("alice"), "", ""), clientmsg.RefusedAlready},
		{clientmsg.AppendUnsubscribe(nil, []byte("bob")), clientmsg.RefusedUnknown},
		{clientmsg.AppendSubscribe(nil, []byte("carol"), "nonsense", ""), clientmsg.RefusedCursor},
		{clientmsg.AppendSubscribe(nil, []byte("carol"), bobs, ""), clientmsg.RefusedCursor},
		{clientmsg.AppendSubscribe(nil, []byte("carol"), "", "yesterday"), clientmsg.RefusedBadRequest},
		{clientmsg.AppendSubscribe(nil, []byte("bob"), bobs, "latest"), clientmsg.RefusedBadRequest},
		{clientmsg.AppendSubscribe(nil, []byte(strings.Repeat("k", 5000)), "", ""), clientmsg.RefusedBadRequest},
	} {
		c.send(tt.msg)
		c.refused(tt.reason)
	}
	const most = 200
	for i := range most - 1 {
		c.send(clientmsg.AppendSubscribe(nil, fmt.Append(nil, "key-", i), "", "0"))
	}
	c.live(most-1, false)
	c.send(clientmsg.AppendSubscribe(nil, []byte("bob"), "", ""))
	c.refused(clientmsg.RefusedTooMany)
	r.consistent()
	for i := range most - 1 {
		c.send(clientmsg.AppendUnsubscribe(nil, fmt.Append(nil, "key-", i)))
		c.until(clientmsg.TypeUnsubscribed)
	}
	r.append("alice", quoted(6))
	c.record(6, quoted(6))
	waitFor(t, "one stream", func() bool { return r.hub.Streams() == 1 })
	r.consistent()
	one := r.connect("alice")
	one.next(clientmsg.TypeHello)
	one.send(clientmsg.AppendSubscribe(nil, []byte("bob"), "", ""))
	one.refused(clientmsg.RefusedSingle)
	one.send([]byte(`{"type":"subscribe"}`))
	if code, _ := one.closed(); code != closecode.UnsupportedData {
		t.Errorf("closed with %d", code)
	}
}

func TestKeysWithoutANodeHoldUpNeitherTheOthersNorTheirCursors(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: 500 * time.Millisecond})
	a, b := r.start("a"), r.start("b")
	r.claim(a)
	r.claim(b, r.partition("alice"))
	other := ""
	for i := 0; other == ""; i++ {
		if k := fmt.Sprint("key-", i); r.partition(k) != r.partition("alice") {
			other = k
		}
	}
	r.append("alice", quoted(0))
	first := r.connect("alice", "from", "earliest")
	first.next(clientmsg.TypeHello)
	behind := first.record(0, quoted(0)).Cursor
	r.append("alice", quoted(1))
	b.Freeze() // it is asked and does not answer
	c := r.several([]string{"alice", other}, "cursor", behind)
	if m := c.until(clientmsg.TypeSubscribed); string(m.Key) != other {
		t.Fatalf("%+v", m)
	}
	r.append(other, quoted(7))
	if m := c.until(clientmsg.TypeRecord); string(m.Key) != other {
		t.Fatalf("%+v", m)
	}
	m := c.until(clientmsg.TypeCheckpoint)
	list, err := cursor.Decode(m.Cursor)
	f, ok := list.For([]byte("alice"))
	if err != nil || !ok || f.Positions[0].Next != 1 {
		t.Fatalf("the checkpoint has alice at %+v, %v, and she was given nothing yet", f, err)
	}
	b.Thaw()
	if m := c.until(clientmsg.TypeRecord); string(m.Key) != "alice" || m.Offset != 1 {
		t.Fatalf("%+v", m)
	}
	r.consistent()
}

func TestRecreatedTopicIsAGapOfEveryKey(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	keys := []string{"alice", "bob", "carol", "dave"}
	c := r.several(keys)
	c.live(len(keys), false)
	id := [16]byte{1, 2, 3}
	r.log.Recreate(id)
	topic := *r.pic.Topic
	topic.TopicID = directory.FormatTopicID(id)
	r.pic.Topic = &topic
	r.claim(a)
	for i := range keys {
		m := c.until(clientmsg.TypeGap)
		if m.Reason != "topic" || m.Key == nil {
			t.Fatalf("%+v", m)
		}
		list, err := cursor.DecodeList(m.Cursor)
		if err != nil {
			t.Fatal(err)
		}
		moved := 0
		for _, key := range keys {
			topicID, _, ok := cursor.Of(list, []byte(key))
			if !ok {
				t.Fatalf("gap %d lists nothing of %s", i, key)
			}
			if topicID == id {
				moved++
			} else if topicID != nodetest.TopicID() {
				t.Fatalf("gap %d: %s is in topic %x", i, key, topicID)
			}
		}
		if moved != i+1 {
			t.Fatalf("gap %d: %d keys are in the new topic", i, moved)
		}
	}
	r.consistent()
}

func TestSlowSocketIsBehindWithEveryKeyAndCatchesUp(t *testing.T) {
	const keys, records, window, size = 40, 60, 32 << 10, 300
	r := newRig(t, rigOptions{partitions: 8, window: window})
	a := r.start("a")
	r.claim(a)
	var names []string
	for i := range keys {
		names = append(names, fmt.Sprint("key-", i))
	}
	c := r.several(names)
	c.live(keys, false)
	value := fmt.Sprintf(`"%s"`, strings.Repeat("x", size))
	for range records {
		for _, key := range names {
			r.append(key, value)
		}
	}
	next := map[string]int{}
	for range keys * records {
		m := c.until(clientmsg.TypeRecord)
		next[string(m.Key)]++
		if list, _ := r.hub.Clients(m.Key, 1); len(list) == 1 && list[0].Queued > window/8*keys+keys*(size+100) { // one record of each may be too large
			t.Fatalf("%d bytes wait for the client", list[0].Queued)
		}
	}
	for _, key := range names {
		if next[key] != records {
			t.Errorf("%d records of %s", next[key], key)
		}
	}
	r.consistent()
}

func TestQuestionsThatNobodyWaitsForAreEnded(t *testing.T) {
	t.Parallel() // the goodbye of a client that does not read takes its time
	r := newRig(t, rigOptions{window: 4 << 10})
	a := r.start("a")
	r.claim(a)
	c := r.several(nil)
	msg := clientmsg.AppendUnsubscribe(nil, []byte(strings.Repeat("k", 4000)))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for c.ws.Write(ctx, websocket.MessageText, msg) == nil {
		if ctx.Err() != nil {
			t.Fatal("it goes on for ever")
		}
		if r.hub.Sessions() == 0 {
			break
		}
		if r.hub.Queued() > 1<<20 {
			t.Fatalf("%d bytes of answers wait", r.hub.Queued())
		}
	}
	waitFor(t, "the client to be ended", func() bool { return r.metric("client_closes_total", fmt.Sprint(closecode.Policy)) == 1 })
}

// Clients choose their own close codes: none may look like the router's, nor make a series.
func TestClientsDoNotChooseTheLabelsOfCloses(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.claim(r.start("a"))
	series := func() int {
		n, err := testutil.GatherAndCount(r.registry, "pointsman_router_client_closes_total")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := series()
	codes := []websocket.StatusCode{closecode.Normal, closecode.Internal, 3000, 3001}
	for _, code := range codes {
		_ = r.connect("alice").ws.Close(code, "")
		_ = r.several([]string{"bob"}).ws.Close(code, "")
	}
	waitFor(t, "the sockets to be gone", func() bool { return r.hub.Sessions() == 0 })
	waitFor(t, "the closes to be counted", func() bool { return r.metric("client_closes_total", "client") == float64(2*len(codes)) })
	if after := series(); after != before {
		t.Errorf("%d series, %d before", after, before)
	}
	if got := r.metric("client_closes_total", fmt.Sprint(closecode.Internal)); got != 0 {
		t.Errorf("%v failures of the router", got)
	}
}

func TestDrainTellsSocketsWithSeveralKeysOnce(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.claim(r.start("a"))
	c := r.several([]string{"alice", "bob"})
	c.live(2, false)
	empty := r.several(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		list, err := cursor.Decode(c.next(clientmsg.TypeGoAway).Cursor)
		if err != nil || len(list.Feeds) != 2 {
			t.Errorf("%+v, %v", list, err)
		}
		if code, _ := c.closed(); code != closecode.GoingAway {
			t.Errorf("closed with %d", code)
		}
	})
	wg.Go(func() {
		if m := empty.next(clientmsg.TypeGoAway); m.Cursor != "" {
			t.Errorf("%+v", m)
		}
		_, _ = empty.closed()
	})
	r.hub.Drain(context.Background(), patience)
	wg.Wait()
	if s, k := r.hub.Sessions(), r.hub.Keys(); s != 0 || k != 0 {
		t.Errorf("%d clients and %d keys are left", s, k)
	}
}

// TestStormLosesNothingOfSeveralKeys is TestStormLosesNothing for sockets whose keys come and go.
func TestStormLosesNothingOfSeveralKeys(t *testing.T) {
	const clients, records, all, each = 10, 40, 40, 20
	r := newRig(t, rigOptions{partitions: 8, window: 32 << 10, dead: time.Second})
	nodes := []*nodetest.Node{r.start("a"), r.start("b"), r.start("c")}
	r.claim(nodes[0])
	r.claim(nodes[1], 0, 1, 2)
	var wg sync.WaitGroup
	for i := range clients {
		var keys []string
		for k := range each {
			keys = append(keys, fmt.Sprint("client-", (i*3+k)%all))
		}
		c := r.several(keys)
		c.live(each, false)
		wg.Go(func() {
			seen, left := map[string]int{}, each*records
			asked := false
			for left > 0 {
				msg, err := c.read()
				if err != nil {
					t.Errorf("client %d, %d records left: %v", i, left, err)
					return
				}
				m, err := clientmsg.Parse(msg)
				if err != nil {
					t.Error(err)
					return
				}
				key := string(m.Key)
				switch m.Type {
				case clientmsg.TypeUnsubscribed:
					c.send(clientmsg.AppendSubscribe(nil, m.Key, m.Cursor, ""))
					asked = false
				case clientmsg.TypeGap, clientmsg.TypeRefused:
					t.Errorf("client %d: %s", i, msg)
				case clientmsg.TypeRecord:
					if want := quoted(seen[key]); string(m.Value) != want {
						t.Errorf("client %d (%s): record %d of partition %d is %s, want %s", i, key, m.Offset, m.Partition, m.Value, want)
						return
					}
					seen[key]++
					if left--; left%50 == 0 && !asked {
						c.send(clientmsg.AppendUnsubscribe(nil, []byte(keys[left%each])))
						asked = true
					}
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for n := range records {
		for k := range all {
			r.append(fmt.Sprint("client-", k), quoted(n))
		}
		r.disturb(rng, nodes)
		r.consistent()
	}
	wg.Wait()
	r.consistent()
}
