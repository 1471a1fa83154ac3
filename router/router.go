// Package router is the router: it terminates clients' WebSockets and carries each to the node that owns its
// partition. It has no global state, so that a whole cluster runs in one process.
package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/router/internal/auth"
	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/edge"
	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/limits"
	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/survey"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

// shutdownTime bounds how long requests that are not upgraded yet may take at the end.
const shutdownTime = time.Second

// ErrKilled is what Run returns after Kill.
var ErrKilled = errors.New("the router was stopped at once")

// Router is one router. It runs once.
type Router struct {
	// Static after New.
	cfg     Config
	log     *zap.Logger
	hub     *hub.Hub
	pool    *links.Pool
	edge    *edge.Edge
	etcd    *etcdmap.Map
	admin   *admin.Server // nil without Config.Admin
	metrics *metrics.Set
	survey  *survey.Survey
	started time.Time
	gate    *limits.Gate
	memory  *limits.Pressure
	proxies limits.Proxies
	byFiles bool // open files decide how many clients there may be

	incoming atomic.Pointer[limits.Listener] // set by Run

	killed    chan struct{}
	kill      sync.Once
	listening chan struct{} // closed by Run
	ready     chan struct{} // closed by Run
	addr      atomic.Pointer[string]
	draining  atomic.Bool

	tokens *auth.Verifier // static after New; nil where no tokens are asked for
}

// New prepares a router. An error is a bad setting.
func New(cfg Config, deps Deps) (*Router, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	byFiles, err := cfg.Limits.defaults(cfg.TLS != nil || cfg.Auth != "none")
	if err != nil {
		return nil, err
	}
	proxies, err := limits.ParseProxies(cfg.Limits.TrustedProxies, cfg.Limits.ProxyHeader)
	if err != nil {
		return nil, err
	}
	faults, err := hub.ParseFaults(cfg.Fault)
	if err != nil {
		return nil, err
	}
	log := deps.Logger
	if log == nil {
		log = zap.NewNop()
	}
	log = log.With(zap.String("router", cfg.ID))
	r := &Router{
		cfg: cfg, log: log, survey: survey.New(), started: time.Now().UTC(), byFiles: byFiles, proxies: proxies,
		killed: make(chan struct{}), listening: make(chan struct{}), ready: make(chan struct{}),
	}
	who, err := r.authenticate()
	if err != nil {
		return nil, err
	}
	r.etcd, err = etcdmap.Open(etcdmap.Config{
		Endpoints: cfg.Etcd, Prefix: cfg.EtcdPrefix, Topic: cfg.Topic, TLS: cfg.EtcdTLS,
		Username: cfg.EtcdUser, Password: cfg.EtcdPassword, Logger: log.Named("etcd"),
	})
	if err != nil {
		return nil, err
	}
	registerer := deps.Registerer
	if cfg.Admin != "" {
		build := buildinfo.Read()
		build.Version = cfg.Version
		r.admin = admin.New(admin.Config{
			Listen: cfg.Admin, Namespace: "pointsman_router", Build: build, Logger: log.Named("admin"),
		})
		if registerer == nil {
			registerer = r.admin.Registry()
		}
		r.operate()
	}
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	metrics.Info(registerer, cfg.ID, cfg.Topic)
	r.metrics = metrics.New(registerer, r.authGauges(r.gauges()))
	r.hub = hub.New(hub.Config{
		Topic:     cfg.Topic,
		Session:   session.Config{Window: cfg.ClientWindow, Heartbeat: cfg.Heartbeat},
		Limits:    clientconn.Limits{Ping: cfg.ClientPing, Dead: cfg.ClientTimeout, Stall: cfg.ClientStallTimeout, Message: cfg.ResumeTimeout},
		ReadLimit: cfg.Limits.Message, PackFrom: cfg.CompressFrom, MaxKeys: cfg.MaxKeys, MessageRate: max(0, cfg.Limits.MessageRate), MessageBurst: messageBurst * max(0, cfg.Limits.MessageRate),
		CatchUpRate: max(0, cfg.Limits.CatchUpRate), Ended: r.ended,
		Logger: log, Metrics: r.metrics, Faults: faults,
	})
	r.limit(byFiles, registerer)
	r.pool = links.NewPool(links.Config{
		Router: cfg.ID, Build: cfg.Version, Token: cfg.LinkToken, TLS: cfg.LinkTLS,
		DialTimeout: cfg.LinkDialTimeout, PingEvery: cfg.LinkPing, DeadAfter: cfg.LinkTimeout, RetryMost: cfg.LinkRetry,
		Logger: log.Named("links"),
	}, r.hub)
	r.hub.Use(r.pool)
	r.edge = edge.New(edge.Config{
		Auth: who, Origins: cfg.Origins, ResumeTimeout: cfg.ResumeTimeout, RenewBefore: cfg.JWTRenewBefore,
		Gate: r.gate, Proxies: proxies,
		Logger: log.Named("edge"), Metrics: r.metrics,
	}, r.hub)
	return r, nil
}

// ID is the router's id.
func (r *Router) ID() string { return r.cfg.ID }

// Addr is where clients connect, "" before the router listens.
func (r *Router) Addr() string {
	if a := r.addr.Load(); a != nil {
		return *a
	}
	return ""
}

// AdminAddr is where the admin server listens, "" without one or before Run.
func (r *Router) AdminAddr() string {
	if r.admin == nil {
		return ""
	}
	return r.admin.Addr()
}

// Listening is closed when both addresses are open. Until the topic is known clients get 503.
func (r *Router) Listening() <-chan struct{} { return r.listening }

// Ready is closed once the topic is known and a node is linked.
func (r *Router) Ready() <-chan struct{} { return r.ready }

// Kill stops the router without a word to anybody. Run returns ErrKilled.
func (r *Router) Kill() { r.kill.Do(func() { close(r.killed) }) }

// Run serves until ctx ends; then it drains and returns nil. Other errors say why the router could not go on.
func (r *Router) Run(ctx context.Context) error {
	// hard outlives ctx until the drain is over.
	hard, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	run := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(hard); err != nil && hard.Err() == nil {
				stop(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	if r.admin != nil {
		if err := r.admin.Listen(); err != nil {
			return errors.Join(err, r.etcd.Close())
		}
	}
	listener, err := r.listen(ctx)
	if err != nil {
		return errors.Join(err, r.etcd.Close())
	}
	if r.admin != nil {
		run("admin server", r.admin.Run)
	}
	server := r.server()
	bounded := r.bound(server, listener)
	run("memory", func(ctx context.Context) error { r.memory.Run(ctx); return nil })
	run("client listener", func(context.Context) error { return r.serve(server, bounded) })
	run("etcd watch", func(ctx context.Context) error { return r.etcd.Watch(ctx, r.see) })
	run("sessions", func(ctx context.Context) error { r.hub.Run(ctx); return nil })
	judge, stopJudging := context.WithCancel(hard)
	defer stopJudging()
	if r.tokens != nil {
		run("keys of tokens", func(context.Context) error { return r.tokens.Run(judge) })
	}
	run("readiness", func(ctx context.Context) error { r.announce(ctx); return nil })
	close(r.listening)
	r.announceLimits(r.byFiles)
	r.log.Info("serving clients", zap.String("addr", listener.Addr().String()), zap.String("topic", r.cfg.Topic))

	select {
	case <-ctx.Done():
		if !r.drain(server) {
			err = ErrKilled
		}
	case <-r.killed:
		err = ErrKilled
	case <-hard.Done():
		err = context.Cause(hard)
	}
	_ = server.Close()
	stopJudging() // a client whose token waits for keys would be waited for
	r.hub.Cut()
	r.pool.Close()
	stop(nil)
	if closed := r.etcd.Close(); closed != nil {
		r.log.Warn("etcd client did not close in order", zap.Error(closed))
	}
	wg.Wait()
	return err
}

func (r *Router) listen(ctx context.Context) (net.Listener, error) {
	// Pings look after the connections; TCP's own would wake every idle one.
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(context.WithoutCancel(ctx), "tcp", r.cfg.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("address %s is in use by another process; choose another with --listen: %w", r.cfg.Listen, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", r.cfg.Listen, err)
	}
	addr := l.Addr().String()
	r.addr.Store(&addr)
	return l, nil
}

func (r *Router) server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // a WebSocket is upgraded from HTTP/1.1
	errorLog, err := zap.NewStdLogAt(r.log.Named("http"), zapcore.DebugLevel)
	if err != nil {
		errorLog = zap.NewStdLog(r.log.Named("http"))
	}
	server := &http.Server{
		Handler:           r.edge,
		TLSConfig:         r.cfg.TLS,
		ReadHeaderTimeout: r.cfg.AcceptTimeout,
		ReadTimeout:       r.cfg.AcceptTimeout,
		// A request waits for its turn first. An upgrade takes the deadline away.
		WriteTimeout:   r.cfg.AcceptTimeout + r.gate.Patience(),
		MaxHeaderBytes: r.cfg.Limits.Head,
		Protocols:      protocols,
		ErrorLog:       errorLog,
	}
	// Nothing that is no upgrade needs a second request on its connection, and who sends many does not read their answers.
	server.SetKeepAlivesEnabled(false)
	return server
}

func (r *Router) serve(server *http.Server, l net.Listener) error {
	var err error
	if r.cfg.TLS != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve clients on %s: %w", l.Addr(), err)
}

// drain ends the router in order: unready, so that balancers send it nobody, then nobody new, then every client is told
// and closed. It returns false when Kill cut it short.
func (r *Router) drain(server *http.Server) bool {
	start := time.Now()
	r.draining.Store(true)
	clients := r.hub.Sessions()
	r.log.Info("draining", zap.Int64("clients", clients), zap.Duration("delay", r.cfg.DrainDelay), zap.Duration("timeout", r.cfg.DrainTimeout))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-r.killed:
			cancel()
		case <-ctx.Done():
		}
	})
	if r.cfg.DrainDelay > 0 {
		delay := time.NewTimer(r.cfg.DrainDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
		case <-ctx.Done():
		}
	}
	r.edge.Refuse()
	end, cancelEnd := context.WithTimeout(ctx, shutdownTime)
	_ = server.Shutdown(end) // closes the listener; upgraded connections are not the server's any more
	cancelEnd()
	r.hub.Drain(ctx, max(r.cfg.DrainTimeout-time.Since(start), 0))
	r.log.Info("drained", zap.Int64("clients", clients), zap.Int64("clients_cut", r.hub.Sessions()), zap.Duration("took", time.Since(start)))
	return ctx.Err() == nil
}

// see puts a picture of etcd in force.
func (r *Router) see(p *etcdmap.Picture) {
	r.hub.Picture(table.Picture{Revision: p.Revision, At: p.At, Topic: p.Topic, Nodes: p.Nodes, Claims: p.Claims})
}

// announce tells the log what is missing, until the router is ready for the first time.
func (r *Router) announce(ctx context.Context) {
	const look, repeat = 20 * time.Millisecond, 10 * time.Second
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	said, at := "", time.Now()
	for {
		err := r.Unready()
		if err == nil {
			r.log.Info("ready", zap.Int32("partitions", r.hub.Table().Partitions()), zap.Int("links", r.hub.LinksUp()))
			close(r.ready)
			return
		}
		// The first moments of a start are no news.
		if text := err.Error(); time.Since(at) > time.Second && (text != said || time.Since(at) > repeat) {
			said, at = text, time.Now()
			r.log.Warn("waiting", zap.String("for", text))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Unready says why clients should rather go to another router, nil when they need not. An etcd that is away is no
// reason once the table is loaded: the last one stays in force.
func (r *Router) Unready() error {
	switch {
	case r.draining.Load():
		return errors.New("draining")
	case r.hub.Fit() != nil:
		if err, since := r.etcd.Health(); err != nil {
			return fmt.Errorf("waiting for etcd for %s: %w", time.Since(since).Round(time.Second), err)
		}
		if errors.Is(r.hub.Fit(), hub.ErrNoTopic) {
			return fmt.Errorf("etcd does not describe topic %q under %s; a node does when it starts", r.cfg.Topic, r.cfg.EtcdPrefix)
		}
		return r.hub.Fit()
	case r.tokens != nil && r.tokens.Ready() != nil:
		return r.tokens.Ready()
	case r.hub.LinksUp() == 0:
		return errors.New("no node is linked; clients wait")
	case r.strained() != nil:
		return r.strained()
	}
	return nil
}
