package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// fakeRouter runs script for every connection.
func fakeRouter(t *testing.T, script func(ctx context.Context, q url.Values, c *websocket.Conn) error) Target {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("key") == "" {
			http.Error(w, "a key is needed", http.StatusBadRequest)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"pointsman.json.v1"}})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.CloseNow()
		if err := script(r.Context(), r.URL.Query(), c); err != nil {
			t.Logf("fake router: %v", err)
		}
	}))
	t.Cleanup(server.Close)
	return Target{Name: "fake", URL: "ws" + strings.TrimPrefix(server.URL, "http")}
}

// Cursors of these tests are "partition:next".
func readTestCursor(cursor, _ string) ([]checker.Position, error) {
	var p checker.Position
	if _, err := fmt.Sscanf(cursor, "%d:%d", &p.Partition, &p.Next); err != nil {
		return nil, err
	}
	return []checker.Position{p}, nil
}

func testClient(t *testing.T, opts Options) *Client {
	t.Helper()
	opts.Name, opts.Key, opts.Positions = "1", "alice", readTestCursor
	c := NewClient(opts)
	t.Cleanup(c.Close)
	return c
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func send(ctx context.Context, c *websocket.Conn, messages ...string) error {
	for _, m := range messages {
		if err := c.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			return err
		}
	}
	return nil
}

func record(offset int64, value string) string {
	return fmt.Sprintf(`{"type":"record","cursor":"3:%d","partition":3,"offset":%d,"timestamp":"2026-01-02T03:04:05.006Z",%s}`, offset+1, offset, value)
}

const hello = `{"type":"hello","cursor":"3:5","key":"alice","resumed":true,"heartbeat_ms":15000}`

func records(s *checker.Client) int {
	n := 0
	for i := range s.Sessions {
		for _, e := range s.Sessions[i].Events {
			if e.Kind == checker.Record {
				n++
			}
		}
	}
	return n
}

func TestEverythingReceivedIsWrittenDown(t *testing.T) {
	ctx := testContext(t)
	router := fakeRouter(t, func(ctx context.Context, q url.Values, c *websocket.Conn) error {
		if q.Get("key") != "alice" || q.Get("from") != "earliest" {
			t.Errorf("asked for %v", q)
		}
		pong := c.CloseRead(ctx)
		err := send(ctx, c, `{"type":"waiting"}`, hello,
			record(5, `"value":{ "a" : 1.0 }`), record(6, `"text":"hé"`), record(7, `"base64":"/wA="`), record(8, `"tombstone":true`),
			record(9, `"headers":[{"key":"h","text":"1"},{"key":"h","base64":"/w=="}],"value":null`),
			record(10, `"value":"`+strings.Repeat("x", 70_000)+`"`),
			`{"type":"checkpoint","cursor":"3:20"}`, `{"type":"gap","cursor":"3:30","reason":"retention"}`)
		if err != nil {
			return err
		}
		if err := c.Ping(pong); err != nil {
			t.Errorf("the client does not answer pings: %v", err)
		}
		if err := send(ctx, c, `{"type":"goaway","cursor":"3:30","retry_after_ms":1}`); err != nil {
			return err
		}
		return c.Close(4004, "slow")
	})
	c := testClient(t, Options{From: "earliest"})
	if err := c.Connect(ctx, router); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx, func(s *checker.Client) bool { return s.Sessions[0].Ended != nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.Faults(); err != nil {
		t.Error(err)
	}
	s := c.History().Sessions[0]
	if s.Waiting != 1 || s.GoAways != 1 || s.HelloAt.IsZero() || !s.Complete || s.Start[0] != (checker.Position{Partition: 3, Next: 5}) || s.Resumed {
		t.Errorf("session %+v", s)
	}
	if s.Ended.Code != 4004 || s.Ended.Reason != "slow" || s.Ended.Expected {
		t.Errorf("end %+v", s.Ended)
	}
	wantSums := []uint32{
		checker.Sum([]byte(`{ "a" : 1.0 }`), nil), checker.Sum([]byte("hé"), nil), checker.Sum([]byte{0xff, 0}, nil), checker.Sum(nil, nil),
		checker.Sum([]byte("null"), []checker.Header{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte{0xff}}}),
		checker.Sum([]byte(`"`+strings.Repeat("x", 70_000)+`"`), nil),
	}
	if len(s.Events) != len(wantSums)+2 {
		t.Fatalf("got %d events, want %d", len(s.Events), len(wantSums)+2)
	}
	for i, want := range wantSums {
		if e := s.Events[i]; e.Sum != want || e.Offset != int64(5+i) || e.Next != int64(6+i) || e.Partition != 3 || e.Timestamp != 1767323045006 || !e.Backlog {
			t.Errorf("event %d: %+v, want sum %d", i, e, want)
		}
	}
	if e := s.Events[6]; e.Kind != checker.Checkpoint || e.Next != 20 {
		t.Errorf("checkpoint %+v", e)
	}
	if e := s.Events[7]; e.Kind != checker.Gap || e.Next != 30 || e.Reason != "retention" {
		t.Errorf("gap %+v", e)
	}
	if c.Cursor() != "3:30" || c.Heartbeat() != 15*time.Second {
		t.Errorf("cursor %s, heartbeat %s", c.Cursor(), c.Heartbeat())
	}
}

func TestReconnectsWithItsCursor(t *testing.T) {
	ctx := testContext(t)
	router := fakeRouter(t, func(ctx context.Context, q url.Values, c *websocket.Conn) error {
		if q.Get("cursor") == "" {
			return errors.Join(send(ctx, c, hello, record(5, `"value":1`)), c.Close(1012, "restart"))
		}
		if q.Get("cursor") != "3:6" || q.Has("from") {
			t.Errorf("asked for %v", q)
		}
		err := send(ctx, c, strings.ReplaceAll(hello, "3:5", "3:6"), record(7, `"value":1`))
		<-c.CloseRead(ctx).Done()
		return err
	})
	var ends []checker.Close
	c := testClient(t, Options{
		From:      "latest",
		Expected:  func(router string, _ time.Time) bool { return router == "fake" },
		Reconnect: func(end checker.Close) (Target, bool) { ends = append(ends, end); return router, true },
	})
	if err := c.Connect(ctx, router); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx, func(s *checker.Client) bool { return records(s) == 2 }); err != nil {
		t.Fatal(err)
	}
	if err := c.Disconnect(ctx); err != nil {
		t.Fatal(err)
	}
	h := c.History()
	if len(h.Sessions) != 2 || !h.Sessions[1].Resumed || len(ends) != 1 || ends[0].Code != 1012 || !ends[0].Expected {
		t.Errorf("sessions %+v, ends %+v", h.Sessions, ends)
	}
	if end := h.Sessions[1].Ended; end == nil || end.Code != 1000 || !end.Expected {
		t.Errorf("end %+v, want the answer to our own close", end)
	}
}

func TestStopReadingFillsTheSocket(t *testing.T) {
	ctx := testContext(t)
	const messages = 200
	stuck := make(chan struct{})
	router := fakeRouter(t, func(ctx context.Context, _ url.Values, c *websocket.Conn) error {
		pad := strings.Repeat("x", 64<<10)
		if err := send(ctx, c, hello); err != nil {
			return err
		}
		written := make(chan struct{}, messages)
		go func() {
			timer := time.NewTimer(200 * time.Millisecond)
			for {
				select {
				case <-written:
					timer.Reset(200 * time.Millisecond)
				case <-timer.C:
					close(stuck)
					return
				}
			}
		}()
		for i := range int64(messages) {
			if err := send(ctx, c, record(5+i, `"value":"`+pad+`"`)); err != nil {
				return err
			}
			written <- struct{}{}
		}
		<-c.CloseRead(ctx).Done()
		return nil
	})
	c := testClient(t, Options{ReadBuffer: 64 << 10})
	c.StopReading()
	if err := c.Connect(ctx, router); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stuck:
	case <-ctx.Done():
		t.Fatal("the server never had to wait")
	}
	if h := c.History(); records(&h) != 0 || !h.Lagging {
		t.Errorf("%d records while not reading", records(&h))
	}
	c.ReadAgain()
	if err := c.Wait(ctx, func(s *checker.Client) bool { return records(s) == messages }); err != nil {
		t.Fatal(err)
	}
}

func TestDeafClientGivesUp(t *testing.T) {
	ctx := testContext(t)
	router := fakeRouter(t, func(ctx context.Context, _ url.Values, c *websocket.Conn) error {
		err := send(ctx, c, hello)
		<-c.CloseRead(ctx).Done()
		return err
	})
	c := testClient(t, Options{Deaf: 50 * time.Millisecond})
	if err := c.Connect(ctx, router); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx, func(s *checker.Client) bool { return s.Sessions[0].Ended != nil }); err != nil {
		t.Fatal(err)
	}
	if end := c.History().Sessions[0].Ended; !strings.Contains(end.Reason, "heard nothing") || end.Expected {
		t.Errorf("end %+v", end)
	}
}

func TestRefusalsAndNonsenseAreReported(t *testing.T) {
	ctx := testContext(t)
	router := fakeRouter(t, func(ctx context.Context, _ url.Values, c *websocket.Conn) error {
		return errors.Join(
			send(ctx, c, record(4, `"value":1`), hello, hello, `nonsense`, record(5, `"value":1,"text":"1"`), `{"type":"new"}`, `{"type":"checkpoint","cursor":"x"}`),
			c.Close(websocket.StatusNormalClosure, ""))
	})
	c := testClient(t, Options{})
	if err := c.Connect(ctx, router); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx, func(s *checker.Client) bool { return s.Sessions[0].Ended != nil }); err != nil {
		t.Fatal(err)
	}
	faults := fmt.Sprint(c.Faults())
	for _, want := range []string{"record before hello", "second hello", "nonsense", "2 forms", `unknown type "new"`, "checkpoint"} {
		if !strings.Contains(faults, want) {
			t.Errorf("faults do not say %q:\n%s", want, faults)
		}
	}
	noKey := NewClient(Options{Query: url.Values{"key": {""}}})
	defer noKey.Close()
	var refused *HandshakeError
	if err := noKey.Connect(ctx, router); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || !strings.Contains(refused.Body, "a key is needed") {
		t.Errorf("got %v, want HTTP 400", err)
	}
}

func TestFleet(t *testing.T) {
	ctx := testContext(t)
	router := fakeRouter(t, func(ctx context.Context, _ url.Values, c *websocket.Conn) error {
		err := send(ctx, c, hello, record(5, `"value":1`), record(6, `"value":2`))
		<-c.CloseRead(ctx).Done()
		return err
	})
	fleet := NewFleet()
	defer fleet.Close()
	const n = 100
	clients, err := fleet.Add(ctx, n, func(int) Options { return Options{Key: "alice", Positions: readTestCursor} }, func(int) Target { return router })
	if err != nil {
		t.Fatal(err)
	}
	truth := checker.NewTruth(map[int32]*checker.Partition{3: {End: 7, Records: []checker.TopicRecord{
		{Offset: 5, Timestamp: 1767323045006, Key: "alice", Sum: checker.Sum([]byte("1"), nil)},
		{Offset: 6, Timestamp: 1767323045006, Key: "alice", Sum: checker.Sum([]byte("2"), nil)},
	}}})
	if err := fleet.WaitCaughtUp(ctx, truth); err != nil {
		t.Fatal(err)
	}
	if err := Each(clients[:10], func(_ int, c *Client) error { c.Sever(); return nil }); err != nil {
		t.Fatal(err)
	}
	r := checker.Check(truth, fleet.Histories(), nil)
	if err := r.Err(); err != nil || r.Received != 2*n || r.Clients != n {
		t.Errorf("%v\n%s", err, r)
	}
	if err := fleet.Faults(); err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	c := testClient(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.WaitHello(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
