package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// bubble runs a test on virtual time.
func bubble(t *testing.T, test func(t *testing.T, rt *router)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newRouter(t)) })
}

func mustClose(t *testing.T, c *client.Client) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestEveryMessageBecomesAnEvent(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Buffer: 20})
		defer mustClose(t, c)
		headers := []link.Header{{Key: []byte("trace"), Value: []byte("4bf9")}, {Key: []byte("trace")}}
		s.send(clientmsg.AppendWaiting(nil))
		s.hello("c0", true)
		s.send(clientmsg.AppendRecord(nil, "c1", 3, 4711, 1767323045006, headers, []byte(`{"any": "json"}`), false, nil))
		s.send(clientmsg.AppendRecord(nil, "c2", 3, 4712, clientmsg.NoTimestamp, nil, []byte("\xff"), false, nil))
		s.send(clientmsg.AppendRecord(nil, "c3", 3, 4713, 0, nil, nil, true, nil))
		s.send([]byte(`{"type":"from a newer router"}`))
		s.send(clientmsg.AppendCheckpoint(nil, "c4"))
		s.send(gap("c5", 3, 4720, 4730, link.GapRetention))
		s.send(clientmsg.AppendExpiring(nil, time.Minute))
		s.send(clientmsg.AppendGoAway(nil, "c6", 1200*time.Millisecond))
		s.send(clientmsg.AppendCheckpoint(nil, "c7"))

		for i, want := range []client.Event{
			&client.Waiting{},
			&client.Hello{URL: "one", Cursor: "c0", Key: []byte("alice"), Resumed: true, Heartbeat: 10 * time.Second},
			&client.Record{
				Cursor: "c1", Partition: 3, Offset: 4711, Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC),
				Headers: headers, Value: []byte(`{"any": "json"}`),
			},
			&client.Record{Cursor: "c2", Partition: 3, Offset: 4712, Value: []byte("\xff")},
			&client.Record{Cursor: "c3", Partition: 3, Offset: 4713, Timestamp: time.Unix(0, 0).UTC(), Tombstone: true},
			&client.Checkpoint{Cursor: "c4"},
			&client.Gap{Cursor: "c5", Reason: "retention", Partition: 3, From: 4720, To: 4730},
			&client.Expiring{In: time.Minute},
			&client.GoAway{Cursor: "c6", RetryAfter: 1200 * time.Millisecond},
		} {
			got, err := c.Next(t.Context())
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("event %d\n got %T %+v, %v\nwant %T %+v", i, got, got, err, want, want)
			}
		}
		if got := c.Cursor(); got != "c6" {
			t.Errorf("cursor = %q, want that of the last event that was taken", got)
		}
		want[*client.Checkpoint](t, c)
		if got := c.Cursor(); got != "c7" {
			t.Errorf("cursor = %q, want c7", got)
		}
		if got, want := c.Stats(), (client.Stats{Connections: 1, Records: 3, Gaps: 1}); got != want {
			t.Errorf("stats = %+v, want %+v", got, want)
		}
	})
}

func TestUpgradeRequestSaysWhatTheConfigSays(t *testing.T) {
	long := strings.Repeat("c", 4000)
	for _, tt := range []struct {
		name string
		cfg  client.Config
		want string // path and query
		auth string
		sent string // first message
	}{
		{"nothing", client.Config{}, "/v1/ws", "", ""},
		{"key and start", client.Config{Key: []byte("a b"), From: "earliest"}, "/v1/ws?from=earliest&key=a+b", "", ""},
		{"binary key", client.Config{Key: []byte{0xff, 0xfe}}, "/v1/ws?key_b64=" + base64.RawURLEncoding.EncodeToString([]byte{0xff, 0xfe}), "", ""},
		{"empty key", client.Config{Key: []byte{}}, "/v1/ws?key=", "", ""},
		{"cursor wins over start", client.Config{Cursor: "c9", From: "latest"}, "/v1/ws?cursor=c9", "", ""},
		{"long cursor", client.Config{Cursor: long}, "/v1/ws?resume=message", "", `{"type":"resume","cursor":"` + long + `"}`},
		{"path and query of its own", client.Config{URLs: []string{"http://one/gate?zone=b"}, Cursor: "c9"}, "/gate?cursor=c9&zone=b", "", ""},
		{"header", client.Config{Header: http.Header{"Authorization": {"Bearer h"}}}, "/v1/ws", "Bearer h", ""},
		{"token", client.Config{
			Header: http.Header{"Authorization": {"Bearer h"}},
			Token:  func(context.Context) (string, error) { return "fresh", nil },
		}, "/v1/ws", "Bearer fresh", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rt *router) {
				got := rt.start(tt.cfg)
				req := rt.next()
				if uri := req.r.URL.RequestURI(); uri != tt.want {
					t.Errorf("asked for %q, want %q", uri, tt.want)
				}
				if auth := req.r.Header.Get("Authorization"); auth != tt.auth {
					t.Errorf("authorization = %q, want %q", auth, tt.auth)
				}
				if proto := req.r.Header.Get("Sec-WebSocket-Protocol"); proto != clientmsg.JSON {
					t.Errorf("subprotocol = %q", proto)
				}
				s := req.accept()
				if tt.sent != "" {
					if _, msg, err := s.conn.Read(t.Context()); err != nil || string(msg) != tt.sent {
						t.Errorf("sent %s, %v; want %s", msg, err, tt.sent)
					}
				}
				mustClose(t, <-got)
			})
		})
	}
}

func TestSilenceLongerThanTheHeartbeatEndsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		defer mustClose(t, c)
		begun := time.Now()
		s.hello("c0", true) // heartbeat 10 s
		want[*client.Hello](t, c)
		wait(t, 14*time.Second)
		s.send(clientmsg.AppendCheckpoint(nil, "c1"))
		want[*client.Checkpoint](t, c)
		d := want[*client.Disconnected](t, c)
		if !strings.Contains(d.Err.Error(), "nothing was heard") || !d.Lost {
			t.Errorf("got %+v", d)
		}
		if took := time.Since(begun); took != 29*time.Second {
			t.Errorf("given up after %v, want 15 s after the last message at 14 s", took)
		}
		if got := rt.next().query("cursor"); got != "c1" {
			t.Errorf("reconnected with %q", got)
		}
	})
}

func TestProgressInsideALargeMessageIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Silence: 5 * time.Second})
		defer mustClose(t, c)
		w, err := s.conn.Writer(t.Context(), websocket.MessageText)
		if err != nil {
			t.Fatal(err)
		}
		msg := clientmsg.AppendRecord(nil, "c1", 1, 1, 0, nil, []byte(strings.Repeat("x", 64<<10)), false, nil)
		for part := range 8 {
			size := len(msg) / 8
			end := (part + 1) * size
			if part == 7 {
				end = len(msg)
			}
			if _, err := w.Write(msg[part*size : end]); err != nil {
				t.Fatal(err)
			}
			wait(t, 4*time.Second)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if r := want[*client.Record](t, c); len(r.Value) != 64<<10 {
			t.Errorf("%d bytes", len(r.Value))
		}
	})
}

func TestProgramThatIsSlowIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Buffer: 1})
		defer mustClose(t, c)
		s.hello("c0", true)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for offset := range int64(5) {
				s.record(1, offset, "1")
			}
		}()
		wait(t, time.Hour)
		want[*client.Hello](t, c)
		for offset := range int64(5) {
			if r := want[*client.Record](t, c); r.Offset != offset {
				t.Errorf("offset %d, want %d", r.Offset, offset)
			}
		}
		<-sent
		if got := c.Stats().Lost; got != 0 {
			t.Errorf("%d connections lost", got)
		}
	})
}

func TestCloseCodeDecidesWhetherToComeBack(t *testing.T) {
	codes := []closecode.Code{{Code: 4999, Name: "of a newer router", Retry: true}}
	for _, code := range append(codes, closecode.All()...) {
		if code.Code == closecode.Abnormal {
			continue // never on the wire
		}
		t.Run(code.Name, func(t *testing.T) {
			bubble(t, func(t *testing.T, rt *router) {
				c, s := rt.connect(client.Config{})
				defer mustClose(t, c)
				s.hello("c0", true)
				want[*client.Hello](t, c)
				s.close(code.Code, "so it is")
				wantErr := &client.CloseError{Code: code.Code, Reason: "so it is"}
				if code.Retry {
					if d := want[*client.Disconnected](t, c); !reflect.DeepEqual(d.Err, wantErr) {
						t.Errorf("got %v, want %v", d.Err, wantErr)
					}
					rt.next().accept()
					return
				}
				_, err := c.Next(t.Context())
				var got *client.CloseError
				if !errors.As(err, &got) || *got != *wantErr {
					t.Errorf("got %v, want %v", err, wantErr)
				}
			})
		})
	}
}

func TestGoAwayIsObeyed(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		defer mustClose(t, c)
		s.hello("c0", true)
		s.send(clientmsg.AppendGoAway(nil, "c1", 3*time.Second))
		s.record(1, 7, "1") // still served until the router closes
		want[*client.Hello](t, c)
		want[*client.GoAway](t, c)
		want[*client.Record](t, c)
		s.close(closecode.GoingAway, "bye")
		closed := time.Now()
		if d := want[*client.Disconnected](t, c); d.RetryIn != 3*time.Second {
			t.Errorf("retry in %v, want 3s", d.RetryIn)
		}
		req := rt.next()
		if got := time.Since(closed); got != 3*time.Second {
			t.Errorf("came back after %v, want 3s", got)
		}
		if req.r.Host != "two" || req.query("cursor") != cursorAt(1, 8) {
			t.Errorf("came back to %s with %q", req.r.Host, req.query("cursor"))
		}
		req.accept()
	})
}

func TestRefusalThatWouldBeRepeatedEndsConnect(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		ended := make(chan error, 1)
		go func() {
			_, err := client.Connect(t.Context(), client.Config{URLs: []string{"ws://one"}, HTTPClient: rt.http})
			ended <- err
		}()
		rt.next().refuse(http.StatusBadRequest, "the cursor belongs to another key")
		err := <-ended
		var refused *client.RefusedError
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Fatalf("got %v", err)
		}
		if got, want := err.Error(), "refused by the router with status 400 Bad Request: the cursor belongs to another key"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestConnectTriesOnWhileRoutersAreAway(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		var failed []client.Disconnected
		got := rt.start(client.Config{Retrying: func(d client.Disconnected) { failed = append(failed, d) }})
		for range 30 { // more than the events that may wait
			rt.next().refuse(http.StatusBadGateway, "no router")
		}
		req := rt.next()
		req.w.Header().Set("Retry-After", "60")
		req.refuse(http.StatusServiceUnavailable, "full")
		at := time.Now()
		rt.next().accept()
		if waited := time.Since(at); waited != time.Minute {
			t.Errorf("came back after %v, want what Retry-After said", waited)
		}
		mustClose(t, <-got)
		if len(failed) != 31 || failed[0].Err == nil || failed[30].RetryIn != time.Minute {
			t.Errorf("Retrying heard of %d failures, want 31: %+v", len(failed), failed)
		}
	})
}

func TestConnectGivesUpWithItsContextAndSaysWhy(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		failing := func(context.Context) (string, error) { return "", errors.New("identity provider is away") }
		_, err := client.Connect(ctx, client.Config{URLs: []string{"ws://one"}, HTTPClient: rt.http, Token: failing})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "get a token: identity provider is away") {
			t.Errorf("got %v", err)
		}
	})
}

func TestWaitsGrowWithJitterAndStartAnewAfterALongLife(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{MinBackoff: time.Second, MaxBackoff: 10 * time.Second})
		defer mustClose(t, c)
		for _, seconds := range []int{1, 2, 4, 8, 10, 10} {
			_ = s.conn.CloseNow()
			d := want[*client.Disconnected](t, c)
			most := time.Duration(seconds) * time.Second
			least := most / 2
			if seconds == 1 {
				least = 0
			}
			if d.RetryIn < least || d.RetryIn > most {
				t.Errorf("wait = %v, want %v to %v", d.RetryIn, least, most)
			}
			s = rt.next().accept()
		}
		wait(t, 10*time.Second)
		_ = s.conn.CloseNow()
		if d := want[*client.Disconnected](t, c); d.RetryIn >= time.Second {
			t.Errorf("wait = %v after a connection that lived, want less than 1 s", d.RetryIn)
		}
		s = rt.next().accept()
		_ = s.conn.CloseNow()
		want[*client.Disconnected](t, c)
	})
}

func TestMalformedMessageEndsTheConnectionNotTheClient(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		defer mustClose(t, c)
		s.send([]byte(`{"type":"record"`))
		if d := want[*client.Disconnected](t, c); !errors.Is(d.Err, clientmsg.ErrMalformed) {
			t.Errorf("got %v", d.Err)
		}
		rt.next().accept()
	})
}

func TestMessageAboveTheReadLimitEndsTheClient(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{ReadLimit: 1000})
		defer mustClose(t, c)
		go func() { // the client hangs up in the middle of it
			msg := clientmsg.AppendCheckpoint(nil, strings.Repeat("c", 2000))
			_ = s.conn.Write(t.Context(), websocket.MessageText, msg)
		}()
		_, err := c.Next(t.Context())
		if !errors.Is(err, websocket.ErrMessageTooBig) || !strings.Contains(err.Error(), "Config.ReadLimit") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseSaysGoodbyeAndEndsNext(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		s.hello("c0", true)
		synctest.Wait() // until it is received
		code := make(chan websocket.StatusCode, 1)
		go func() { code <- s.end() }()
		begun := time.Now()
		mustClose(t, c)
		if got := <-code; got != websocket.StatusNormalClosure {
			t.Errorf("close code = %v, want 1000", got)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("close took %v", took)
		}
		want[*client.Hello](t, c)
		if _, err := c.Next(t.Context()); !errors.Is(err, client.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		mustClose(t, c)
	})
}

func TestCloseDoesNotWaitForADeafRouter(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, _ := rt.connect(client.Config{}) // nobody reads the other end
		begun := time.Now()
		mustClose(t, c)
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("close took %v", took)
		}
	})
}

func TestEventsEndWithTheContext(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		defer mustClose(t, c)
		s.record(1, 1, "1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var records int
		var last error
		for event, err := range c.Events(ctx) {
			if last = err; err != nil {
				continue
			}
			if _, ok := event.(*client.Record); ok {
				records++
				cancel()
			}
		}
		if records != 1 || !errors.Is(last, context.Canceled) {
			t.Errorf("%d records, then %v", records, last)
		}
		s.record(1, 2, "2")
		if r := want[*client.Record](t, c); r.Offset != 2 {
			t.Errorf("offset %d after the iterator ended, want 2", r.Offset)
		}
	})
}

func TestBadConfigIsAnError(t *testing.T) {
	for _, urls := range [][]string{nil, {"localhost:8080"}, {"ftp://one"}, {"ws://"}, {"ws://one", "::"}} {
		if c, err := client.Connect(t.Context(), client.Config{URLs: urls}); err == nil {
			mustClose(t, c)
			t.Errorf("URLs %q: no error", urls)
		}
	}
}

// wait lets virtual time pass.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
