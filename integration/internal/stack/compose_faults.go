package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// The faults that an engine can make.

// take removes a node from those that run.
func (c *composed) take(id string) (containedNode, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.nodes, func(n containedNode) bool { return n.ID == id })
	if i < 0 {
		return containedNode{}, fmt.Errorf("no node %s runs", id)
	}
	n := c.nodes[i]
	c.nodes = slices.Delete(c.nodes, i, i+1)
	return n, nil
}

// bury keeps a dead container's log and removes it, so that scaling up does not wake it.
func (c *composed) bury(ctx context.Context, n containedNode) error {
	c.docker.saveLog(ctx, n.container, n.Log)
	return c.docker.run(ctx, "rm", "-f", "-v", n.container)
}

func (c *composed) DrainNode(ctx context.Context, id string) error {
	n, err := c.take(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s drains", id)
	if err := c.docker.stop(ctx, n.container); err != nil {
		return err
	}
	return c.bury(ctx, n)
}

func (c *composed) KillNode(ctx context.Context, id string) error {
	n, err := c.take(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s killed", id)
	if err := c.docker.kill(ctx, n.container); err != nil {
		return err
	}
	return c.bury(ctx, n)
}

func (c *composed) find(id string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n.ID == id {
			return n.container, nil
		}
	}
	return "", fmt.Errorf("no node %s runs", id)
}

func (c *composed) FreezeNode(ctx context.Context, id string) error {
	container, err := c.find(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s frozen", id)
	return c.docker.run(ctx, "pause", container)
}

func (c *composed) ThawNode(ctx context.Context, id string) error {
	container, err := c.find(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s thawed", id)
	return c.docker.run(ctx, "unpause", container)
}

// router is the container of router i.
func (c *composed) router(i int) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.ids) {
		return "", fmt.Errorf("there is no router %d", i)
	}
	return c.ids[i], nil
}

// seeRouter notes which process router i is, and where: the engine may give a container another address when it starts.
func (c *composed) seeRouter(ctx context.Context, i int) error {
	id, err := c.router(i)
	if err != nil {
		return err
	}
	state, err := c.docker.inspect(ctx, id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.routers[i]
	r.PID = state.pid
	if state.ip != "" {
		r.URL, r.Admin = "ws://"+net.JoinHostPort(state.ip, "8080"), "http://"+net.JoinHostPort(state.ip, "8081")
	}
	return nil
}

func (c *composed) routerReady(ctx context.Context, i int) error {
	c.mu.Lock()
	r := c.routers[i]
	path := "/readyz"
	if len(c.nodes) == 0 || c.etcdDown {
		path = "/livez"
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready within a minute"))
	defer cancel()
	if err := procs.Poll(ctx, pollEvery, func() error { return procs.CheckHTTP(ctx, r.Admin+path) }); err != nil {
		return fmt.Errorf("wait for %s: %w", r.Name, err)
	}
	return nil
}

// onRouter does something to router i.
func (c *composed) onRouter(ctx context.Context, i int, what string, do func(ctx context.Context, container string) error) error {
	id, err := c.router(i)
	if err != nil {
		return err
	}
	c.opts.Logf("router %d: %s", i+1, what)
	if err := do(ctx, id); err != nil {
		return err
	}
	return c.seeRouter(ctx, i)
}

func (c *composed) KillRouter(ctx context.Context, i int) error {
	return c.onRouter(ctx, i, "killed", c.docker.kill)
}

func (c *composed) StopRouter(ctx context.Context, i int) error {
	return c.onRouter(ctx, i, "stops", c.docker.stop)
}

func (c *composed) StartRouter(ctx context.Context, i int) error {
	if routers := c.Routers(); i >= 0 && i < len(routers) && routers[i].PID != 0 {
		return fmt.Errorf("start router %d: it runs already", i+1)
	}
	err := c.onRouter(ctx, i, "starts", func(ctx context.Context, id string) error { return c.docker.run(ctx, "start", id) })
	if err != nil {
		return err
	}
	return c.routerReady(ctx, i)
}

func (c *composed) FreezeRouter(ctx context.Context, i int) error {
	return c.onRouter(ctx, i, "frozen", func(ctx context.Context, id string) error { return c.docker.run(ctx, "pause", id) })
}

func (c *composed) ThawRouter(ctx context.Context, i int) error {
	return c.onRouter(ctx, i, "thawed", func(ctx context.Context, id string) error { return c.docker.run(ctx, "unpause", id) })
}

func (c *composed) service(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.services[name]
}

func (c *composed) setEtcdDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.etcdDown = down
}

func (c *composed) StopEtcd(ctx context.Context) error {
	c.setEtcdDown(true)
	c.opts.Logf("etcd stops")
	return c.docker.run(ctx, "stop", c.service("etcd"))
}

func (c *composed) StartEtcd(ctx context.Context) error {
	c.opts.Logf("etcd starts")
	if err := c.docker.run(ctx, "start", c.service("etcd")); err != nil {
		return err
	}
	return c.etcdServes(ctx)
}

func (c *composed) etcdServes(ctx context.Context) error {
	err := procs.Poll(ctx, pollEvery, func() error { return procs.CheckHTTP(ctx, "http://"+c.etcds[0]+"/health") })
	if err == nil {
		c.setEtcdDown(false)
	}
	return err
}

func (c *composed) WipeEtcd(ctx context.Context) error {
	c.opts.Logf("etcd loses its data")
	if err := c.docker.run(ctx, "rm", "-f", "-v", c.service("etcd")); err != nil {
		return err
	}
	if err := c.compose(ctx, "up", "-d", "--no-deps", "etcd"); err != nil {
		return err
	}
	ids, err := c.containers(ctx, "etcd")
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.services["etcd"] = ids[0]
	c.mu.Unlock()
	return c.etcdServes(ctx)
}

func (c *composed) StopKafka(ctx context.Context) error {
	c.opts.Logf("Kafka stops")
	return c.docker.run(ctx, "stop", "-t", "30", c.service("kafka"))
}

func (c *composed) StartKafka(ctx context.Context) error {
	c.opts.Logf("Kafka starts")
	if err := c.docker.run(ctx, "start", c.service("kafka")); err != nil {
		return err
	}
	// The engine's proxy accepts connections before the broker does, and closes them again.
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("Kafka does not serve within 2 minutes"))
	defer cancel()
	return procs.Poll(ctx, 10*pollEvery, func() error {
		_, err := ensureTopic(ctx, c.kafkas, c.opts)
		return err
	})
}
