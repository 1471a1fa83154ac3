package linkserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
)

func TestRequestsReachTheirPartitionsInOrder(t *testing.T) {
	n := serveNode(t)
	r := n.connect()
	r.send(
		attach(1, 3, "a"), attach(2, 5, "b"), link.AppendCredit(nil, &link.Credit{Stream: 1, Bytes: 7}),
		link.AppendDetach(nil, &link.Detach{Stream: 2}), attach(3, 3, "c"),
		link.AppendCredit(nil, &link.Credit{Stream: 99, Bytes: 7}), // of a stream that was closed meanwhile
	)
	n.expect(
		"attach 1 to 3 key a", "credit 1 of 3: 7", "attach 3 to 3 key c",
		"attach 2 to 5 key b", "detach 2 of 5",
	)
	_ = r.conn.CloseNow()
	n.expect("gone [3 5]")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.s.WaitEmpty(ctx); err != nil {
		t.Errorf("streams are left: %v", err)
	}
}

func TestWhatIsQueuedGoesOutTogether(t *testing.T) {
	n := serveNode(t)
	r, l := n.attached()
	want := []string{"attached 1"}
	l.Attached(link.Attached{Stream: 1})
	for i := range int64(1000) {
		l.Record(&link.Record{Streams: []uint64{1}, Offset: i, Value: []byte("v")})
		want = append(want, fmt.Sprintf("record %d", i))
	}
	l.Flush()
	var got []string
	messages := 0
	for ; len(got) < len(want); messages++ {
		got = append(got, r.frames()...)
	}
	// The writer may still have been awake and taken what was there at a moment.
	if !slices.Equal(got, want) || messages > len(want)/20 {
		t.Errorf("%d frames came in %d messages, want all %d in few", len(got), messages, len(want))
	}
}

func TestPeersThatAreNotRoutersAreRefused(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.Token = "secret"; c.HelloTimeout = 300 * time.Millisecond })
	for _, tc := range []struct {
		name string
		send []byte
		kind websocket.MessageType
		code websocket.StatusCode
		word string
	}{
		{"attach first", attach(1, 0, "k"), websocket.MessageBinary, websocket.StatusProtocolError, "hello comes first"},
		{"attach in the same message", append(hello(), attach(1, 0, "k")...), websocket.MessageBinary, websocket.StatusProtocolError, "hello comes first"},
		{"empty message", nil, websocket.MessageBinary, websocket.StatusProtocolError, "must be hello"},
		{"garbage", []byte("garbage"), websocket.MessageBinary, websocket.StatusProtocolError, "malformed"},
		{"text", []byte("hello"), websocket.MessageText, websocket.StatusUnsupportedData, "binary"},
		{"wrong token", link.AppendHello(nil, &link.Hello{Version: link.Version, Token: "guess"}), websocket.MessageBinary, websocket.StatusPolicyViolation, "token"},
		{"no token", link.AppendHello(nil, &link.Hello{Version: link.Version}), websocket.MessageBinary, websocket.StatusPolicyViolation, "token"},
		{"another version", link.AppendHello(nil, &link.Hello{Version: 9, Token: "secret"}), websocket.MessageBinary, websocket.StatusPolicyViolation, "version"},
		{"too much", bytes.Repeat([]byte{1}, helloLimit+1), websocket.MessageBinary, websocket.StatusMessageTooBig, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := n.dial()
			r.t = t
			if err := r.conn.Write(t.Context(), tc.kind, tc.send); err != nil {
				t.Fatal(err)
			}
			r.expectRefusal(tc.code, tc.word)
		})
	}
	t.Run("silence", func(t *testing.T) {
		r := n.dial()
		r.t = t
		if code, reason := r.refused(); code != -1 {
			t.Errorf("got %d %q, want the connection cut", code, reason)
		}
	})
	if _, totals := n.s.Status(); totals.Opened != 0 {
		t.Errorf("%d of them were let in", totals.Opened)
	}
	n.connect()
}

func TestRequestWithoutTheSubprotocolIsToldWhatThisIs(t *testing.T) {
	n := serveNode(t)
	resp, err := http.Get("http://" + n.addr + link.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), link.Subprotocol) {
		t.Errorf("got %s %q, %v", resp.Status, body, err)
	}
}

func TestMalformedFrameEndsTheLinkAndNothingElse(t *testing.T) {
	n := serveNode(t)
	other, _ := n.attached()
	for _, bad := range [][]byte{
		[]byte("garbage"), hello(), attach(0, 0, "k"),
		append(attach(7, 0, "k"), attach(7, 0, "k")...),
		link.AppendDraining(nil), // a node's frame
	} {
		r := n.connect()
		r.send(attach(5, 4, "k"))
		n.expect("attach 5 to 4 key k")
		r.send(bad)
		r.expectRefusal(websocket.StatusProtocolError, "")
		// A good frame before the bad one was acted upon.
		got := take(t, n.heard)
		if strings.HasPrefix(got, "attach 7") {
			got = take(t, n.heard)
		}
		if got != "gone [4]" && got != "gone [0 4]" {
			t.Errorf("node heard %q, want that the link is gone", got)
		}
	}
	other.send(link.AppendCredit(nil, &link.Credit{Stream: 1, Bytes: 5}))
	n.expect("credit 1 of 0: 5")
}

func TestTooLargeMessageEndsTheLink(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.ReadLimit = 1000 })
	r := n.connect()
	r.send(bytes.Repeat([]byte{0}, 2000))
	r.expectRefusal(websocket.StatusMessageTooBig, "")
	n.expect("gone []")
}

func TestFullLinkRefusesRecordsAndTellsWhenThereIsRoom(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.Buffer = 64 << 10 })
	r, l := n.attached()
	value := bytes.Repeat([]byte{'v'}, 1000)
	sent := 0
	// The router does not read: what its kernel and ours take is finite.
	for l.Room(0) {
		l.Record(&link.Record{Streams: []uint64{1}, Offset: int64(sent), Value: value})
		l.Flush()
		sent++
		if sent > 1<<20 {
			t.Fatal("the link never says that it is full")
		}
	}
	if l.Room(6) {
		t.Error("room for another partition although the link is full")
	}
	l.Attached(link.Attached{Stream: 1}) // other frames are taken all the same
	l.Flush()
	var got []string
	for len(got) < sent+1 {
		got = append(got, r.frames()...)
	}
	if got[len(got)-1] != "attached 1" || got[sent-1] != fmt.Sprintf("record %d", sent-1) {
		t.Errorf("got %d frames that end with %q", len(got), got[len(got)-1])
	}
	heard := []string{take(t, n.heard), take(t, n.heard)}
	slices.Sort(heard)
	if !slices.Equal(heard, []string{"writable 0", "writable 6"}) {
		t.Errorf("node heard %q, want that both partitions may go on", heard)
	}
	if !l.Room(0) {
		t.Error("no room although everything was read")
	}
}

func TestRouterThatDoesNotReadIsCutOff(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.Timeout = 300 * time.Millisecond; c.Buffer = 64 << 10 })
	_, l := n.attached()
	value := bytes.Repeat([]byte{'v'}, 1000)
	for heard := "writable 0"; heard != "gone [0]"; heard = take(t, n.heard) {
		if heard != "writable 0" { // the kernel took some more
			t.Fatalf("node heard %q", heard)
		}
		for i := int64(0); l.Room(0); i++ {
			l.Record(&link.Record{Streams: []uint64{1}, Offset: i, Value: value})
			l.Flush()
		}
	}
	l.Record(&link.Record{Streams: []uint64{1}, Value: value}) // by a loop that has not heard of it
	l.Attached(link.Attached{Stream: 1})
	l.Flush()
	if l.Room(0) {
		t.Error("a link that is gone has room")
	}
}

func TestRouterThatIsSilentIsCutOffAndOneThatPingsIsNot(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.Timeout = 400 * time.Millisecond })
	r, _ := n.attached()
	silent := n.connect()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { _, _, _ = r.conn.Read(ctx) }() // pongs are read by it
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	gone := make(chan struct{})
	go func() { defer close(gone); silent.refused() }()
	for alive := true; alive; {
		select {
		case <-tick.C:
			if err := r.conn.Ping(ctx); err != nil {
				t.Fatalf("the link that pings was cut: %v", err)
			}
		case <-gone:
			alive = false
		}
	}
	n.expect("gone []") // the silent one's
	if err := r.conn.Ping(ctx); err != nil {
		t.Errorf("the link that pings was cut: %v", err)
	}
}

func TestFloodOfControlFramesIsCutOff(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.ControlBuffer = 10_000 })
	_, l := n.attached()
	except := make([]uint64, 100)
	for i := range except {
		except[i] = 1 << 40
	}
	hold := make(chan struct{})
	go func() {
		defer close(hold)
		// Faster than any router could read: nothing is flushed.
		for range 1000 {
			l.Checkpoint(&link.Checkpoint{Partition: 0, Except: except})
		}
	}()
	<-hold
	n.expect("gone [0]")
}

func TestOneLargeRecordDoesNotCountAsAFlood(t *testing.T) {
	n := serveNode(t, func(c *Config) { c.ControlBuffer = 10_000; c.Buffer = 64 << 10 })
	r, l := n.attached()
	l.Record(&link.Record{Streams: []uint64{1}, Offset: 4, Value: make([]byte, 8<<20)})
	l.Attached(link.Attached{Stream: 1})
	l.Flush()
	if got := r.frames(); !slices.Equal(got, []string{"record 4", "attached 1"}) {
		t.Errorf("got %q", got)
	}
}

func TestMessagesStayWithinTheProtocolsLimit(t *testing.T) {
	n := serveNode(t)
	n.s.maxMessage = 1 << 20
	r, l := n.attached()
	half := make([]byte, n.s.maxMessage/2)
	for i := range int64(3) { // three loops at once may each have found room
		l.Record(&link.Record{Streams: []uint64{1}, Offset: i, Value: half})
	}
	l.Flush()
	for i := range 3 {
		if got := r.frames(); len(got) != 1 || got[0] != fmt.Sprintf("record %d", i) {
			t.Fatalf("message %d: got %q", i, got)
		}
	}
}

func TestClosedStreamsAreForgotten(t *testing.T) {
	n := serveNode(t)
	r, l := n.attached()
	l.Closed(link.Closed{Stream: 1, Reason: link.ClosedTopic})
	l.Closed(link.Closed{Stream: 1, Reason: link.ClosedTopic}) // counts once
	l.Flush()
	r.frames()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.s.WaitEmpty(ctx); err != nil {
		t.Error("the stream still counts")
	}
	r.send(link.AppendDetach(nil, &link.Detach{Stream: 1}), attach(2, 0, "k"))
	n.expect("attach 2 to 0 key k")
	if all, totals := n.s.Status(); totals.Streams != 1 || all[0].Streams != 1 {
		t.Errorf("got %+v, %+v; want one stream", all, totals)
	}
}

func TestDrainIsToldToPresentAndLaterRouters(t *testing.T) {
	n := serveNode(t)
	r, _ := n.attached()
	n.s.Drain()
	n.s.Drain()
	if got := r.frames(); !slices.Equal(got, []string{"draining"}) {
		t.Errorf("present router got %q", got)
	}
	late := n.dial()
	late.send(hello())
	var got []string
	for len(got) < 2 {
		got = append(got, late.frames()...)
	}
	if !slices.Equal(got, []string{"welcome n1 i1", "draining"}) {
		t.Errorf("late router got %q", got)
	}
	r.send(link.AppendDetach(nil, &link.Detach{Stream: 1}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.s.WaitEmpty(ctx); err != nil {
		t.Error(err)
	}
}

func TestCloseInOrderSendsWhatIsQueuedFirst(t *testing.T) {
	n := serveNode(t)
	r, l := n.attached()
	l.Closed(link.Closed{Stream: 1, Reason: link.ClosedTopic})
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.s.Close(patience, websocket.StatusGoingAway, "the node has drained")
	}()
	if got := r.frames(); !slices.Equal(got, []string{"closed 1"}) {
		t.Errorf("got %q before the close", got)
	}
	r.expectRefusal(websocket.StatusGoingAway, "drained")
	<-done
	n.expect("gone [0]")
	conn, resp, err := websocket.Dial(t.Context(), "ws://"+n.addr+link.Path, &websocket.DialOptions{Subprotocols: []string{link.Subprotocol}})
	if err == nil {
		_ = conn.CloseNow()
		t.Error("a closed server takes links")
	} else if resp != nil && resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", resp.Status)
	}
}

func TestCloseDoesNotWaitForARouterThatIsFrozen(t *testing.T) {
	n := serveNode(t)
	_, l := n.attached() // its router never reads
	value := make([]byte, 1<<20)
	for i := int64(0); l.Room(0); i++ {
		l.Record(&link.Record{Streams: []uint64{1}, Offset: i, Value: value})
		l.Flush()
	}
	n.s.Close(100*time.Millisecond, websocket.StatusGoingAway, "")
	for got := ""; got != "gone [0]"; {
		got = take(t, n.heard)
	}
}

func TestSlowLoopHoldsUpItsLinkAndEndsWithIt(t *testing.T) {
	hold := make(chan struct{})
	n := serveNode(t)
	n.hold = hold
	r := n.connect()
	for stream := range uint64(50) {
		r.send(attach(stream+1, 0, "k"))
	}
	close(hold)
	for stream := range 50 {
		n.expect(fmt.Sprintf("attach %d to 0 key k", stream+1))
	}
}

var _ Handler = (*runner.Runner)(nil)
