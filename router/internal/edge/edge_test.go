package edge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/edge"
	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

const patience = 10 * time.Second

type noPool struct{}

func (noPool) Set(links.Expect, []links.Want) {}

// served is an edge over a hub without nodes: whoever is accepted waits.
type served struct {
	hub  *hub.Hub
	edge *edge.Edge
	http *httptest.Server
}

func serve(t *testing.T, change func(*edge.Config)) *served {
	t.Helper()
	set := metrics.New(prometheus.NewRegistry(), metrics.Gauges{})
	h := hub.New(hub.Config{
		Topic:     "records",
		Session:   session.Config{Window: 64 << 10, Heartbeat: time.Minute},
		Limits:    clientconn.Limits{Ping: time.Minute, Dead: time.Minute, Stall: time.Minute},
		ReadLimit: clientmsg.MaxControl, Logger: zap.NewNop(), Metrics: set,
	})
	h.Use(noPool{})
	cfg := edge.Config{Auth: edge.AuthNone{}, ResumeTimeout: patience, Logger: zap.NewNop(), Metrics: set}
	if change != nil {
		change(&cfg)
	}
	s := &served{hub: h, edge: edge.New(cfg, h)}
	s.http = httptest.NewServer(s.edge)
	t.Cleanup(func() {
		s.http.Close()
		h.Cut()
	})
	return s
}

func topicID() [16]byte { return [16]byte{15: 7} }

// known tells the hub about the topic.
func (s *served) known() *served {
	s.hub.Picture(table.Picture{Topic: &directory.Topic{
		V: 1, TopicID: directory.FormatTopicID(topicID()), Partitions: 8, Partitioner: "murmur2",
	}})
	return s
}

// ask sends one request by hand and returns the answer.
func (s *served) ask(t *testing.T, method, target string, header http.Header) (status int, reason string, got http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][]string{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	} {
		req.Header[name] = values
	}
	for name, values := range header {
		if values == nil {
			req.Header.Del(name)
			continue
		}
		req.Header[name] = values
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, "", resp.Header
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func cursorOf(key string, topic [16]byte) string {
	return cursor.Encode(cursor.Cursor{TopicID: topic, Feeds: []cursor.Feed{{
		Key: cursor.Hash([]byte(key)), Positions: []cursor.Position{{Partition: 1, Next: 5}},
	}}})
}

// doneWith is a cursor that no router sends: it names no place.
func doneWith(key string, partitions ...int32) string {
	f := cursor.Feed{Key: cursor.Hash([]byte(key))}
	for _, p := range partitions {
		f.Positions = append(f.Positions, cursor.Position{Partition: p, Next: math.MaxInt64})
	}
	return cursor.Encode(cursor.Cursor{TopicID: topicID(), Feeds: []cursor.Feed{f}})
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&key=%d", i)
	}
	return b.String()
}

func TestRequestsAreJudgedBeforeTheUpgrade(t *testing.T) {
	s := serve(t, func(c *edge.Config) { c.Origins = []string{"https://*.example.com", "localhost:*"} }).known()
	valid := cursorOf("alice", topicID())
	proto := func(p ...string) http.Header { return http.Header{"Sec-Websocket-Protocol": p} }
	origin := func(o string) http.Header { return http.Header{"Origin": {o}} }
	for _, c := range []struct {
		name   string
		target string
		header http.Header
		method string
		status int
		reason string // part of the one line
	}{
		{name: "key", target: "/v1/ws?key=alice", status: 101},
		{name: "key with spaces", target: "/v1/ws?key=al%20ice+x", status: 101},
		{name: "binary key", target: "/v1/ws?key_b64=_-8", status: 101},
		{name: "empty key, on purpose", target: "/v1/ws?key_b64=", status: 101},
		{name: "latest", target: "/v1/ws?key=a&from=latest", status: 101},
		{name: "earliest", target: "/v1/ws?key=a&from=earliest", status: 101},
		{name: "offset", target: "/v1/ws?key=a&from=42", status: 101},
		{name: "time", target: "/v1/ws?key=a&from=2026-01-02T03:04:05.006Z", status: 101},
		{name: "time with a zone", target: "/v1/ws?key=a&from=2026-01-02T03:04:05%2B02:00", status: 101},
		{name: "cursor", target: "/v1/ws?key=alice&cursor=" + valid, status: 101},
		{name: "cursor of a topic that was recreated", target: "/v1/ws?key=alice&cursor=" + cursorOf("alice", [16]byte{1}), status: 101},
		{name: "resume by message", target: "/v1/ws?key=a&resume=message", status: 101},
		{name: "json asked for", target: "/v1/ws?key=a", header: proto(clientmsg.JSON), status: 101},
		{name: "raw asked for", target: "/v1/ws?key=a", header: proto("x, " + clientmsg.Raw), status: 101},
		{name: "token beside json", target: "/v1/ws?key=a", header: proto(clientmsg.BearerPrefix+"t", clientmsg.JSON), status: 101},
		{name: "allowed origin", target: "/v1/ws?key=a", header: origin("https://app.example.com"), status: 101},
		{name: "allowed host", target: "/v1/ws?key=a", header: origin("http://LOCALHOST:3000"), status: 101},

		{name: "wrong path", target: "/ws?key=a", status: 404, reason: "/v1/ws"},
		{name: "root", target: "/", status: 404, reason: "/v1/ws"},
		{name: "post", target: "/v1/ws?key=a", method: http.MethodPost, status: 405, reason: "GET"},
		{name: "not a websocket", target: "/v1/ws?key=a", header: http.Header{"Upgrade": nil, "Connection": nil}, status: 426, reason: "WebSocket"},
		{name: "old websocket", target: "/v1/ws?key=a", header: http.Header{"Sec-Websocket-Version": {"8"}}, status: 400, reason: "version"},
		{name: "no handshake key", target: "/v1/ws?key=a", header: http.Header{"Sec-Websocket-Key": nil}, status: 400, reason: "Sec-WebSocket-Key"},
		{name: "no key", target: "/v1/ws", status: 400, reason: "key is missing"},
		{name: "empty key", target: "/v1/ws?key=", status: 400, reason: "key_b64="},
		{name: "several keys", target: "/v1/ws?key=a&key=b", status: 101},
		{name: "several binary keys", target: "/v1/ws?key_b64=_-8&key_b64=", status: 101},
		{name: "several keys to come", target: "/v1/ws?several=true", status: 101},
		{name: "no key yet", target: "/v1/ws?several=none", status: 101},
		{name: "no key yet, and a key", target: "/v1/ws?several=none&key=a", status: 400, reason: "leave key"},
		{name: "several keys from the oldest", target: "/v1/ws?key=a&key=b&from=earliest", status: 101},
		{name: "cursor of one of several keys", target: "/v1/ws?key=alice&key=bob&cursor=" + valid, status: 101},
		{name: "cursors joined", target: "/v1/ws?key=alice&key=bob&from=earliest&cursor=" + valid + "." + valid, status: 101},
		{name: "the same key twice", target: "/v1/ws?key=a&key=a", status: 400, reason: "more than once"},
		{name: "cursor twice", target: "/v1/ws?key=alice&cursor=" + valid + "&cursor=" + valid, status: 400, reason: "more than once"},
		{name: "several not", target: "/v1/ws?key=a&several=false", status: 400, reason: "true"},
		{name: "several keys from an offset", target: "/v1/ws?key=a&key=b&from=7", status: 400, reason: "one by one"},
		{name: "too many keys", target: "/v1/ws?several=true" + manyKeys(101), status: 400, reason: "more than the 100"},
		{name: "several keys, another's cursor", target: "/v1/ws?key=a&key=b&cursor=" + valid, status: 403, reason: "another key"},
		{name: "several keys, damaged cursor", target: "/v1/ws?key=alice&key=b&cursor=" + valid + ".x", status: 400, reason: "cursor"},
		{name: "several keys raw", target: "/v1/ws?key=a&key=b", header: proto(clientmsg.Raw), status: 400, reason: "one key"},
		{name: "both keys", target: "/v1/ws?key=a&key_b64=YQ", status: 400, reason: "not both"},
		{name: "bad base64", target: "/v1/ws?key_b64=!!", status: 400, reason: "base64"},
		{name: "huge key", target: "/v1/ws?key=" + strings.Repeat("k", 5000), status: 400, reason: "5000 bytes"},
		{name: "misspelt parameter", target: "/v1/ws?key=a&curser=x", status: 400, reason: `"curser"`},
		{name: "broken escapes", target: "/v1/ws?key=%zz", status: 400, reason: "query"},
		{name: "bad from", target: "/v1/ws?key=a&from=yesterday", status: 400, reason: "RFC 3339"},
		{name: "negative offset", target: "/v1/ws?key=a&from=-1", status: 400, reason: "negative"},
		{name: "cursor and from", target: "/v1/ws?key=alice&from=latest&cursor=" + valid, status: 400, reason: "not both"},
		{name: "empty cursor", target: "/v1/ws?key=a&cursor=", status: 400, reason: "empty"},
		{name: "malformed cursor", target: "/v1/ws?key=a&cursor=nonsense", status: 400, reason: "cursor"},
		{name: "damaged cursor", target: "/v1/ws?key=alice&cursor=" + valid[:20] + "x" + valid[21:], status: 400, reason: "damaged"},
		{name: "cursor that is done with every partition", target: "/v1/ws?key=alice&cursor=" + doneWith("alice", 0), status: 400, reason: "no place"},
		{name: "another key's cursor", target: "/v1/ws?key=bob&cursor=" + valid, status: 403, reason: "another key"},
		{name: "resume otherwise", target: "/v1/ws?key=a&resume=yes", status: 400, reason: "message"},
		{name: "resume and cursor", target: "/v1/ws?key=alice&resume=message&cursor=" + valid, status: 400, reason: "first message"},
		{name: "unknown subprotocol", target: "/v1/ws?key=a", header: proto("chat"), status: 400, reason: clientmsg.JSON},
		{name: "token alone", target: "/v1/ws?key=a", header: proto(clientmsg.BearerPrefix + "t"), status: 400, reason: "beside the token"},
		{name: "raw with a cursor", target: "/v1/ws?key=alice&cursor=" + valid, header: proto(clientmsg.Raw), status: 400, reason: "no cursors"},
		{name: "foreign origin", target: "/v1/ws?key=a", header: origin("https://evil.example"), status: 403, reason: "--origins"},
		{name: "origin of another scheme", target: "/v1/ws?key=a", header: origin("http://app.example.com"), status: 403, reason: "--origins"},
		{name: "null origin", target: "/v1/ws?key=a", header: origin("null"), status: 403, reason: "--origins"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.method == "" {
				c.method = http.MethodGet
			}
			status, reason, header := s.ask(t, c.method, c.target, c.header)
			if status != c.status || !strings.Contains(reason, c.reason) {
				t.Errorf("status %d %q, want %d with %q", status, reason, c.status, c.reason)
			}
			if status != 101 && strings.Count(strings.TrimSpace(reason), "\n") > 0 {
				t.Errorf("the reason has more than one line: %q", reason)
			}
			if got := header.Get("Sec-WebSocket-Protocol"); strings.HasPrefix(got, clientmsg.BearerPrefix) {
				t.Errorf("a token came back: %q", got)
			}
		})
	}
}

func TestSameOriginIsAllowed(t *testing.T) {
	s := serve(t, nil).known()
	if status, reason, _ := s.ask(t, http.MethodGet, "/v1/ws?key=a", http.Header{"Origin": {s.http.URL}}); status != 101 {
		t.Errorf("status %d %q", status, reason)
	}
	if status, _, _ := s.ask(t, http.MethodGet, "/v1/ws?key=a", http.Header{"Origin": {"http://other"}}); status != 403 {
		t.Errorf("status %d", status)
	}
}

func TestClientsAreAskedToComeBackWhileTheTopicIsUnknownOrTheRouterStops(t *testing.T) {
	s := serve(t, nil)
	status, reason, header := s.ask(t, http.MethodGet, "/v1/ws?key=a", nil)
	if status != 503 || header.Get("Retry-After") == "" || !strings.Contains(reason, "etcd") {
		t.Errorf("status %d %q, %v", status, reason, header)
	}
	s.known()
	if status, _, _ := s.ask(t, http.MethodGet, "/v1/ws?key=a", nil); status != 101 {
		t.Errorf("status %d once the topic is known", status)
	}
	s.edge.Refuse()
	status, reason, header = s.ask(t, http.MethodGet, "/v1/ws?key=a", nil)
	if status != 503 || header.Get("Retry-After") == "" || !strings.Contains(reason, "stopping") {
		t.Errorf("status %d %q, %v", status, reason, header)
	}
}

func (s *served) dial(t *testing.T, query url.Values) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.http.URL, "http")+"/v1/ws?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

func closed(t *testing.T, ws *websocket.Conn) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, _, err := ws.Read(ctx)
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if !errors.As(err, &ce) {
			t.Fatalf("ended with %v, want a close", err)
		}
		return int(ce.Code), ce.Reason
	}
}

func TestMessagesOfClientsAreJudged(t *testing.T) {
	valid, others := cursorOf("alice", topicID()), cursorOf("bob", topicID())
	for _, c := range []struct {
		name   string
		resume bool
		binary bool
		send   string
		code   int
	}{
		{name: "data", send: "hello", code: closecode.UnsupportedData},
		{name: "text that is not text", send: "\xff\xfe", code: closecode.InvalidData},
		{name: "binary data", binary: true, send: "hello", code: closecode.UnsupportedData},
		{name: "unknown type", send: `{"type":"publish"}`, code: closecode.UnsupportedData},
		{name: "subscribe to nothing", send: `{"type":"subscribe"}`, code: closecode.UnsupportedData},
		{name: "late resume", send: `{"type":"resume","cursor":"` + valid + `"}`, code: closecode.Policy},
		{name: "not a resume", resume: true, send: `{"type":"auth","token":"t"}`, code: closecode.BadRequest},
		{name: "not control", resume: true, send: `hello`, code: closecode.BadRequest},
		{name: "binary resume", resume: true, binary: true, send: `{}`, code: closecode.UnsupportedData},
		{name: "bad cursor", resume: true, send: `{"type":"resume","cursor":"x"}`, code: closecode.BadCursor},
		{name: "cursor that is done with every partition", resume: true, send: `{"type":"resume","cursor":"` + doneWith("alice", 0, 1) + `"}`, code: closecode.BadCursor},
		{name: "another key's cursor", resume: true, send: `{"type":"resume","cursor":"` + others + `"}`, code: closecode.ForeignCursor},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil).known()
			q := url.Values{"key": {"alice"}}
			if c.resume {
				q.Set("resume", "message")
			}
			ws := s.dial(t, q)
			kind := websocket.MessageText
			if c.binary {
				kind = websocket.MessageBinary
			}
			if err := ws.Write(t.Context(), kind, []byte(c.send)); err != nil {
				t.Fatal(err)
			}
			if code, reason := closed(t, ws); code != c.code || reason == "" {
				t.Errorf("closed with %d %q, want %d", code, reason, c.code)
			}
		})
	}
}

func TestFreshCredentialsWhereNobodyAsksForThemAreNoMistake(t *testing.T) {
	s := serve(t, nil).known()
	ws := s.dial(t, url.Values{"key": {"alice"}})
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"auth","token":"t"}`)); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := ws.Read(t.Context()); err != nil || string(msg) != `{"type":"waiting"}` {
		t.Errorf("got %q, %v", msg, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { _, _, _ = ws.Read(ctx) }() // takes the pong
	if err := ws.Ping(ctx); err != nil {
		t.Errorf("the connection is gone: %v", err)
	}
}

func TestResumeMessageMustComeInTime(t *testing.T) {
	s := serve(t, func(c *edge.Config) { c.ResumeTimeout = 50 * time.Millisecond }).known()
	ws := s.dial(t, url.Values{"key": {"alice"}, "resume": {"message"}})
	if code, _ := closed(t, ws); code != closecode.ControlTimeout {
		t.Errorf("closed with %d, want %d", code, closecode.ControlTimeout)
	}
}

func TestHandshakeOfHalfAClientIsNoSession(t *testing.T) {
	s := serve(t, nil).known()
	raw, err := net.Dial("tcp", s.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	if _, err := raw.Write([]byte("GET /v1/ws?key=a HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
	if err != nil || resp.StatusCode == http.StatusSwitchingProtocols {
		t.Errorf("HTTP/1.0 was upgraded: %v %v", resp, err)
	}
	if got := s.hub.Sessions(); got != 0 {
		t.Errorf("%d sessions", got)
	}
}

func TestOriginPatternsAreChecked(t *testing.T) {
	if err := edge.CheckOrigins([]string{"https://*.example.com", "*"}); err != nil {
		t.Error(err)
	}
	if err := edge.CheckOrigins([]string{"[bad"}); err == nil {
		t.Error("a malformed pattern was taken")
	}
}

// FuzzRequest sends whatever it likes as a query: an answer must come, never a crash.
func FuzzRequest(f *testing.F) {
	for _, q := range []string{"key=a", "key_b64=_-8&from=earliest", "key=a&cursor=x", "key=a&from=2026-01-02T03:04:05Z", "%zz", "key=a&key=b&several=true&cursor=x.y"} {
		f.Add(q, clientmsg.JSON)
	}
	set := metrics.New(prometheus.NewRegistry(), metrics.Gauges{})
	h := hub.New(hub.Config{Topic: "records", Logger: zap.NewNop(), Metrics: set, Session: session.Config{Window: 1 << 16, Heartbeat: time.Minute}})
	h.Use(noPool{})
	h.Picture(table.Picture{Topic: &directory.Topic{V: 1, TopicID: directory.FormatTopicID(topicID()), Partitions: 8, Partitioner: "murmur2"}})
	e := edge.New(edge.Config{Auth: edge.AuthNone{}, Logger: zap.NewNop(), Metrics: set}, h)
	f.Fuzz(func(t *testing.T, query, protocol string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
		r.URL.RawQuery = query
		r.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {protocol},
		}
		w := &unwilling{ResponseRecorder: httptest.NewRecorder()}
		e.ServeHTTP(w, r)
		if !w.asked && (w.Code < 400 || w.Code == http.StatusInternalServerError) {
			t.Errorf("status %d", w.Code)
		}
	})
}

// unwilling does not give its connection away: a valid request goes no further.
type unwilling struct {
	*httptest.ResponseRecorder
	asked bool
}

func (u *unwilling) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	u.asked = true
	return nil, nil, errors.New("not this one")
}
