package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// dialer makes the TCP connections of one conn or one sarama client, so that they can be broken from outside:
// a sarama Broker waits for its reply under its lock and cannot be interrupted any other way.
type dialer struct {
	// Static after construction.
	ctx     context.Context // its end breaks what is open and refuses later dials
	timeout time.Duration

	mu   sync.Mutex
	open map[*trackedConn]struct{} // guarded by mu
}

func newDialer(ctx context.Context, timeout time.Duration) *dialer {
	return &dialer{ctx: ctx, timeout: timeout, open: make(map[*trackedConn]struct{})}
}

// Dial implements proxy.Dialer for sarama.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	nd := net.Dialer{Timeout: d.timeout, KeepAlive: 15 * time.Second}
	c, err := nd.DialContext(d.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: c, d: d, unwatch: context.AfterFunc(d.ctx, func() { _ = c.Close() })}
	d.mu.Lock()
	d.open[t] = struct{}{}
	d.mu.Unlock()
	return t, nil
}

// breakAll closes what is open; later dials work.
func (d *dialer) breakAll() {
	d.mu.Lock()
	open := make([]*trackedConn, 0, len(d.open))
	for t := range d.open {
		open = append(open, t)
	}
	d.mu.Unlock()
	for _, t := range open {
		_ = t.Close() // its user sees the error
	}
}

type trackedConn struct {
	net.Conn
	d       *dialer
	unwatch func() bool
}

func (t *trackedConn) Close() error {
	t.unwatch()
	t.d.mu.Lock()
	delete(t.d.open, t)
	t.d.mu.Unlock()
	return t.Conn.Close()
}

// conn is one connection to one broker, with one request under way at a time. It connects when needed. It has
// one user at a time.
type conn struct {
	addr   string
	conf   *sarama.Config // its own copy: the dialer is in it
	dialer *dialer
	broker *sarama.Broker // nil when not connected
	used   bool           // a request succeeded on this connection
}

func newConn(ctx context.Context, conf *sarama.Config, addr string) *conn {
	own := *conf
	d := newDialer(ctx, conf.Net.DialTimeout)
	own.Net.Proxy.Enable = true
	own.Net.Proxy.Dialer = d
	return &conn{addr: addr, conf: &own, dialer: d}
}

// do runs one request. Any error of f means that the connection is of no more use: sarama leaves it open, and
// out of step, after some of them. A connection that the broker closed while it was idle is replaced once, since
// everything asked here may be asked twice. When ctx ends the connection is broken and do returns its cause.
func (c *conn) do(ctx context.Context, f func(*sarama.Broker) error) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		reused := c.broker != nil && c.used
		err := c.once(ctx, f)
		if err == nil {
			c.used = true
			return nil
		}
		c.close()
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if !reused || isDecodingError(err) {
			return err
		}
	}
}

func (c *conn) once(ctx context.Context, f func(*sarama.Broker) error) error {
	if c.broker == nil {
		c.broker = sarama.NewBroker(c.addr)
		c.used = false
		if err := c.broker.Open(c.conf); err != nil {
			return err
		}
	}
	if ctx != c.dialer.ctx {
		stop := context.AfterFunc(ctx, c.dialer.breakAll)
		defer stop()
	}
	return f(c.broker)
}

// close drops the connection; the next do makes a new one.
func (c *conn) close() {
	if c.broker == nil {
		return
	}
	c.dialer.breakAll()
	_ = c.broker.Close() // only says that it was not connected, or what broke it
	c.broker = nil
}

// isDecodingError tells a reply that cannot be understood from a connection that failed.
func isDecodingError(err error) bool {
	var decoding sarama.PacketDecodingError
	return errors.As(err, &decoding) || errors.Is(err, sarama.ErrInsufficientData)
}

// pool keeps up to limit connections to each broker.
type pool struct {
	ctx   context.Context
	conf  *sarama.Config
	limit int

	mu     sync.Mutex
	slots  map[string]chan struct{} // guarded by mu; by address, holds what is in use
	idle   map[string][]*conn       // guarded by mu
	closed bool                     // guarded by mu
}

func newPool(ctx context.Context, conf *sarama.Config, limit int) *pool {
	return &pool{ctx: ctx, conf: conf, limit: limit, slots: make(map[string]chan struct{}), idle: make(map[string][]*conn)}
}

// do runs one request on a connection of its own; it waits for one when all are in use.
func (p *pool) do(ctx context.Context, addr string, f func(*sarama.Broker) error) error {
	p.mu.Lock()
	slots, ok := p.slots[addr]
	if !ok {
		slots = make(chan struct{}, p.limit)
		p.slots[addr] = slots
	}
	p.mu.Unlock()
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-slots }()

	c := p.take(addr)
	if c == nil {
		return ErrClosed
	}
	err := c.do(ctx, f)
	p.put(c)
	return err
}

func (p *pool) take(addr string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	if n := len(p.idle[addr]); n > 0 {
		c := p.idle[addr][n-1]
		p.idle[addr] = p.idle[addr][:n-1]
		return c
	}
	return newConn(p.ctx, p.conf, addr)
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	closed := p.closed
	if !closed && c.broker != nil {
		p.idle[c.addr] = append(p.idle[c.addr], c)
	}
	p.mu.Unlock()
	if closed {
		c.close()
	}
}

// close closes the idle connections; those in use are broken by their contexts and closed when given back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, conns := range idle {
		for _, c := range conns {
			c.close()
		}
	}
}
