// Package authtest makes what tests of tokens need: keys of every kind, sets of them as text, tokens, and an issuer
// that can be taken away.
package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Secret is long enough for HS256.
const Secret = "0123456789abcdef0123456789abcdef"

// Key is a key that tokens are signed with.
type Key struct {
	ID      string
	Method  jwt.SigningMethod
	Private any // what Method signs with
}

// RSA makes a key for RS256; bits below 2048 make one that is refused.
func RSA(t testing.TB, id string, bits int) *Key {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{ID: id, Method: jwt.SigningMethodRS256, Private: k}
}

// EC makes a key for ES256.
func EC(t testing.TB, id string) *Key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{ID: id, Method: jwt.SigningMethodES256, Private: k}
}

// Ed makes a key for EdDSA.
func Ed(t testing.TB, id string) *Key {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{ID: id, Method: jwt.SigningMethodEdDSA, Private: k}
}

// HMAC is the key of HS256.
func HMAC(secret string) *Key { return &Key{Method: jwt.SigningMethodHS256, Private: []byte(secret)} }

// Sign makes a token.
func (k *Key) Sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	return k.SignWith(t, claims, nil)
}

// SignWith makes a token with more in its header.
func (k *Key) SignWith(t testing.TB, claims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(k.Method, jwt.MapClaims(claims))
	if k.ID != "" {
		token.Header["kid"] = k.ID
	}
	for name, value := range header {
		token.Header[name] = value
	}
	text, err := token.SignedString(k.Private)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Claims is a token's content: a subject and an expiry.
func Claims(sub string, life time.Duration) map[string]any {
	return map[string]any{"sub": sub, "exp": time.Now().Add(life).Unix()}
}

// Set is the public halves as a JWK Set.
func Set(t testing.TB, keys ...*Key) []byte {
	t.Helper()
	set := jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.JWK(t))
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// JWK is the public half.
func (k *Key) JWK(t testing.TB) jwkset.JWKMarshal {
	t.Helper()
	j, err := jwkset.NewJWKFromKey(k.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: k.ID}})
	if err != nil {
		t.Fatal(err)
	}
	return j.Marshal()
}

// Public is the public half of a key that has one.
func (k *Key) Public() any {
	if p, ok := k.Private.(crypto.Signer); ok {
		return p.Public()
	}
	return k.Private
}

// Issuer serves a JWK Set.
type Issuer struct {
	*httptest.Server

	mu      sync.Mutex
	text    []byte // guarded by mu; nil: 503
	fetches int    // guarded by mu
}

// NewIssuer starts an issuer that has nothing to serve yet.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

// Serve replaces what it serves; nil makes it fail.
func (i *Issuer) Serve(text []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.text = text
}

// Fetches is how often it was asked.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// ServeHTTP implements http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	text := i.text
	i.fetches++
	i.mu.Unlock()
	if text == nil {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write(text)
}
