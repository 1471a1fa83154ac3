package edge

import (
	"net/http"
	"net/url"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

// maxKey bounds a client key, in bytes.
const maxKey = 4096

// AuthNone believes what the request says: the operator trusts whoever reaches the router.
type AuthNone struct{}

// Parameters implements Authenticator.
func (AuthNone) Parameters() []string { return []string{"key", "key_b64"} }

// Authenticate implements Authenticator.
func (AuthNone) Authenticate(_ *http.Request, query url.Values) (Identity, error) {
	var key []byte
	switch {
	case query.Has("key") && query.Has("key_b64"):
		return Identity{}, bad("give either key or key_b64, not both")
	case query.Has("key_b64"):
		// An empty key is a key in Kafka. Here it can be asked for, in a way that nobody uses by mistake.
		k, err := clientmsg.DecodeKey(query.Get("key_b64"))
		if err != nil {
			return Identity{}, bad("key_b64 is not base64")
		}
		key = k
	case !query.Has("key"):
		return Identity{}, bad("key is missing; connect to %s?key=... (or key_b64=... for binary keys)", clientmsg.Path)
	case query.Get("key") == "":
		return Identity{}, bad("key is empty; if that is meant, say key_b64= instead")
	default:
		key = []byte(query.Get("key"))
	}
	if len(key) > maxKey {
		return Identity{}, bad("the key has %d bytes, more than %d", len(key), maxKey)
	}
	if key == nil {
		key = []byte{}
	}
	return Identity{Key: key}, nil
}
