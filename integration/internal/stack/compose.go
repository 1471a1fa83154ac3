package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// composed is the Stack that deploy/compose.yaml describes: containers, with the faults that an engine can make.
type composed struct {
	// Static after open.
	opts     Options
	dir      string
	temp     bool
	project  string
	file     string // deploy/compose.yaml
	override string // what Options add to it
	ports    procs.Ports
	env      []string
	kafkas   []string
	etcds    []string
	balancer Router
	docker   container
	// Prometheus's address on the host, once Observe has started it.
	prometheus string

	mu       sync.Mutex
	routers  []Router          // guarded by mu; PID is 0 while stopped
	ids      []string          // guarded by mu; the routers' containers
	nodes    []containedNode   // guarded by mu; those that run
	services map[string]string // guarded by mu; kafka and etcd's containers
	closed   bool              // guarded by mu
	etcdDown bool              // guarded by mu
}

// containedNode is a node and the container that it runs in.
type containedNode struct {
	Node
	container string
}

const projectPrefix = "pointsman-test-"

func openComposed(ctx context.Context, o Options) (Stack, error) {
	c := &composed{opts: o, dir: o.Dir, project: fmt.Sprintf("%s%d", projectPrefix, os.Getpid()), services: map[string]string{}}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open a stack of containers: %w", err), c.Close())
	}
	return c, nil
}

func (c *composed) open(ctx context.Context) (err error) {
	if c.opts.Fault != "" || len(c.opts.TopicConfig) > 0 || c.opts.WellKnown {
		return fmt.Errorf("faults in the programs, topic settings and well-known ports: %w", ErrUnsupported)
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "pointsman-stack-"); err != nil {
			return err
		}
		c.temp = true
	}
	root, err := repository()
	if err != nil {
		return err
	}
	c.file = filepath.Join(root, "deploy", "compose.yaml")
	if err := c.settings(root); err != nil {
		return err
	}
	if c.docker, err = findDocker(ctx); err != nil {
		return err
	}
	if err := c.docker.removeLeftovers(ctx); err != nil {
		return err
	}
	if err := c.compose(ctx, "up", "-d", "kafka", "etcd", "topic"); err != nil {
		return err
	}
	for _, service := range []string{"kafka", "etcd"} {
		ids, err := c.containers(ctx, service)
		if err != nil {
			return err
		}
		c.services[service] = ids[0]
	}
	if err := c.compose(ctx, "up", "-d", "--no-deps", "--scale", fmt.Sprintf("router=%d", c.opts.Routers), "router", "balancer"); err != nil {
		return err
	}
	if err := c.meetRouters(ctx); err != nil {
		return err
	}
	// The topic service is a container that ends: `up` returns before that.
	if c.opts.Partitions, err = ensureTopic(ctx, c.kafkas, c.opts); err != nil {
		return err
	}
	if c.opts.Nodes > 0 {
		if err := c.scale(ctx, c.opts.Nodes); err != nil {
			return err
		}
	}
	for i := range c.routers {
		if err := c.routerReady(ctx, i); err != nil {
			return err
		}
	}
	if err := c.balancerReady(ctx); err != nil {
		return err
	}
	c.opts.Logf("stack %s: Kafka %v, etcd %v, %d routers, %d nodes, logs in %s", Compose, c.kafkas, c.etcds, len(c.routers), len(c.nodes), c.dir)
	return nil
}

// settings finds ports and writes what compose reads beside its file.
func (c *composed) settings(root string) error {
	c.env = append(os.Environ(), "COMPOSE_PROJECT_NAME="+c.project, "TOPIC="+c.opts.Topic, "PARTITIONS="+strconv.Itoa(int(c.opts.Partitions)))
	if os.Getenv("KAFKA_IMAGE") == "" {
		// What `make images` built; without the file compose pulls the public images.
		data, err := os.ReadFile(filepath.Join(root, ".cache", "images.env"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for line := range strings.Lines(string(data)) {
			c.env = append(c.env, strings.TrimPrefix(strings.TrimSpace(line), "export "))
		}
	}
	port := func(variable string) (string, error) {
		addr, err := c.ports.Take()
		if err != nil {
			return "", err
		}
		_, p, err := net.SplitHostPort(addr)
		c.env = append(c.env, variable+"="+p)
		return addr, err
	}
	kafka, err := port("KAFKA_PORT")
	if err != nil {
		return err
	}
	etcd, err := port("ETCD_PORT")
	if err != nil {
		return err
	}
	c.kafkas, c.etcds = []string{kafka}, []string{etcd}
	listen, err := port("ROUTER_PORT")
	if err != nil {
		return err
	}
	admin, err := port("ROUTER_ADMIN_PORT")
	if err != nil {
		return err
	}
	if c.prometheus, err = port("PROMETHEUS_PORT"); err != nil {
		return err
	}
	c.balancer = Router{Name: "balancer", URL: "ws://" + listen, Admin: "http://" + admin}
	services := map[string]any{
		"wsnode": map[string]any{"command": append([]string{"--etcd-prefix=" + c.opts.EtcdPrefix}, c.opts.NodeFlags...)},
		"router": map[string]any{"command": append([]string{"--etcd-prefix=" + c.opts.EtcdPrefix}, c.opts.RouterFlags...)},
	}
	text, err := json.MarshalIndent(map[string]any{"services": services}, "", "  ") // JSON is YAML
	if err != nil {
		return err
	}
	c.override = filepath.Join(c.dir, "override.yaml")
	c.env = append(c.env, "COMPOSE_FILE="+c.file+string(os.PathListSeparator)+c.override)
	return os.WriteFile(c.override, text, 0o644)
}

// compose runs one of compose's commands on the project.
func (c *composed) compose(ctx context.Context, args ...string) error {
	_, err := c.composeOutput(ctx, args...)
	return err
}

func (c *composed) composeOutput(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.docker.compose[0], append(slices.Clone(c.docker.compose[1:]), args...)...)
	cmd.Env = c.env
	return output(cmd)
}

// containers are those of a service, running or not.
func (c *composed) containers(ctx context.Context, service string) ([]string, error) {
	out, err := c.composeOutput(ctx, "ps", "-q", service)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(out)
	if len(ids) == 0 {
		return nil, fmt.Errorf("compose started no container for %s", service)
	}
	return ids, nil
}

// scale has compose start or stop nodes until n run, and returns when all of them are ready.
func (c *composed) scale(ctx context.Context, n int) error {
	if err := c.compose(ctx, "up", "-d", "--no-deps", "--no-recreate", "--scale", fmt.Sprintf("wsnode=%d", n), "wsnode"); err != nil {
		return err
	}
	return c.meetNodes(ctx)
}

// meetNodes sees which nodes there are now, and returns when all of them are ready.
func (c *composed) meetNodes(ctx context.Context) error {
	ids, err := c.containers(ctx, "wsnode")
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.nodes = slices.DeleteFunc(c.nodes, func(n containedNode) bool { return !slices.Contains(ids, n.container) })
	c.mu.Unlock()
	for _, id := range ids {
		c.mu.Lock()
		known := slices.ContainsFunc(c.nodes, func(n containedNode) bool { return n.container == id })
		c.mu.Unlock()
		if known {
			continue
		}
		n, err := c.meet(ctx, id)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.nodes = append(c.nodes, n)
		c.mu.Unlock()
	}
	return nil
}

// meetRouters sees which routers there are now. A test reaches each at its container's address; users come through the
// balancer.
func (c *composed) meetRouters(ctx context.Context) error {
	ids, err := c.containers(ctx, "router")
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.ids = ids
	c.routers = make([]Router, len(ids))
	for i := range c.routers {
		name := fmt.Sprintf("router-%d", i+1)
		c.routers[i] = Router{Name: name, Log: filepath.Join(c.dir, name+".log")}
	}
	c.mu.Unlock()
	for i := range ids {
		if err := c.seeRouter(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// meet waits until a node's container is ready and finds the node's id, which it made itself, by its address.
func (c *composed) meet(ctx context.Context, id string) (containedNode, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready within a minute"))
	defer cancel()
	n := containedNode{container: id}
	err := procs.Poll(ctx, pollEvery, func() error {
		state, err := c.docker.inspect(ctx, id)
		if err != nil {
			return err
		}
		if !state.running {
			return fmt.Errorf("container ended with code %d", state.exitCode)
		}
		n.PID, n.Admin = state.pid, "http://"+net.JoinHostPort(state.ip, "9081")
		if err := procs.CheckHTTP(ctx, n.Admin+"/readyz"); err != nil {
			return err
		}
		n.ID, n.Addr, err = c.nodeAt(ctx, state.ip)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("wait for node %.12s: %w\nits log ends with:\n%s", id, err, c.docker.logs(context.WithoutCancel(ctx), id, 15))
	}
	n.Log = filepath.Join(c.dir, n.ID+".log")
	return n, nil
}

// nodeAt is the node that etcd says is at an address.
func (c *composed) nodeAt(ctx context.Context, ip string) (id, addr string, err error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: c.etcds, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return "", "", err
	}
	defer client.Close()
	keys := directory.Keys{Prefix: c.opts.EtcdPrefix, Topic: c.opts.Topic}
	resp, err := client.Get(ctx, keys.Nodes(), clientv3.WithPrefix())
	if err != nil {
		return "", "", err
	}
	for _, kv := range resp.Kvs {
		node, err := directory.ParseNode(kv.Value)
		if err != nil {
			return "", "", err
		}
		if host, _, err := net.SplitHostPort(node.Addr); err == nil && host == ip {
			if id, ok := keys.NodeID(string(kv.Key)); ok {
				return id, node.Addr, nil
			}
		}
	}
	return "", "", fmt.Errorf("etcd names no node at %s", ip)
}

func (c *composed) Kind() Kind         { return Compose }
func (c *composed) Topic() string      { return c.opts.Topic }
func (c *composed) Partitions() int32  { return c.opts.Partitions }
func (c *composed) EtcdPrefix() string { return c.opts.EtcdPrefix }
func (c *composed) Kafka() []string    { return c.kafkas }
func (c *composed) Etcd() []string     { return c.etcds }
func (c *composed) Dir() string        { return c.dir }

func (c *composed) Routers() []Router {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.routers)
}

func (c *composed) Nodes() []Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Node
	for _, n := range c.nodes {
		out = append(out, n.Node)
	}
	return out
}

func (c *composed) AddNode(ctx context.Context) (Node, error) {
	c.mu.Lock()
	n := len(c.nodes)
	c.mu.Unlock()
	if err := c.scale(ctx, n+1); err != nil {
		return Node{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	added := c.nodes[len(c.nodes)-1].Node
	c.opts.Logf("%s started", added.ID)
	return added, nil
}

func (c *composed) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	logs := map[string]string{}
	for i, id := range c.ids {
		logs[id] = c.routers[i].Log
	}
	for _, n := range c.nodes {
		logs[n.container] = n.Log
	}
	for name, id := range c.services {
		logs[id] = filepath.Join(c.dir, name+".log")
	}
	c.mu.Unlock()
	// Also when the test's time is over.
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Minute, errors.New("the containers did not go within 2 minutes"))
	defer cancel()
	var errs []error
	for id, path := range logs {
		c.docker.saveLog(ctx, id, path)
	}
	if c.docker.compose != nil {
		errs = append(errs, c.compose(ctx, "kill"), c.compose(ctx, "down", "-v", "--remove-orphans"))
	}
	errs = append(errs, c.ports.Close())
	if c.temp {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
