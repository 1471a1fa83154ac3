package plainrouter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
)

// Router proxies each client's connection to the owner of its key's partition. It looks at the request and at nothing
// that follows.
type Router struct {
	base program.Base
	etcd *etcdmap.Map
	lis  net.Listener
	part partitioner.Partitioner

	buffers buffers

	picture atomic.Pointer[etcdmap.Picture]
	toward  prometheus.Counter
	refused prometheus.Counter

	mu     sync.Mutex
	pairs  map[net.Conn]struct{} // guarded by mu; the clients' ends
	ending bool                  // guarded by mu
	open   sync.WaitGroup        // joined under mu while not ending
}

// NewRouter opens etcd and the clients' address.
func NewRouter(base program.Base, listen string, etcd etcdmap.Config) (_ *Router, err error) {
	r := &Router{base: base, pairs: make(map[net.Conn]struct{})}
	if r.part, err = partitioner.New(partitioner.Murmur2); err != nil {
		return nil, err
	}
	if r.toward, err = base.Counter("between_tiers_bytes_total", "Bytes that servers sent to clients through the router."); err != nil {
		return nil, err
	}
	if r.refused, err = base.Counter("clients_refused_total", "Requests of clients that no server took."); err != nil {
		return nil, err
	}
	clients := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "design", Name: "clients", Help: "Open client sockets."}, func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return float64(len(r.pairs))
	})
	if err := base.Registry.Register(clients); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	base.Ready("claims", r.ready)
	base.Vars("owners", func() any { return r.owners() })
	if r.lis, err = program.Listen(listen); err != nil {
		return nil, err
	}
	if r.etcd, err = etcdmap.Open(etcd); err != nil {
		return nil, errors.Join(err, r.lis.Close())
	}
	return r, nil
}

// ready is nil when every partition has an owner.
func (r *Router) ready() error {
	pic := r.picture.Load()
	if pic == nil || pic.Topic == nil {
		return errors.New("the topic is not in etcd yet")
	}
	for p := range pic.Topic.Partitions {
		if _, err := owner(pic, p); err != nil {
			return err
		}
	}
	return nil
}

// owners names the node of each partition.
func (r *Router) owners() map[int32]string {
	out := map[int32]string{}
	if pic := r.picture.Load(); pic != nil {
		for p, c := range pic.Claims {
			out[p] = c.Node
		}
	}
	return out
}

// owner is the address of a partition's owner.
func owner(pic *etcdmap.Picture, p int32) (string, error) {
	claim, ok := pic.Claims[p]
	if !ok {
		return "", fmt.Errorf("partition %d has no owner", p)
	}
	node, ok := pic.Nodes[claim.Node]
	if !ok || node.Instance != claim.Instance {
		return "", fmt.Errorf("the owner of partition %d is gone", p)
	}
	return node.Addr, nil
}

// Run serves until ctx ends, then breaks the connections: a proxy that does not look into them cannot say goodbye.
func (r *Router) Run(ctx context.Context) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() {
		_ = r.etcd.Watch(watching, func(p *etcdmap.Picture) { r.picture.Store(p) }) // ends with its context only
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+clientmsg.Path, r.serve)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(r.base.Logger.Named("http"))}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(r.lis) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		err = srv.Close()
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	r.mu.Lock()
	r.ending = true
	for c := range r.pairs {
		_ = c.Close() // its pair ends with it
	}
	r.mu.Unlock()
	r.open.Wait()
	stop()
	watch.Wait()
	return errors.Join(err, r.etcd.Close())
}

func (r *Router) serve(w http.ResponseWriter, req *http.Request) {
	node, err := r.dial(req)
	if err != nil {
		r.refused.Inc()
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if err := req.Write(node); err != nil {
		r.refused.Inc()
		http.Error(w, err.Error(), http.StatusBadGateway)
		_ = node.Close()
		return
	}
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = node.Close()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending {
		_, _ = client.Close(), node.Close()
		return
	}
	r.pairs[client] = struct{}{}
	r.open.Add(1)
	// What the client sent right behind its request must not stay behind in net/http's buffer.
	early := make([]byte, rw.Reader.Buffered())
	_, _ = io.ReadFull(rw.Reader, early) // from memory
	go r.relay(client, node, early)
}

// dial connects to the owner of the request's key.
func (r *Router) dial(req *http.Request) (net.Conn, error) {
	pic := r.picture.Load()
	if pic == nil || pic.Topic == nil {
		return nil, errors.New("the topic is not in etcd yet")
	}
	addr, err := owner(pic, r.part.Partition([]byte(req.URL.Query().Get("key")), pic.Topic.Partitions))
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}
	node, err := d.DialContext(req.Context(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("the owner does not answer: %w", err)
	}
	return node, nil
}
