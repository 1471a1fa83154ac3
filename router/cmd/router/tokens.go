package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/tlsfiles"
	"github.com/pointsmanhq/pointsman/router"
)

// maxLeeway bounds --jwt-leeway: clocks that differ by more want mending.
const maxLeeway = 5 * time.Minute

// tokenOptions say which tokens are taken.
type tokenOptions struct {
	JWKS             string        `name:"jwks" placeholder:"URL|FILE" group:"Tokens (--auth jwt)" help:"Keys that tokens are signed with, a JWK Set. A file is read again when it changes; a URL every --jwks-refresh, and when a token names a key that is not known."`
	JWKSRefresh      time.Duration `name:"jwks-refresh" default:"5m" group:"Tokens (--auth jwt)" help:"How often the URL is asked for keys."`
	JWKSCAFile       string        `name:"jwks-ca-file" placeholder:"FILE" group:"Tokens (--auth jwt)" help:"Certificates that vouch for the URL; the system's without it."`
	JWTSecretFile    string        `name:"jwt-secret-file" placeholder:"FILE" group:"Tokens (--auth jwt)" help:"File with the secret of HS256, 32 bytes or more. It is read again when it changes."`
	JWTAlgorithms    []string      `name:"jwt-algorithms" placeholder:"NAME" group:"Tokens (--auth jwt)" help:"Algorithms that are taken. Default: RS256, ES256 and EdDSA with --jwks, HS256 with --jwt-secret-file."`
	JWTKeyClaim      string        `name:"jwt-key-claim" default:"sub" placeholder:"NAME" group:"Tokens (--auth jwt)" help:"The claim with the client key, a string."`
	JWTIssuer        string        `name:"jwt-issuer" placeholder:"TEXT" group:"Tokens (--auth jwt)" help:"What a token's iss must be; not looked at without it."`
	JWTAudience      []string      `name:"jwt-audience" placeholder:"TEXT" group:"Tokens (--auth jwt)" help:"What a token's aud must have one of; not looked at without it."`
	JWTLeeway        time.Duration `name:"jwt-leeway" default:"5s" group:"Tokens (--auth jwt)" help:"How far the issuer's clock may be from this one."`
	JWTAllowNoExpiry bool          `name:"jwt-allow-no-expiry" group:"Tokens (--auth jwt)" help:"Take tokens that never expire."`
	JWTCookie        string        `name:"jwt-cookie" placeholder:"NAME" group:"Tokens (--auth jwt)" help:"Take a token from this cookie, too, if the request names its origin and --origins allows it."`
	JWTRenewBefore   time.Duration `name:"jwt-renew-before" default:"1m" group:"Tokens (--auth jwt)" help:"How long before its token's end a client is told; a third of the token's time where that is less. Up to a quarter more by chance, so that renewals spread."`
}

// check refuses settings of tokens that contradict each other.
func (s *tokenOptions) check(jwt bool) error {
	keys := s.JWKS != "" || s.JWTSecretFile != ""
	switch {
	case jwt && !keys:
		return errors.New("--auth=jwt needs --jwks, --jwt-secret-file or both")
	case !jwt && keys:
		return errors.New("--jwks and --jwt-secret-file need --auth=jwt; without it everybody may listen to everything")
	case s.JWKSCAFile != "" && !strings.HasPrefix(s.JWKS, "https://"):
		return errors.New("--jwks-ca-file needs a --jwks that begins with https://")
	case s.JWKSRefresh < time.Second:
		return errors.New("--jwks-refresh must be at least 1s")
	case s.JWTLeeway < 0 || s.JWTLeeway > maxLeeway:
		return fmt.Errorf("--jwt-leeway must be between 0 and %s", maxLeeway)
	case s.JWTRenewBefore <= 0:
		return errors.New("--jwt-renew-before must be more than 0")
	case s.JWTKeyClaim == "":
		return errors.New("--jwt-key-claim must name a claim")
	}
	return nil
}

// apply puts the settings into cfg.
func (s *tokenOptions) apply(cfg *router.Config) error {
	vouch, err := tlsfiles.Client(nil, s.JWKSCAFile != "", s.JWKSCAFile, "", "")
	if err != nil {
		return options.Usagef("--jwks-ca-file: %w", err)
	}
	cfg.JWKS, cfg.JWKSRefresh, cfg.JWKSTLS, cfg.JWTSecretFile = s.JWKS, s.JWKSRefresh, vouch, s.JWTSecretFile
	cfg.JWTAlgorithms, cfg.JWTKeyClaim, cfg.JWTIssuer, cfg.JWTAudience = s.JWTAlgorithms, s.JWTKeyClaim, s.JWTIssuer, s.JWTAudience
	cfg.JWTAllowNoExpiry, cfg.JWTCookie, cfg.JWTRenewBefore = s.JWTAllowNoExpiry, s.JWTCookie, s.JWTRenewBefore
	if cfg.JWTLeeway = s.JWTLeeway; s.JWTLeeway == 0 {
		cfg.JWTLeeway = -1 // 0 would be the default
	}
	return nil
}
