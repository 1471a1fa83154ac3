package scenario

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// issuer signs tokens and publishes its key in a file that routers read. It shares no code with the product.
type issuer struct {
	t    testing.TB
	path string

	mu     sync.Mutex
	id     string             // guarded by mu
	key    ed25519.PrivateKey // guarded by mu
	public []any              // guarded by mu; what is published, the newest last
}

// newIssuer makes an issuer whose file is not there yet.
func newIssuer(t testing.TB) *issuer {
	t.Helper()
	if kindOf(t) == stack.Compose {
		t.Skip("the routers' containers do not see the issuer's file")
	}
	return &issuer{t: t, path: filepath.Join(t.TempDir(), "jwks.json")}
}

// rotate publishes a new key beside the last one, which tokens under way may be signed with, and signs with the new one
// from then on.
func (i *issuer) rotate(id string) {
	i.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.public = append(i.public[max(0, len(i.public)-1):], map[string]any{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": id, "x": base64.RawURLEncoding.EncodeToString(public),
	})
	set, err := json.Marshal(map[string]any{"keys": i.public})
	if err != nil {
		i.t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(i.path+".new", set, 0o644), os.Rename(i.path+".new", i.path)); err != nil {
		i.t.Fatal(err)
	}
	i.id, i.key = id, private
}

// token entitles to a key for a time.
func (i *issuer) token(key string, life time.Duration) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	part := func(v map[string]any) string {
		text, _ := json.Marshal(v) // of strings and numbers: it cannot fail
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": i.id}) + "." +
		part(map[string]any{"sub": key, "iss": "scenario", "aud": "pointsman", "exp": time.Now().Add(life).Unix()})
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.key, []byte(signed)))
}

func (i *issuer) flags() []string {
	return []string{
		"--auth=jwt", "--jwks=" + i.path, "--jwt-issuer=scenario", "--jwt-audience=pointsman", "--jwt-leeway=6s", "--heartbeat=1s",
	}
}

// TokensRenewedWhileNodeIsKilled: fifty clients whose tokens live for seconds renew them on their sockets, before and
// after a node is killed and the issuer's key rotated; nothing is lost, repeated or reordered, and no socket ends.
func TokensRenewedWhileNodeIsKilled(t testing.TB) {
	i := newIssuer(t)
	i.rotate("first")
	w := begin(t, stack.Options{Routers: 2, RouterFlags: i.flags()})
	names := keys("client", 50)
	clients, err := w.fleet.Add(w.ctx, len(names), func(n int) load.Options {
		// Their times differ, so that some renew at every moment. With the leeway each is told four seconds before
		// its end: enough for a busy machine.
		life := 6*time.Second + time.Duration(n%8)*250*time.Millisecond
		return load.Options{Key: names[n], Token: func() string { return i.token(names[n], life) }}
	}, w.target)
	w.must(err)
	w.produce(names, size(w, 200.0, 500.0), 128)
	w.must(w.settled(30 * time.Second))
	renewed := func(times int) {
		w.must(load.Each(clients, func(_ int, c *load.Client) error {
			ctx, cancel := w.within(30 * time.Second)
			defer cancel()
			return c.WaitRenewed(ctx, times)
		}))
	}
	renewed(1)
	w.fault("SIGKILL", func() error { return w.KillNode(w.ctx, w.Nodes()[0].ID) })
	i.rotate("second")
	renewed(2)
	w.strangers(i)
	w.finish()
	for _, c := range clients {
		if h := c.History(); len(h.Sessions) != 1 {
			t.Errorf("client %s has had %d connections", c.Key(), len(h.Sessions))
		}
	}
}

// strangers holds that others get nothing meanwhile.
func (w *world) strangers(i *issuer) {
	w.t.Helper()
	base := w.Routers()[0].URL + "/v1/ws"
	ctx, cancel := w.within(30 * time.Second)
	defer cancel()
	header := func(token string) *websocket.DialOptions {
		return &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}}
	}
	alice := i.token("alice", time.Hour)
	for _, tt := range []struct {
		name, target string
		opts         *websocket.DialOptions
		status       int
	}{
		{"no token", base + "?key=client-0001", nil, http.StatusUnauthorized},
		{"another's key", base + "?key=client-0001", header(alice), http.StatusForbidden},
		{"an expired token", base, header(i.token("alice", -time.Minute)), http.StatusUnauthorized},
		{"a changed token", base, header(alice[:len(alice)-8] + "AAAAAAAA"), http.StatusUnauthorized},
		{"a token in the address", base + "?token=" + alice, nil, http.StatusBadRequest},
		{"a token of 100 KB", base, header(strings.Repeat("x", 100<<10)), http.StatusRequestHeaderFieldsTooLarge},
	} {
		c, resp, err := websocket.Dial(ctx, tt.target, tt.opts) //nolint:bodyclose // the library says that it need not be closed
		if err == nil {
			_ = c.CloseNow()
			w.t.Errorf("%s: accepted", tt.name)
			continue
		}
		if resp == nil || resp.StatusCode != tt.status {
			w.t.Errorf("%s: %v, want HTTP %d", tt.name, err, tt.status)
		}
	}
	// Whoever changes the key, or does not renew, is closed with the code for it.
	for _, tt := range []struct {
		name, first, then string
		code              int
	}{
		{"a token for another key", alice, i.token("bob", time.Hour), closecode.CredentialsRefused},
		{"a token that runs out", i.token("alice", -4*time.Second), "", closecode.CredentialsExpired},
	} {
		if err := w.ends(ctx, base, header(tt.first), tt.then, tt.code); err != nil {
			w.t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// ends connects, sends a token if there is one, and waits for a close code.
func (w *world) ends(ctx context.Context, target string, opts *websocket.DialOptions, then string, code int) error {
	c, _, err := websocket.Dial(ctx, target, opts) //nolint:bodyclose // the library says that it need not be closed
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseNow() }()
	if then != "" {
		if err := text(`{"type":"auth","token":"`+then+`"}`)(ctx, c); err != nil {
			return err
		}
	}
	err = drain(ctx, c)
	if got := int(websocket.CloseStatus(err)); got != code {
		return fmt.Errorf("ended with %w, want code %d", err, code)
	}
	return nil
}

// KeysOfTokensComeLate: a router that starts before the issuer's keys are there is not ready, says why, and asks
// clients to come back; it heals by itself. Keys that go away later stay in force.
func KeysOfTokensComeLate(t testing.TB) {
	i := newIssuer(t)
	w := begin(t, stack.Options{Nodes: -1, RouterFlags: i.flags()})
	_, err := w.AddNode(w.ctx)
	w.must(err)
	ready := w.Routers()[0].Admin + "/readyz"
	w.eventually(30*time.Second, "the router blames the keys", func() error {
		if status, body := w.get(ready); status != http.StatusServiceUnavailable || !strings.Contains(body, "keys") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	stranger := w.fleet.New(load.Options{Key: "alice", Header: http.Header{"Authorization": {"Bearer a.b.c"}}})
	var refused *load.HandshakeError
	if err := stranger.Connect(w.ctx, w.target(0)); !errors.As(err, &refused) {
		t.Errorf("a client before the keys: %v", err)
	}
	i.rotate("first")
	w.eventually(30*time.Second, "the router is ready", func() error {
		if status, body := w.get(ready); status != http.StatusOK {
			return errors.New(body)
		}
		return nil
	})
	token := func() string { return i.token("alice", time.Hour) }
	w.client(0, load.Options{Key: "alice", Token: token})
	w.must(os.Remove(i.path))
	w.client(0, load.Options{Key: "alice", Token: token})
	w.put("alice", `{"n":1}`)
	w.finish()
}
