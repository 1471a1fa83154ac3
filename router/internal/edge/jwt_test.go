package edge_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/auth"
	"github.com/pointsmanhq/pointsman/router/internal/auth/authtest"
	"github.com/pointsmanhq/pointsman/router/internal/edge"
)

// counts is what the authenticator counted.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) count(at, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[at+" "+result]++
}

func (c *counts) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[what]
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	// Renamed, as orchestrators do it: nobody sees half a file.
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// secured is an edge that asks for tokens.
func secured(t *testing.T, cfg auth.Config, change func(*edge.Config, *edge.AuthJWT)) (*served, *auth.Verifier, *counts) {
	t.Helper()
	if cfg.JWKS == "" && cfg.SecretFile == "" {
		cfg.SecretFile = filepath.Join(t.TempDir(), "secret")
		write(t, cfg.SecretFile, []byte(authtest.Secret+"\n"))
	}
	v, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	n := &counts{n: map[string]int{}}
	s := serve(t, func(c *edge.Config) {
		j := &edge.AuthJWT{Verifier: v, Count: n.count}
		c.Auth, c.RenewBefore = j, time.Minute
		if change != nil {
			change(c, j)
		}
	}).known()
	hubCtx, stop := context.WithCancel(context.Background())
	wg.Go(func() { s.hub.Run(hubCtx) })
	t.Cleanup(stop)
	return s, v, n
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func TestTokensComeInThreeWays(t *testing.T) {
	s, _, _ := secured(t, auth.Config{}, func(c *edge.Config, j *edge.AuthJWT) {
		c.Origins, j.Cookie = []string{"https://*.example.com"}, "session"
	})
	good := authtest.HMAC(authtest.Secret).Sign(t, authtest.Claims("alice", time.Hour))
	const page, stranger = "https://app.example.com", "https://evil.example"
	sub := func(p ...string) http.Header { return http.Header{"Sec-Websocket-Protocol": {strings.Join(p, ", ")}} }
	cookie := func(origin string, values ...string) http.Header {
		h := http.Header{}
		for _, v := range values {
			h.Add("Cookie", "session="+v)
		}
		if origin != "" {
			h.Set("Origin", origin)
		}
		return h
	}
	both := bearer(good)
	both.Set("Sec-WebSocket-Protocol", clientmsg.JSON+", "+clientmsg.BearerPrefix+good)
	stale := cookie(page, "stale")
	stale.Set("Authorization", "Bearer "+good)
	proxied := sub(clientmsg.JSON, clientmsg.BearerPrefix+good)
	proxied.Set("Authorization", "Basic dTpw")
	for _, c := range []struct {
		name, target string
		header       http.Header
		status       int
		reason       string
	}{
		{"header", "/v1/ws", bearer(good), 101, ""},
		{"header in lower case", "/v1/ws", http.Header{"Authorization": {"bearer  " + good}}, 101, ""},
		{"the same key asked for", "/v1/ws?key=alice", bearer(good), 101, ""},
		{"the same key in base64", "/v1/ws?key_b64=YWxpY2U", bearer(good), 101, ""},
		{"another key asked for", "/v1/ws?key=bob", bearer(good), 403, "another client key"},
		{"a key alone", "/v1/ws?key=alice", nil, 401, "missing"},
		{"nothing", "/v1/ws", nil, 401, "Authorization: Bearer"},
		{"empty", "/v1/ws", http.Header{"Authorization": {"Bearer "}}, 401, "missing"},
		{"another scheme", "/v1/ws", http.Header{"Authorization": {"Basic dTpw"}}, 401, "missing"},
		{"in the address", "/v1/ws?token=" + good, nil, 400, `unknown query parameter "token"`},
		{"subprotocol", "/v1/ws", sub(clientmsg.JSON, clientmsg.BearerPrefix+good), 101, ""},
		{"subprotocol first", "/v1/ws", sub(clientmsg.BearerPrefix+good, clientmsg.JSON), 101, ""},
		{"subprotocol with raw", "/v1/ws", sub(clientmsg.BearerPrefix+good, clientmsg.Raw), 101, ""},
		{"subprotocol beside a proxy's header", "/v1/ws", proxied, 101, ""},
		{"subprotocol alone", "/v1/ws", sub(clientmsg.BearerPrefix + good), 400, "beside the token"},
		{"two ways", "/v1/ws", both, 400, "more than one token"},
		{"two headers", "/v1/ws", http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, 400, "more than one token"},
		{"cookie of an allowed page", "/v1/ws", cookie(page, good), 101, ""},
		{"cookie of a stranger's page", "/v1/ws", cookie(stranger, good), 403, "--origins"},
		{"cookie without an origin", "/v1/ws", cookie("", good), 403, "origin"},
		{"two cookies", "/v1/ws", cookie(page, good, good), 400, "more than one cookie"},
		{"empty cookie", "/v1/ws", cookie(page, ""), 401, "cookie session"},
		{"header wins over the cookie", "/v1/ws", stale, 101, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, reason, header := s.ask(t, http.MethodGet, c.target, c.header)
			if status != c.status || !strings.Contains(reason, c.reason) {
				t.Errorf("status %d %q, want %d with %q", status, reason, c.status, c.reason)
			}
			if strings.Contains(reason, good[:20]) || strings.Contains(header.Get("Sec-WebSocket-Protocol"), good[:20]) {
				t.Errorf("the token came back: %q %v", reason, header)
			}
			if challenge := header.Get("WWW-Authenticate"); (status == 401) != (challenge == "Bearer") {
				t.Errorf("status %d with WWW-Authenticate %q", status, challenge)
			}
		})
	}
}

func TestCookiesAreNotTakenUnlessAsked(t *testing.T) {
	s, _, _ := secured(t, auth.Config{}, nil)
	good := authtest.HMAC(authtest.Secret).Sign(t, authtest.Claims("alice", time.Hour))
	status, _, _ := s.ask(t, http.MethodGet, "/v1/ws", http.Header{"Cookie": {"session=" + good}, "Origin": {s.http.URL}})
	if status != 401 {
		t.Errorf("status %d", status)
	}
}

func TestAnyOrigin(t *testing.T) {
	for pattern, want := range map[string]bool{
		"*": true, "https://*": true, "*.*": true, "http://*": true, "*.invalid": true,
		"https://*.example.com": false, "app.example.com": false, "localhost:*": false,
	} {
		if got := edge.AnyOrigin([]string{"one.example", pattern}); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}

// listen connects with a token and gives the socket.
func (s *served) listen(t *testing.T, token string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.http.URL, "http")+"/v1/ws?"+url.Values{"from": {"latest"}}.Encode(),
		&websocket.DialOptions{HTTPHeader: bearer(token)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

func send(t *testing.T, ws *websocket.Conn, msg []byte) {
	t.Helper()
	if err := ws.Write(t.Context(), websocket.MessageText, msg); err != nil {
		t.Fatal(err)
	}
}

// until reads messages until one of a type comes.
func until(t *testing.T, ws *websocket.Conn, kind string) clientmsg.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, msg, err := ws.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", kind, err)
		}
		m, err := clientmsg.Parse(msg)
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == kind {
			return m
		}
	}
}

func TestKeysOfATokenAreItsListAndNoOthers(t *testing.T) {
	t.Parallel()
	s, _, _ := secured(t, auth.Config{}, nil)
	token := func(keys ...any) string {
		c := authtest.Claims("", time.Hour)
		c["sub"] = keys
		return authtest.HMAC(authtest.Secret).Sign(t, c)
	}
	three := token("alice", "bob", "carol", "bob")
	for _, tt := range []struct {
		query   string
		status  int
		several bool
		keys    int32
	}{
		{"", 101, true, 3},
		{"?key=bob&key=alice", 101, true, 2},
		{"?key=bob&several=true", 101, true, 1},
		{"?several=none", 101, true, 0}, // they come later, one by one
		{"?key=bob", 101, false, 0},     // a client that knows of one key only
		{"?key=bob&key=dave", 403, false, 0},
	} {
		if status, reason, _ := s.ask(t, http.MethodGet, "/v1/ws"+tt.query, bearer(three)); status != tt.status {
			t.Errorf("%s: %d %q", tt.query, status, reason)
		}
	}
	dial := func(query url.Values, token string) *websocket.Conn {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.http.URL, "http")+"/v1/ws?"+query.Encode(), &websocket.DialOptions{HTTPHeader: bearer(token)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		return ws
	}
	ws := dial(url.Values{"key": {"alice", "bob"}}, three)
	if h := until(t, ws, clientmsg.TypeHello); !h.Several || h.Keys != 2 {
		t.Fatalf("hello %+v", h)
	}
	send(t, ws, clientmsg.AppendSubscribe(nil, []byte("dave"), "", ""))
	if m := until(t, ws, clientmsg.TypeRefused); m.Reason != clientmsg.RefusedForbidden {
		t.Errorf("%+v", m)
	}
	// A fresh token may name more keys; they are not added to what the socket may follow.
	send(t, ws, clientmsg.AppendAuth(nil, token("dave", "carol", "bob", "alice")))
	send(t, ws, clientmsg.AppendSubscribe(nil, []byte("dave"), "", ""))
	if m := until(t, ws, clientmsg.TypeRefused); m.Reason != clientmsg.RefusedForbidden {
		t.Errorf("%+v", m)
	}
	send(t, ws, clientmsg.AppendSubscribe(nil, []byte("carol"), "", ""))
	send(t, ws, clientmsg.AppendSubscribe(nil, []byte("carol"), "", ""))
	if m := until(t, ws, clientmsg.TypeRefused); m.Reason != clientmsg.RefusedAlready {
		t.Errorf("%+v", m)
	}
	// One that lacks a key that the first one named ends the socket, whether that key is followed or not.
	other := dial(url.Values{"key": {"alice"}, "several": {"true"}}, three)
	for _, ws := range []*websocket.Conn{ws, other} {
		send(t, ws, clientmsg.AppendAuth(nil, token("alice", "bob")))
		if code, _ := closed(t, ws); code != closecode.CredentialsRefused {
			t.Errorf("closed with %d", code)
		}
	}
}

// short is a life that leaves two seconds between the warning and the end.
const short = 6 * time.Second

func TestClientIsWarnedAndThenClosed(t *testing.T) {
	t.Parallel()
	s, _, n := secured(t, auth.Config{Leeway: -1}, nil)
	ws := s.listen(t, authtest.HMAC(authtest.Secret).Sign(t, authtest.Claims("alice", short)))
	m := until(t, ws, clientmsg.TypeExpiring)
	if m.ExpiresIn <= 0 || m.ExpiresIn > short/2 {
		t.Errorf("expires in %s, want about a third of %s", m.ExpiresIn, short)
	}
	if code, reason := closed(t, ws); code != closecode.CredentialsExpired || reason == "" {
		t.Errorf("closed with %d %q, want %d", code, reason, closecode.CredentialsExpired)
	}
	if n.of("upgrade ok") != 1 {
		t.Errorf("counted %v", n.n)
	}
}

func TestRenewedClientOutlivesItsFirstToken(t *testing.T) {
	t.Parallel()
	s, _, n := secured(t, auth.Config{Leeway: -1}, nil)
	life := short
	ws, end, renewed := s.renew(t, n, life)
	for !renewed && life < time.Minute {
		life *= 2 // the machine stood still between the warning and the end, which proves nothing
		ws, end, renewed = s.renew(t, n, life)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience+life)
	defer cancel()
	go func() { _, _, _ = ws.Read(ctx) }() // takes the pongs
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end.Add(1500 * time.Millisecond)) {
		<-tick.C
		if err := ws.Ping(ctx); err != nil {
			t.Fatalf("the connection is gone: %v", err)
		}
	}
}

// renew listens with a token of a short life and renews it when warned; in says whether that was done before the end.
func (s *served) renew(t *testing.T, n *counts, life time.Duration) (ws *websocket.Conn, end time.Time, in bool) {
	t.Helper()
	key := authtest.HMAC(authtest.Secret)
	before := n.of("message ok")
	end = time.Now().Add(life)
	ws = s.listen(t, key.Sign(t, authtest.Claims("alice", life)))
	ctx, cancel := context.WithTimeout(t.Context(), patience+life)
	defer cancel()
	for {
		_, msg, err := ws.Read(ctx)
		if websocket.CloseStatus(err) == closecode.CredentialsExpired {
			return ws, end, false
		}
		if err != nil {
			t.Fatal(err)
		}
		if m, err := clientmsg.Parse(msg); err != nil {
			t.Fatal(err)
		} else if m.Type == clientmsg.TypeExpiring {
			break
		}
	}
	send(t, ws, clientmsg.AppendAuth(nil, key.Sign(t, authtest.Claims("alice", time.Hour))))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n.of("message ok") == before {
		// Tokens count in whole seconds, so this one ends up to a second before end.
		if <-tick.C; time.Now().After(end.Add(-time.Second)) {
			return ws, end, n.of("message ok") != before
		}
	}
	return ws, end, true
}

func TestRenewalMayShortenALife(t *testing.T) {
	t.Parallel()
	s, _, _ := secured(t, auth.Config{Leeway: -1}, nil)
	key := authtest.HMAC(authtest.Secret)
	ws := s.listen(t, key.Sign(t, authtest.Claims("alice", time.Hour)))
	send(t, ws, clientmsg.AppendAuth(nil, key.Sign(t, authtest.Claims("alice", 2*time.Second))))
	if code, _ := closed(t, ws); code != closecode.CredentialsExpired {
		t.Errorf("closed with %d, want %d", code, closecode.CredentialsExpired)
	}
}

func TestRenewalsThatAreRefusedCloseTheSocket(t *testing.T) {
	s, _, n := secured(t, auth.Config{}, nil)
	key := authtest.HMAC(authtest.Secret)
	first := key.Sign(t, authtest.Claims("alice", time.Hour))
	for _, c := range []struct {
		name, token, counted string
	}{
		{"another key", key.Sign(t, authtest.Claims("bob", time.Hour)), "other_key"},
		{"expired", key.Sign(t, authtest.Claims("alice", -time.Hour)), "expired"},
		{"another secret", authtest.HMAC(strings.Repeat("x", 32)).Sign(t, authtest.Claims("alice", time.Hour)), "signature"},
		{"no token", "hello", "malformed"},
		{"100 KB", strings.Repeat(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":`)), 10240), "too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ws := s.listen(t, first)
			send(t, ws, clientmsg.AppendAuth(nil, c.token))
			code, reason := closed(t, ws)
			if code != closecode.CredentialsRefused || reason == "" || strings.Contains(reason, c.token) {
				t.Errorf("closed with %d %q, want %d", code, reason, closecode.CredentialsRefused)
			}
			if n.of("message "+c.counted) != 1 {
				t.Errorf("counted %v, want %s", n.n, c.counted)
			}
		})
	}
}

func TestRenewalThatCannotBeJudgedLeavesTheClientAsItIs(t *testing.T) {
	known, unknown := authtest.EC(t, "known"), authtest.EC(t, "unknown")
	issuer := authtest.NewIssuer(t)
	issuer.Serve(authtest.Set(t, known))
	s, v, n := secured(t, auth.Config{JWKS: issuer.URL, Cooldown: time.Hour}, nil)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for v.Ready() != nil {
		<-tick.C
	}
	ws := s.listen(t, known.Sign(t, authtest.Claims("alice", time.Hour)))
	send(t, ws, clientmsg.AppendAuth(nil, unknown.Sign(t, authtest.Claims("alice", time.Hour))))
	send(t, ws, clientmsg.AppendAuth(nil, known.Sign(t, authtest.Claims("alice", time.Hour))))
	send(t, ws, clientmsg.AppendAuth(nil, known.Sign(t, authtest.Claims("bob", time.Hour))))
	// The last one is what closes it; the first did not.
	if code, _ := closed(t, ws); code != closecode.CredentialsRefused {
		t.Errorf("closed with %d", code)
	}
	for what, want := range map[string]int{"message unavailable": 1, "message ok": 1, "message other_key": 1} {
		if got := n.of(what); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
}

func TestHandshakeIsAnsweredWhileKeysAreUnknown(t *testing.T) {
	known, unknown := authtest.EC(t, "known"), authtest.EC(t, "unknown")
	issuer := authtest.NewIssuer(t)
	s, v, _ := secured(t, auth.Config{JWKS: issuer.URL, Refresh: time.Millisecond, Cooldown: time.Nanosecond}, nil)
	ask := func(k *authtest.Key) (int, string) {
		status, _, header := s.ask(t, http.MethodGet, "/v1/ws", bearer(k.Sign(t, authtest.Claims("alice", time.Hour))))
		return status, header.Get("Retry-After")
	}
	if status, retry := ask(known); status != 503 || retry == "" {
		t.Errorf("without keys: %d, Retry-After %q", status, retry)
	}
	issuer.Serve(authtest.Set(t, known))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for v.Ready() != nil {
		<-tick.C
	}
	if status, _ := ask(known); status != 101 {
		t.Errorf("with keys: %d", status)
	}
	if status, _ := ask(unknown); status != 401 && status != 503 {
		t.Errorf("an unknown key: %d", status)
	}
}

// TestEachKindOfTokenHasItsAnswer is what a client is told, before the upgrade and on an open socket. The verdicts
// themselves are tested beside the verifier.
func TestEachKindOfTokenHasItsAnswer(t *testing.T) {
	rs, other := authtest.RSA(t, "rs", 2048), authtest.RSA(t, "rs", 2048)
	claims := func(more ...any) map[string]any {
		c := map[string]any{"sub": "alice", "aud": "us", "exp": time.Now().Add(time.Hour).Unix()}
		for i := 0; i < len(more); i += 2 {
			c[more[i].(string)] = more[i+1]
		}
		return c
	}
	der, err := x509.MarshalPKIXPublicKey(rs.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	stranger := *other
	stranger.ID = "nobody"
	issuer := authtest.NewIssuer(t)
	issuer.Serve(authtest.Set(t, rs))
	s, v, _ := secured(t, auth.Config{JWKS: issuer.URL, Audiences: []string{"us"}, Cooldown: time.Nanosecond}, nil)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for v.Ready() != nil {
		<-tick.C
	}
	const stays = 0
	for _, c := range []struct {
		name, token  string
		status, code int
	}{
		{"good", rs.Sign(t, claims()), 101, stays},
		{"alg none", (&authtest.Key{Method: jwt.SigningMethodNone, Private: jwt.UnsafeAllowNoneSignatureType}).Sign(t, claims()), 401, 4009},
		{"HS256 with the RSA public key", (&authtest.Key{ID: "rs", Method: jwt.SigningMethodHS256, Private: public}).Sign(t, claims()), 401, 4009},
		{"wrong kid", stranger.Sign(t, claims()), 401, 4009},
		{"wrong key", other.Sign(t, claims()), 401, 4009},
		{"expired", rs.Sign(t, claims("exp", time.Now().Add(-time.Minute).Unix())), 401, 4009},
		{"not yet valid", rs.Sign(t, claims("nbf", time.Now().Add(time.Minute).Unix())), 401, 4009},
		{"wrong audience", rs.Sign(t, claims("aud", "them")), 401, 4009},
		{"a claim that is not a string", rs.Sign(t, claims("sub", 7)), 403, 4009},
		{"a claim that is a list", rs.Sign(t, claims("sub", []string{"alice", "bob"})), 101, stays},
		{"a claim that is a list without the key", rs.Sign(t, claims("sub", []string{"bob", "carol"})), 101, 4009},
		{"a claim that is a list of other things", rs.Sign(t, claims("sub", []any{"alice", 7})), 403, 4009},
		{"a claim that is an empty list", rs.Sign(t, claims("sub", []any{})), 403, 4009},
		{"another client key", rs.Sign(t, claims("sub", "bob")), 101, 4009},
		{"20 KB", rs.Sign(t, claims("x", strings.Repeat("x", 20<<10))), 401, 4009},
		{"100 KB", rs.Sign(t, claims("x", strings.Repeat("x", 75<<10))), 401, 4009}, // 431 from the router's server
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, reason, _ := s.ask(t, http.MethodGet, "/v1/ws", bearer(c.token)); status != c.status || reason == "" && status != 101 {
				t.Errorf("upgrade: %d %q, want %d and a reason", status, reason, c.status)
			}
			ws := s.listen(t, rs.Sign(t, claims()))
			send(t, ws, clientmsg.AppendAuth(nil, c.token))
			want := c.code
			if c.code == stays {
				send(t, ws, []byte("bye")) // a code of its own, if the one before did nothing
				want = closecode.UnsupportedData
			}
			if code, reason := closed(t, ws); code != want || reason == "" {
				t.Errorf("message: %d %q, want %d and a reason", code, reason, want)
			}
		})
	}
}
