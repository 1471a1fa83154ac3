package client_test

import (
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

func TestLostConnectionGoesOnAtTheNextURLWithTheCursor(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Key: []byte("alice"), From: "earliest"})
		defer mustClose(t, c)
		s.hello("c0", true)
		s.record(1, 10, `"a"`)
		s.record(1, 11, `"b"`)
		_ = s.conn.CloseNow()
		lost := time.Now()

		want[*client.Hello](t, c)
		want[*client.Record](t, c)
		if got := want[*client.Record](t, c); string(got.Value) != `"b"` {
			t.Errorf("value = %s", got.Value)
		}
		if d := want[*client.Disconnected](t, c); !d.Lost || d.URL != "one" || d.RetryIn >= client.DefaultMinBackoff {
			t.Errorf("got %+v, want a lost connection to the first URL and a wait below %v", d, client.DefaultMinBackoff)
		}
		req := rt.next()
		if got, want := req.r.URL.RequestURI(), "/other?cursor="+cursorAt(1, 12)+"&key=alice&zone=b"; got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
		if d := time.Since(lost); d >= client.DefaultMinBackoff {
			t.Errorf("came back after %v", d)
		}
		s = req.accept()
		s.hello(cursorAt(1, 12), true)
		s.record(1, 12, `"c"`)
		if h := want[*client.Hello](t, c); h.URL != "two" {
			t.Errorf("hello of %q", h.URL)
		}
		if got := want[*client.Record](t, c); got.Offset != 12 {
			t.Errorf("offset = %d, want 12", got.Offset)
		}
		if got, want := c.Stats(), (client.Stats{Connections: 2, Lost: 1, Records: 3}); got != want {
			t.Errorf("stats = %+v, want %+v", got, want)
		}
	})
}

func TestCursorOfAMessageThatWaitsIsNotTheProgramsYet(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		s.hello("c0", true)
		s.record(1, 10, "1")
		_ = s.conn.CloseNow()
		want[*client.Hello](t, c)
		req := rt.next() // the record waits; the connection after it goes on behind it
		if got := req.query("cursor"); got != cursorAt(1, 11) {
			t.Errorf("reconnected with %q, want %q", got, cursorAt(1, 11))
		}
		if got := c.Cursor(); got != "c0" {
			t.Errorf("cursor = %q, want c0: the program does not have the record", got)
		}
		req.accept()
		mustClose(t, c)
		want[*client.Record](t, c)
		if got := c.Cursor(); got != cursorAt(1, 11) {
			t.Errorf("cursor = %q after Close, want %q", got, cursorAt(1, 11))
		}
	})
}

func TestRepeatsAreDroppedAndCounted(t *testing.T) {
	for _, keep := range []bool{false, true} {
		bubble(t, func(t *testing.T, rt *router) {
			c, s := rt.connect(client.Config{KeepRepeats: keep})
			defer mustClose(t, c)
			s.hello("c0", true)
			s.record(1, 10, "1")
			s.record(2, 5, "2") // another partition of the key
			want[*client.Hello](t, c)
			want[*client.Record](t, c)
			want[*client.Record](t, c)
			_ = s.conn.CloseNow()
			want[*client.Disconnected](t, c)
			s = rt.next().accept()
			s.hello("c0", true)
			s.record(1, 10, "1")
			s.record(2, 5, "2")
			s.record(2, 6, "3")
			want[*client.Hello](t, c)
			if keep {
				want[*client.Record](t, c)
				want[*client.Record](t, c)
			}
			if got := want[*client.Record](t, c); got.Offset != 6 || got.Partition != 2 {
				t.Errorf("got %+v, want the new record", got)
			}
			if got := c.Stats().Repeats; got != 2 {
				t.Errorf("repeats = %d, want 2", got)
			}
			if got := c.Cursor(); got != cursorAt(2, 7) {
				t.Errorf("cursor = %q, want %q", got, cursorAt(2, 7))
			}
		})
	}
}

func TestOffsetsThatBeginAgainAfterAGapAreNoRepeats(t *testing.T) {
	for _, tt := range []struct {
		reason   link.GapReason
		to       int64
		delivers bool // offset 5, after 100 was seen
	}{
		{link.GapTopic, 0, true},
		{link.GapTruncated, 5, true},
		{link.GapTruncated, 6, false},
		{link.GapRetention, 200, false},
	} {
		t.Run(tt.reason.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, rt *router) {
				c, s := rt.connect(client.Config{})
				defer mustClose(t, c)
				s.record(1, 100, "1")
				want[*client.Record](t, c)
				s.send(gap("c1", 1, -1, tt.to, tt.reason))
				want[*client.Gap](t, c)
				s.record(1, 5, "2")
				s.send(clientmsg.AppendCheckpoint(nil, "c2"))
				if tt.delivers {
					want[*client.Record](t, c)
				}
				want[*client.Checkpoint](t, c)
			})
		})
	}
}

func TestGapThatWasNotHeardIsAskedForAgain(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Cursor: "old"})
		defer mustClose(t, c)
		s.hello("behind the gap", false)
		if h := want[*client.Hello](t, c); h.Resumed {
			t.Errorf("got %+v", h)
		}
		_ = s.conn.CloseNow()
		want[*client.Disconnected](t, c)
		if got := c.Cursor(); got != "old" {
			t.Errorf("cursor = %q, want the old one until the gap is told", got)
		}
		req := rt.next()
		if got := req.query("cursor"); got != "old" {
			t.Errorf("reconnected with %q, want the old cursor", got)
		}
		s = req.accept()
		s.hello("behind the gap", false)
		s.send(gap("behind the gap", 1, 0, 9, link.GapRetention))
		want[*client.Hello](t, c)
		want[*client.Gap](t, c)
		if got := c.Cursor(); got != "behind the gap" {
			t.Errorf("cursor = %q", got)
		}
	})
}

func TestOfSeveralKeysEachGoesOnWhereItStopped(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		got := rt.start(client.Config{URLs: []string{"ws://one"}, Keys: [][]byte{[]byte("alice"), []byte("bob")}, From: "earliest"})
		req := rt.next()
		if uri := req.r.URL.RequestURI(); uri != "/v1/ws?from=earliest&key=alice&key=bob&several=true" {
			t.Errorf("asked for %q", uri)
		}
		s, c := req.accept(), <-got
		defer mustClose(t, c)
		subscribed := func(key, cursor string, resumed bool) {
			s.send(clientmsg.AppendSubscribed(nil, cursor, []byte(key), resumed))
			want[*client.Subscribed](t, c)
		}
		record := func(key, cursor string, offset int64) {
			s.send(clientmsg.AppendRecord(nil, cursor, 1, offset, 0, nil, []byte("1"), false, []byte(key)))
		}
		expect := func(cursor string) {
			t.Helper()
			if got := c.Cursor(); got != cursor {
				t.Errorf("cursor = %q, want %q", got, cursor)
			}
		}
		s.send(clientmsg.AppendHelloSeveral(nil, 2, 10*time.Second))
		want[*client.Hello](t, c)
		subscribed("alice", "a0", false)
		subscribed("bob", "b0", false)
		expect("a0.b0")
		record("alice", "a8", 7)
		record("bob", "b4", 3) // below alice's offset, in the same partition
		want[*client.Record](t, c)
		if r := want[*client.Record](t, c); string(r.Key) != "bob" || r.Cursor != "b4" {
			t.Errorf("got %+v", r)
		}
		expect("a8.b4")
		_ = s.conn.CloseNow()
		want[*client.Disconnected](t, c)
		req = rt.next()
		if got := req.query("cursor"); got != "a8.b4" {
			t.Errorf("reconnected with %q, want a8.b4", got)
		}
		s = req.accept()
		s.send(clientmsg.AppendHelloSeveral(nil, 2, 10*time.Second))
		want[*client.Hello](t, c)
		subscribed("alice", "behind a gap", false)
		expect("a8.b4")
		record("alice", "a8", 7)
		s.send(clientmsg.AppendCheckpointSeveral(nil, "all", 0))
		record("alice", "a9", 8)
		want[*client.Checkpoint](t, c)
		expect("all")
		if r := want[*client.Record](t, c); r.Offset != 8 {
			t.Errorf("offset %d, want 8", r.Offset)
		}
		expect("all.a9")
	})
}

func TestGapOfOneOfSeveralKeysIsAskedForAgainAfterAStoredCursor(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Keys: [][]byte{[]byte("alice"), []byte("bob")}, Cursor: "STORED"})
		defer mustClose(t, c)
		for _, at := range []string{"A9.STORED", "ALL"} {
			s.send(clientmsg.AppendHelloSeveral(nil, 2, 10*time.Second))
			s.send(clientmsg.AppendSubscribed(nil, "A9", []byte("alice"), false))
			want[*client.Hello](t, c)
			want[*client.Subscribed](t, c)
			if at == "ALL" {
				s.send(clientmsg.AppendGapOf(nil, "ALL", []byte("alice"), 1, 0, 9, link.GapRetention))
				want[*client.Gap](t, c)
			}
			_ = s.conn.CloseNow()
			want[*client.Disconnected](t, c)
			req := rt.next()
			// STORED counts if it names alice; A9 if it does not.
			if got := req.query("cursor"); got != at {
				t.Errorf("reconnected with %q, want %q", got, at)
			}
			if got := c.Cursor(); got != at {
				t.Errorf("cursor = %q, want %q", got, at)
			}
			s = req.accept()
		}
	})
}
