package hub_test

import (
	"slices"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

func TestHandoversAreRememberedWithCauseSizeAndPause(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	if got := r.hub.Moves(); len(got) != 0 {
		t.Errorf("a router that starts has moved nobody, but remembers %+v", got)
	}
	c1, c2 := r.connect("one"), r.connect("two")
	c1.next(clientmsg.TypeHello)
	c2.next(clientmsg.TypeHello)
	b := r.start("b")
	r.claim(b)
	waitFor(t, "the handover to end", func() bool { return r.hub.Pending() == 0 })
	moves := r.hub.Moves()
	if len(moves) != 1 {
		t.Fatalf("got %+v, want the move to b", moves)
	}
	if m := moves[0]; m.Cause != "claim" || m.Sessions != 2 || m.Partitions != 4 || m.Pause != 0 || m.Unserved != 0 ||
		!slices.Equal(m.From, []string{"a"}) || !slices.Equal(m.To, []string{"b"}) || m.Took <= 0 {
		t.Errorf("planned move: %+v", m)
	}
	if got := r.metric("handover_pause_seconds", "claim"); got != 2 {
		t.Errorf("the pause of %v planned handovers was observed, want 2", got)
	}
	b.Kill()
	waitFor(t, "the stand-in to serve both", func() bool {
		m := r.hub.Moves()
		return len(m) == 2 && m[0].Cause == "link_down" && m[0].Sessions == 2 && m[0].Unserved == 0 && m[0].Pause > 0
	})
	if m := r.hub.Moves()[0]; !slices.Equal(m.From, []string{"b"}) || !slices.Equal(m.To, []string{"a"}) {
		t.Errorf("lost node: %+v", m)
	}
	a.Kill()
	waitFor(t, "both to wait", func() bool { m := r.hub.Moves(); return len(m) > 0 && m[0].Unserved == 2 })
	if m := r.hub.Moves()[0]; m.Cause != "link_down" || m.Sessions != 2 || m.Partitions != 4 {
		t.Errorf("both nodes lost: %+v, want 2 sessions and 4 partitions", m)
	}
	down := r.metric("handovers_total", "link_down")
	if down != 4 {
		t.Errorf("%v handovers of lost links, want 4: both clients, twice", down)
	}
	_ = c1.ws.CloseNow()
	waitFor(t, "one to be gone", func() bool { return r.hub.Moves()[0].Unserved == 1 })
	d := r.start("d")
	r.claim(d)
	waitFor(t, "the other to be served", func() bool { return r.hub.Moves()[0].Unserved == 0 && r.hub.Waiting() == 0 })
	if up := r.metric("handovers_total", "link_up"); up != 0 {
		t.Errorf("%v handovers of new links, want 0: nobody had a stream that it could lose", up)
	}
	waitFor(t, "its pause", func() bool { return r.metric("handover_pause_seconds", "link_down") == 3 })
	r.consistent()
}

func TestSessionsOfAKeyAreListed(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	r.append("alice", "0")
	c := r.connect("alice", "from", "earliest")
	c.next(clientmsg.TypeHello)
	m := c.record(0, "0")
	r.connect("alice").next(clientmsg.TypeHello)
	r.connect("bob").next(clientmsg.TypeHello)
	got, total := r.hub.Clients([]byte("alice"), 1)
	if total != 2 || len(got) != 1 {
		t.Fatalf("got %d of %d sessions, want 1 of 2", len(got), total)
	}
	got, _ = r.hub.Clients([]byte("alice"), 10)
	for _, s := range got {
		if s.Node != "a" || s.Next != 1 || s.Partition != r.partition("alice") || s.Remote == "" || s.Since.IsZero() || s.Protocol != "json" {
			t.Errorf("session: %+v", s)
		}
	}
	if m.Cursor != got[0].Cursor && m.Cursor != got[1].Cursor {
		t.Errorf("no session has the cursor %s that its client was told: %+v", m.Cursor, got)
	}
	if _, total := r.hub.Clients([]byte("nobody"), 10); total != 0 {
		t.Errorf("%d sessions of a key that nobody has", total)
	}
}

func TestClaimThatEtcdLostIsRemembered(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	if got, _ := r.hub.Assignment(2); got.Remembered || got.StandIn || got.Claimed != "a" {
		t.Errorf("claimed: %+v", got)
	}
	delete(r.pic.Claims, 2)
	r.put()
	if got, _ := r.hub.Assignment(2); !got.Remembered || got.StandIn || got.Node != "a" {
		t.Errorf("lost in etcd: %+v", got)
	}
}

func TestFollowedKeysPositionsAreListed(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.start("a")
	r.claim(a)
	key, from, to := mover(t)
	c := r.connect(key)
	c.next(clientmsg.TypeHello)
	r.log.Append(from, key, []byte(quoted(0)))
	c.record(0, quoted(0))
	r.grow(from, 1, -1)
	r.log.Append(to, key, []byte(quoted(1)))
	c.until(clientmsg.TypeRecord)
	got, total := r.hub.Clients([]byte(key), 10)
	if total != 1 || len(got) != 1 {
		t.Fatalf("%d sessions, %+v", total, got)
	}
	all := map[int32]int64{got[0].Partition: got[0].Next}
	for _, at := range got[0].Also {
		all[at.Partition] = at.Next
	}
	if len(all) != 2 || all[from] != 1 || all[to] != 1 {
		t.Errorf("got %v, want both partitions' positions, %d and %d", all, from, to)
	}
}
