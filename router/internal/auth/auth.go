// Package auth decides what a JSON Web Token entitles its bearer to: which client key, and until when. It keeps the
// keys that tokens are signed with fresh. It knows nothing of requests and sockets, and nothing of a token ever
// appears in its errors or in its log.
package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

// Defaults of Config.
const (
	DefaultKeyClaim = "sub"
	DefaultLeeway   = 5 * time.Second
	DefaultRefresh  = 5 * time.Minute
)

const (
	// MaxToken bounds a token, in bytes: what a router reads of a request's head leaves no room for more.
	MaxToken = 16 << 10
	// MaxKey bounds a client key, in bytes.
	MaxKey = 4096
	// minSecret is what RFC 7518 asks of a secret for HS256, in bytes: a shorter one can be guessed offline by
	// whoever has seen one token.
	minSecret = 32
	// longestLife bounds how far away an expiry is believed to be; times beyond it do not fit every clock.
	longestLife = 100 * 365 * 24 * time.Hour
)

// Config is fixed for a Verifier's life. JWKS, SecretFile or both are needed.
type Config struct {
	KeyClaim   string        // the claim with the client key; default DefaultKeyClaim
	Algorithms []string      // default: RS256, ES256, EdDSA with JWKS, HS256 with SecretFile
	Issuer     string        // what "iss" must be; empty: not looked at
	Audiences  []string      // one of them must be in "aud"; empty: not looked at
	Leeway     time.Duration // how far the issuer's clock may be from ours; default DefaultLeeway, negative: none
	// AllowNoExpiry takes tokens without "exp": what they entitle to never ends.
	AllowNoExpiry bool

	JWKS       string        // URL or path of a JWK Set
	Refresh    time.Duration // how often a URL is asked; default DefaultRefresh
	TLS        *tls.Config   // for a https URL; nil: the system's
	SecretFile string        // file with the secret of the HS algorithms

	Logger *zap.Logger

	// Now is the clock that tokens are judged by; nil: time.Now.
	Now func() time.Time
	// Poll is how often files are looked at, Cooldown how long after a fetch of the keys an unknown key causes no
	// other one; defaults apply to 0.
	Poll, Cooldown time.Duration
}

// Grant is what a token entitles to.
type Grant struct {
	Keys    [][]byte  // client keys, each once, at least one
	Expires time.Time // when it ends, leeway included; zero: never
}

// Cause says why a token was refused; it is a metric's label.
type Cause string

// The causes.
const (
	Missing     Cause = "missing"     // there is no token
	Malformed   Cause = "malformed"   // it is no JWT, or one of an unknown kind
	TooLarge    Cause = "too_large"   // it has more than MaxToken bytes
	Algorithm   Cause = "algorithm"   // it is signed with an algorithm that is not allowed
	UnknownKey  Cause = "unknown_key" // it is signed with a key that is not in the set
	Signature   Cause = "signature"   // the signature does not fit
	Expired     Cause = "expired"     // "exp"
	NotYet      Cause = "not_yet"     // "nbf"
	NoExpiry    Cause = "no_expiry"   // there is no "exp"
	Issuer      Cause = "issuer"      // "iss"
	Audience    Cause = "audience"    // "aud"
	Claim       Cause = "claim"       // it names no client key, or not in a way that is served
	OtherKey    Cause = "other_key"   // it is for another client key than the one asked for
	Unavailable Cause = "unavailable" // it could not be judged: keys are not there
)

// Error is why a token is refused.
type Error struct {
	Cause  Cause
	Reason string        // one line for whoever made the token; nothing of the token is in it
	Retry  time.Duration // of Unavailable: when to try again
}

func (e *Error) Error() string { return e.Reason }

func refuse(c Cause, format string, args ...any) *Error {
	return &Error{Cause: c, Reason: fmt.Sprintf(format, args...)}
}

// algorithms are those that can be allowed, and whether they need the secret.
var algorithms = [...]struct {
	name   string
	secret bool
	usual  bool // allowed unless the operator names others
}{
	{"RS256", false, true}, {"ES256", false, true}, {"EdDSA", false, true}, {"HS256", true, true},
	{"RS384", false, false}, {"RS512", false, false}, {"PS256", false, false}, {"PS384", false, false}, {"PS512", false, false},
	{"ES384", false, false}, {"ES512", false, false}, {"HS384", true, false}, {"HS512", true, false},
}

// pin settles which algorithms are allowed.
func (c *Config) pin() error {
	if len(c.Algorithms) == 0 {
		for _, a := range algorithms {
			if a.usual && (a.secret && c.SecretFile != "" || !a.secret && c.JWKS != "") {
				c.Algorithms = append(c.Algorithms, a.name)
			}
		}
		return nil
	}
	for _, name := range c.Algorithms {
		i := slices.IndexFunc(algorithms[:], func(a struct {
			name          string
			secret, usual bool
		}) bool {
			return a.name == name
		})
		switch {
		case i < 0:
			return fmt.Errorf("algorithm %q of tokens is not known; there are RS256, ES256, EdDSA, HS256 and their larger kin", name)
		case algorithms[i].secret && c.SecretFile == "":
			return fmt.Errorf("algorithm %s of tokens needs a secret from a file", name)
		case !algorithms[i].secret && c.JWKS == "":
			return fmt.Errorf("algorithm %s of tokens needs a JWK Set", name)
		}
	}
	return nil
}

// Verifier judges tokens. Run keeps its keys fresh; before the keys are there every token is Unavailable.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
	keys   *keeper
}

// New prepares a verifier. An error is a bad setting.
func New(cfg Config) (*Verifier, error) {
	if cfg.JWKS == "" && cfg.SecretFile == "" {
		return nil, errors.New("tokens need something to be checked with: a JWK Set or a file with a secret")
	}
	if cfg.KeyClaim == "" {
		cfg.KeyClaim = DefaultKeyClaim
	}
	if cfg.Leeway == 0 {
		cfg.Leeway = DefaultLeeway
	}
	cfg.Leeway = max(cfg.Leeway, 0)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if err := cfg.pin(); err != nil {
		return nil, err
	}
	keys, err := newKeeper(&cfg)
	if err != nil {
		return nil, err
	}
	opts := []jwt.ParserOption{
		jwt.WithValidMethods(cfg.Algorithms), jwt.WithLeeway(cfg.Leeway), jwt.WithTimeFunc(cfg.Now), jwt.WithStrictDecoding(),
	}
	if !cfg.AllowNoExpiry {
		opts = append(opts, jwt.WithExpirationRequired())
	}
	if cfg.Issuer != "" {
		opts = append(opts, jwt.WithIssuer(cfg.Issuer))
	}
	if len(cfg.Audiences) > 0 {
		opts = append(opts, jwt.WithAudience(cfg.Audiences...))
	}
	return &Verifier{cfg: cfg, parser: jwt.NewParser(opts...), keys: keys}, nil
}

// Run keeps the keys fresh until ctx ends. Afterwards nobody waits for keys any more.
func (v *Verifier) Run(ctx context.Context) error {
	if v.cfg.JWKS != "" && len(v.cfg.Audiences) == 0 {
		v.cfg.Logger.Warn("no audience is configured; tokens that the issuer made for other services are taken")
	}
	v.keys.run(ctx)
	return nil
}

// Ready says why tokens cannot be judged, nil when they can. Keys that could be loaded once stay in force.
func (v *Verifier) Ready() error { return v.keys.ready() }

// State tells operators about the keys.
func (v *Verifier) State() State { return v.keys.state() }

// Verify judges a token. Errors are *Errors. It may wait for keys to be fetched, no longer than fetchTime.
func (v *Verifier) Verify(ctx context.Context, token string) (Grant, error) {
	switch {
	case token == "":
		return Grant{}, refuse(Missing, "there is no token")
	case len(token) > MaxToken:
		return Grant{}, refuse(TooLarge, "the token has more than %d bytes", MaxToken)
	}
	claims := jwt.MapClaims{}
	t, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		// RFC 7515: who does not understand what is marked as critical must refuse the token.
		if _, marked := t.Header["crit"]; marked {
			return nil, refuse(Malformed, "the token asks for extensions that are not known here")
		}
		if _, hmac := t.Method.(*jwt.SigningMethodHMAC); hmac {
			// The only key that such an algorithm can ever be given: a public key never becomes a secret.
			return v.keys.secretKey()
		}
		return v.keys.publicKey(ctx, t)
	})
	if err != nil {
		return Grant{}, v.judge(err, t, claims)
	}
	keys, err := clientKeys(claims, v.cfg.KeyClaim)
	if err != nil {
		return Grant{}, err
	}
	g := Grant{Keys: keys}
	exp, err := claims.GetExpirationTime()
	switch {
	case err != nil:
		return Grant{}, refuse(Malformed, "the token's exp is no time")
	case exp != nil:
		g.Expires = exp.Add(v.cfg.Leeway)
		if most := v.cfg.Now().Add(longestLife); g.Expires.After(most) {
			g.Expires = most
		}
	case claims["exp"] != nil:
		// The library takes 0 for no expiry.
		return Grant{}, refuse(Expired, "the token has expired")
	}
	return g, nil
}

// judge turns the library's verdict into ours. Its texts are not passed on: they quote the token.
func (v *Verifier) judge(err error, t *jwt.Token, claims jwt.MapClaims) error {
	ours := new(Error)
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse(Malformed, "the token is not a JWT")
	case t == nil || t.Method == nil || !slices.Contains(v.cfg.Algorithms, t.Method.Alg()):
		return refuse(Algorithm, "the token's algorithm is not one of %s", strings.Join(v.cfg.Algorithms, ", "))
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return refuse(UnknownKey, "no key of the JWK Set fits the token")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuse(Signature, "the token's signature does not fit")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse(Expired, "the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refuse(NotYet, "the token is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refuse(Issuer, "the token is of another issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refuse(Audience, "the token is for another audience")
	case !errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refuse(Malformed, "the token's claims are not of the types that they must have")
	case claims["exp"] == nil && !v.cfg.AllowNoExpiry:
		return refuse(NoExpiry, "the token has no expiry, and the operator allows none without")
	case claims["exp"] == 0.0:
		return refuse(Expired, "the token has expired")
	case claims["iss"] == nil && v.cfg.Issuer != "":
		return refuse(Issuer, "the token names no issuer")
	}
	return refuse(Audience, "the token names no audience")
}

// clientKeys reads the client keys out of the claims: a string is one, a list of strings is several.
func clientKeys(claims jwt.MapClaims, name string) ([][]byte, error) {
	value, ok := claims[name]
	if !ok {
		return nil, refuse(Claim, "the token has no claim %q, which names the client key", name)
	}
	list, several := value.([]any)
	if !several {
		list = []any{value}
	}
	keys := make([][]byte, 0, len(list))
	seen := make(map[string]struct{}, len(list))
	for _, value := range list {
		key, ok := value.(string)
		switch {
		case !ok && several:
			return nil, refuse(Claim, "the token's claim %q is a list of something else than strings", name)
		case !ok:
			return nil, refuse(Claim, "the token's claim %q is neither a string nor a list of strings", name)
		case key == "":
			return nil, refuse(Claim, "the token's claim %q is empty, or has something that is", name)
		case len(key) > MaxKey:
			return nil, refuse(Claim, "the client key in the token's claim %q has more than %d bytes", name, MaxKey)
		case !utf8.ValidString(key):
			return nil, refuse(Claim, "the token's claim %q is not UTF-8", name)
		}
		if _, twice := seen[key]; !twice {
			seen[key] = struct{}{}
			keys = append(keys, []byte(key))
		}
	}
	if len(keys) == 0 {
		return nil, refuse(Claim, "the token's claim %q is an empty list", name)
	}
	return keys, nil
}
