package auth_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/router/internal/auth"
	"github.com/pointsmanhq/pointsman/router/internal/auth/authtest"
)

const patience = 10 * time.Second

// file writes a file as orchestrators do: whole, by renaming.
func file(t *testing.T, path string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func temp(t *testing.T, name string, text []byte) string {
	t.Helper()
	return file(t, filepath.Join(t.TempDir(), name), text)
}

// verifier runs a verifier for the length of the test.
func verifier(t *testing.T, cfg auth.Config) *auth.Verifier {
	t.Helper()
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
	return v
}

// ready waits until the keys are there.
func ready(t *testing.T, v *auth.Verifier) *auth.Verifier {
	t.Helper()
	eventually(t, "keys are there", func() bool { return v.Ready() == nil })
	return v
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}

// cause is why a token is refused, "" when it is not.
func cause(t *testing.T, v *auth.Verifier, token string) auth.Cause {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	if err == nil {
		return ""
	}
	why := new(auth.Error)
	if !errors.As(err, &why) {
		t.Fatalf("an error of another kind: %v", err)
	}
	if why.Reason == "" || strings.ContainsAny(why.Reason, "\n") || len(why.Reason) > 123 {
		t.Errorf("reason %q: want one line that fits a close frame", why.Reason)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(why.Reason, part) {
			t.Errorf("the token is in the reason: %q", why.Reason)
		}
	}
	return why.Cause
}

func part(v any) string {
	text, _ := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(text)
}

func TestTokensAreJudged(t *testing.T) {
	rs, es, ed, other := authtest.RSA(t, "rs", 2048), authtest.EC(t, "es"), authtest.Ed(t, "ed"), authtest.RSA(t, "rs", 2048)
	hs := authtest.HMAC(authtest.Secret)
	now := time.Now()
	claims := func(change ...any) map[string]any {
		c := map[string]any{"sub": "alice", "exp": now.Add(time.Hour).Unix(), "iss": "issuer", "aud": []string{"x", "us"}}
		for i := 0; i < len(change); i += 2 {
			if name := change[i].(string); change[i+1] == nil {
				delete(c, name)
			} else {
				c[name] = change[i+1]
			}
		}
		return c
	}
	// The public key as everybody has it, used as if it were a secret.
	der, err := x509.MarshalPKIXPublicKey(rs.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	confused := func(secret []byte) string {
		return (&authtest.Key{ID: "rs", Method: jwt.SigningMethodHS256, Private: secret}).Sign(t, claims())
	}
	none := (&authtest.Key{Method: jwt.SigningMethodNone, Private: jwt.UnsafeAllowNoneSignatureType}).Sign(t, claims())
	good := rs.Sign(t, claims())
	pieces := strings.Split(good, ".")
	kidless := *es
	kidless.ID = ""
	pss := &authtest.Key{ID: "rs", Method: jwt.SigningMethodPS256, Private: rs.Private}
	crossed := &authtest.Key{ID: "ed", Method: es.Method, Private: es.Private}

	set := temp(t, "jwks.json", authtest.Set(t, rs, es, ed))
	secret := temp(t, "secret", []byte(authtest.Secret+"\n"))
	base := auth.Config{JWKS: set, Issuer: "issuer", Audiences: []string{"us", "them"}, Cooldown: time.Nanosecond}
	with := func(change func(*auth.Config)) *auth.Verifier {
		cfg := base
		change(&cfg)
		return ready(t, verifier(t, cfg))
	}
	usual := with(func(*auth.Config) {})
	both := with(func(c *auth.Config) { c.SecretFile = secret })
	secretOnly := with(func(c *auth.Config) { c.JWKS, c.SecretFile = "", secret })
	endless := with(func(c *auth.Config) { c.AllowNoExpiry = true })
	device := with(func(c *auth.Config) { c.KeyClaim = "device" })
	pinned := with(func(c *auth.Config) { c.Algorithms = []string{"ES256"} })
	anybody := with(func(c *auth.Config) { c.Issuer, c.Audiences = "", nil })

	for _, c := range []struct {
		name  string
		v     *auth.Verifier
		token string
		want  auth.Cause // "": taken
	}{
		{"RS256", usual, good, ""},
		{"ES256", usual, es.Sign(t, claims()), ""},
		{"EdDSA", usual, ed.Sign(t, claims()), ""},
		{"HS256", secretOnly, hs.Sign(t, claims()), ""},
		{"HS256 beside a set", both, hs.Sign(t, claims()), ""},
		{"RS256 beside a secret", both, good, ""},
		{"without kid", usual, kidless.Sign(t, claims()), ""},
		{"audience as text", usual, rs.Sign(t, claims("aud", "them")), ""},
		{"expired within the leeway", usual, rs.Sign(t, claims("exp", now.Add(-2*time.Second).Unix())), ""},
		{"not yet within the leeway", usual, rs.Sign(t, claims("nbf", now.Add(2*time.Second).Unix())), ""},
		{"no expiry where allowed", endless, rs.Sign(t, claims("exp", nil)), ""},
		{"another claim", device, rs.Sign(t, claims("device", "d1")), ""},
		{"issuer and audience not looked at", anybody, rs.Sign(t, claims("iss", "x", "aud", nil)), ""},

		{"empty", usual, "", auth.Missing},
		{"alg none", usual, none, auth.Algorithm},
		{"alg none, where a secret is in force, too", both, none, auth.Algorithm},
		{"alg none with a signature", usual, part(map[string]string{"alg": "none"}) + "." + pieces[1] + "." + pieces[2], auth.Algorithm},
		{"alg NoNe", usual, part(map[string]string{"alg": "NoNe"}) + "." + pieces[1] + ".", auth.Algorithm},
		{"no alg", usual, part(map[string]string{"typ": "JWT"}) + "." + pieces[1] + "." + pieces[2], auth.Algorithm},
		{"HS256 with the RSA public key", usual, confused(public), auth.Algorithm},
		{"HS256 with the RSA public key, where a secret is in force, too", both, confused(public), auth.Signature},
		{"HS256 with the RSA public key in DER", both, confused(der), auth.Signature},
		{"HS256 with the RSA modulus", both, confused(rs.Public().(*rsa.PublicKey).N.Bytes()), auth.Signature},
		{"PS256 while RS256 is pinned", usual, pss.Sign(t, claims()), auth.Algorithm},
		{"RS256 while ES256 is pinned", pinned, good, auth.Algorithm},
		{"ES256 that names an EdDSA key", usual, crossed.Sign(t, claims()), auth.UnknownKey},
		{"wrong kid", usual, (&authtest.Key{ID: "nobody", Method: rs.Method, Private: rs.Private}).Sign(t, claims()), auth.UnknownKey},
		{"kid that is no text", usual, rs.SignWith(t, claims(), map[string]any{"kid": 7}), auth.UnknownKey},
		{"another key's signature", usual, other.Sign(t, claims()), auth.Signature},
		{"another secret", secretOnly, authtest.HMAC(strings.Repeat("x", 32)).Sign(t, claims()), auth.Signature},
		{"changed claims", usual, pieces[0] + "." + part(claims("sub", "bob")) + "." + pieces[2], auth.Signature},
		{"no signature", usual, pieces[0] + "." + pieces[1] + ".", auth.Signature},
		{"expired", usual, rs.Sign(t, claims("exp", now.Add(-time.Minute).Unix())), auth.Expired},
		{"expired in 1970", endless, rs.Sign(t, claims("exp", 0)), auth.Expired},
		{"expired in 1970, where an expiry is needed", usual, rs.Sign(t, claims("exp", 0)), auth.Expired},
		{"no expiry", usual, rs.Sign(t, claims("exp", nil)), auth.NoExpiry},
		{"expiry that is no number", usual, rs.Sign(t, claims("exp", "tomorrow")), auth.Malformed},
		{"not valid yet", usual, rs.Sign(t, claims("nbf", now.Add(time.Minute).Unix())), auth.NotYet},
		{"wrong issuer", usual, rs.Sign(t, claims("iss", "other")), auth.Issuer},
		{"no issuer", usual, rs.Sign(t, claims("iss", nil)), auth.Issuer},
		{"wrong audience", usual, rs.Sign(t, claims("aud", []string{"x"})), auth.Audience},
		{"no audience", usual, rs.Sign(t, claims("aud", nil)), auth.Audience},
		{"no client key", usual, rs.Sign(t, claims("sub", nil)), auth.Claim},
		{"no client key in another claim", device, good, auth.Claim},
		{"a client key that is a number", usual, rs.Sign(t, claims("sub", 7)), auth.Claim},
		{"a client key that is null", usual, rs.Sign(t, claims("sub", json.RawMessage("null"))), auth.Claim},
		{"a client key that is an object", usual, rs.Sign(t, claims("sub", map[string]any{"a": 1})), auth.Claim},
		{"an empty client key", usual, rs.Sign(t, claims("sub", "")), auth.Claim},
		{"a huge client key", usual, rs.Sign(t, claims("sub", strings.Repeat("k", auth.MaxKey+1))), auth.Claim},
		{"several client keys", device, rs.Sign(t, claims("device", []string{"d1", "d2"})), ""},
		{"several things", device, rs.Sign(t, claims("device", []any{"d1", 2})), auth.Claim},
		{"several client keys, one empty", device, rs.Sign(t, claims("device", []string{"d1", ""})), auth.Claim},
		{"no client keys", device, rs.Sign(t, claims("device", []string{})), auth.Claim},
		{"lists of client keys", device, rs.Sign(t, claims("device", [][]string{{"d1"}})), auth.Claim},
		{"critical extensions", usual, rs.SignWith(t, claims(), map[string]any{"crit": []string{"exp"}}), auth.Malformed},
		{"not a token", usual, "hello", auth.Malformed},
		{"five parts", usual, good + ".a.b", auth.Malformed},
		{"spaces", usual, " " + good, auth.Malformed},
		{"claims that are no object", usual, pieces[0] + "." + part([]int{1}) + "." + pieces[2], auth.Malformed},
		{"100 KB", usual, rs.Sign(t, claims("more", strings.Repeat("x", 100<<10))), auth.TooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := cause(t, c.v, c.token); got != c.want {
				t.Errorf("refused for %q, want %q", got, c.want)
			}
		})
	}
}

func TestGrantsCarryKeyAndExpiry(t *testing.T) {
	key := authtest.HMAC(authtest.Secret)
	now := time.Now()
	v := verifier(t, auth.Config{SecretFile: temp(t, "secret", []byte(authtest.Secret)), Leeway: 7 * time.Second, AllowNoExpiry: true})
	exp := now.Add(time.Hour).Truncate(time.Second)
	for _, c := range []struct {
		name   string
		claims map[string]any
		want   time.Time
	}{
		{"an hour", map[string]any{"sub": "bücher", "exp": exp.Unix()}, exp.Add(7 * time.Second)},
		{"never", map[string]any{"sub": "bücher"}, time.Time{}},
	} {
		g, err := v.Verify(t.Context(), key.Sign(t, c.claims))
		if err != nil || len(g.Keys) != 1 || string(g.Keys[0]) != "bücher" || !g.Expires.Equal(c.want) {
			t.Errorf("%s: %q %s, %v; want %s", c.name, g.Keys, g.Expires, err, c.want)
		}
	}
	// Far beyond what fits 64 bits of nanoseconds.
	g, err := v.Verify(t.Context(), key.Sign(t, map[string]any{"sub": "a", "exp": int64(1) << 40}))
	if err != nil || g.Expires.UnixNano() < now.UnixNano() {
		t.Errorf("a far expiry: %s, %v", g.Expires, err)
	}
}

func TestKeysAreRotatedByFile(t *testing.T) {
	first, second := authtest.EC(t, "first"), authtest.Ed(t, "second")
	path := temp(t, "jwks.json", authtest.Set(t, first))
	v := ready(t, verifier(t, auth.Config{JWKS: path, Poll: 2 * time.Millisecond, Cooldown: time.Nanosecond}))
	old, fresh := first.Sign(t, authtest.Claims("a", time.Hour)), second.Sign(t, authtest.Claims("a", time.Hour))
	if got := cause(t, v, fresh); got != auth.UnknownKey {
		t.Errorf("a key before its time: %q", got)
	}
	file(t, path, authtest.Set(t, first, second))
	eventually(t, "the new key counts", func() bool { return cause(t, v, fresh) == "" })
	if got := cause(t, v, old); got != "" {
		t.Errorf("the old key, while both are there: %q", got)
	}
	file(t, path, authtest.Set(t, second))
	eventually(t, "the old key does not count", func() bool { return cause(t, v, old) == auth.UnknownKey })
	// Nonsense and nothing leave the last keys in force.
	failures := v.State().Failures
	file(t, path, []byte(`{"keys":`))
	eventually(t, "nonsense is noticed", func() bool { return v.State().Failures > failures })
	if got := cause(t, v, fresh); got != "" || v.Ready() != nil || v.State().Error == "" {
		t.Errorf("after nonsense: %q, ready: %v, %+v", got, v.Ready(), v.State())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := cause(t, v, fresh); got != "" {
		t.Errorf("without the file: %q", got)
	}
	file(t, path, authtest.Set(t, first))
	eventually(t, "the file is back", func() bool { return cause(t, v, old) == "" })
}

func TestSecretIsRotated(t *testing.T) {
	path := temp(t, "secret", []byte(authtest.Secret))
	v := verifier(t, auth.Config{SecretFile: path, Poll: 2 * time.Millisecond})
	next := strings.Repeat("n", 40)
	old, fresh := authtest.HMAC(authtest.Secret).Sign(t, authtest.Claims("a", time.Hour)), authtest.HMAC(next).Sign(t, authtest.Claims("a", time.Hour))
	if got := cause(t, v, old); got != "" {
		t.Errorf("the first secret: %q", got)
	}
	file(t, path, []byte("short"))
	eventually(t, "a short secret is noticed", func() bool { return v.State().Failures > 0 })
	if got := cause(t, v, old); got != "" {
		t.Errorf("the first secret, while a bad one is there: %q", got)
	}
	file(t, path, []byte(next+"\n"))
	eventually(t, "the new secret counts", func() bool { return cause(t, v, fresh) == "" })
	if got := cause(t, v, old); got != auth.Signature {
		t.Errorf("the old secret: %q", got)
	}
}

func TestKeysAreRotatedByURL(t *testing.T) {
	first, second := authtest.EC(t, "first"), authtest.EC(t, "second")
	issuer := authtest.NewIssuer(t)
	issuer.Serve(authtest.Set(t, first))
	v := ready(t, verifier(t, auth.Config{JWKS: issuer.URL, Cooldown: time.Nanosecond}))
	issuer.Serve(authtest.Set(t, first, second))
	// Mid-flight: the first token with the new key makes the router look.
	if got := cause(t, v, second.Sign(t, authtest.Claims("a", time.Hour))); got != "" {
		t.Errorf("the first token with a new key: %q", got)
	}
	if got := cause(t, v, first.Sign(t, authtest.Claims("a", time.Hour))); got != "" {
		t.Errorf("a token with the old key: %q", got)
	}
}

func TestUnknownKeysDoNotWearTheIssuerOut(t *testing.T) {
	known, unknown := authtest.EC(t, "known"), authtest.EC(t, "unknown")
	issuer := authtest.NewIssuer(t)
	issuer.Serve(authtest.Set(t, known))
	v := ready(t, verifier(t, auth.Config{JWKS: issuer.URL, Cooldown: time.Hour}))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := v.Verify(context.Background(), unknown.Sign(t, authtest.Claims("a", time.Hour)))
			why := new(auth.Error)
			if !errors.As(err, &why) || why.Cause != auth.Unavailable || why.Retry <= 0 {
				t.Errorf("%v, want an error that says when to try again", err)
			}
		})
	}
	wg.Wait()
	if n := issuer.Fetches(); n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
	if got := cause(t, v, known.Sign(t, authtest.Claims("a", time.Hour))); got != "" {
		t.Errorf("a known key meanwhile: %q", got)
	}
}

func TestIssuerThatIsAway(t *testing.T) {
	key, unknown := authtest.EC(t, "key"), authtest.EC(t, "unknown")
	token := key.Sign(t, authtest.Claims("a", time.Hour))
	issuer := authtest.NewIssuer(t)
	core, logs := observer.New(zap.InfoLevel)
	v := verifier(t, auth.Config{JWKS: issuer.URL + "/keys?secret=hush", Refresh: 5 * time.Millisecond, Cooldown: time.Nanosecond, Logger: zap.New(core)})
	// Down at the start: nothing can be judged, and everybody can see why.
	eventually(t, "the failure is logged", func() bool { return logs.FilterMessage("keys of tokens cannot be loaded").Len() > 0 })
	if got := cause(t, v, token); got != auth.Unavailable {
		t.Errorf("without keys: %q", got)
	}
	if err := v.Ready(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("ready: %v", err)
	}
	issuer.Serve(authtest.Set(t, key))
	ready(t, v)
	if got := cause(t, v, token); got != "" {
		t.Errorf("with keys: %q", got)
	}
	// Down later: the last keys stay in force; a key that is not among them cannot be judged.
	issuer.Serve(nil)
	failures := v.State().Failures
	eventually(t, "a refresh fails", func() bool { return v.State().Failures > failures })
	if got := cause(t, v, token); got != "" || v.Ready() != nil {
		t.Errorf("down later: %q, ready: %v", got, v.Ready())
	}
	if got := cause(t, v, unknown.Sign(t, authtest.Claims("a", time.Hour))); got != auth.Unavailable {
		t.Errorf("an unknown key while the issuer is down: %q", got)
	}
	issuer.CloseClientConnections()
	issuer.Close()
	failures = v.State().Failures
	eventually(t, "a refresh fails to connect", func() bool { return v.State().Failures > failures })
	if got := cause(t, v, token); got != "" {
		t.Errorf("gone later: %q", got)
	}
	for _, e := range logs.All() {
		for _, f := range e.Context {
			if strings.Contains(f.String, "hush") || f.Interface != nil && strings.Contains(errText(f.Interface), "hush") {
				t.Errorf("the log shows the URL's query: %v", e)
			}
		}
	}
}

func errText(v any) string {
	if err, ok := v.(error); ok {
		return err.Error()
	}
	return ""
}

func TestWaitingForKeysEndsWithTheRouter(t *testing.T) {
	hold := make(chan struct{})
	key, unknown := authtest.EC(t, "key"), authtest.EC(t, "unknown")
	set := authtest.Set(t, key)
	asked := make(chan struct{}, 10)
	first := true // owned by the handler: requests come one at a time
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			_, _ = w.Write(set)
			return
		}
		asked <- struct{}{}
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer issuer.Close()
	defer close(hold)
	v, err := auth.New(auth.Config{JWKS: issuer.URL, Cooldown: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Run(ctx) })
	ready(t, v)
	wg.Go(func() {
		if got := cause(t, v, unknown.Sign(t, authtest.Claims("a", time.Hour))); got != auth.Unavailable {
			t.Errorf("while the issuer hangs: %q", got)
		}
	})
	<-asked
	cancel()
	wg.Wait()
}

func TestWeakAndForeignKeysAreLeftOut(t *testing.T) {
	good, weak, stranger := authtest.EC(t, "good"), authtest.RSA(t, "weak", 1024), authtest.EC(t, "encryption")
	var set map[string][]map[string]any
	if err := json.Unmarshal(authtest.Set(t, good, weak, stranger), &set); err != nil {
		t.Fatal(err)
	}
	set["keys"][2]["use"] = "enc"
	set["keys"] = append(set["keys"],
		map[string]any{"kty": "oct", "kid": "oct", "k": base64.RawURLEncoding.EncodeToString([]byte(authtest.Secret))},
		map[string]any{"kty": "of the future", "kid": "future"})
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	v := ready(t, verifier(t, auth.Config{JWKS: temp(t, "jwks.json", text), Cooldown: time.Nanosecond}))
	if ids := v.State().KeyIDs; len(ids) != 1 || ids[0] != "good" {
		t.Errorf("keys in force: %v", ids)
	}
	if got := cause(t, v, weak.Sign(t, authtest.Claims("a", time.Hour))); got != auth.UnknownKey {
		t.Errorf("a key of 1024 bits: %q", got)
	}
}

func TestSetsThatCannotBeUsedAreNotReady(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no JSON": "hello", "no keys": `{"keys":[]}`, "another object": `{}`, "a list": `[]`,
		"too large": `{"keys":[],"x":"` + strings.Repeat("x", 1<<20) + `"}`,
		"a secret":  `{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}`,
	} {
		v := verifier(t, auth.Config{JWKS: temp(t, "jwks.json", []byte(text))})
		eventually(t, name, func() bool { return v.State().Failures > 0 })
		if err := v.Ready(); err == nil || strings.Contains(err.Error(), "c2Vjcm") {
			t.Errorf("%s: ready: %v", name, err)
		}
	}
}

func TestRedirectsToPlainTextAreNotFollowed(t *testing.T) {
	plain := authtest.NewIssuer(t)
	plain.Serve(authtest.Set(t, authtest.EC(t, "planted")))
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	v := verifier(t, auth.Config{JWKS: secure.URL, TLS: secure.Client().Transport.(*http.Transport).TLSClientConfig})
	eventually(t, "the redirect is noticed", func() bool { return v.State().Failures > 0 })
	if err := v.Ready(); err == nil || !strings.Contains(err.Error(), "plain text") || plain.Fetches() != 0 {
		t.Errorf("ready: %v, %d fetches", err, plain.Fetches())
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	secret := temp(t, "secret", []byte(authtest.Secret))
	for name, cfg := range map[string]auth.Config{
		"nothing to check with": {},
		"alg none":              {JWKS: "k.json", Algorithms: []string{"none"}},
		"unknown algorithm":     {JWKS: "k.json", Algorithms: []string{"RS1"}},
		"HS256 without secret":  {JWKS: "k.json", Algorithms: []string{"RS256", "HS256"}},
		"RS256 without set":     {SecretFile: secret, Algorithms: []string{"RS256"}},
		"short secret":          {SecretFile: temp(t, "short", []byte("secret\n"))},
		"no such secret":        {SecretFile: filepath.Join(t.TempDir(), "nowhere")},
		"another scheme":        {JWKS: "file:///k.json"},
		"no host":               {JWKS: "https:///k.json"},
		"broken URL":            {JWKS: "https://%zz:hush@x"},
	} {
		if _, err := auth.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), authtest.Secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(authtest.Secret), 0o600); err != nil {
		f.Fatal(err)
	}
	key := authtest.EC(f, "k")
	if err := os.WriteFile(filepath.Join(dir, "jwks.json"), authtest.Set(f, key), 0o600); err != nil {
		f.Fatal(err)
	}
	v, err := auth.New(auth.Config{JWKS: filepath.Join(dir, "jwks.json"), SecretFile: filepath.Join(dir, "secret")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("")
	f.Add("a.b.c")
	good := key.Sign(f, authtest.Claims("alice", time.Hour))
	f.Add(good)
	f.Add(authtest.HMAC("another secret of thirty-two byte").Sign(f, authtest.Claims("alice", time.Hour)))
	f.Add(strings.Repeat(".", 1000))
	f.Fuzz(func(t *testing.T, token string) {
		// Nobody runs it: keys of the set are not there, and nothing but the secret can be right.
		_, err := v.Verify(context.Background(), token)
		why := new(auth.Error)
		if !errors.As(err, &why) || why.Cause == "" {
			t.Fatalf("%v", err)
		}
	})
}

// BenchmarkVerify is what a token costs a router, once per connection and renewal.
func BenchmarkVerify(b *testing.B) {
	keys := map[string]*authtest.Key{"RS256": authtest.RSA(b, "rs", 2048), "ES256": authtest.EC(b, "es"), "EdDSA": authtest.Ed(b, "ed"), "HS256": authtest.HMAC(authtest.Secret)}
	dir := b.TempDir()
	set, secret := filepath.Join(dir, "jwks.json"), filepath.Join(dir, "secret")
	if err := errors.Join(
		os.WriteFile(set, authtest.Set(b, keys["RS256"], keys["ES256"], keys["EdDSA"]), 0o600),
		os.WriteFile(secret, []byte(authtest.Secret), 0o600),
	); err != nil {
		b.Fatal(err)
	}
	v, err := auth.New(auth.Config{JWKS: set, SecretFile: secret})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	for _, name := range []string{"RS256", "ES256", "EdDSA", "HS256"} {
		token := keys[name].Sign(b, authtest.Claims("alice", time.Hour))
		for v.Ready() != nil {
			runtime.Gosched()
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(ctx, token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
