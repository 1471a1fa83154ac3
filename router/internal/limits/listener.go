package limits

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// ListenConfig is fixed for a Listener's life. A number of 0 is no limit.
type ListenConfig struct {
	Silent  int     // connections that may be without a request; one address may have three quarters
	Busy    int     // connections beside them whose request is being answered; one address may have three quarters
	Head    int     // http.Server's MaxHeaderBytes
	Secure  bool    // TLS is spoken
	Proxies Proxies // have the connections of many addresses
}

// Listener accepts clients' connections and bounds those that are no client yet. When one more comes than may be without
// a request, the one that has been silent longest goes, and of an address that has three quarters of the places one of its
// own: an honest client's request follows its connection at once, so that floods of idle connections displace each other. Those whose request is being answered stay, and one too many
// is turned away: whoever does not read the answer takes no more descriptors than are set aside.
//
// Readings of where a connection stands come from net/http: give State to its ConnState, Context to its ConnContext, and
// have its handler wrapped. It has to answer one request per connection (SetKeepAlivesEnabled).
type Listener struct {
	net.Listener
	gate  *Gate
	cfg   ListenConfig
	plain bool // TCP without TLS: an answer can be written at any time

	mu     sync.Mutex
	silent int                // guarded by mu; connections in the list
	mute   map[netip.Addr]int // guarded by mu; the same by Network, without those of proxies
	first  *incoming          // guarded by mu; silent for the longest time
	final  *incoming          // guarded by mu
	busy   int                // guarded by mu; connections whose request is being answered
	busyOf map[netip.Addr]int // guarded by mu; the same by Network, without those of proxies

	starved time.Time // guarded by mu; when a descriptor was last missing
}

// Listen wraps l.
func (g *Gate) Listen(l net.Listener, cfg ListenConfig) *Listener {
	return &Listener{Listener: l, gate: g, cfg: cfg, plain: !cfg.Secure, mute: map[netip.Addr]int{}, busyOf: map[netip.Addr]int{}}
}

// Silent is how many connections have not sent a request yet.
func (l *Listener) Silent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent
}

// Busy is how many connections have sent a request that is being answered.
func (l *Listener) Busy() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy
}

// Accept implements net.Listener. An error that says that descriptors are missing is explained in the log; net/http
// tries again.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				l.starve(err)
			}
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			return conn, nil
		}
		c := &incoming{TCPConn: tcp, l: l}
		if from := peer(tcp.RemoteAddr().String()); !l.cfg.Proxies.trusts(from) {
			c.from = Network(from)
		}
		if l.cfg.Secure {
			if refused := l.gate.secureTurn(c.from); refused != nil {
				l.gate.Note(refused.Limit)
				_ = tcp.Close()
				continue
			}
		}
		if l.admit(c) {
			return c, nil
		}
	}
}

// admit makes room for a connection, or turns it away.
func (l *Listener) admit(c *incoming) bool {
	l.mu.Lock()
	if l.cfg.Busy > 0 && c.from.IsValid() && l.busyOf[c.from] >= max(1, l.cfg.Busy-l.cfg.Busy/4) {
		l.mu.Unlock()
		l.gate.Note(AddressBusy)
		c.turnAway(http.StatusTooManyRequests, "too many requests of this address wait for their answers; connect again in a moment")
		return false
	}
	var gone *incoming
	met := Open
	switch {
	case l.cfg.Silent > 0 && c.from.IsValid() && l.mute[c.from] >= max(1, l.cfg.Silent-l.cfg.Silent/4):
		gone = l.oldestLocked(c.from)
	case l.cfg.Silent > 0 && l.silent >= l.cfg.Silent:
		gone = l.first
	case l.cfg.Busy > 0 && l.busy >= l.cfg.Busy && l.silent+l.busy >= l.cfg.Silent+l.cfg.Busy:
		met, gone = Busy, l.first // nil where none is silent
	}
	if met == Busy && gone == nil {
		l.mu.Unlock()
		l.gate.Note(Busy)
		c.turnAway(http.StatusServiceUnavailable, "too many requests wait here for their answers; connect again in a moment")
		return false
	}
	l.appendLocked(c)
	if gone != nil {
		l.removeLocked(gone)
	}
	l.mu.Unlock()
	if gone != nil {
		l.gate.Note(met)
		gone.turnAway(http.StatusServiceUnavailable, "too many connections here wait with their request; connect again in a moment")
	}
	return true
}

func (l *Listener) starve(err error) {
	now := time.Now()
	l.mu.Lock()
	quiet := now.Sub(l.starved) < sayEvery
	l.starved = now
	l.mu.Unlock()
	l.gate.cfg.Count(Files)
	if !quiet {
		most, _ := OpenFiles()
		l.gate.cfg.Logger.Error("no descriptor is left for a client", zap.Error(err), zap.Uint64("limit", most),
			zap.String("remedy", "raise the limit of open files (ulimit -n, LimitNOFILE= of systemd, ulimits of containers) or lower --max-clients"))
	}
}

// Starved says that descriptors were missing within the last seconds, nil otherwise.
func (l *Listener) Starved() error {
	const recent = 5 * time.Second
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.starved.IsZero() || time.Since(l.starved) > recent {
		return nil
	}
	most, _ := OpenFiles()
	return fmt.Errorf("no descriptor was left for a client: the limit of open files is %d; raise it or lower --max-clients", most)
}

// Context lets the handler know its connection; for http.Server's ConnContext.
func (l *Listener) Context(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, under(conn))
}

type connKey struct{}

// Handler tells requests that could be read from those that could not.
func (l *Listener) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*incoming); ok {
			c.handled.Store(true)
		}
		h.ServeHTTP(w, r)
	})
}

// under is the connection below TLS.
func under(conn net.Conn) net.Conn {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return conn
}

// State follows a connection through net/http.
func (l *Listener) State(conn net.Conn, state http.ConnState) {
	c, ok := under(conn).(*incoming)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if state == http.StateNew {
		return // since Accept; it may have been displaced by now
	}
	l.removeLocked(c)
	switch state { //nolint:exhaustive // see above
	case http.StateIdle:
		l.idleLocked(c)
		l.appendLocked(c) // for its next request it waits like a new one
	case http.StateActive:
		if !c.busy {
			c.busy = true
			l.busy++
			if c.from.IsValid() {
				l.busyOf[c.from]++
			}
		}
	case http.StateHijacked, http.StateClosed:
		l.idleLocked(c)
	}
}

func (l *Listener) idleLocked(c *incoming) {
	if !c.busy {
		return
	}
	c.busy = false
	l.busy--
	if !c.from.IsValid() {
		return
	}
	if l.busyOf[c.from]--; l.busyOf[c.from] <= 0 {
		delete(l.busyOf, c.from)
	}
}

// oldestLocked is an address' connection that has been silent longest. Who has most of the list is soon met in it.
func (l *Listener) oldestLocked(from netip.Addr) *incoming {
	c := l.first
	for c != nil && c.from != from {
		c = c.after
	}
	return c
}

func (l *Listener) appendLocked(c *incoming) {
	if c.listed {
		return
	}
	c.listed, c.before, c.after = true, l.final, nil
	if l.final != nil {
		l.final.after = c
	} else {
		l.first = c
	}
	l.final = c
	l.silent++
	if c.from.IsValid() {
		l.mute[c.from]++
	}
}

func (l *Listener) removeLocked(c *incoming) {
	if !c.listed {
		return
	}
	if c.before != nil {
		c.before.after = c.after
	} else {
		l.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	} else {
		l.final = c.before
	}
	c.listed, c.before, c.after = false, nil, nil
	l.silent--
	if !c.from.IsValid() {
		return
	}
	if l.mute[c.from]--; l.mute[c.from] <= 0 {
		delete(l.mute, c.from)
	}
}

// incoming is a client's connection. It keeps being one after the upgrade.
type incoming struct {
	*net.TCPConn
	l    *Listener
	from netip.Addr // what it counts as; none for a proxy

	handled atomic.Bool  // its request was read
	read    atomic.Int64 // bytes, with those of TLS

	// Guarded by l.mu.
	listed        bool
	busy          bool
	before, after *incoming

	mu       sync.Mutex
	answered bool // guarded by mu; something was written, or is not to be written any more
	late     bool // guarded by mu; a read ran into its deadline
}

// headSlop is what net/http reads of a head beyond its limit before it gives up.
const headSlop = 4096

// answer is what net/http does not say.
func answer(status int, retry time.Duration, reason string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n", status, http.StatusText(status))
	if retry > 0 {
		fmt.Fprintf(&b, "Retry-After: %d\r\n", int(retry.Seconds()))
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s\n", len(reason)+1, reason)
	return b.Bytes()
}

// turnAway ends a connection that sent no request, with an answer where one can be given.
func (c *incoming) turnAway(status int, reason string) {
	c.mu.Lock()
	quiet := c.answered || !c.l.plain
	c.answered = true
	c.mu.Unlock()
	if !quiet {
		c.say(answer(status, 2*time.Second, reason))
	}
	_ = c.TCPConn.Close()
}

// say writes what an empty socket always takes at once.
func (c *incoming) say(text []byte) {
	const moment = 100 * time.Millisecond
	_ = c.TCPConn.SetWriteDeadline(time.Now().Add(moment))
	_, _ = c.TCPConn.Write(text)
}

// Read implements net.Conn.
func (c *incoming) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if !c.handled.Load() {
		c.read.Add(int64(n))
	}
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		c.mu.Lock()
		c.late = true
		c.mu.Unlock()
	}
	return n, err
}

// Write implements net.Conn.
func (c *incoming) Write(p []byte) (int, error) {
	c.mu.Lock()
	first := !c.answered
	c.answered = true
	c.mu.Unlock()
	if first && c.l.plain && bytes.HasPrefix(p, []byte("HTTP/1.1 431 ")) {
		c.l.gate.Note(Head)
	}
	return c.TCPConn.Write(p)
}

// Close implements net.Conn. net/http closes a connection whose request did not come in time without a word.
func (c *incoming) Close() error {
	c.mu.Lock()
	late := c.late && !c.answered
	quiet := c.answered || !c.l.plain
	c.answered = true
	c.mu.Unlock()
	if !c.l.plain && c.l.cfg.Head > 0 && !c.handled.Load() && c.read.Load() > int64(c.l.cfg.Head)+headSlop {
		c.l.gate.Note(Head) // the answer was encrypted; more than a head was read, and no request came of it
	}
	if late {
		c.l.gate.Note(HandshakeTime)
		if !quiet {
			c.say(answer(http.StatusRequestTimeout, 0, "the request did not come in time"))
		}
	}
	return c.TCPConn.Close()
}
