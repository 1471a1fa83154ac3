// Package edge is where clients knock: it checks a request as far as it can be checked before the upgrade, so that a
// mistake is answered with an HTTP status and one line that says what to do, and turns the rest into sessions.
package edge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/limits"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
)

// Config is fixed for an edge's life.
type Config struct {
	Auth Authenticator
	// Origins are patterns (package path's Match) of the origins that browsers may come from, beside the
	// router's own: "*", a host like "*.example.com:8443", or with a scheme, "https://*.example.com".
	Origins []string
	// ResumeTimeout is how long the first message of ?resume=message may take.
	ResumeTimeout time.Duration
	// RenewBefore is how long before the end of its credentials a client is told, less where they live for less than
	// three times as long, and up to a quarter more by chance.
	RenewBefore time.Duration
	// Gate lets clients in or not; nil lets everybody in.
	Gate *limits.Gate
	// Proxies are believed when they name another address as the client's.
	Proxies limits.Proxies
	Logger  *zap.Logger
	Metrics *metrics.Set
}

// Refusal is an answer before the upgrade.
type Refusal struct {
	Status int
	Reason string // one line for whoever wrote the client
	Retry  time.Duration
}

func (r *Refusal) Error() string { return r.Reason }

func bad(format string, args ...any) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: fmt.Sprintf(format, args...)}
}

// CheckOrigins tells whether patterns are well formed.
func CheckOrigins(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("origin pattern %q: %w", p, err)
		}
	}
	return nil
}

// AnyOrigin reports whether patterns let pages of anybody in.
func AnyOrigin(patterns []string) bool {
	// Nobody can have this name, so only a pattern for everybody matches it.
	for _, scheme := range []string{"https", "http"} {
		if matches(patterns, &url.URL{Scheme: scheme, Host: "anybody.invalid"}) {
			return true
		}
	}
	return false
}

// Edge is the clients' HTTP handler.
type Edge struct {
	cfg     Config
	hub     *hub.Hub
	log     *zap.Logger
	refused atomic.Bool // draining: nobody new
}

// New returns a handler that opens sessions on h.
func New(cfg Config, h *hub.Hub) *Edge {
	if cfg.Gate == nil {
		cfg.Gate = limits.NewGate(limits.Config{})
	}
	return &Edge{cfg: cfg, hub: h, log: cfg.Logger}
}

// Refuse makes it refuse everybody from now on, with a status that tells balancers and clients to go elsewhere.
func (e *Edge) Refuse() { e.refused.Store(true) }

// ServeHTTP implements http.Handler. It returns right after the upgrade, so that net/http frees what it holds.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := e.cfg.Proxies.Client(r)
	if err := e.cfg.Gate.Knock(r.Context(), from); err != nil {
		e.refuse(w, from, err)
		return
	}
	if e.script(w, r) {
		return
	}
	req, place, err := e.admit(r, from)
	if err != nil {
		e.refuse(w, from, err)
		return
	}
	conn, err := e.hub.Conns().Accept(w, r, req.subprotocol)
	if err != nil {
		place.Leave()
		// The library has answered; what it refuses is a malformed handshake or a connection that broke.
		e.cfg.Metrics.Refused.WithLabelValues("handshake").Inc()
		e.log.Debug("handshake failed", zap.Stringer("remote", from), zap.Error(err))
		return
	}
	conn.From(from)
	if !e.hub.Go(func() { e.begin(conn, from.String(), req, place) }) {
		place.Leave()
		conn.Abort(closecode.GoingAway)
		conn.Finish()
	}
}

// admit checks a request and gives its client a place.
func (e *Edge) admit(r *http.Request, from netip.Addr) (request, *limits.Place, error) {
	req, err := e.check(r)
	if err != nil {
		return req, nil, err
	}
	place, err := e.cfg.Gate.Enter(from, req.keys()...)
	return req, place, err
}

func (e *Edge) refuse(w http.ResponseWriter, from netip.Addr, err error) {
	limited := new(limits.Refused)
	switch {
	case errors.As(err, &limited):
		refusal := &Refusal{Status: http.StatusServiceUnavailable, Reason: limited.Reason, Retry: limited.Retry}
		if limited.Own {
			refusal.Status = http.StatusTooManyRequests
		}
		err = refusal
	case errors.Is(err, context.Canceled): // it did not wait for its turn
		err = fitness(hub.ErrClosing)
	}
	refusal := new(Refusal)
	if !errors.As(err, &refusal) {
		e.log.Error("cannot check a client's request", zap.Error(err))
		refusal = &Refusal{Status: http.StatusInternalServerError, Reason: "the router failed to check the request; its log says why"}
	}
	e.cfg.Metrics.Refused.WithLabelValues(strconv.Itoa(refusal.Status)).Inc()
	e.log.Debug("client refused", zap.Stringer("remote", from), zap.Int("status", refusal.Status), zap.String("reason", refusal.Reason))
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch {
	case refusal.Retry > 0:
		h.Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(refusal.Retry.Seconds())))))
	case refusal.Status == http.StatusUpgradeRequired:
		h.Set("Upgrade", "websocket")
		h.Set("Connection", "Upgrade")
	case refusal.Status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case refusal.Status == http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	}
	w.WriteHeader(refusal.Status)
	_, _ = fmt.Fprintln(w, refusal.Reason) // whoever does not read the answer does not get it
}

// checkOrigin refuses browsers that run somebody else's page. Programs send no Origin.
func (e *Edge) checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	// A page that came in plain text may be anybody's: where the router speaks TLS it is another origin.
	if err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) && (r.TLS == nil || u.Scheme == "https") {
		return nil
	}
	if err != nil {
		u = &url.URL{}
	}
	if matches(e.cfg.Origins, u) {
		return nil
	}
	return &Refusal{Status: http.StatusForbidden, Reason: fmt.Sprintf(
		"pages of %.100q may not connect here; the operator allows origins with --origins", origin)}
}

// matches reports whether a pattern allows an origin; only "*" allows one without a host.
func matches(patterns []string, origin *url.URL) bool {
	for _, p := range patterns {
		if p == "*" {
			return true
		}
		if origin.Host == "" {
			continue
		}
		target := origin.Host
		if strings.Contains(p, "://") {
			target = origin.Scheme + "://" + origin.Host
		}
		if ok, _ := path.Match(strings.ToLower(p), strings.ToLower(target)); ok {
			return true
		}
	}
	return false
}

// subprotocols reads what the client offers, in its order.
func subprotocols(r *http.Request) []string {
	var all []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				all = append(all, p)
			}
		}
	}
	return all
}

// choose picks the first subprotocol that we speak. None offered means json; only a token offered cannot work,
// because browsers want one of theirs confirmed and a token must not be echoed.
func choose(offered []string) (chosen string, raw bool, err error) {
	token := false
	for _, p := range offered {
		switch {
		case p == clientmsg.JSON:
			return p, false, nil
		case p == clientmsg.Raw:
			return p, true, nil
		case strings.HasPrefix(p, clientmsg.BearerPrefix):
			token = true
		}
	}
	switch {
	case len(offered) == 0:
		return "", false, nil
	case token:
		return "", false, bad("offer %s beside the token's subprotocol", clientmsg.JSON)
	}
	return "", false, bad("unknown subprotocol; offer %s (or none) or %s", clientmsg.JSON, clientmsg.Raw)
}

// fitness turns the hub's reason for not serving into an answer.
func fitness(err error) error {
	const soon = time.Second
	switch {
	case errors.Is(err, hub.ErrNoCursor):
		return &Refusal{Status: http.StatusForbidden, Reason: "the cursor belongs to another key"}
	case errors.Is(err, hub.ErrTooMany):
		return bad("%s", err.Error())
	case errors.Is(err, hub.ErrNoTopic):
		return &Refusal{Status: http.StatusServiceUnavailable, Retry: soon, Reason: "this router has not found its topic in etcd yet; try again in a moment"}
	case errors.Is(err, hub.ErrClosing):
		return &Refusal{Status: http.StatusServiceUnavailable, Retry: soon, Reason: "this router is stopping; connect again"}
	}
	return &Refusal{Status: http.StatusServiceUnavailable, Retry: soon, Reason: "this router cannot serve clients now: " + err.Error()}
}

// closing is the same after the upgrade.
func closing(err error) (code int, reason string) {
	switch {
	case errors.Is(err, hub.ErrNoCursor):
		return closecode.ForeignCursor, "the cursor belongs to another key"
	case errors.Is(err, hub.ErrClosing):
		return closecode.GoingAway, "the router is stopping"
	}
	return closecode.TryAgainLater, err.Error()
}
