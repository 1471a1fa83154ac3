package router

import (
	"errors"
	"fmt"
	"time"

	"github.com/pointsmanhq/pointsman/router/internal/auth"
	"github.com/pointsmanhq/pointsman/router/internal/edge"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
)

// ErrCookieOrigins is what New returns for a cookie that every page's browser would show.
var ErrCookieOrigins = errors.New("tokens in a cookie and origins that everybody's pages match do not go together: any page could listen as whoever looks at it")

// authenticate settles who may listen to what.
func (r *Router) authenticate() (edge.Authenticator, error) {
	c := &r.cfg
	switch c.Auth {
	case "none":
		if c.JWKS != "" || c.JWTSecretFile != "" {
			return nil, errors.New("there are keys to check tokens with, but auth is none; say jwt")
		}
		return edge.AuthNone{}, nil
	case "jwt":
	default:
		return nil, fmt.Errorf("auth %q is not known; it is none or jwt", c.Auth)
	}
	if c.JWTCookie != "" && edge.AnyOrigin(c.Origins) {
		return nil, ErrCookieOrigins
	}
	var err error
	r.tokens, err = auth.New(auth.Config{
		KeyClaim: c.JWTKeyClaim, Algorithms: c.JWTAlgorithms, Issuer: c.JWTIssuer, Audiences: c.JWTAudience,
		Leeway: c.JWTLeeway, AllowNoExpiry: c.JWTAllowNoExpiry,
		JWKS: c.JWKS, Refresh: c.JWKSRefresh, TLS: c.JWKSTLS, SecretFile: c.JWTSecretFile,
		Logger: r.log.Named("auth"),
	})
	if err != nil {
		return nil, fmt.Errorf("auth jwt: %w", err)
	}
	count := func(at, result string) { r.metrics.Auth.WithLabelValues(at, result).Inc() }
	return &edge.AuthJWT{Verifier: r.tokens, Cookie: c.JWTCookie, Count: count}, nil
}

// authGauges adds what the metrics read about the keys of tokens: zeros where none are asked for.
func (r *Router) authGauges(g metrics.Gauges) metrics.Gauges {
	state := func() auth.State {
		if r.tokens == nil {
			return auth.State{}
		}
		return r.tokens.State()
	}
	g.AuthKeys = func() float64 { return float64(state().Keys) }
	g.AuthFailures = func() float64 { return float64(state().Failures) }
	g.AuthKeysAge = func() float64 {
		at := state().Loaded
		if at.IsZero() {
			return 0
		}
		return time.Since(at).Seconds()
	}
	return g
}
