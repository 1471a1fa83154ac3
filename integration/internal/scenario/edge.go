package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// BadRequests: what is wrong with a request is said in one line before the upgrade, and what is wrong afterwards by
// a documented close code; other clients feel nothing.
func BadRequests(t *testing.T) {
	w := begin(t, stack.Options{Nodes: 1})
	bystander := w.client(0, load.Options{Key: "alice"})
	base := w.Routers()[0].URL

	for _, tt := range []struct {
		name, target string
		protocols    []string
		status       int
	}{
		{"no key", "/v1/ws", nil, http.StatusBadRequest},
		{"a key that is not base64", "/v1/ws?key_b64=%21", nil, http.StatusBadRequest},
		{"two keys", "/v1/ws?key=a&key_b64=YQ==", nil, http.StatusBadRequest},
		{"from nowhere", "/v1/ws?key=a&from=somewhere", nil, http.StatusBadRequest},
		{"from before the beginning", "/v1/ws?key=a&from=-1", nil, http.StatusBadRequest},
		{"a cursor and a start", "/v1/ws?key=a&cursor=x&from=latest", nil, http.StatusBadRequest},
		{"another path", "/v2/ws?key=a", nil, http.StatusNotFound},
		{"another subprotocol", "/v1/ws?key=a", []string{"graphql-ws"}, http.StatusBadRequest},
		{"a resume on raw", "/v1/ws?key=a&cursor=x", []string{"pointsman.raw.v1"}, http.StatusBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, resp, err := websocket.Dial(w.ctx, base+tt.target, &websocket.DialOptions{Subprotocols: tt.protocols}) //nolint:bodyclose // the library says that it need not be closed
			if err == nil {
				_ = c.CloseNow()
				t.Fatal("it was accepted")
			}
			if resp == nil {
				t.Fatal(err)
			}
			reason := make([]byte, 500)
			n, _ := resp.Body.Read(reason) // the library keeps the beginning
			line := strings.TrimSpace(string(reason[:n]))
			t.Logf("HTTP %d: %s", resp.StatusCode, line)
			if resp.StatusCode != tt.status || line == "" || strings.Contains(line, "\n") {
				t.Errorf("HTTP %d %q, want %d with a reason in one line", resp.StatusCode, line, tt.status)
			}
		})
	}

	for _, tt := range []struct {
		name string
		send func(ctx context.Context, c *websocket.Conn) error
		code int
	}{
		{"a data message", text(`{"hello":"kafka"}`), closecode.UnsupportedData},
		{"no JSON", text("hello"), closecode.UnsupportedData},
		{"a binary message", func(ctx context.Context, c *websocket.Conn) error {
			return c.Write(ctx, websocket.MessageBinary, []byte{1, 2, 3})
		}, closecode.UnsupportedData},
		{"a large message", text(strings.Repeat("x", 1<<20)), closecode.TooBig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := w.within(20 * time.Second)
			defer cancel()
			c, _, err := websocket.Dial(ctx, base+"/v1/ws?key=mallory", nil) //nolint:bodyclose // the library says that it need not be closed
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.CloseNow() }()
			if err := tt.send(ctx, c); err != nil {
				t.Logf("send: %v", err) // the router may refuse before it has read everything
			}
			err = drain(ctx, c)
			var end websocket.CloseError
			if !errors.As(err, &end) {
				t.Fatalf("the connection ended with %v, want a close code", err)
			}
			t.Logf("%d %q", end.Code, end.Reason)
			if int(end.Code) != tt.code || end.Reason == "" {
				t.Errorf("closed with %d %q, want %d and a reason", end.Code, end.Reason, tt.code)
			}
		})
	}

	w.put("alice", "1")
	w.finish()
	if n := len(bystander.History().Sessions); n != 1 {
		t.Errorf("the bystander has %d connections", n)
	}
}

func text(msg string) func(context.Context, *websocket.Conn) error {
	return func(ctx context.Context, c *websocket.Conn) error {
		return c.Write(ctx, websocket.MessageText, []byte(msg))
	}
}

func drain(ctx context.Context, c *websocket.Conn) error {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return err
		}
	}
}

// RawSubprotocol carries values alone: text as text, everything else as binary, tombstones left out.
func RawSubprotocol(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 2})
	for _, r := range []*kgo.Record{
		{Value: []byte(`{"n": 1}`)}, {Value: []byte("text é")}, {Value: nil}, {Value: []byte{0xff, 0x00}}, {Value: []byte("last")},
	} {
		r.Key = []byte("alice")
		w.must(w.producer.Produce(w.ctx, r))
	}
	ctx, cancel := w.within(30 * time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, w.Routers()[0].URL+"/v1/ws?key=alice&from=earliest", &websocket.DialOptions{Subprotocols: []string{"pointsman.raw.v1"}}) //nolint:bodyclose // the library says that it need not be closed
	w.must(err)
	defer func() { _ = c.CloseNow() }()
	if c.Subprotocol() != "pointsman.raw.v1" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	var got []string
	read := func() {
		kind, msg, err := c.Read(ctx)
		w.must(err)
		got = append(got, fmt.Sprintf("%s %q", kind, msg))
	}
	for range 4 {
		read()
	}
	// A node's end is nothing to such a client either.
	w.must(w.KillNode(w.ctx, w.Nodes()[0].ID))
	w.put("alice", "after the kill")
	read()
	want := []string{`MessageText "{\"n\": 1}"`, `MessageText "text é"`, `MessageBinary "\xff\x00"`, `MessageText "last"`, `MessageText "after the kill"`}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("received\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// StartPositions: a client starts where it says: at the end, at the beginning, at an offset, at a time, and at the
// end when that lies beyond.
func StartPositions(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1})
	w.must(w.producer.Burst(w.ctx, []string{"alice", "bob"}, 40, 64))
	truth := w.truth()
	records := truth.Of("alice")[w.partitionOf("alice")]
	middle := records[10]
	for _, tt := range []struct {
		from string
		want int // records of alice
	}{
		{"latest", 0},
		{"earliest", len(records)},
		{fmt.Sprint(middle.Offset), len(records) - 10},
		{fmt.Sprint(truth.Partitions[w.partitionOf("alice")].End + 1000), 0},
		{time.Now().Add(time.Hour).UTC().Format(time.RFC3339), 0},
		{time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), len(records)},
		{time.UnixMilli(middle.Timestamp).UTC().Format("2006-01-02T15:04:05.000Z07:00"), since(records, middle.Timestamp)},
	} {
		c := w.client(0, load.Options{Name: tt.from, Key: "alice", From: tt.from})
		c.Lagging()
		ctx, cancel := w.within(10 * time.Second)
		if err := c.Wait(ctx, func(s *checker.Client) bool { return len(recordsOf(s)) >= tt.want }); err != nil {
			t.Errorf("from=%s: %v", tt.from, err)
		}
		cancel()
		h := c.History()
		if got := len(recordsOf(&h)); got != tt.want {
			t.Errorf("from=%s: %d records, want %d", tt.from, got, tt.want)
		}
	}
	w.put("alice", `"for all of them"`)
	w.finish()
}

// since is how many records a start at a time brings: from the first one stamped then or later.
func since(records []checker.TopicRecord, stamp int64) int {
	for i, r := range records {
		if r.Timestamp >= stamp {
			return len(records) - i
		}
	}
	return 0
}
