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
	Key     []byte
	Expires time.Time // when its credentials end; zero: never
}

// Authenticator decides which client key a request is entitled to. Its errors are *Refusals where the client can do
// something about it. Tokens never appear in errors.
type Authenticator interface {
	Authenticate(r *http.Request, query url.Values) (Identity, error)
	// Renew judges credentials that came as a message of a client that has the key already. A Refusal with a time
	// to retry leaves the client as it is.
	Renew(key []byte, token string) (Identity, error)
	// Parameters are the query parameters it reads; all others that Pointsman does not know are refused.
	Parameters() []string
}

// AuthNone believes what the request says: the operator trusts whoever reaches the router.
type AuthNone struct{}

// Parameters implements Authenticator.
func (AuthNone) Parameters() []string { return keyParameters() }

// Renew implements Authenticator. Where nobody asks for credentials, fresh ones are no mistake: one client program
// serves both.
func (AuthNone) Renew(key []byte, _ string) (Identity, error) { return Identity{Key: key}, nil }

// Authenticate implements Authenticator.
func (AuthNone) Authenticate(_ *http.Request, query url.Values) (Identity, error) {
	key, err := askedKey(query)
	switch {
	case err != nil:
		return Identity{}, err
	case key == nil:
		return Identity{}, bad("key is missing; connect to %s?key=... (or key_b64=... for binary keys)", clientmsg.Path)
	}
	return Identity{Key: key}, nil
}

func keyParameters() []string { return []string{"key", "key_b64"} }

// askedKey is the client key that the query names, nil for none.
func askedKey(query url.Values) ([]byte, error) {
	key := []byte(query.Get("key"))
	switch {
	case query.Has("key") && query.Has("key_b64"):
		return nil, bad("give either key or key_b64, not both")
	case query.Has("key_b64"):
		// An empty key is a key in Kafka. Here it can be asked for, in a way that nobody uses by mistake.
		k, err := clientmsg.DecodeKey(query.Get("key_b64"))
		if err != nil {
			return nil, bad("key_b64 is not base64")
		}
		key = append([]byte{}, k...)
	case !query.Has("key"):
		return nil, nil
	case len(key) == 0:
		return nil, bad("key is empty; if that is meant, say key_b64= instead")
	}
	if len(key) > maxKey {
		return nil, bad("the key has %d bytes, more than %d", len(key), maxKey)
	}
	return key, nil
}
