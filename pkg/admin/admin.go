// Package admin is the operators' HTTP server that every program of Pointsman has: metrics, health, profiles
// and dumps of state, on an address of its own that is not for clients.
//
//	/metrics        Prometheus, from a registry of this server
//	/livez          200 while the process can answer at all
//	/readyz         200 when every named check passes, else 503 with the reasons; ?format=json for machines
//	/debug/vars     JSON dumps that the program registered; /debug/vars/<name> for one
//	/debug/pprof/   Go's profiles
//
// The profiles and dumps tell everything about the process: the default address is loopback, and whoever
// opens it to a network decides who may read them.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
)

// Config is fixed for a server's life.
type Config struct {
	// Listen is the address, host:port. Port 0 takes a free one (see Addr).
	Listen string
	// Namespace begins the names of the metrics this server adds, for instance "pointsman_router".
	Namespace string
	// Build is what <namespace>_build_info and the index page show.
	Build buildinfo.Info
	// Logger may be nil.
	Logger *zap.Logger
}

// shutdownTime bounds how long Run waits at its end for requests under way; profiles may take longer and are cut.
const shutdownTime = time.Second

// Server answers operators. Handlers, checks and dumps may be added at any time, also while it runs.
type Server struct {
	// Static after construction.
	cfg      Config
	log      *zap.Logger
	mux      *http.ServeMux
	registry *prometheus.Registry

	mu       sync.Mutex
	listener net.Listener            // guarded by mu; nil before Listen
	checks   map[string]func() error // guarded by mu
	dumps    map[string]func() any   // guarded by mu
	patterns []string                // guarded by mu; what Handle was given, for the index page
}

// New builds a server; nothing listens yet.
func New(cfg Config) *Server {
	s := &Server{
		cfg:      cfg,
		log:      cfg.Logger,
		mux:      http.NewServeMux(),
		registry: prometheus.NewRegistry(),
		checks:   map[string]func() error{},
		dumps:    map[string]func() any{},
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildMetric(cfg),
	)
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		Registry: s.registry,
		// One broken collector must not hide the other metrics; it is told in promhttp_metric_handler_errors_total.
		ErrorHandling: promhttp.ContinueOnError,
		Timeout:       10 * time.Second,
	}))
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "alive\n") })
	s.mux.HandleFunc("GET /readyz", s.serveReady)
	s.mux.HandleFunc("GET /debug/vars", s.serveVars)
	s.mux.HandleFunc("GET /debug/vars/{name}", s.serveVar)
	s.mux.HandleFunc("/debug/pprof/", pprof.Index)
	s.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	s.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return s
}

func buildMetric(cfg Config) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: cfg.Namespace,
		Name:      "build_info",
		Help:      "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{
			"version": cfg.Build.Version, "revision": cfg.Build.Revision, "go": cfg.Build.Go,
		},
	}, func() float64 { return 1 })
}

// Registry is where the program registers its metrics.
func (s *Server) Registry() *prometheus.Registry { return s.registry }

// Handle adds a handler under a pattern of http.ServeMux. It panics where ServeMux does: on a pattern that
// is malformed or taken.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.mux.Handle(pattern, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patterns = append(s.patterns, pattern)
}

// HandleFunc is Handle for a function.
func (s *Server) HandleFunc(pattern string, h http.HandlerFunc) { s.Handle(pattern, h) }

// Ready adds, or replaces, a named check. The program is ready when every check returns nil; an error's text
// is what an operator reads as the reason. Checks are called per request and must return at once.
func (s *Server) Ready(name string, check func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// Vars adds, or replaces, a named dump. What it returns is shown as JSON; it is called per request.
func (s *Server) Vars(name string, dump func() any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dumps[name] = dump
}

// ServeHTTP answers as the listening server does, for tests and for embedding.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		if _, pattern := s.mux.Handler(r); pattern == "" {
			s.serveIndex(w)
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

// Listen opens the address, so that a port in use is known before anything else starts and Addr is known
// before Run. Run calls it where nobody did.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("admin address %s is in use by another process; choose another with --admin: %w", s.cfg.Listen, err)
	case err != nil:
		return fmt.Errorf("listen on admin address %s: %w", s.cfg.Listen, err)
	}
	s.listener = l
	return nil
}

// Addr is the address that is listened on, "" before Listen.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run serves until ctx ends, then closes the listener, gives requests under way a second, and returns nil.
// A server runs once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          zap.NewStdLog(s.log.Named("http")),
		// Long requests (a trace, a stream of a console) end with ctx instead of holding up the exit.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s.log.Info("serving operators", zap.String("addr", l.Addr().String()))

	select {
	case err := <-served:
		return fmt.Errorf("serve operators on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve operators on %s: %w", l.Addr(), err)
	}
	return nil
}

// sortedKeys gives pages a stable order.
func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
