package hub_test

import (
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/cursor"

	"github.com/pointsmanhq/pointsman/router/internal/nodetest"
	"github.com/pointsmanhq/pointsman/router/internal/session"
)

func TestCursorOfAPartitionThatTheHistoryDoesNotKnowIsAGap(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	r.append("alice", quoted(0))
	elsewhere := (r.partition("alice") + 1) % 4
	c := r.connect("alice", "cursor", cursor.Encode(cursor.Cursor{TopicID: nodetest.TopicID(), Feeds: []cursor.Feed{{
		Key: cursor.Hash([]byte("alice")), Positions: []cursor.Position{{Partition: elsewhere, Next: 5}},
	}}}))
	if h := c.next(clientmsg.TypeHello); h.Resumed {
		t.Error("said to be resumed")
	}
	if g := c.next(clientmsg.TypeGap); g.Reason != "moved" || g.Partition != r.partition("alice") || g.From != -1 {
		t.Errorf("gap %+v", g)
	}
	c.record(0, quoted(0))
	r.consistent()
}

func TestMadeUpCursorsHarmNobody(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: 300 * time.Millisecond})
	a := r.start("a")
	r.claim(a)
	key, from, to := mover(t)
	r.log.Append(from, key, []byte(quoted(0)))
	made := func(at ...cursor.Position) string {
		return cursor.Encode(cursor.Cursor{TopicID: nodetest.TopicID(), Feeds: []cursor.Feed{{Key: cursor.Hash([]byte(key)), Positions: at}}})
	}
	elsewhere := (from + 1) % 4
	// One place, and it is in no partition of the key; then one where the key has not been, which is said to be done.
	c := r.connect(key, "cursor", made(cursor.Position{Partition: from, Next: session.Done}, cursor.Position{Partition: elsewhere, Next: 1}))
	c.next(clientmsg.TypeHello)
	if g := c.next(clientmsg.TypeGap); g.Reason != "moved" {
		t.Errorf("gap %+v", g)
	}
	c.record(0, quoted(0))
	r.grow(from, 1, 1)
	c = r.connect(key, "cursor", made(cursor.Position{Partition: from}, cursor.Position{Partition: to, Next: session.Done}))
	c.next(clientmsg.TypeHello)
	c.record(0, quoted(0))
	r.log.Append(to, key, []byte(quoted(1)))
	if m := c.until(clientmsg.TypeRecord); m.Partition != to || string(m.Value) != quoted(1) {
		t.Errorf("got %d:%d %s", m.Partition, m.Offset, m.Value)
	}
	c.until(clientmsg.TypeCheckpoint)
	r.consistent()
}
