package client_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// asks reads what the client sends and compares it.
func (s *socket) asks(want string) {
	s.t.Helper()
	if _, msg, err := s.conn.Read(s.t.Context()); err != nil || string(msg) != want {
		s.t.Fatalf("sent %s, %v; want %s", msg, err, want)
	}
}

// greet is a hello with several keys, and those that the address names.
func (s *socket) greet(keys ...string) {
	s.t.Helper()
	s.send(clientmsg.AppendHelloSeveral(nil, len(keys), time.Hour))
	for _, key := range keys {
		s.subscribed(key, key+"0", false)
	}
}

func (s *socket) subscribed(key, cursor string, resumed bool) {
	s.t.Helper()
	s.send(clientmsg.AppendSubscribed(nil, cursor, []byte(key), resumed))
}

func (s *socket) recordOf(key, cursor string, offset int64) {
	s.t.Helper()
	s.send(clientmsg.AppendRecord(nil, cursor, 1, offset, 0, nil, []byte("1"), false, []byte(key)))
}

// several gives a client of these keys that has its hello, and drains events into nothing unless the test takes them.
func several(t *testing.T, rt *router, cfg client.Config) (*client.Client, *socket) {
	t.Helper()
	cfg.URLs = []string{"ws://one"}
	cfg.Buffer = 1000
	return rt.connect(cfg)
}

func follow(t *testing.T, c *client.Client, key string, at client.Start) {
	t.Helper()
	if err := c.Subscribe([]byte(key), at); err != nil {
		t.Errorf("subscribe %s: %v", key, err)
	}
}

func leave(t *testing.T, c *client.Client, key string) {
	t.Helper()
	if err := c.Unsubscribe([]byte(key)); err != nil {
		t.Errorf("unsubscribe %s: %v", key, err)
	}
}

// until takes events up to the first of a type.
func until[E client.Event](t *testing.T, c *client.Client) E {
	t.Helper()
	for {
		event, err := c.Next(t.Context())
		if err != nil {
			t.Fatalf("next: %v", err)
		}
		if e, ok := event.(E); ok {
			return e
		}
	}
}

func (r *request) wants(t *testing.T, want string) *socket {
	t.Helper()
	if got := r.r.URL.RequestURI(); got != want {
		t.Errorf("asked for %q, want %q", got, want)
	}
	return r.accept()
}

func TestKeysComeAndGoAndReconnectsHaveThoseThatAreWished(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := several(t, rt, client.Config{Keys: [][]byte{[]byte("a"), []byte("b")}})
		defer mustClose(t, c)
		s.greet("a", "b")
		follow(t, c, "c", client.Start{From: "earliest"})
		follow(t, c, "c", client.Start{}) // goes on where it is
		s.asks(`{"type":"subscribe","key":"c","from":"earliest"}`)
		s.subscribed("c", "c0", false)
		s.recordOf("a", "a8", 7)
		s.recordOf("c", "c5", 4)
		leave(t, c, "a")
		leave(t, c, "never followed")
		s.asks(`{"type":"unsubscribe","key":"a"}`)
		s.send(clientmsg.AppendUnsubscribed(nil, "a8", []byte("a")))
		if u := until[*client.Unsubscribed](t, c); string(u.Key) != "a" || u.Cursor != "a8" {
			t.Errorf("got %+v", u)
		}
		if got := c.Cursor(); got != "b0.c5" {
			t.Errorf("cursor = %q, want b0.c5", got)
		}
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?cursor=b0.c5&key=b&key=c&several=true")
		s.greet()
		s.subscribed("c", "c5", true)
		s.recordOf("c", "c5", 4) // a repeat
		s.recordOf("c", "c6", 5)
		until[*client.Subscribed](t, c)
		if r := until[*client.Record](t, c); r.Offset != 5 {
			t.Errorf("offset %d, want 5", r.Offset)
		}
	})
}

func TestWhatWasNotAnsweredIsAskedForAgainAfterAReconnect(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := several(t, rt, client.Config{Keys: [][]byte{[]byte("a"), []byte("b")}})
		defer mustClose(t, c)
		s.greet("a", "b")
		follow(t, c, "c", client.Start{Cursor: "C7"})
		s.asks(`{"type":"subscribe","cursor":"C7","key":"c"}`)
		leave(t, c, "a")
		s.asks(`{"type":"unsubscribe","key":"a"}`)
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?cursor=b0&key=b&several=true")
		follow(t, c, "d", client.Start{}) // before hello nothing may be said
		s.greet()
		s.asks(`{"type":"subscribe","cursor":"C7","key":"c"}`)
		s.asks(`{"type":"subscribe","key":"d"}`)
		// Its gap is not told yet: should the connection break it is to be told again.
		s.subscribed("c", "behind the gap", false)
		s.subscribed("d", "d0", false)
		synctest.Wait()
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?cursor=b0.C7.d0&key=b&key=c&key=d&several=true")
		s.greet()
		s.send(clientmsg.AppendGapOf(nil, "ALL", []byte("c"), 1, 0, 9, link.GapRetention))
		until[*client.Gap](t, c)
		_ = s.conn.CloseNow()
		rt.next().wants(t, "/v1/ws?cursor=ALL&key=b&key=c&key=d&several=true")
	})
}

func TestKeyThatIsFollowedAnewBeginsWhereTheProgramWants(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := several(t, rt, client.Config{Keys: [][]byte{[]byte("a")}})
		defer mustClose(t, c)
		s.greet("a")
		s.recordOf("a", "a8", 7)
		until[*client.Record](t, c)
		leave(t, c, "a")
		follow(t, c, "a", client.Start{From: "earliest"}) // both before either is sent, or after
		s.asks(`{"type":"unsubscribe","key":"a"}`)
		s.recordOf("a", "a9", 8) // crossed it
		s.send(clientmsg.AppendUnsubscribed(nil, "a9", []byte("a")))
		s.asks(`{"type":"subscribe","key":"a","from":"earliest"}`)
		s.subscribed("a", "a0", false)
		s.recordOf("a", "a8", 7) // not a repeat
		until[*client.Subscribed](t, c)
		if r := until[*client.Record](t, c); r.Offset != 7 {
			t.Errorf("offset %d, want 7", r.Offset)
		}
		if got := c.Cursor(); got != "a8" {
			t.Errorf("cursor = %q, want a8", got)
		}
	})
}

func TestWithoutAnyKeyTheSocketStaysAndFollowsNoneOfTheToken(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		got := rt.start(client.Config{URLs: []string{"ws://one"}, Several: true, From: "earliest"})
		s := rt.next().wants(t, "/v1/ws?several=none")
		c := <-got
		defer mustClose(t, c)
		s.greet()
		follow(t, c, "\xff", client.Start{})
		s.asks(`{"type":"subscribe","key_b64":"/w=="}`)
		s.subscribed("\xff", "x0", false)
		until[*client.Subscribed](t, c)
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?cursor=x0&from=earliest&key_b64=_w&several=true")
		s.greet()
		leave(t, c, "\xff")
		s.asks(`{"type":"unsubscribe","key_b64":"/w=="}`)
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?several=none")
		s.greet()
	})
}

func TestKeysOfATokenAreLeftToItUntilAllHaveBeenHeardOf(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		got := rt.start(client.Config{URLs: []string{"ws://one"}, Keys: [][]byte{}})
		s := rt.next().wants(t, "/v1/ws?several=true")
		c := <-got
		defer mustClose(t, c)
		three := clientmsg.AppendHelloSeveral(nil, 3, time.Hour)
		s.send(three)
		s.subscribed("a", "a0", false)
		s.subscribed("b", "b0", false)
		until[*client.Subscribed](t, c)
		until[*client.Subscribed](t, c)
		leave(t, c, "a")
		s.asks(`{"type":"unsubscribe","key":"a"}`)
		s.send(clientmsg.AppendUnsubscribed(nil, "a0", []byte("a")))
		until[*client.Unsubscribed](t, c)
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?cursor=b0&several=true") // the third has no node yet, and no name
		s.send(three)
		s.asks(`{"type":"unsubscribe","key":"a"}`)
		s.send(clientmsg.AppendUnsubscribed(nil, "a0", []byte("a")))
		s.subscribed("b", "b0", true)
		s.subscribed("c", "c0", false)
		until[*client.Unsubscribed](t, c)
		until[*client.Subscribed](t, c)
		until[*client.Subscribed](t, c)
		_ = s.conn.CloseNow()
		s = rt.next().wants(t, "/v1/ws?cursor=b0.c0&key=b&key=c&several=true")
		s.greet()
	})
}

func TestRefusedKeyIsGivenUpUnlessItIsUnavailableForTheMoment(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := several(t, rt, client.Config{Keys: [][]byte{[]byte("a")}})
		defer mustClose(t, c)
		s.greet("a")
		follow(t, c, "not mine", client.Start{})
		s.asks(`{"type":"subscribe","key":"not mine"}`)
		s.send(clientmsg.AppendRefused(nil, "subscribe", []byte("not mine"), clientmsg.RefusedForbidden, "the credentials do not name this key"))
		if r := until[*client.Refused](t, c); string(r.Key) != "not mine" || r.Reason != clientmsg.RefusedForbidden || r.Of != "subscribe" || r.Detail == "" {
			t.Errorf("got %+v", r)
		}
		follow(t, c, "b", client.Start{})
		for range 4 {
			begun := time.Now()
			s.asks(`{"type":"subscribe","key":"b"}`)
			if took := time.Since(begun); took > client.DefaultMaxBackoff {
				t.Errorf("asked again after %v", took)
			}
			s.send(clientmsg.AppendRefused(nil, "subscribe", []byte("b"), clientmsg.RefusedUnavailable, "not now"))
			until[*client.Refused](t, c)
		}
		s.asks(`{"type":"subscribe","key":"b"}`)
		s.subscribed("b", "b0", false)
		until[*client.Subscribed](t, c)
		_ = s.conn.CloseNow()
		rt.next().wants(t, "/v1/ws?cursor=a0.b0&key=a&key=b&several=true")
	})
}

func TestManyKeysAtOnceAreAskedForAtAPaceThatRoutersAllow(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := several(t, rt, client.Config{Several: true})
		defer mustClose(t, c)
		s.greet()
		begun := time.Now()
		for i := range 200 {
			follow(t, c, fmt.Sprint(i), client.Start{})
		}
		for i := range 200 {
			key := fmt.Sprint(i)
			s.asks(`{"type":"subscribe","key":"` + key + `"}`)
			// The default of --client-message-rate: 20 a second, 100 at once.
			if most := 100 + 20*time.Since(begun).Seconds(); float64(i+1) > most {
				t.Fatalf("%d messages after %v, and routers allow %v", i+1, time.Since(begun), most)
			}
			s.subscribed(key, key, false)
			until[*client.Subscribed](t, c)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestKeysThatCannotBeChangedAreAnError(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		one, _ := rt.connect(client.Config{Key: []byte("a")})
		if err := one.Subscribe([]byte("b"), client.Start{}); !errors.Is(err, client.ErrOneKey) {
			t.Errorf("subscribe with one key: %v", err)
		}
		if err := one.Unsubscribe([]byte("a")); !errors.Is(err, client.ErrOneKey) {
			t.Errorf("unsubscribe with one key: %v", err)
		}
		mustClose(t, one)
		many, _ := several(t, rt, client.Config{Several: true})
		for _, at := range []client.Start{{Cursor: "a", From: "latest"}, {Cursor: `"`}, {From: "\xff"}} {
			if err := many.Subscribe([]byte("b"), at); err == nil {
				t.Errorf("subscribe at %+v: no error", at)
			}
		}
		mustClose(t, many)
		if err := many.Subscribe([]byte("b"), client.Start{}); !errors.Is(err, client.ErrClosed) {
			t.Errorf("subscribe after close: %v", err)
		}
	})
}
