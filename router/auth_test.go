package router_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"

	"github.com/pointsmanhq/pointsman/router"
	"github.com/pointsmanhq/pointsman/router/internal/auth/authtest"
)

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(authtest.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRouterWithoutKeysAsksClientsToComeBack(t *testing.T) {
	key := authtest.EC(t, "k")
	issuer := authtest.NewIssuer(t)
	core, logs := observer.New(zap.InfoLevel)
	cfg := config(t)
	cfg.Auth, cfg.JWKS = "jwt", issuer.URL
	r, stop := running(t, cfg, zap.New(core))
	ask := func() (int, string) {
		return get(t, "http://"+r.Addr()+"/v1/ws", "Connection", "Upgrade", "Upgrade", "websocket",
			"Authorization", "Bearer "+key.Sign(t, authtest.Claims("alice", time.Hour)))
	}
	if status, body := ask(); status != http.StatusServiceUnavailable || !strings.Contains(body, "keys") {
		t.Errorf("without keys: %d %q", status, body)
	}
	if status, _ := get(t, "http://"+r.Addr()+"/v1/ws", "Connection", "Upgrade", "Upgrade", "websocket",
		"Authorization", "Bearer "+strings.Repeat("x", 100<<10)); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a token of 100 KB: %d", status)
	}
	waitFor(t, "the log to tell", func() bool { return logs.FilterMessage("keys of tokens cannot be loaded").Len() > 0 })
	if failures, age := exposed(t, r, "auth_key_failures_total"), exposed(t, r, "auth_keys_age_seconds"); failures < 1 || age != 0 {
		t.Errorf("without keys: %v failures to load them, %v s old", failures, age)
	}
	issuer.Serve(authtest.Set(t, key))
	// The token is taken; what is missing now is the topic, because there is no etcd.
	waitFor(t, "keys to be loaded", func() bool {
		status, body := ask()
		return status == http.StatusServiceUnavailable && strings.Contains(body, "topic")
	})
	if _, body := get(t, "http://"+r.AdminAddr()+"/metrics"); !strings.Contains(body, "pointsman_router_auth_keys 1\n") ||
		!strings.Contains(body, `pointsman_router_auth_total{at="upgrade",result="ok"} 1`) {
		t.Error("the metrics do not count keys and tokens")
	}
	waitFor(t, "the keys to grow older", func() bool { return exposed(t, r, "auth_keys_age_seconds") > 0 })
	if err := stop(); err != nil {
		t.Errorf("an orderly stop gave %v", err)
	}
}

// exposed is the number of a metric without labels.
func exposed(t *testing.T, r *router.Router, name string) float64 {
	t.Helper()
	_, body := get(t, "http://"+r.AdminAddr()+"/metrics")
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(line, "pointsman_router_"+name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestTokensStayOutOfLogsAndMetrics sends tokens of all kinds, in every way, and looks for them in everything that
// the router says at its most talkative.
func TestTokensStayOutOfLogsAndMetrics(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	cfg := config(t)
	cfg.Auth, cfg.JWTSecretFile, cfg.JWTCookie = "jwt", secretFile(t), "session"
	r, stop := running(t, cfg, zap.New(core))
	key := authtest.HMAC(authtest.Secret)
	var said strings.Builder
	tokens := []string{
		key.Sign(t, authtest.Claims("sentinel-client", time.Hour)),
		key.Sign(t, authtest.Claims("sentinel-client", -time.Hour)),
		authtest.HMAC(strings.Repeat("wrong", 8)).Sign(t, authtest.Claims("sentinel-client", time.Hour)),
		authtest.RSA(t, "sentinel-kid", 2048).Sign(t, authtest.Claims("sentinel-client", time.Hour)),
		key.Sign(t, map[string]any{"sub": []string{"sentinel-client"}, "exp": time.Now().Add(time.Hour).Unix()}),
		"sentinel-not-a-token",
		"sentinel." + strings.Repeat("c2VudGluZWw", 3000),
	}
	for _, token := range tokens {
		for _, header := range [][]string{
			{"Authorization", "Bearer " + token},
			{"Authorization", "Bearer " + token, "Sec-WebSocket-Protocol", clientmsg.BearerPrefix + token + ", " + clientmsg.JSON},
			{"Sec-WebSocket-Protocol", clientmsg.JSON + ", " + clientmsg.BearerPrefix + token},
			{"Sec-WebSocket-Protocol", clientmsg.BearerPrefix + token},
			{"Cookie", "session=" + token, "Origin", "http://" + r.Addr()},
			{"Cookie", "session=" + token},
		} {
			status, body := get(t, "http://"+r.Addr()+"/v1/ws", append(header, "Connection", "Upgrade", "Upgrade", "websocket")...)
			fmt.Fprintln(&said, status, body)
		}
		if len(token) < 1000 {
			_, body := get(t, "http://"+r.Addr()+"/v1/ws?token="+token, "Connection", "Upgrade", "Upgrade", "websocket")
			said.WriteString(body)
		}
	}
	for _, path := range []string{"/metrics", "/debug/vars", "/readyz"} {
		_, body := get(t, "http://"+r.AdminAddr()+path)
		said.WriteString(body)
	}
	if err := stop(); err != nil {
		t.Errorf("an orderly stop gave %v", err)
	}
	refusals := 0
	for _, e := range logs.All() {
		fmt.Fprintln(&said, e.Message, e.ContextMap())
		if e.Message == "client refused" {
			refusals++
		}
	}
	if refusals == 0 {
		t.Error("the log says nothing of refusals: this test would miss what it looks for")
	}
	text := said.String()
	for _, token := range append(tokens, authtest.Secret) {
		for part := range strings.SplitSeq(token, ".") {
			if len(part) >= 8 && strings.Contains(text, part[:min(len(part), 40)]) {
				t.Errorf("part of a token is in what the router says: %.40s", part)
			}
		}
	}
	if i := strings.Index(text, "sentinel"); i >= 0 {
		t.Errorf("what tokens carry is in what the router says: %.200q", text[max(0, i-100):])
	}
}

func TestTokenSettingsThatContradictEachOtherAreRefused(t *testing.T) {
	for name, change := range map[string]func(*router.Config){
		"no keys":                        func(*router.Config) {},
		"keys without jwt":               func(c *router.Config) { c.Auth, c.JWKS = "none", "k.json" },
		"cookie and everybody's origins": func(c *router.Config) { c.JWKS, c.JWTCookie, c.Origins = "k.json", "t", []string{"*"} },
	} {
		cfg := config(t)
		cfg.Auth = "jwt"
		change(&cfg)
		if _, err := router.New(cfg, router.Deps{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
