package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

const pollEvery = 20 * time.Millisecond

// The ports of Options.WellKnown.
const (
	kafkaPort       = 9092
	etcdPort        = 2379
	firstRouterPort = 8080
)

// unit is one running router or node, a process or a goroutine.
type unit interface {
	pid() int
	stop(ctx context.Context) error // in order; an error if it ended with one
	kill() error                    // without a word
	freeze(ctx context.Context) error
	thaw() error
	done() <-chan struct{}
	ended() string // how, when done
}

// spec is what a unit is started from.
type spec struct {
	name   string
	listen string // host:port for clients or links
	inner  string // host:port where a node behind a bridge really listens; empty without one
	admin  string // host:port
	log    string // path
}

// launcher starts units over a backend.
type launcher interface {
	router(spec) (unit, error)
	node(spec) (unit, error)
}

// member is one router or node with its place in the stack.
type member struct {
	spec
	unit unit // nil while a router is stopped
}

// cluster is the one Stack: a backend and a launcher.
type cluster struct {
	// Static after open.
	kind   Kind
	opts   Options
	prefix string
	dir    string
	temp   bool
	ports  procs.Ports
	back   backend
	launch launcher

	mu       sync.Mutex
	routers  []*member // guarded by mu
	nodes    []*member // guarded by mu; those that run
	started  int       // guarded by mu; nodes so far, for their ids
	etcdDown bool      // guarded by mu
	closed   bool      // guarded by mu
	lost     []error   // guarded by mu; what ended unasked
}

func (c *cluster) Kind() Kind         { return c.kind }
func (c *cluster) Topic() string      { return c.opts.Topic }
func (c *cluster) Partitions() int32  { return c.opts.Partitions }
func (c *cluster) EtcdPrefix() string { return c.prefix }
func (c *cluster) Kafka() []string    { return c.back.kafka() }
func (c *cluster) Etcd() []string     { return c.back.etcd() }
func (c *cluster) Dir() string        { return c.dir }

func (c *cluster) Routers() []Router {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Router
	for _, m := range c.routers {
		r := Router{Name: m.name, URL: "ws://" + m.listen, Admin: "http://" + m.admin, Log: m.log}
		if m.unit != nil {
			r.PID, r.Ended = m.unit.pid(), m.ended()
		}
		out = append(out, r)
	}
	return out
}

func (c *cluster) Nodes() []Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Node
	for _, m := range c.nodes {
		out = append(out, m.node())
	}
	return out
}

func (m *member) node() Node {
	return Node{ID: m.name, Admin: "http://" + m.admin, Addr: m.listen, PID: m.unit.pid(), Log: m.log, Ended: m.ended()}
}

// ended tells how the member's process ended, "" while it runs.
func (m *member) ended() string {
	select {
	case <-m.unit.done():
		return m.unit.ended()
	default:
		return ""
	}
}

// newSpec finds addresses for a member; the ports it would like come first, listen and admin.
func (c *cluster) newSpec(name string, like ...int) (spec, error) {
	s := spec{name: name, log: filepath.Join(c.dir, name+".log")}
	for i, addr := range []*string{&s.listen, &s.admin} {
		var err error
		if i < len(like) {
			*addr, err = c.ports.Prefer(like[i])
		} else {
			*addr, err = c.ports.Take()
		}
		if err != nil {
			return spec{}, err
		}
	}
	return s, nil
}

func (c *cluster) AddNode(ctx context.Context) (Node, error) {
	m, err := c.startNode()
	if err != nil {
		return Node{}, err
	}
	c.opts.Logf("%s started", m.name)
	return m.node(), c.ready(ctx, m, "/readyz")
}

// startNode returns a node that is starting.
func (c *cluster) startNode() (*member, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errors.New("add a node: the stack is closed")
	}
	c.started++
	name := fmt.Sprintf("node-%d", c.started)
	c.mu.Unlock()

	s, err := c.newSpec(name)
	if err != nil {
		return nil, err
	}
	if c.opts.Bridged {
		if s.inner, err = c.ports.Take(); err != nil {
			return nil, err
		}
	}
	return c.launchNode(s)
}

func (c *cluster) launchNode(s spec) (*member, error) {
	u, err := c.launch.node(s)
	if err != nil {
		return nil, err
	}
	m := &member{spec: s, unit: u}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed { // Close did not see it
		return nil, errors.Join(errors.New("add a node: the stack is closed"), u.kill())
	}
	c.nodes = append(c.nodes, m)
	return m, nil
}

// ready waits until the member's admin server answers 200 on path.
func (c *cluster) ready(ctx context.Context, m *member, path string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready within a minute"))
	defer cancel()
	err := procs.Poll(ctx, pollEvery, func() error {
		select {
		case <-m.unit.done():
			cancel()
			return errors.New(m.unit.ended())
		default:
		}
		return procs.CheckHTTP(ctx, "http://"+m.admin+path)
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w\nits log ends with:\n%s", m.name, err, procs.Tail(m.log, 15))
	}
	return nil
}

// take removes a node from those that run.
func (c *cluster) take(id string) (*member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.nodes, func(m *member) bool { return m.name == id })
	if i < 0 {
		return nil, fmt.Errorf("no node %s runs", id)
	}
	m := c.nodes[i]
	c.nodes = slices.Delete(c.nodes, i, i+1)
	c.noteLocked(m)
	return m, nil
}

// noteLocked keeps what ended without being asked to; Close tells it.
func (c *cluster) noteLocked(m *member) {
	if m.unit == nil {
		return
	}
	select {
	case <-m.unit.done():
		c.lost = append(c.lost, fmt.Errorf("%s ended unasked: %s\nits log ends with:\n%s", m.name, m.unit.ended(), procs.Tail(m.log, 15)))
	default:
	}
}

func (c *cluster) DrainNode(ctx context.Context, id string) error {
	m, err := c.take(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s drains", id)
	return m.unit.stop(ctx)
}

func (c *cluster) KillNode(_ context.Context, id string) error {
	m, err := c.take(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s killed", id)
	return m.unit.kill()
}

func (c *cluster) find(id string) (*member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.nodes {
		if m.name == id {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no node %s runs", id)
}

func (c *cluster) FreezeNode(ctx context.Context, id string) error {
	m, err := c.find(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s frozen", id)
	return m.unit.freeze(ctx)
}

func (c *cluster) ThawNode(_ context.Context, id string) error {
	m, err := c.find(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s thawed", id)
	return m.unit.thaw()
}

// routerUnit is router i, which runs.
func (c *cluster) routerUnit(i int, end bool) (unit, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.routers) || c.routers[i].unit == nil {
		return nil, "", fmt.Errorf("no router %d runs", i)
	}
	m := c.routers[i]
	u := m.unit
	if end {
		c.noteLocked(m)
		m.unit = nil
	}
	return u, m.name, nil
}

func (c *cluster) KillRouter(_ context.Context, i int) error {
	u, name, err := c.routerUnit(i, true)
	if err != nil {
		return err
	}
	c.opts.Logf("%s killed", name)
	return u.kill()
}

func (c *cluster) StopRouter(ctx context.Context, i int) error {
	u, name, err := c.routerUnit(i, true)
	if err != nil {
		return err
	}
	c.opts.Logf("%s stops", name)
	return u.stop(ctx)
}

func (c *cluster) FreezeRouter(ctx context.Context, i int) error {
	u, name, err := c.routerUnit(i, false)
	if err != nil {
		return err
	}
	c.opts.Logf("%s frozen", name)
	return u.freeze(ctx)
}

func (c *cluster) ThawRouter(_ context.Context, i int) error {
	u, name, err := c.routerUnit(i, false)
	if err != nil {
		return err
	}
	c.opts.Logf("%s thawed", name)
	return u.thaw()
}

func (c *cluster) StartRouter(ctx context.Context, i int) error {
	c.mu.Lock()
	if c.closed || i < 0 || i >= len(c.routers) || c.routers[i].unit != nil {
		c.mu.Unlock()
		return fmt.Errorf("start router %d: there is none that is stopped", i)
	}
	m := c.routers[i]
	u, err := c.launch.router(m.spec) // quick, and the place must not be taken twice
	if err == nil {
		m.unit = u
	}
	// A router without nodes, or without etcd, is alive and not ready.
	path := "/readyz"
	if len(c.nodes) == 0 || c.etcdDown {
		path = "/livez"
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.opts.Logf("%s started", m.name)
	return c.ready(ctx, &member{spec: m.spec, unit: u}, path)
}

func (c *cluster) setEtcdDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.etcdDown = down
}

func (c *cluster) StopEtcd(ctx context.Context) error {
	c.opts.Logf("etcd stops")
	c.setEtcdDown(true)
	return c.back.stopEtcd(ctx)
}

func (c *cluster) StartEtcd(ctx context.Context) error {
	c.opts.Logf("etcd starts")
	err := c.back.startEtcd(ctx)
	if err == nil {
		c.setEtcdDown(false)
	}
	return err
}

func (c *cluster) WipeEtcd(ctx context.Context) error {
	c.opts.Logf("etcd loses its data")
	err := c.back.wipeEtcd(ctx)
	if err == nil {
		c.setEtcdDown(false)
	}
	return err
}

func (c *cluster) StopKafka(ctx context.Context) error {
	c.opts.Logf("Kafka stops")
	return c.back.stopKafka(ctx)
}

func (c *cluster) StartKafka(ctx context.Context) error {
	c.opts.Logf("Kafka starts")
	return c.back.startKafka(ctx)
}

func (c *cluster) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	members := slices.Concat(c.routers, c.nodes)
	for _, m := range members {
		c.noteLocked(m)
	}
	errs := c.lost
	c.mu.Unlock()

	// Side by side: in one process each has goroutines to wait for.
	var wg sync.WaitGroup
	ends := make([]error, len(members))
	for i, m := range members {
		if m.unit != nil {
			wg.Go(func() { ends[i] = m.unit.kill() })
		}
	}
	wg.Wait()
	errs = append(errs, ends...)
	if c.back != nil {
		errs = append(errs, c.back.close())
	}
	errs = append(errs, c.ports.Close())
	if c.temp {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
