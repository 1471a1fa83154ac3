// Package arena runs one configuration of one design over a Kafka, an etcd and a Redis that are there, so that the
// same clients, checker and faults can be turned on each of them.
package arena

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// The roles of processes.
const (
	Server        = "server" // keeps client sockets, or in two tiers reads the topic for those who do
	Router        = "router"
	Redistributor = "redistributor"
)

// Options say what to run.
type Options struct {
	Design  string // a name of Designs
	Servers int
	// Others is how many routers or redistributors; 0 means as many as the design has by default for its servers.
	Others int

	Kafka      []string
	Etcd       []string
	Redis      string
	Topic      string // which exists
	Partitions int32

	Launch Launcher
	Bin    string // of the product's programs, for pointsman; empty runs it in this process
	Dir    string // for logs
	Logf   func(format string, args ...any)
}

// Member is one running process.
type Member struct {
	Role, Name string
	PID        int    // 0 in process
	Admin      string // http base URL
}

// Arena is a running configuration.
type Arena interface {
	// Brokers are the Kafka that it reads.
	Brokers() []string
	// Entrances are where clients connect.
	Entrances() []load.Target
	Members() []Member
	AddServer(ctx context.Context) error
	// KillServer and DrainServer end the oldest server; the entrances change where clients connect to servers.
	KillServer(ctx context.Context) error
	DrainServer(ctx context.Context) error
	// KillOther ends a router or redistributor without a word, and starts another one in its place.
	KillOther(ctx context.Context) error
	// Shutdown ends everything in order, those who have clients first. Close ends what is left at once.
	Shutdown(ctx context.Context) error
	Close() error
}

// cluster is the Arena of everything but the product itself.
type cluster struct {
	// Static after construction.
	opts   Options
	design *Design
	ports  procs.Ports

	mu      sync.Mutex
	members []*member // guarded by mu
	started int       // guarded by mu
}

type member struct {
	Member
	listen string
	log    string
	unit   unit
}

const pollEvery = 20 * time.Millisecond

// Open starts a configuration and returns when it serves.
func Open(ctx context.Context, o Options) (Arena, error) {
	d, err := Find(o.Design)
	if err != nil {
		return nil, err
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Others == 0 && d.Others != nil {
		o.Others = d.Others(o.Servers)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	if d.product {
		return openProduct(ctx, o)
	}
	c := &cluster{opts: o, design: d}
	if err := c.populate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", o.Design, err), c.Close())
	}
	return c, nil
}

func (c *cluster) populate(ctx context.Context) error {
	var all []*member
	for _, part := range []struct {
		role  string
		count int
	}{{c.design.other, c.opts.Others}, {Server, c.opts.Servers}} {
		for range part.count {
			m, err := c.start(part.role)
			if err != nil {
				return err
			}
			all = append(all, m)
		}
	}
	if err := c.ready(ctx, all); err != nil {
		return err
	}
	return c.settled(ctx)
}

// settled waits until the partitions are shared evenly and the routers know it.
func (c *cluster) settled(ctx context.Context) error {
	owning := c.design.owning
	if owning == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not settled within a minute"))
	defer cancel()
	err := procs.Poll(ctx, pollEvery, func() error {
		owners := make(map[int32]string)
		members := c.list(owning)
		for _, m := range members {
			var owned []int32
			if err := get(ctx, m.Admin+"/debug/vars/owned", &owned); err != nil {
				return err
			}
			if n := len(owned); n < int(c.opts.Partitions)/len(members) {
				return fmt.Errorf("%s owns %d partitions", m.Name, n)
			}
			for _, p := range owned {
				owners[p] = m.Name
			}
		}
		if len(owners) != int(c.opts.Partitions) {
			return fmt.Errorf("%d of %d partitions are owned", len(owners), c.opts.Partitions)
		}
		for _, m := range c.list(Router) {
			known := make(map[int32]string)
			if err := get(ctx, m.Admin+"/debug/vars/owners", &known); err != nil {
				return err
			}
			if !maps.Equal(known, owners) {
				return fmt.Errorf("%s knows %v, want %v", m.Name, known, owners)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait until the partitions are shared: %w", err)
	}
	return nil
}

// get reads JSON.
func get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// start starts a part; ready waits for it.
func (c *cluster) start(role string) (*member, error) {
	c.mu.Lock()
	c.started++
	m := &member{Member: Member{Role: role, Name: fmt.Sprintf("%s-%d", role, c.started)}}
	c.mu.Unlock()
	var admin string
	var err error
	if m.listen, err = c.ports.Take(); err != nil {
		return nil, err
	}
	if admin, err = c.ports.Take(); err != nil {
		return nil, err
	}
	m.Admin, m.log = "http://"+admin, filepath.Join(c.opts.Dir, m.Name+".log")
	args := append(c.design.args(role, &c.opts), "--topic="+c.opts.Topic, "--id="+m.Name, "--admin="+admin)
	if c.design.listens(role) {
		args = append(args, "--listen="+m.listen)
	}
	if c.design.readsKafka(role) {
		args = append(args, "--kafka="+strings.Join(c.opts.Kafka, ","))
	}
	if m.unit, err = c.opts.Launch.launch(m.Name, m.log, args); err != nil {
		return nil, err
	}
	m.PID = m.unit.pid()
	c.mu.Lock()
	c.members = append(c.members, m)
	c.mu.Unlock()
	return m, nil
}

func (c *cluster) ready(ctx context.Context, members []*member) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready within a minute"))
	defer cancel()
	for _, m := range members {
		err := procs.Poll(ctx, pollEvery, func() error {
			select {
			case <-m.unit.done():
				cancel()
				return errors.New("it has ended")
			default:
			}
			return procs.CheckHTTP(ctx, m.Admin+"/readyz")
		})
		if err != nil {
			return fmt.Errorf("wait for %s: %w\nits log ends with:\n%s", m.Name, err, procs.Tail(m.log, 15))
		}
	}
	return nil
}

func (c *cluster) list(role string) []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*member
	for _, m := range c.members {
		if role == "" || m.Role == role {
			out = append(out, m)
		}
	}
	return out
}

// Brokers implements Arena.
func (c *cluster) Brokers() []string { return c.opts.Kafka }

// Entrances implements Arena.
func (c *cluster) Entrances() []load.Target {
	role := Server
	if c.design.other == Router {
		role = Router
	}
	var out []load.Target
	for _, m := range c.list(role) {
		out = append(out, load.Target{Name: m.Name, URL: "ws://" + m.listen})
	}
	return out
}

// Members implements Arena.
func (c *cluster) Members() []Member {
	var out []Member
	for _, m := range c.list("") {
		out = append(out, m.Member)
	}
	return out
}

// AddServer implements Arena.
func (c *cluster) AddServer(ctx context.Context) error {
	m, err := c.start(Server)
	if err != nil {
		return err
	}
	return c.ready(ctx, []*member{m})
}

// take removes the oldest member of a role from those that run: nobody connects to it again.
func (c *cluster) take(role string) (*member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.members, func(m *member) bool { return m.Role == role })
	if i < 0 {
		return nil, fmt.Errorf("no %s runs", role)
	}
	m := c.members[i]
	c.members = slices.Delete(c.members, i, i+1)
	return m, nil
}

// KillServer implements Arena.
func (c *cluster) KillServer(context.Context) error {
	m, err := c.take(Server)
	if err != nil {
		return err
	}
	c.opts.Logf("%s killed", m.Name)
	return m.unit.kill()
}

// DrainServer implements Arena.
func (c *cluster) DrainServer(ctx context.Context) error {
	m, err := c.take(Server)
	if err != nil {
		return err
	}
	c.opts.Logf("%s drains", m.Name)
	return m.unit.stop(ctx)
}

// KillOther implements Arena.
func (c *cluster) KillOther(ctx context.Context) error {
	m, err := c.take(c.design.other)
	if err != nil {
		return err
	}
	c.opts.Logf("%s killed", m.Name)
	if err := m.unit.kill(); err != nil {
		return err
	}
	fresh, err := c.start(c.design.other)
	if err != nil {
		return err
	}
	return c.ready(ctx, []*member{fresh})
}

// Shutdown implements Arena.
func (c *cluster) Shutdown(ctx context.Context) error {
	first, then := Server, c.design.other
	if c.design.other == Router {
		first, then = Router, Server
	}
	return errors.Join(c.shutdown(ctx, first), c.shutdown(ctx, then))
}

// shutdown ends all members of a role, side by side.
func (c *cluster) shutdown(ctx context.Context, role string) error {
	if role == "" {
		return nil
	}
	members := c.list(role)
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.unit.stop(ctx) })
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = slices.DeleteFunc(c.members, func(m *member) bool { return m.Role == role })
	return errors.Join(errs...)
}

// Close implements Arena.
func (c *cluster) Close() error {
	members := c.list("")
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		select {
		case <-m.unit.done():
			errs[i] = fmt.Errorf("%s ended unasked; its log ends with:\n%s", m.Name, procs.Tail(m.log, 10))
			continue
		default:
		}
		wg.Go(func() { errs[i] = m.unit.kill() })
	}
	wg.Wait()
	return errors.Join(append(errs, c.ports.Close())...)
}
