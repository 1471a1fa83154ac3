package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

func (o *Options) defaults() {
	if o.Routers == 0 {
		o.Routers = 1
	}
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Partitions == 0 {
		o.Partitions = 8
	}
	if o.Topic == "" {
		o.Topic = "records"
	}
	if o.EtcdPrefix == "" {
		o.EtcdPrefix = "/pointsman"
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
}

// Open starts a stack and returns when its nodes have been assigned their partitions and its routers know them.
func Open(ctx context.Context, kind Kind, o Options) (Stack, error) {
	o.defaults()
	if o.Fault != "" && kind == InProcess {
		return nil, fmt.Errorf("POINTSMAN_FAULT in one process: %w", ErrUnsupported)
	}
	if kind == Compose {
		return openComposed(ctx, o)
	}
	if kind == Existing {
		return openExisting(ctx, o)
	}
	c := &cluster{kind: kind, opts: o, prefix: o.EtcdPrefix, dir: o.Dir}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open a stack of kind %s: %w", kind, err), c.Close())
	}
	return c, nil
}

func (c *cluster) open(ctx context.Context) (err error) {
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "pointsman-stack-"); err != nil {
			return err
		}
		c.temp = true
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	switch c.kind {
	case InProcess, Processes:
		c.back, err = openEmbedded(c.dir, &c.ports, c.opts.WellKnown)
	case Real, Secured:
		var root string
		if root, err = repository(); err == nil {
			c.back, err = openReal(ctx, root, c.dir, &c.ports, c.kind == Secured)
		}
	case External:
		c.back = external{c.opts.KafkaAddrs, c.opts.EtcdAddrs}
		if len(c.opts.KafkaAddrs) == 0 || len(c.opts.EtcdAddrs) == 0 {
			err = errors.New("an external stack needs Options.KafkaAddrs and Options.EtcdAddrs")
		}
	default:
		err = fmt.Errorf("there is no kind %q", c.kind)
	}
	if err != nil {
		return err
	}
	if c.kind == InProcess {
		c.launch = &goroutines{opts: c.opts, prefix: c.prefix, back: c.back, ports: &c.ports}
	} else {
		bin, err := programs(ctx, c.opts)
		if err != nil {
			return err
		}
		l := &processes{opts: c.opts, prefix: c.prefix, back: c.back}
		if s := c.Security(); s != nil {
			l.routerFlags, l.nodeFlags = s.routerFlags(), s.nodeFlags()
		} else {
			etcd := "--etcd=" + strings.Join(c.back.etcd(), ",")
			l.routerFlags = []string{etcd}
			l.nodeFlags = []string{etcd, "--kafka=" + strings.Join(c.back.kafka(), ",")}
		}
		l.bin.Store(&bin)
		c.launch = l
	}
	if c.opts.Partitions, err = ensureTopic(ctx, c.back.kafka(), c.opts); err != nil {
		return err
	}
	if s := c.Security(); s != nil {
		if err = allow(ctx, c.back.kafka(), c.opts.Topic); err != nil {
			return err
		}
		if err = s.allowed(ctx, c.opts.Topic); err != nil {
			return err
		}
	}
	return c.populate(ctx)
}

// populate starts routers and nodes side by side: who comes first must not matter.
func (c *cluster) populate(ctx context.Context) error {
	for i := range c.opts.Routers {
		var like []int
		if c.opts.WellKnown {
			like = []int{firstRouterPort + 2*i, firstRouterPort + 2*i + 1}
		}
		s, err := c.newSpec(fmt.Sprintf("router-%d", i+1), like...)
		if err != nil {
			return err
		}
		m := &member{spec: s}
		if m.unit, err = c.launch.router(s); err != nil {
			return err
		}
		c.mu.Lock()
		c.routers = append(c.routers, m)
		c.mu.Unlock()
	}
	for range max(0, c.opts.Nodes) {
		if _, err := c.startNode(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	routers, nodes := slices.Clone(c.routers), slices.Clone(c.nodes)
	c.mu.Unlock()
	for _, m := range nodes {
		if err := c.ready(ctx, m, "/readyz"); err != nil {
			return err
		}
	}
	path := "/readyz"
	if len(nodes) == 0 {
		path = "/livez"
	}
	for _, m := range routers {
		if err := c.ready(ctx, m, path); err != nil {
			return err
		}
	}
	c.opts.Logf("stack %s: Kafka %v, etcd %v, %d routers, %d nodes, topic %s with %d partitions, logs in %s",
		c.kind, c.Kafka(), c.Etcd(), len(routers), len(nodes), c.Topic(), c.Partitions(), c.dir)
	return nil
}

// Start runs a stack for the length of a test, of the kind that POINTSMAN_STACK asks for. When the test fails it
// prints the ends of all logs.
func Start(tb TB, o Options) Stack {
	tb.Helper()
	kind, err := KindFromEnv()
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return StartKind(tb, kind, o)
}

// StartKind is Start with a kind that the test chooses.
func StartKind(tb TB, kind Kind, o Options) Stack {
	tb.Helper()
	if o.Logf == nil {
		o.Logf = tb.Logf
	}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "pointsman-stack-")
		if err != nil {
			tb.Fatalf("%v", err)
		}
		o.Dir = dir
		tb.Cleanup(func() {
			if tb.Failed() && os.Getenv("POINTSMAN_KEEP") != "" {
				tb.Logf("kept: %s", dir)
				return
			}
			if err := os.RemoveAll(dir); err != nil {
				tb.Logf("%v", err)
			}
		})
	}
	limit := 5 * time.Minute
	if kind == Compose {
		limit = 8 * time.Minute // two dozen commands of compose and the engine, each of them slow on a busy machine
	}
	ctx, cancel := context.WithTimeoutCause(tb.Context(), limit, fmt.Errorf("the stack did not start within %s", limit))
	defer cancel()
	s, err := Open(ctx, kind, o)
	if err != nil {
		tailLogs(tb, o.Dir)
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		failed := tb.Failed()
		err := s.Close()
		if failed || err != nil {
			tailLogs(tb, o.Dir)
		}
		if err != nil {
			tb.Fatalf("close the stack: %v", err)
		}
	})
	return s
}

func tailLogs(tb TB, dir string) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return
	}
	for _, log := range logs {
		tb.Logf("%s ends with:\n%s", filepath.Base(log), procs.Tail(log, 40))
	}
}
