// Package links keeps one connection to every node that the table knows: it dials, greets, reconnects, judges
// whether the node lives, and carries frames both ways. It knows nothing of clients.
package links

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// Config is shared by all links.
type Config struct {
	Router string // this router's id, for the nodes' logs
	Build  string
	Token  string
	TLS    *tls.Config // nil: no TLS

	DialTimeout time.Duration
	PingEvery   time.Duration
	DeadAfter   time.Duration // without a byte from the node
	RetryMost   time.Duration // longest wait before a node is dialled again

	Logger *zap.Logger
}

// Receiver takes what one link's node sends. Its methods are called by the link's one reader goroutine.
type Receiver interface {
	link.RouterHandler
	// Begin and End enclose the frames of one message of size bytes.
	Begin()
	End(size int)
}

// Events hears of links coming and going. For one link the calls are Open, Up, Down in this order and not
// concurrent; Receiver calls may come between Open and Down, and none after.
type Events interface {
	Open(l *Link) Receiver
	Up(l *Link)
	Down(l *Link, reason string)
}

// Want is a node instance that should be linked.
type Want struct {
	Node     string
	Instance string
	Addr     string
}

// Expect is what a node must be about in order to be linked.
type Expect struct {
	Topic      string
	TopicID    [16]byte
	Partitions int32
}

// ErrUnfit says that a node answered and is not the one that was looked for.
var ErrUnfit = errors.New("not the node that etcd describes")

// Stats are totals since NewPool.
type Stats struct {
	Dials    uint64
	Failures uint64 // dials and greetings that failed
}

// Pool keeps the links.
type Pool struct {
	// Static after construction.
	cfg    Config
	events Events
	log    *zap.Logger
	ctx    context.Context //nolint:containedctx // the pool's life, ended by Close; keepers start at any time
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	nextID   atomic.Uint64
	dials    atomic.Uint64
	failures atomic.Uint64
	expect   atomic.Pointer[Expect]

	mu      sync.Mutex
	keepers map[string]*keeper // guarded by mu; by instance
	closed  bool               // guarded by mu
}

// keeper keeps one node instance linked while it is wanted.
type keeper struct {
	p    *Pool
	log  *zap.Logger
	poke chan struct{} // capacity 1: what is wanted changed; never closed

	want   Want   // guarded by p.mu
	wanted bool   // guarded by p.mu; an instance that is not wanted any more is not dialled again
	state  string // guarded by p.mu; for consoles: the last error, "" while linked
}

// NewPool returns a pool without links.
func NewPool(cfg Config, events Events) *Pool {
	p := &Pool{cfg: cfg, events: events, log: cfg.Logger, keepers: map[string]*keeper{}}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.expect.Store(&Expect{})
	return p
}

// Close ends all links and waits for their goroutines.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel(errStopped)
	p.wg.Wait()
}

// Set says which instances should be linked. A link to one that is missing here stays while its node lives; it is
// only not dialled again.
func (p *Pool) Set(expect Expect, wants []Want) {
	p.expect.Store(&expect)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for _, k := range p.keepers {
		k.wanted = false
	}
	for _, w := range wants {
		k := p.keepers[w.Instance]
		if k == nil {
			k = &keeper{
				p: p, want: w, state: "not dialled yet",
				log:  p.log.With(zap.String("node", w.Node), zap.String("instance", w.Instance)),
				poke: make(chan struct{}, 1),
			}
			p.keepers[w.Instance] = k
			k.wanted = true
			p.wg.Add(1)
			go k.run()
			continue
		}
		k.want, k.wanted = w, true
		select {
		case k.poke <- struct{}{}:
		default:
		}
	}
}

// Stats returns totals.
func (p *Pool) Stats() Stats { return Stats{Dials: p.dials.Load(), Failures: p.failures.Load()} }

// State tells why an instance is not linked, "" when it is.
func (p *Pool) State(instance string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.keepers[instance]; k != nil {
		return k.state
	}
	return "not wanted"
}

// run links the instance again and again until it is no longer wanted.
func (k *keeper) run() {
	defer k.p.wg.Done()
	attempts := 0
	for {
		want, ok := k.next()
		if !ok {
			return
		}
		linked, err := k.connect(want)
		if k.p.ctx.Err() != nil {
			k.forget()
			return
		}
		k.setState(err.Error())
		if linked {
			k.log.Warn("link down", zap.Error(err))
			attempts = 0
			continue // the first attempt to come back is made at once
		}
		k.p.failures.Add(1)
		// A node that is starting or gone is nothing to shout about, as long as it does not last; State tells it.
		const patience, again = 2, 32
		if attempts%again == patience {
			k.log.Warn("cannot link node", zap.String("addr", want.Addr), zap.Int("attempts", attempts+1), zap.Error(err))
		}
		k.pause(attempts)
		attempts++
	}
}

// pause waits between attempts, a random time so that routers do not knock together.
func (k *keeper) pause(attempts int) {
	const first = 50 * time.Millisecond
	most := max(k.p.cfg.RetryMost, first)
	wait := min(first<<min(attempts, 10), most)
	timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.poke:
	case <-k.p.ctx.Done():
	}
}

// next tells what to dial; ok is false when the keeper has ended.
func (k *keeper) next() (w Want, ok bool) {
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	if !k.wanted || k.p.closed {
		delete(k.p.keepers, k.want.Instance)
		return Want{}, false
	}
	select {
	case <-k.poke: // seen with this look
	default:
	}
	return k.want, true
}

func (k *keeper) forget() {
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	delete(k.p.keepers, k.want.Instance)
}

func (k *keeper) setState(s string) {
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	k.state = s
}

// connect makes one connection and serves it to its end; linked says whether the node was greeted. The error says
// how it ended and is never nil.
func (k *keeper) connect(want Want) (linked bool, err error) {
	p := k.p
	p.dials.Add(1)
	dialCtx, cancelDial := context.WithTimeout(p.ctx, p.cfg.DialTimeout)
	defer cancelDial()
	ws, w, err := p.dial(dialCtx, want.Addr)
	if err != nil {
		return false, err
	}
	defer func() { _ = ws.CloseNow() }()
	g, err := p.greet(dialCtx, ws, want)
	if err != nil {
		code := websocket.StatusPolicyViolation
		if !errors.Is(err, ErrUnfit) {
			code = websocket.StatusProtocolError
		}
		sayGoodbye(ws, code, err)
		return false, err
	}
	ctx, end := context.WithCancelCause(p.ctx)
	defer end(nil)
	l := &Link{
		ID: session.LinkID(p.nextID.Add(1)), Node: want.Node, Instance: want.Instance, Version: g.welcome.Build,
		Since: time.Now(), log: k.log, ws: ws, wire: w, end: end, kick: make(chan struct{}, 1), draining: g.draining,
	}
	k.setState("")
	return true, p.serve(ctx, l)
}

// serve runs a greeted link's goroutines until the first of them ends, and tells the events.
func (p *Pool) serve(ctx context.Context, l *Link) error {
	receiver := p.events.Open(l)
	var wg sync.WaitGroup
	start := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				l.end(err)
			}
		})
	}
	read := make(chan struct{})
	start(func() error { defer close(read); return l.read(receiver) })
	start(func() error { return l.write(ctx) })
	start(func() error { return l.watch(ctx, p.cfg.DeadAfter) })
	start(func() error { return l.ping(ctx, p.cfg.PingEvery, p.cfg.DeadAfter) })
	p.events.Up(l)
	l.log.Info("link up", zap.Uint64("link", uint64(l.ID)), zap.String("addr", l.Addr()))

	<-ctx.Done()
	err := context.Cause(ctx)
	if errors.Is(err, link.ErrMalformed) {
		sayGoodbye(l.ws, websocket.StatusProtocolError, err)
	}
	_ = l.ws.CloseNow() // ends the reader, if it was not the reader that ended
	<-read
	p.events.Down(l, reason(err))
	wg.Wait()
	return err
}

// sayGoodbye tells the node why, without waiting for it to answer.
func sayGoodbye(ws *websocket.Conn, code websocket.StatusCode, err error) {
	const most = 120
	text := err.Error()
	text = text[:min(len(text), most)]
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = ws.Close(code, text)
	}()
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		_ = ws.CloseNow()
		<-done
	}
}

func (p *Pool) dial(ctx context.Context, addr string) (*websocket.Conn, *wire, error) {
	var w *wire
	dialer := net.Dialer{KeepAlive: -1} // pings do that
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w = newWire(nonblock.Wrap(c))
			return w, nil
		},
		TLSClientConfig: p.cfg.TLS,
		// Messages are read in whole pieces; the default of 4 KB would cost a system call for each 4 KB.
		ReadBufferSize: 64 << 10,
	}
	scheme := "ws"
	if p.cfg.TLS != nil {
		scheme = "wss"
	}
	url := scheme + "://" + addr + link.Path
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{ //nolint:bodyclose // said closes it
		HTTPClient:      &http.Client{Transport: transport},
		Subprotocols:    []string{link.Subprotocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("dial %s: %w%s", url, err, said(resp))
	}
	if got := ws.Subprotocol(); got != link.Subprotocol {
		_ = ws.CloseNow()
		return nil, nil, fmt.Errorf("dial %s: it does not speak %s: %w", url, link.Subprotocol, ErrUnfit)
	}
	ws.SetReadLimit(link.MaxMessage)
	return ws, w, nil
}

// said is what an answer that is no upgrade says: a node that speaks TLS tells who does not that it does.
func said(resp *http.Response) string {
	if resp == nil || resp.Body == nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200)) // the library keeps the beginning
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if err != nil || line == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", line)
}

// greet exchanges Hello and Welcome and checks who answered.
func (p *Pool) greet(ctx context.Context, ws *websocket.Conn, want Want) (*greeting, error) {
	hello := link.AppendHello(nil, &link.Hello{Router: p.cfg.Router, Version: link.Version, Token: p.cfg.Token, Build: p.cfg.Build})
	if err := ws.Write(ctx, websocket.MessageBinary, hello); err != nil {
		return nil, fmt.Errorf("say hello: %w", err)
	}
	kind, msg, err := ws.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	if kind != websocket.MessageBinary {
		return nil, fmt.Errorf("wait for welcome: a text message: %w", link.ErrMalformed)
	}
	g := &greeting{}
	if err := link.DecodeToRouter(msg, g); err != nil {
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	if !g.welcomed {
		return nil, fmt.Errorf("wait for welcome: an empty message: %w", link.ErrMalformed)
	}
	return g, p.check(&g.welcome, want)
}

// check compares a Welcome with what etcd says. A mismatch is usually a moment's: a node that restarted under the
// same address, or one of the two has not seen the newest yet; so it is tried again.
func (p *Pool) check(w *link.Welcome, want Want) error {
	expect := p.expect.Load()
	switch {
	case w.Version != link.Version:
		return fmt.Errorf("it speaks version %d of the link protocol, this router %d: %w", w.Version, link.Version, ErrUnfit)
	case w.Node != want.Node || w.Instance != want.Instance:
		return fmt.Errorf("it is node %q, instance %q: %w", w.Node, w.Instance, ErrUnfit)
	case w.Topic != expect.Topic:
		return fmt.Errorf("it reads topic %q: %w", w.Topic, ErrUnfit)
	case w.TopicID != expect.TopicID:
		return fmt.Errorf("it reads a topic of that name with another id: %w", ErrUnfit)
	case w.Partitions < expect.Partitions:
		return fmt.Errorf("it knows %d partitions of %d: %w", w.Partitions, expect.Partitions, ErrUnfit)
	}
	return nil
}

// greeting accepts a Welcome and, right behind it, Draining: a node that was asked to stop says so at once.
type greeting struct {
	welcome  link.Welcome
	welcomed bool
	draining bool
}

var errNotWelcome = fmt.Errorf("another frame than welcome: %w", link.ErrMalformed)

func (g *greeting) Welcome(w *link.Welcome) error {
	if g.welcomed {
		return errNotWelcome
	}
	g.welcomed, g.welcome = true, *w
	return nil
}

func (g *greeting) Draining() error {
	if !g.welcomed {
		return errNotWelcome
	}
	g.draining = true
	return nil
}

func (g *greeting) Attached(link.Attached) error      { return errNotWelcome }
func (g *greeting) Record(*link.Record) error         { return errNotWelcome }
func (g *greeting) Checkpoint(*link.Checkpoint) error { return errNotWelcome }
func (g *greeting) Gap(link.Gap) error                { return errNotWelcome }
func (g *greeting) Closed(link.Closed) error          { return errNotWelcome }
