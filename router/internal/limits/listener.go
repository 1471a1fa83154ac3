package limits

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Listener accepts clients' connections and bounds those that have not sent a request yet. When one more comes than
// there may be, the one that has been silent longest goes: an honest client's request follows its connection at once,
// so that floods of idle connections displace each other.
//
// Readings of where a connection stands come from net/http: give State to its ConnState.
type Listener struct {
	net.Listener
	gate  *Gate
	most  int
	plain bool // TCP without TLS: an answer can be written at any time

	mu     sync.Mutex
	silent int       // guarded by mu; connections in the list
	first  *incoming // guarded by mu; silent for the longest time
	final  *incoming // guarded by mu

	starved time.Time // guarded by mu; when a descriptor was last missing
}

// Listen wraps l; at most so many connections may be silent, 0 for any number.
func (g *Gate) Listen(l net.Listener, most int, secure bool) *Listener {
	return &Listener{Listener: l, gate: g, most: most, plain: !secure}
}

// Silent is how many connections have not sent a request yet.
func (l *Listener) Silent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent
}

// Accept implements net.Listener. An error that says that descriptors are missing is explained in the log; net/http
// tries again.
func (l *Listener) Accept() (net.Conn, error) {
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
	l.mu.Lock()
	l.appendLocked(c)
	var longest *incoming
	if l.most > 0 && l.silent > l.most {
		longest = l.first
		l.removeLocked(longest)
	}
	l.mu.Unlock()
	if longest != nil {
		l.gate.Note(Open)
		longest.turnAway()
	}
	return c, nil
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

// State follows a connection through net/http.
func (l *Listener) State(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*incoming)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateIdle:
		l.appendLocked(c) // for its next request it waits like a new one
	case http.StateActive, http.StateHijacked, http.StateClosed:
		l.removeLocked(c)
	case http.StateNew:
	}
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
}

// incoming is a client's connection. It keeps being one after the upgrade.
type incoming struct {
	*net.TCPConn
	l *Listener

	// Guarded by l.mu.
	listed        bool
	before, after *incoming

	mu       sync.Mutex
	answered bool // guarded by mu; something was written, or is not to be written any more
	late     bool // guarded by mu; a read ran into its deadline
}

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
func (c *incoming) turnAway() {
	c.mu.Lock()
	quiet := c.answered || !c.l.plain
	c.answered = true
	c.mu.Unlock()
	if !quiet {
		c.say(answer(http.StatusServiceUnavailable, 2*time.Second, "too many connections here wait with their request; connect again in a moment"))
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
	if late {
		c.l.gate.Note(HandshakeTime)
		if !quiet {
			c.say(answer(http.StatusRequestTimeout, 0, "the request did not come in time"))
		}
	}
	return c.TCPConn.Close()
}
