// Package playground runs a whole Pointsman on one machine for people to break: routers and nodes as processes, a
// producer, and a page with live clients, counters and buttons that kill, freeze and drain.
package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// Config says what to run. The zero value of a field means what its comment says.
type Config struct {
	Listen string // of the page, a loopback address; empty: port 8000 if it is free, else a free one
	Bin    string // folder with router and wsnode; needed
	Dir    string // for logs and data; empty: a temporary one that is removed at the end

	// Kafka and Etcd are somebody else's, both or neither. Empty: an in-process Kafka and an embedded etcd.
	Kafka []string
	Etcd  []string

	Topic      string  // empty: "records", or "pointsman-playground" in somebody else's Kafka
	EtcdPrefix string  // empty: /pointsman
	Routers    int     // 0: 2
	Nodes      int     // 0: 3
	Partitions int32   // 0: 32; of a topic that does not exist yet
	Clients    int     // 0: 48
	Rate       float64 // records a second for each client; 0: 4
	FreePorts  bool    // take any free ports, not the ones that README's commands name

	// Out receives the addresses and what to try.
	Out io.Writer
	// Err receives what went wrong without being asked for.
	Err io.Writer
}

const (
	pagePort   = 8000
	maxClients = 200 // a browser opens some 250 WebSockets to a host
	startTime  = 2 * time.Minute
	dialTime   = 5 * time.Second
)

func (c *Config) defaults() error {
	if (len(c.Kafka) == 0) != (len(c.Etcd) == 0) {
		return errors.New("give both Kafka's and etcd's address, or neither")
	}
	number := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	number(&c.Routers, 2)
	number(&c.Nodes, 3)
	number(&c.Clients, 48)
	if c.Partitions == 0 {
		c.Partitions = 32
	}
	if c.Rate == 0 {
		c.Rate = 4
	}
	if c.Topic == "" {
		c.Topic = "records"
		if c.external() {
			c.Topic = "pointsman-playground" // nobody's own topic gets our records by accident
		}
	}
	if c.EtcdPrefix == "" {
		c.EtcdPrefix = "/pointsman"
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Err == nil {
		c.Err = io.Discard
	}
	switch {
	case c.Routers < 1 || c.Routers > 8:
		return fmt.Errorf("%d routers: it takes 1 to 8", c.Routers)
	case c.Nodes < 1 || c.Nodes > maxNodes:
		return fmt.Errorf("%d nodes: it takes 1 to %d", c.Nodes, maxNodes)
	case c.Clients < 1 || c.Clients > maxClients:
		return fmt.Errorf("%d clients: it takes 1 to %d, since browsers open no more WebSockets to one host", c.Clients, maxClients)
	case c.Partitions < 1 || c.Partitions > 256:
		return fmt.Errorf("%d partitions: it takes 1 to 256", c.Partitions)
	case c.Listen != "" && !loopback(c.Listen):
		return fmt.Errorf("address %s is not loopback, such as 127.0.0.1:8000; whoever reaches the page can kill processes, so from another machine use ssh -L", c.Listen)
	case !(c.Rate > 0 && c.Rate <= 100):
		return fmt.Errorf("%g records a second for each client: it takes more than 0 and at most 100", c.Rate)
	}
	return c.programs()
}

func (c *Config) external() bool { return len(c.Kafka) > 0 }

// programs finds what the stack runs, before anything is started.
func (c *Config) programs() error {
	for _, name := range []string{"router", "wsnode"} {
		path := filepath.Join(c.Bin, name)
		switch info, err := os.Stat(path); {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("there is no %s; build it with `make build`, or say with --bin which folder has router and wsnode", path)
		case err != nil:
			return err
		case info.IsDir() || info.Mode()&0o111 == 0:
			return fmt.Errorf("%s cannot be run", path)
		}
	}
	return nil
}

// Playground is a running one.
type Playground struct {
	// Static after Run's beginning.
	cfg      Config
	stack    stack.Stack
	producer *producer
	world    *world
	page     string // http://host:port

	actions sync.WaitGroup // that are under way
}

// Check tells what is wrong with a configuration, before anything is started.
func (c Config) Check() error { return c.defaults() }

// Run serves until ctx ends. It leaves no process behind.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.defaults(); err != nil {
		return err
	}
	listener, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	defer listener.Close()
	p := &Playground{cfg: cfg, page: "http://" + listener.Addr().String()}
	fmt.Fprintf(cfg.Out, "starting %d routers and %d nodes over %s ...\n", cfg.Routers, cfg.Nodes, p.backend())
	err = errors.Join(reach(ctx, "Kafka", cfg.Kafka), reach(ctx, "etcd", cfg.Etcd))
	if err == nil {
		err = p.open(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return err
	}
	defer func() {
		// What ended by itself was told when it was seen.
		if closed := p.stack.Close(); closed != nil {
			fmt.Fprintf(cfg.Err, "playground: while stopping: %v\n", closed)
		}
		fmt.Fprintln(cfg.Out, "\nstopped; no process is left")
	}()
	p.producer, err = newProducer(p.stack.Kafka(), p.stack.Topic(), clientKeys(cfg.Clients), cfg.Rate)
	if err != nil {
		return err
	}
	defer p.producer.close()
	p.world = newWorld(p.stack)
	fmt.Fprint(cfg.Out, p.hints())
	return p.serve(ctx, listener)
}

func (p *Playground) backend() string {
	if p.cfg.external() {
		return "Kafka " + strings.Join(p.cfg.Kafka, ",") + " and etcd " + strings.Join(p.cfg.Etcd, ",")
	}
	return "an in-process Kafka and an embedded etcd"
}

// reach tells at once when nobody listens where somebody else's Kafka or etcd should be.
func reach(ctx context.Context, what string, addrs []string) error {
	if len(addrs) == 0 {
		return nil
	}
	dialer := net.Dialer{Timeout: dialTime}
	var errs []error
	for _, addr := range addrs {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("no %s answers at %s; start it, or leave --kafka and --etcd out for ones of the playground's own: %w",
		what, strings.Join(addrs, ","), errors.Join(errs...))
}

func (p *Playground) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("it did not start within %v", startTime))
	defer cancel()
	kind := stack.Processes
	if p.cfg.external() {
		kind = stack.External
	}
	p.stack, err = stack.Open(ctx, kind, stack.Options{
		Routers: p.cfg.Routers, Nodes: p.cfg.Nodes, Partitions: p.cfg.Partitions, Topic: p.cfg.Topic,
		EtcdPrefix: p.cfg.EtcdPrefix, Bin: p.cfg.Bin, Dir: p.cfg.Dir, KafkaAddrs: p.cfg.Kafka, EtcdAddrs: p.cfg.Etcd,
		WellKnown: !p.cfg.FreePorts,
		// A playground that is forgotten over night does not fill a disk.
		TopicConfig: map[string]string{"retention.ms": "3600000"},
		RouterFlags: []string{"--origins=" + strings.Join(p.origins(), ",")},
	})
	return err
}

// origins are how a browser may call the page.
func (p *Playground) origins() []string {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(p.page, "http://"))
	return []string{p.page, "http://localhost:" + port}
}

// loopback reports whether an address with or without a port is one of this machine only.
func loopback(addr string) bool {
	host := addr
	if name, _, err := net.SplitHostPort(addr); err == nil {
		host = name
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// listen opens the page's address.
func listen(ctx context.Context, cfg Config) (net.Listener, error) {
	var lc net.ListenConfig
	if cfg.Listen == "" {
		if !cfg.FreePorts {
			if l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(pagePort))); err == nil {
				return l, nil
			}
		}
		cfg.Listen = "127.0.0.1:0"
	}
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("address %s is in use by another process; choose another with --listen, or leave that out for a free one", cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the page: %w", err)
	}
	return l, nil
}
