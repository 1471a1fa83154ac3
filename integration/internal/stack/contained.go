package stack

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// Contained is a Stack of containers: what their engine, compose and their operators do to them besides.
type Contained interface {
	Stack

	// Balancer is where clients connect; it gives each to a router that is ready.
	Balancer() Router

	// DisconnectNode takes a node off the network, its address too. ReconnectNode puts it back, at whatever address
	// the engine gives it, and returns when routers can reach it there.
	DisconnectNode(ctx context.Context, id string) error
	ReconnectNode(ctx context.Context, id string) error

	// ScaleNodes has compose start nodes, or stop them in order, until n run; those are ready on return.
	ScaleNodes(ctx context.Context, n int) error
	// RecreateNodes has compose replace all nodes at once (up --no-deps --force-recreate), and Roll has deploy/roll
	// replace those of a service, wsnode or router, one after another. All are ready on return.
	RecreateNodes(ctx context.Context) error
	Roll(ctx context.Context, service string) error

	// Terminate asks a node or a router to stop in order and returns at once: how ends the wait for it and tells how
	// long it took. StopNode's and StopRouter's rest is done then.
	TerminateNode(ctx context.Context, id string) (wait func() (time.Duration, error), err error)
	TerminateRouter(ctx context.Context, i int) (wait func() (time.Duration, error), err error)

	// Observe starts Prometheus beside the rest and returns its base URL; ErrUnsupported without an image of it.
	Observe(ctx context.Context) (url string, err error)
}

func (c *composed) Balancer() Router { return c.balancer }

// balancerReady returns when the balancer gives connections to routers that are ready.
func (c *composed) balancerReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready within a minute"))
	defer cancel()
	path := "/readyz"
	if len(c.Nodes()) == 0 {
		return nil // no router is ready without a node
	}
	if err := procs.Poll(ctx, pollEvery, func() error { return procs.CheckHTTP(ctx, c.balancer.Admin+path) }); err != nil {
		return fmt.Errorf("wait for the balancer: %w", err)
	}
	return nil
}

// network is the one that compose made for the project.
func (c *composed) network() string { return c.project + "_default" }

func (c *composed) DisconnectNode(ctx context.Context, id string) error {
	container, err := c.find(id)
	if err != nil {
		return err
	}
	c.opts.Logf("%s off the network", id)
	return c.docker.run(ctx, "network", "disconnect", c.network(), container)
}

func (c *composed) ReconnectNode(ctx context.Context, id string) error {
	n, err := c.take(id)
	if err != nil {
		return err
	}
	if err := c.docker.run(ctx, "network", "connect", "--alias", "wsnode", c.network(), n.container); err != nil {
		return err
	}
	again, err := c.meet(ctx, n.container)
	if err != nil {
		return err
	}
	c.opts.Logf("%s on the network again, at %s after %s", id, again.Addr, n.Addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, again)
	return nil
}

func (c *composed) ScaleNodes(ctx context.Context, n int) error {
	c.opts.Logf("compose scales to %d nodes", n)
	return c.scale(ctx, n)
}

func (c *composed) RecreateNodes(ctx context.Context) error {
	c.opts.Logf("compose recreates all nodes")
	if err := c.compose(ctx, "up", "-d", "--no-deps", "--force-recreate", "--scale", fmt.Sprintf("wsnode=%d", len(c.Nodes())), "wsnode"); err != nil {
		return err
	}
	return c.meetNodes(ctx)
}

func (c *composed) Roll(ctx context.Context, service string) error {
	c.opts.Logf("deploy/roll %s", service)
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(c.file), "roll"), service)
	cmd.Env = c.env
	if _, err := output(cmd); err != nil {
		return err
	}
	if service == "router" {
		return c.meetRouters(ctx)
	}
	return c.meetNodes(ctx)
}

// terminate sends SIGTERM and returns at once.
func (c *composed) terminate(ctx context.Context, container string) (wait func() (time.Duration, error), err error) {
	asked := time.Now()
	if err := c.docker.run(ctx, "kill", "-s", "TERM", container); err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		if err := c.docker.run(ctx, "wait", container); err != nil {
			return 0, err
		}
		took := time.Since(asked)
		s, err := c.docker.inspect(ctx, container)
		if err == nil && s.exitCode != 0 {
			err = fmt.Errorf("container %.12s ended with code %d; it said last:\n%s", container, s.exitCode, c.docker.logs(ctx, container, 15))
		}
		return took, err
	}, nil
}

func (c *composed) TerminateNode(ctx context.Context, id string) (func() (time.Duration, error), error) {
	n, err := c.take(id)
	if err != nil {
		return nil, err
	}
	c.opts.Logf("%s gets SIGTERM", id)
	wait, err := c.terminate(ctx, n.container)
	if err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		took, err := wait()
		return took, errors.Join(err, c.bury(ctx, n))
	}, nil
}

func (c *composed) TerminateRouter(ctx context.Context, i int) (func() (time.Duration, error), error) {
	container, err := c.router(i)
	if err != nil {
		return nil, err
	}
	c.opts.Logf("router %d gets SIGTERM", i+1)
	wait, err := c.terminate(ctx, container)
	if err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		took, err := wait()
		return took, errors.Join(err, c.seeRouter(ctx, i))
	}, nil
}

func (c *composed) Observe(ctx context.Context) (string, error) {
	if !slices.ContainsFunc(c.env, func(v string) bool { return strings.HasPrefix(v, "PROMETHEUS_IMAGE=") }) {
		return "", fmt.Errorf("no image of Prometheus (make images packs Debian's where it is installed): %w", ErrUnsupported)
	}
	return "http://" + c.prometheus, c.compose(ctx, "up", "-d", "--no-deps", "prometheus")
}
