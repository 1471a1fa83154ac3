package edge

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"

	"github.com/pointsmanhq/pointsman/router/internal/auth"
)

// AuthJWT takes the client keys from a token: one, or a list. Keys in the request may repeat them, or name some of a
// list: so one client program serves routers with and without authentication, and notices a token that is not for the
// key it means.
type AuthJWT struct {
	Verifier *auth.Verifier
	// Cookie is the name of a cookie that a token may come in, "" for none. Browsers send cookies whatever page
	// asks, so such a request must name its origin, and the origin must be allowed.
	Cookie string
	Count  func(at, result string) // of every verdict
}

// Parameters implements Authenticator.
func (a *AuthJWT) Parameters() []string { return keyParameters() }

// Authenticate implements Authenticator.
func (a *AuthJWT) Authenticate(r *http.Request, query url.Values) (Identity, error) {
	asked, err := askedKeys(query)
	if err != nil {
		return Identity{}, err
	}
	token, err := a.token(r)
	if err != nil {
		return Identity{}, err
	}
	who, err := a.verify(r.Context(), asked, token)
	return who, a.answer("upgrade", err)
}

// Renew implements Authenticator.
func (a *AuthJWT) Renew(keys [][]byte, token string) (time.Time, error) {
	who, err := a.verify(context.Background(), keys, token)
	return who.Expires, a.answer("message", err)
}

// verify judges a token and holds it against the keys that it must be for, none for any: then all that it names are
// asked for. It may name more.
func (a *AuthJWT) verify(ctx context.Context, want [][]byte, token string) (Identity, error) {
	g, err := a.Verifier.Verify(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	who := Identity{Keys: want, Allowed: g.Keys, Expires: g.Expires}
	if len(want) == 0 {
		who.Keys = g.Keys
	}
	for _, key := range want {
		if !slices.ContainsFunc(g.Keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return Identity{}, &auth.Error{Cause: auth.OtherKey, Reason: "the token is for another client key"}
		}
	}
	return who, nil
}

// answer counts a verdict and makes it the client's.
func (a *AuthJWT) answer(at string, err error) error {
	if err == nil {
		a.Count(at, "ok")
		return nil
	}
	why := new(auth.Error)
	if !errors.As(err, &why) {
		a.Count(at, "failed")
		return err
	}
	a.Count(at, string(why.Cause))
	status := http.StatusUnauthorized
	switch why.Cause { //nolint:exhaustive // all others are about the token itself
	case auth.Unavailable:
		status = http.StatusServiceUnavailable
	case auth.Claim, auth.OtherKey:
		status = http.StatusForbidden // the bearer is known, and may not
	}
	return &Refusal{Status: status, Reason: why.Reason, Retry: why.Retry}
}

// token finds the token of a request. What a program put there itself wins over a cookie, which comes by itself.
func (a *AuthJWT) token(r *http.Request) (string, error) {
	var found []string
	for _, line := range r.Header.Values("Authorization") {
		if scheme, token, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.EqualFold(scheme, "Bearer") {
			found = append(found, strings.TrimSpace(token))
		}
	}
	for _, p := range subprotocols(r) {
		if token, ok := strings.CutPrefix(p, clientmsg.BearerPrefix); ok {
			found = append(found, token)
		}
	}
	switch {
	case len(found) == 1 && found[0] != "":
		return found[0], nil
	case len(found) > 1:
		return "", bad("there is more than one token; send it either as Authorization: Bearer or as subprotocol %s<token>", clientmsg.BearerPrefix)
	}
	if a.Cookie == "" {
		return "", a.missing("send it as Authorization: Bearer, or as subprotocol " + clientmsg.BearerPrefix + "<token>")
	}
	cookies := r.CookiesNamed(a.Cookie)
	switch {
	case len(cookies) == 0 || cookies[0].Value == "":
		return "", a.missing("send it as Authorization: Bearer, as subprotocol " + clientmsg.BearerPrefix + "<token>, or in the cookie " + a.Cookie)
	case len(cookies) > 1:
		return "", bad("there is more than one cookie %s", a.Cookie)
	case r.Header.Get("Origin") == "": // one that is there was checked before
		return "", &Refusal{Status: http.StatusForbidden, Reason: "a token in a cookie is taken from browsers only, which name their origin; send it as Authorization: Bearer"}
	}
	return cookies[0].Value, nil
}

func (a *AuthJWT) missing(how string) error {
	a.Count("upgrade", string(auth.Missing))
	return &Refusal{Status: http.StatusUnauthorized, Reason: "a token is missing; " + how}
}
