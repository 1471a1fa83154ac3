package edge

import (
	"net/http"
	"net/url"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"

	"github.com/pointsmanhq/pointsman/router/internal/auth"
)

// maxKey bounds a client key, in bytes.
const maxKey = auth.MaxKey

// Identity is who a client is: what it may listen to.
type Identity struct {
	Keys    [][]byte  // those that it asks for to begin with, each once
	Allowed [][]byte  // all that it may ask for, nil for any
	Expires time.Time // when its credentials end; zero: never
}

// Authenticator decides which client key a request is entitled to. Its errors are *Refusals where the client can do
// something about it. Tokens never appear in errors.
type Authenticator interface {
	Authenticate(r *http.Request, query url.Values) (Identity, error)
	// Renew judges credentials that came as a message of a client that may follow these keys already, and no others
	// afterwards. A Refusal with a time to retry leaves the client as it is.
	Renew(keys [][]byte, token string) (expires time.Time, err error)
	// Parameters are the query parameters it reads; all others that Pointsman does not know are refused.
	Parameters() []string
}

// AuthNone believes what the request says: the operator trusts whoever reaches the router.
type AuthNone struct{}

// Parameters implements Authenticator.
func (AuthNone) Parameters() []string { return keyParameters() }

// Renew implements Authenticator. Where nobody asks for credentials, fresh ones are no mistake: one client program
// serves both.
func (AuthNone) Renew([][]byte, string) (time.Time, error) { return time.Time{}, nil }

// Authenticate implements Authenticator.
func (AuthNone) Authenticate(_ *http.Request, query url.Values) (Identity, error) {
	keys, err := askedKeys(query)
	switch {
	case err != nil:
		return Identity{}, err
	case len(keys) == 0 && !query.Has("several"):
		return Identity{}, bad("key is missing; connect to %s?key=... (or key_b64=... for binary keys)", clientmsg.Path)
	}
	return Identity{Keys: keys}, nil
}

func keyParameters() []string { return []string{"key", "key_b64"} }

// askedKeys are the client keys that the query names.
func askedKeys(query url.Values) ([][]byte, error) {
	if query.Has("key") && query.Has("key_b64") {
		return nil, bad("give either key or key_b64, not both")
	}
	var keys [][]byte
	for _, text := range query["key"] {
		if text == "" {
			return nil, bad("key is empty; if that is meant, say key_b64= instead")
		}
		keys = append(keys, []byte(text))
	}
	for _, text := range query["key_b64"] {
		// An empty key is a key in Kafka. Here it can be asked for, in a way that nobody uses by mistake.
		k, err := clientmsg.DecodeKey(text)
		if err != nil {
			return nil, bad("key_b64 is not base64")
		}
		keys = append(keys, append([]byte{}, k...))
	}
	seen := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		if err := fits(key); err != nil {
			return nil, err
		}
		if _, twice := seen[string(key)]; twice {
			return nil, bad("a key is named more than once")
		}
		seen[string(key)] = struct{}{}
	}
	return keys, nil
}

func fits(key []byte) error {
	if len(key) > maxKey {
		return bad("the key has %d bytes, more than %d", len(key), maxKey)
	}
	return nil
}
