package router

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/limits"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
)

// Limits bound what clients may take. Zero values mean the defaults named there.
type Limits struct {
	Clients           int      // at a time; default: what the limit of open files leaves
	ClientsPerAddress int      // default: three quarters of Clients, so that no address has all
	ClientsPerKey     int      // default: any number, and 1 with another KeyPolicy than fan-out
	KeyPolicy         string   // fan-out (default), newest or oldest
	Handshakes        int      // connections that have not sent their request; default 4096, a quarter of few files
	HandshakeRate     int      // per second; default 4000 for each processor, 1000 with TLS or tokens
	AddressRate       int      // per second and address; default three quarters of HandshakeRate
	HandshakeQueue    int      // handshakes that wait for their turn; default 1000 for each processor
	Head              int      // bytes of a request's head; default 32 KiB
	Message           int64    // bytes of a client's message; default and most 128 KiB
	MessageRate       int      // a client's messages and control frames per second; default 20, negative: any number
	CatchUpRate       int64    // bytes per second to one client, averaged over a second; default 16 MiB, negative: any number
	Memory            int64    // bytes that the process should keep within; 0: any number
	TrustedProxies    []string // networks of proxies that are believed
	ProxyHeader       string   // the header they name clients in; default X-Forwarded-For
}

const (
	// A handshake takes about a tenth of a millisecond; a signature of TLS or a token as much again, or three times.
	ratePerProcessor  = 4000
	dearPerProcessor  = 1000
	queuePerProcessor = 1000
	defaultHead       = 32 << 10
	defaultMessages   = 20
	defaultCatchUp    = 16 << 20
	// messageBurst is how many seconds' worth of messages may come at once.
	messageBurst = 5
)

// share is what one address may have of n, so that the rest is left to others.
func share(n int) int { return max(1, n-n/4) }

// defaults settles the limits; dear says that each handshake takes a signature, byFiles that open files decide how many
// clients there may be.
func (l *Limits) defaults(dear bool) (byFiles bool, err error) {
	files, err := limits.OpenFiles()
	if err != nil {
		return false, err
	}
	switch limits.Policy(l.KeyPolicy) {
	case "", limits.FanOut, limits.Newest, limits.Oldest:
	default:
		return false, fmt.Errorf("key policy %q is none of %s, %s and %s", l.KeyPolicy, limits.FanOut, limits.Newest, limits.Oldest)
	}
	number := func(v *int, to int) {
		if *v <= 0 {
			*v = to
		}
	}
	rate, processors := ratePerProcessor, runtime.GOMAXPROCS(0)
	if dear {
		rate = dearPerProcessor
	}
	number(&l.HandshakeRate, rate*processors)
	number(&l.HandshakeQueue, min(l.HandshakeRate, queuePerProcessor*processors))
	number(&l.AddressRate, share(l.HandshakeRate))
	l.Clients, l.Handshakes, byFiles = limits.Room(files, l.Clients, l.Handshakes, l.HandshakeQueue)
	number(&l.ClientsPerAddress, share(l.Clients))
	number(&l.Head, defaultHead)
	if l.Message <= 0 || l.Message > clientmsg.MaxControl {
		l.Message = clientmsg.MaxControl
	}
	if l.MessageRate == 0 {
		l.MessageRate = defaultMessages
	}
	if l.CatchUpRate == 0 {
		l.CatchUpRate = defaultCatchUp
	}
	return byFiles, nil
}

// limit builds what holds the limits, and its metrics.
func (r *Router) limit(byFiles bool, registerer prometheus.Registerer) {
	l := r.cfg.Limits
	log := r.log.Named("limits")
	count := func(which limits.Limit) { r.metrics.Limits.WithLabelValues(string(which)).Inc() }
	for _, which := range limits.All() {
		r.metrics.Limits.WithLabelValues(string(which))
	}
	r.gate = limits.NewGate(limits.Config{
		Clients: l.Clients, PerAddress: l.ClientsPerAddress, PerKey: l.ClientsPerKey, Policy: limits.Policy(l.KeyPolicy),
		Rate: l.HandshakeRate, PerRate: l.AddressRate, Queue: l.HandshakeQueue, ByFiles: byFiles, Logger: log, Count: count,
	})
	r.memory = limits.NewPressure(limits.MemoryConfig{Budget: l.Memory, Gate: r.gate, Shed: r.hub.Shed, Logger: log})
	metrics.RegisterLimits(registerer, metrics.LimitGauges{
		Clients:   func() float64 { return float64(l.Clients) },
		Silent:    func() float64 { return float64(r.silent()) },
		Waiting:   func() float64 { return float64(r.gate.Waiting()) },
		Addresses: func() float64 { _, n := r.gate.Clients(); return float64(n) },
		Files: func() float64 {
			n, err := limits.OpenFiles()
			if err != nil {
				return 0
			}
			return float64(n)
		},
		MemoryLimit: func() float64 { return float64(l.Memory) },
		MemoryUsed:  func() float64 { return float64(r.memory.Used()) },
		MemoryShort: func() float64 {
			if r.gate.IsShort() {
				return 1
			}
			return 0
		},
	})
}

// ended counts sockets that a limit ended.
func (r *Router) ended(code int) {
	switch code {
	case closecode.TooBig:
		r.gate.Note(limits.MessageSize)
	case closecode.TooManyMessages:
		r.gate.Note(limits.Messages)
	}
}

func (r *Router) silent() int {
	if l := r.incoming.Load(); l != nil {
		return l.Silent()
	}
	return 0
}

// bound puts the limits between a listener and the HTTP server.
func (r *Router) bound(server *http.Server, l net.Listener) net.Listener {
	files, _ := limits.OpenFiles() // New asked for it
	bounded := r.gate.Listen(l, limits.ListenConfig{
		Silent: r.cfg.Limits.Handshakes, Busy: max(1, limits.Queue(files, r.cfg.Limits.HandshakeQueue)), Head: r.cfg.Limits.Head,
		Secure: r.cfg.TLS != nil, Proxies: r.proxies,
	})
	server.ConnState, server.ConnContext = bounded.State, bounded.Context
	server.Handler = bounded.Handler(server.Handler)
	r.incoming.Store(bounded)
	return bounded
}

// strained says which resource is short, nil for none.
func (r *Router) strained() error {
	if r.gate.IsShort() {
		return errors.New("memory is short: clients are refused and given up; raise --memory-limit, lower --client-window, or add routers")
	}
	if l := r.incoming.Load(); l != nil {
		return l.Starved()
	}
	return nil
}

// announceLimits tells the log what holds.
func (r *Router) announceLimits(byFiles bool) {
	l := r.cfg.Limits
	files, _ := limits.OpenFiles() // New asked for it
	r.log.Info("limits", zap.Int("clients", l.Clients), zap.Bool("clients_by_open_files", byFiles), zap.Uint64("open_files", files),
		zap.Int("clients_per_address", l.ClientsPerAddress), zap.Int("handshake_rate", l.HandshakeRate),
		zap.Int("open_handshakes", l.Handshakes), zap.Int64("memory_bytes", l.Memory))
}
