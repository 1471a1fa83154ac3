package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

// dialer makes the connections of one conn or one sarama client, so that they can be broken from outside: a
// sarama Broker waits for its reply under its lock and cannot be interrupted any other way.
type dialer struct {
	// Static after construction.
	ctx     context.Context // its end breaks what is open and refuses later dials
	timeout time.Duration
	tls     *tls.Config // nil for plain TCP

	solo atomic.Bool // responses are those of solo fetches: stretch them

	mu      sync.Mutex
	open    map[*trackedConn]struct{}        // guarded by mu
	dialing map[*context.CancelFunc]struct{} // guarded by mu
}

// ownDialer gives conf a dialer of its own. TLS moves from sarama into the dialer, which must see plain bytes.
func ownDialer(ctx context.Context, conf *sarama.Config) (*sarama.Config, *dialer) {
	d := &dialer{
		ctx:     ctx,
		timeout: conf.Net.DialTimeout,
		open:    make(map[*trackedConn]struct{}),
		dialing: make(map[*context.CancelFunc]struct{}),
	}
	own := *conf
	if own.Net.TLS.Enable {
		d.tls = own.Net.TLS.Config
		own.Net.TLS.Enable = false
	}
	own.Net.Proxy.Enable = true
	own.Net.Proxy.Dialer = d
	return &own, d
}

// Dial implements proxy.Dialer for sarama.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	d.mu.Lock()
	d.dialing[&cancel] = struct{}{}
	d.mu.Unlock()
	defer func() {
		cancel()
		d.mu.Lock()
		delete(d.dialing, &cancel)
		d.mu.Unlock()
	}()
	nd := net.Dialer{KeepAlive: 15 * time.Second}
	c, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d.tls != nil {
		if c, err = d.secure(ctx, c, addr); err != nil {
			return nil, err
		}
	} else {
		c = nonblock.Framed(c)
	}
	t := &trackedConn{Conn: c, d: d, stretched: stretcher{src: c}}
	t.unwatch = context.AfterFunc(d.ctx, func() { _ = c.Close() })
	d.mu.Lock()
	d.open[t] = struct{}{}
	d.mu.Unlock()
	return t, nil
}

func (d *dialer) secure(ctx context.Context, c net.Conn, addr string) (net.Conn, error) {
	conf := d.tls
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		conf = conf.Clone()
		conf.ServerName = host
	}
	t := tls.Client(c, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls handshake with %s: %w", addr, err), c.Close())
	}
	return t, nil
}

// breakAll ends what is open or being dialed; later dials work.
func (d *dialer) breakAll() {
	d.mu.Lock()
	for cancel := range d.dialing {
		(*cancel)()
	}
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
	d         *dialer
	unwatch   func() bool
	stretched stretcher // owned by the reading goroutine
}

func (t *trackedConn) Read(p []byte) (int, error) {
	// The rest of a frame comes from where its beginning came from.
	if len(t.stretched.ready) > 0 || t.d.solo.Load() {
		return t.stretched.Read(p)
	}
	return t.Conn.Read(p)
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
	own, d := ownDialer(ctx, conf)
	return &conn{addr: addr, conf: own, dialer: d}
}

// do runs one request. Any error of f means that the connection is of no more use: sarama leaves it open, and
// out of step, after some of them. A connection that the broker closed while it was idle is replaced once, since
// everything asked here may be asked twice. When ctx ends the connection is broken and do returns its cause.
func (c *conn) do(ctx context.Context, f func(*conn) error) error {
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
		if !reused || isDecodingError(err) || isTimeout(err) {
			return err
		}
	}
}

func (c *conn) once(ctx context.Context, f func(*conn) error) error {
	if ctx != c.dialer.ctx {
		stop := context.AfterFunc(ctx, c.dialer.breakAll)
		defer stop()
	}
	if c.broker == nil {
		c.broker = sarama.NewBroker(c.addr)
		c.used = false
		if err := c.broker.Open(c.conf); err != nil {
			return err
		}
		// Wait here, so that what is said while connecting is over before f.
		if _, err := c.broker.Connected(); errors.Is(err, io.EOF) {
			return fmt.Errorf("broker closed the connection at once (do the TLS and SASL settings fit it?): %w", err)
		} else if err != nil {
			return err
		}
	}
	return f(c)
}

// fetchSolo sends a fetch of one partition.
func (c *conn) fetchSolo(r *sarama.FetchRequest) (*sarama.FetchResponse, error) {
	r.Version = soloVersion
	c.dialer.solo.Store(true)
	defer c.dialer.solo.Store(false)
	return c.broker.Fetch(r)
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

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
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
func (p *pool) do(ctx context.Context, addr string, f func(*conn) error) error {
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
