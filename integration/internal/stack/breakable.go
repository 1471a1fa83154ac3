package stack

import (
	"context"
	"errors"
	"fmt"
)

// Breakable is a Stack that can be broken in more ways: what a network, and an etcd that ends without a word, do.
// The kinds that run processes are Breakable.
type Breakable interface {
	Stack

	// CutNode breaks all links to a node and refuses new ones until MendNode. The node itself notices nothing else.
	// It needs Options.Bridged, as the next two do.
	CutNode(id string) error
	MendNode(id string) error
	// HoldNode keeps links to a node open and lets nothing through, until it is called with false.
	HoldNode(id string, held bool) error

	// RestartNode ends a node, in order or without a word, and starts it again under the same id and on the same
	// addresses. It returns when the node is ready.
	RestartNode(ctx context.Context, id string, inOrder bool) error

	// KillEtcd ends etcd without a word and keeps its data; StartEtcd brings it back. FreezeEtcd and ThawEtcd are
	// SIGSTOP and SIGCONT.
	KillEtcd(ctx context.Context) error
	FreezeEtcd(ctx context.Context) error
	ThawEtcd(ctx context.Context) error

	// Backend lists the processes of Kafka and etcd that run, by name.
	Backend() map[string]int
}

// fragile is a backend whose processes are at hand.
type fragile interface {
	killEtcd() error
	freezeEtcd(ctx context.Context) error
	thawEtcd() error
	pids() map[string]int
}

func (c *cluster) bridge(id string) (*bridged, error) {
	m, err := c.find(id)
	if err != nil {
		return nil, err
	}
	b, ok := m.unit.(*bridged)
	if !ok {
		return nil, fmt.Errorf("node %s is not behind a bridge: %w", id, ErrUnsupported)
	}
	return b, nil
}

func (c *cluster) CutNode(id string) error {
	b, err := c.bridge(id)
	if err != nil {
		return err
	}
	c.opts.Logf("links to %s cut", id)
	b.Shut()
	return nil
}

func (c *cluster) MendNode(id string) error {
	b, err := c.bridge(id)
	if err != nil {
		return err
	}
	c.opts.Logf("links to %s mended", id)
	return b.Open()
}

func (c *cluster) HoldNode(id string, held bool) error {
	b, err := c.bridge(id)
	if err != nil {
		return err
	}
	c.opts.Logf("links to %s held: %v", id, held)
	b.Hold(held)
	return nil
}

func (c *cluster) RestartNode(ctx context.Context, id string, inOrder bool) error {
	m, err := c.take(id)
	if err != nil {
		return err
	}
	end := func() error { return m.unit.kill() }
	if inOrder {
		end = func() error { return m.unit.stop(ctx) }
	}
	c.opts.Logf("%s restarts, in order: %v", id, inOrder)
	if err := end(); err != nil {
		return err
	}
	again, err := c.launchNode(m.spec)
	if err != nil {
		return err
	}
	return c.ready(ctx, again, "/readyz")
}

func (c *cluster) KillEtcd(context.Context) error {
	f, err := c.fragile()
	if err != nil {
		return err
	}
	c.opts.Logf("etcd killed")
	c.setEtcdDown(true)
	return f.killEtcd()
}

func (c *cluster) FreezeEtcd(ctx context.Context) error {
	f, err := c.fragile()
	if err != nil {
		return err
	}
	c.opts.Logf("etcd frozen")
	c.setEtcdDown(true)
	return f.freezeEtcd(ctx)
}

func (c *cluster) ThawEtcd(context.Context) error {
	f, err := c.fragile()
	if err != nil {
		return err
	}
	c.opts.Logf("etcd thawed")
	if err := f.thawEtcd(); err != nil {
		return err
	}
	c.setEtcdDown(false)
	return nil
}

func (c *cluster) Backend() map[string]int {
	f, err := c.fragile()
	if err != nil {
		return nil
	}
	return f.pids()
}

func (c *cluster) fragile() (fragile, error) {
	f, ok := c.back.(fragile)
	if !ok {
		return nil, fmt.Errorf("break etcd: %w", ErrUnsupported)
	}
	return f, nil
}

func (r *real) killEtcd() error { return r.db.Kill() }

func (r *real) freezeEtcd(ctx context.Context) error {
	p := r.db.Process()
	if p == nil {
		return errors.New("freeze etcd: it does not run")
	}
	return p.Freeze(ctx)
}

func (r *real) thawEtcd() error {
	p := r.db.Process()
	if p == nil {
		return errors.New("thaw etcd: it does not run")
	}
	return p.Thaw()
}

func (r *real) pids() map[string]int {
	out := make(map[string]int)
	if p := r.broker.Process(); p != nil && p.Running() {
		out["kafka"] = p.PID()
	}
	if p := r.db.Process(); p != nil && p.Running() {
		out["etcd"] = p.PID()
	}
	return out
}
