// Package edge is where clients knock: it checks a request as far as it can be checked before the upgrade, so that a
// mistake is answered with an HTTP status and one line that says what to do, and turns the rest into sessions.
package edge

import (
	"errors"
	"fmt"
	"net"
	"net/http"
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
	Logger        *zap.Logger
	Metrics       *metrics.Set
}

// Identity is who a client is: what it may listen to.
type Identity struct {
	Key []byte
}

// Authenticator decides which client key a request is entitled to. Its errors are *Refusals where the client can do
// something about it. Tokens never appear in errors.
type Authenticator interface {
	Authenticate(r *http.Request, query url.Values) (Identity, error)
	// Parameters are the query parameters it reads; all others that Pointsman does not know are refused.
	Parameters() []string
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

// Edge is the clients' HTTP handler.
type Edge struct {
	cfg     Config
	hub     *hub.Hub
	log     *zap.Logger
	refused atomic.Bool // draining: nobody new
}

// New returns a handler that opens sessions on h.
func New(cfg Config, h *hub.Hub) *Edge { return &Edge{cfg: cfg, hub: h, log: cfg.Logger} }

// Refuse makes it refuse everybody from now on, with a status that tells balancers and clients to go elsewhere.
func (e *Edge) Refuse() { e.refused.Store(true) }

// ServeHTTP implements http.Handler. It returns right after the upgrade, so that net/http frees what it holds.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := e.check(r)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	conn, err := e.hub.Conns().Accept(w, r, req.subprotocol)
	if err != nil {
		// The library has answered; what it refuses is a malformed handshake or a connection that broke.
		e.cfg.Metrics.Refused.WithLabelValues("handshake").Inc()
		e.log.Debug("handshake failed", zap.String("remote", r.RemoteAddr), zap.Error(err))
		return
	}
	host := remote(r)
	if !e.hub.Go(func() { e.run(&client{conn: conn, remote: host}, req) }) {
		conn.Abort(closecode.GoingAway)
		conn.Finish()
	}
}

func (e *Edge) refuse(w http.ResponseWriter, r *http.Request, err error) {
	refusal := new(Refusal)
	if !errors.As(err, &refusal) {
		e.log.Error("cannot check a client's request", zap.Error(err))
		refusal = &Refusal{Status: http.StatusInternalServerError, Reason: "the router failed to check the request; its log says why"}
	}
	e.cfg.Metrics.Refused.WithLabelValues(strconv.Itoa(refusal.Status)).Inc()
	e.log.Debug("client refused", zap.String("remote", r.RemoteAddr), zap.Int("status", refusal.Status), zap.String("reason", refusal.Reason))
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch {
	case refusal.Retry > 0:
		h.Set("Retry-After", strconv.Itoa(max(1, int(refusal.Retry.Seconds()))))
	case refusal.Status == http.StatusUpgradeRequired:
		h.Set("Upgrade", "websocket")
		h.Set("Connection", "Upgrade")
	case refusal.Status == http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	}
	w.WriteHeader(refusal.Status)
	_, _ = fmt.Fprintln(w, refusal.Reason) // whoever does not read the answer does not get it
}

// remote is the client's address without its port.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// checkOrigin refuses browsers that run somebody else's page. Programs send no Origin.
func (e *Edge) checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	if err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return nil
	}
	for _, p := range e.cfg.Origins {
		if p == "*" {
			return nil
		}
		if err != nil || u.Host == "" {
			break
		}
		target := u.Host
		if strings.Contains(p, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if ok, _ := path.Match(strings.ToLower(p), strings.ToLower(target)); ok {
			return nil
		}
	}
	return &Refusal{Status: http.StatusForbidden, Reason: fmt.Sprintf(
		"pages of %.100q may not connect here; the operator allows origins with --origins", origin)}
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
