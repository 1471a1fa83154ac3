package edge_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/edge"
	"github.com/pointsmanhq/pointsman/router/internal/limits"
)

// limited is an edge behind a proxy that names its clients.
func limited(t *testing.T, c limits.Config, change func(*edge.Config)) *served {
	t.Helper()
	return serve(t, func(cfg *edge.Config) {
		cfg.Gate = limits.NewGate(c)
		p, err := limits.ParseProxies([]string{"127.0.0.1", "::1"}, limits.ForwardedFor)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Proxies = p
		if change != nil {
			change(cfg)
		}
	}).known()
}

// open connects a client of a key, from an address, and returns the answer's status.
func (s *served) open(t *testing.T, key, from string) (*websocket.Conn, int) {
	t.Helper()
	ws, resp, err := websocket.Dial(t.Context(), "ws"+s.http.URL[len("http"):]+"/v1/ws?key="+key, &websocket.DialOptions{
		HTTPHeader: http.Header{limits.ForwardedFor: {from}},
	})
	if err == nil {
		t.Cleanup(func() { _ = ws.CloseNow() })
	}
	if resp == nil {
		t.Fatal(err)
	}
	if retry := resp.Header.Get("Retry-After"); err != nil && retry == "" {
		t.Errorf("%d without Retry-After", resp.StatusCode)
	}
	return ws, resp.StatusCode
}

func TestLimitsAnswerWithAStatus(t *testing.T) {
	const in, own, full = http.StatusSwitchingProtocols, http.StatusTooManyRequests, http.StatusServiceUnavailable
	for name, tt := range map[string]struct {
		cfg    limits.Config
		last   int
		key    string
		from   string
		before []string // addresses
	}{
		"all":           {limits.Config{Clients: 2}, full, "c", "10.0.0.3", []string{"10.0.0.1", "10.0.0.2"}},
		"one address":   {limits.Config{PerAddress: 2}, own, "c", "10.0.0.1", []string{"10.0.0.1", "10.0.0.1"}},
		"another one":   {limits.Config{PerAddress: 2}, in, "c", "10.0.0.2", []string{"10.0.0.1", "10.0.0.1"}},
		"one key":       {limits.Config{PerKey: 2}, own, "k", "10.0.0.3", []string{"10.0.0.1", "10.0.0.2"}},
		"another key":   {limits.Config{PerKey: 2}, in, "c", "10.0.0.3", []string{"10.0.0.1", "10.0.0.2"}},
		"oldest socket": {limits.Config{Policy: limits.Oldest}, own, "k", "10.0.0.3", []string{"10.0.0.1"}},
		"rate":          {limits.Config{Rate: 1}, full, "c", "10.0.0.3", nil},
		"address' rate": {limits.Config{PerRate: 1, Rate: 1000}, own, "c", "10.0.0.1", nil},
		"its neighbour": {limits.Config{PerRate: 1, Rate: 1000}, in, "c", "10.0.0.2", []string{"10.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := limited(t, tt.cfg, nil)
			for _, from := range tt.before {
				if _, status := s.open(t, "k", from); status != in {
					t.Fatalf("%s gets %d", from, status)
				}
			}
			_, status := s.open(t, tt.key, tt.from)
			for n := 0; tt.before == nil && status == in && n < 100; n++ { // one per second comes in
				_, status = s.open(t, tt.key, tt.from)
			}
			if status != tt.last {
				t.Errorf("got %d, want %d", status, tt.last)
			}
			if _, ok := closecode.LookupStatus(tt.last); !ok && tt.last != in {
				t.Errorf("%d is not in the table", tt.last)
			}
		})
	}
}

func TestPlacesComeBackWhenClientsGo(t *testing.T) {
	s := limited(t, limits.Config{Clients: 1}, nil)
	for i := range 5 {
		ws, status := s.open(t, "k", "10.0.0.1")
		for status == http.StatusServiceUnavailable && i > 0 { // the router may not have noticed yet
			ws, status = s.open(t, "k", "10.0.0.1")
		}
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("client %d gets %d", i, status)
		}
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
}

func TestNewestSocketOfAKeyClosesTheOneBefore(t *testing.T) {
	s := limited(t, limits.Config{Policy: limits.Newest}, nil)
	first, _ := s.open(t, "k", "10.0.0.1")
	other, _ := s.open(t, "other", "10.0.0.1")
	if _, status := s.open(t, "k", "10.0.0.2"); status != http.StatusSwitchingProtocols {
		t.Fatalf("the second one gets %d", status)
	}
	var end websocket.CloseError
	if err := drain(t, first); !errors.As(err, &end) || end.Code != closecode.Replaced {
		t.Errorf("the first one ended with %v", err)
	}
	ctx := other.CloseRead(t.Context())
	if err := other.Ping(t.Context()); err != nil || ctx.Err() != nil {
		t.Errorf("another key's client: %v", err)
	}
}

func drain(t *testing.T, ws *websocket.Conn) error {
	t.Helper()
	for {
		if _, _, err := ws.Read(t.Context()); err != nil {
			return err
		}
	}
}

func TestLogsNameTheClientBehindTheProxy(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s := limited(t, limits.Config{}, func(c *edge.Config) { c.Logger = zap.New(core) })
	_, _, _ = s.ask(t, http.MethodGet, "/v1/ws", http.Header{limits.ForwardedFor: {"198.51.100.7"}})
	lines := logs.FilterMessage("client refused").All()
	if len(lines) != 1 || lines[0].ContextMap()["remote"] != "198.51.100.7" {
		t.Errorf("the log says %v", lines)
	}
	if _, status := s.open(t, "k", "198.51.100.8"); status != http.StatusSwitchingProtocols {
		t.Fatalf("got %d", status)
	}
	s.waitFor(t, "k", "198.51.100.8")
}

// waitFor waits until the hub has a client of a key, and compares its address.
func (s *served) waitFor(t *testing.T, key, from string) {
	t.Helper()
	for t.Context().Err() == nil {
		if list, n := s.hub.Clients([]byte(key), 1); n == 1 {
			if list[0].Remote != from {
				t.Errorf("operators see %q", list[0].Remote)
			}
			return
		}
	}
}

func TestMalformedHandshakesGiveTheirPlaceBack(t *testing.T) {
	s := limited(t, limits.Config{Clients: 1}, nil)
	status, _, _ := s.ask(t, http.MethodGet, "/v1/ws?key=k", http.Header{"Sec-Websocket-Key": nil, limits.ForwardedFor: {"10.0.0.1"}})
	if status != http.StatusBadRequest {
		t.Fatalf("without its key it gets %d", status)
	}
	if _, status := s.open(t, "k", "10.0.0.1"); status != http.StatusSwitchingProtocols {
		t.Errorf("the next one gets %d", status)
	}
}

func TestEveryKeyOfASocketCountsWhileItIsFollowed(t *testing.T) {
	const in, own = http.StatusSwitchingProtocols, http.StatusTooManyRequests
	s := limited(t, limits.Config{PerKey: 1}, nil)
	ws, status := s.open(t, "a&key=b&key=c", "10.0.0.1")
	if status != in {
		t.Fatalf("got %d", status)
	}
	say := func(text, answer string) {
		t.Helper()
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		for {
			_, got, err := ws.Read(t.Context())
			if err != nil {
				t.Fatalf("no answer to %s: %v", text, err)
			}
			if strings.Contains(string(got), answer) {
				return
			}
		}
	}
	taken := func(key string, want int) {
		t.Helper()
		if _, status := s.open(t, key, "10.0.0.2"); status != want {
			t.Errorf("another socket of %s gets %d, want %d", key, status, want)
		}
	}
	for _, key := range []string{"a", "b", "c"} {
		taken(key, own)
	}
	say(`{"type":"unsubscribe","key":"b"}`, `"unsubscribed"`)
	taken("b", in)
	taken("c", own)
	say(`{"type":"subscribe","key":"d","cursor":"`+cursorOf("alice", topicID())+`"}`, `"refused"`)
	taken("d", in)
	say(`{"type":"subscribe","key":"d"}`, `"refused"`) // it is taken
}

// Each renewal costs the check of a signature.
func TestRenewalsHaveARate(t *testing.T) {
	s := limited(t, limits.Config{}, nil)
	for _, query := range []string{"a", "a&key=b"} {
		ws, status := s.open(t, query, "10.0.0.1")
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("got %d", status)
		}
		for range 60 {
			if ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"auth","token":"x"}`)) != nil {
				break // it may be closed at any moment
			}
		}
		var end websocket.CloseError
		if err := drain(t, ws); !errors.As(err, &end) || end.Code != closecode.TooManyMessages {
			t.Errorf("it ended with %v", err)
		}
	}
}

func TestKeysThatASocketHasTooManyAreCounted(t *testing.T) {
	hits := map[limits.Limit]int{}
	s := limited(t, limits.Config{Count: func(l limits.Limit) { hits[l]++ }}, nil)
	if status, _, _ := s.ask(t, http.MethodGet, "/v1/ws?several=true"+manyKeys(101), nil); status != http.StatusBadRequest {
		t.Errorf("status %d for 101 keys", status)
	}
	if hits[limits.Keys] != 1 {
		t.Errorf("limits met: %v", hits)
	}
}
