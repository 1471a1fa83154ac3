// Package hostile is a client of a router that means no good: it opens connections and says nothing, reads nothing,
// floods, lies and guesses. What it is answered is written down, so that a test can hold each refusal against the
// documentation. It shares no code with the product.
package hostile

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Target is what is attacked.
type Target struct {
	Addr    string        // host:port of a router
	Key     string        // with a backlog that fills sockets
	Token   string        // that entitles to it
	Cursor  string        // one of that key, to be damaged
	Lasts   time.Duration // of one attack
	Scale   int           // percent of the full numbers
	Guesses int           // fuzzed cursors and tokens per attack
}

// Report is what came of it.
type Report struct {
	Statuses map[int]int    // answers to requests
	Codes    map[int]int    // close codes
	Done     map[string]int // what was attempted
	Cut      map[string]int // connections that ended without an answer or a close frame
}

// attack is one attack under way.
type attack struct {
	Target
	all context.Context // of all attacks
	ctx context.Context // of this one
	wg  sync.WaitGroup

	mu sync.Mutex
	r  *Report
}

// Run attacks with everything at once for the time given and adds up what came of it.
func Run(ctx context.Context, t Target, r *Report) {
	for _, m := range []*map[int]int{&r.Statuses, &r.Codes} {
		if *m == nil {
			*m = map[int]int{}
		}
	}
	for _, m := range []*map[string]int{&r.Done, &r.Cut} {
		if *m == nil {
			*m = map[string]int{}
		}
	}
	all := ctx
	ctx, cancel := context.WithTimeout(ctx, t.Lasts)
	defer cancel()
	a := &attack{Target: t, all: all, ctx: ctx, r: r}
	n := func(full int) int { return max(1, full*t.Scale/100) }
	a.wg.Go(func() { a.halfOpen(n(5000)) })
	a.wg.Go(func() { a.slowHeads(n(200)) })
	a.wg.Go(func() { a.deaf(n(1000)) })
	a.wg.Go(func() { a.fetch(n(300)) })
	for name, frames := range map[string][]byte{
		"pings": many(frame(9, []byte("x"))), "pongs": many(frame(10, nil)), "messages": many(frame(1, []byte(`{"type":"auth","token":"`+t.Token+`"}`))),
		"fragments": append(append([]byte{1, 0x80, 0, 0, 0, 0}, many([]byte{0, 0x80, 0, 0, 0, 0})...), many([]byte{0, 0x80, 0, 0, 0, 0})...),
		"giants":    append([]byte{0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 200<<10)...),
	} {
		for i := range n(5) {
			a.wg.Go(func() { a.flood(name, frames, i) })
		}
	}
	for range n(150) {
		a.wg.Go(a.reconnect)
	}
	const guessers = 20
	for i := range guessers {
		a.wg.Go(func() { a.guess(t.Guesses/guessers, i) })
	}
	a.wg.Wait()
}

// many repeats a frame, as much as one write takes.
func many(f []byte) []byte { return []byte(strings.Repeat(string(f), 64)) }

// frame is a client's frame with a mask of zeros.
func frame(op byte, payload []byte) []byte {
	f := []byte{0x80 | op, 0x80 | byte(len(payload))}
	if n := len(payload); n > 125 {
		f = []byte{0x80 | op, 0x80 | 126, byte(n >> 8), byte(n)}
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}

func (a *attack) count(m map[string]int, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m[what]++
}

func (a *attack) answered(m map[int]int, what int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m[what]++
}

// dial connects from an address of the loopback's own; an attacker has many.
func (a *attack) dial(what string, net3, host int) (net.Conn, error) {
	a.count(a.r.Done, what)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(net3), byte(1+host%250))}, Timeout: 5 * time.Second}
	return d.DialContext(a.all, "tcp", a.Addr)
}

// pause waits between two steps; false when the attack is over.
func (a *attack) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.ctx.Done():
		return false
	}
}

// request asks for an upgrade. Other answers than 101 are counted.
func (a *attack) request(c net.Conn, query, token string) (*bufio.Reader, int, error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := fmt.Fprintf(c, "GET /v1/ws?%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", query, token)
	br := bufio.NewReaderSize(c, 1024)
	resp, failed := http.ReadResponse(br, nil) //nolint:bodyclose // there is nothing behind it but the connection
	if failed != nil {
		return nil, 0, errors.Join(err, failed)
	}
	_ = c.SetDeadline(time.Time{})
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_, _ = io.Copy(io.Discard, resp.Body)
		a.answered(a.r.Statuses, resp.StatusCode)
	}
	return br, resp.StatusCode, nil
}

// halfOpen opens connections and says nothing.
func (a *attack) halfOpen(n int) {
	conns := make([]net.Conn, 0, n)
	for i := range n {
		c, err := a.dial("half-open connections", 2, i%20)
		if err == nil {
			conns = append(conns, c)
		}
		if i%50 == 49 && !a.pause(10*time.Millisecond) {
			break
		}
	}
	<-a.ctx.Done()
	for _, c := range conns {
		a.lastWord("half-open connections", c)
	}
}

// lastWord reads what a connection was told, if it was ended.
func (a *attack) lastWord(what string, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil) //nolint:bodyclose // there is nothing behind it but the connection
	switch {
	case err == nil:
		a.answered(a.r.Statuses, resp.StatusCode)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		a.count(a.r.Cut, what)
	}
}

// fetch asks for the client's file again and again on each connection, and reads nothing.
func (a *attack) fetch(n int) {
	requests := []byte(strings.Repeat("GET /v1/client.js HTTP/1.1\r\nHost: x\r\n\r\n", 300))
	var conns []net.Conn
	for i := range n {
		c, err := a.dial("answers that nobody reads", 6, i)
		if err != nil {
			continue
		}
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = c.Write(requests)
		conns = append(conns, c)
		if i%50 == 49 && !a.pause(10*time.Millisecond) {
			break
		}
	}
	<-a.ctx.Done()
	for _, c := range conns {
		_ = c.Close()
	}
}

// slowHeads sends its requests a byte at a time.
func (a *attack) slowHeads(n int) {
	var conns []net.Conn
	for i := range n {
		if c, err := a.dial("slow heads", 3, i); err == nil {
			_, _ = c.Write([]byte("GET /v1/ws HTTP/1.1\r\nX: "))
			conns = append(conns, c)
		}
	}
	for a.pause(200 * time.Millisecond) {
		for _, c := range conns {
			_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			_, _ = c.Write([]byte("x")) // it fails on those that were ended
		}
	}
	for _, c := range conns {
		a.lastWord("slow heads", c)
	}
}

// deaf asks for much and reads none of it.
func (a *attack) deaf(n int) {
	type client struct {
		net.Conn
		br *bufio.Reader
	}
	var mu sync.Mutex
	var all []client
	var wg sync.WaitGroup
	const at = 10
	for w := range at {
		wg.Go(func() {
			for i := range n / at {
				c, err := a.dial("clients that do not read", 4, i*at+w)
				if err != nil {
					continue
				}
				_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
				br, status, err := a.request(c, "from=earliest", a.Token)
				if err != nil || status != http.StatusSwitchingProtocols {
					_ = c.Close()
				} else {
					mu.Lock()
					all = append(all, client{c, br})
					mu.Unlock()
				}
				if !a.pause(20 * time.Millisecond) {
					return
				}
			}
		})
	}
	wg.Wait()
	<-a.ctx.Done()
	// Some look what became of them. The others just go.
	for i, c := range all {
		if i%20 != 0 {
			_ = c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { _ = c.Close() }()
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			a.end("clients that do not read", c.br)
		})
	}
	wg.Wait()
}

// end reads to the close frame.
func (a *attack) end(what string, br *bufio.Reader) {
	for {
		op, payload, err := read(br)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return // it goes on
		case err != nil:
			a.count(a.r.Cut, what)
			return
		case op == 8 && len(payload) >= 2:
			a.answered(a.r.Codes, int(binary.BigEndian.Uint16(payload)))
			return
		}
	}
}

func read(br *bufio.Reader) (op byte, payload []byte, err error) {
	var h [8]byte
	if _, err := io.ReadFull(br, h[:2]); err != nil {
		return 0, nil, err
	}
	op = h[0] & 15
	n := uint64(h[1])
	switch n {
	case 126:
		_, err = io.ReadFull(br, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(br, h[:8])
		n = binary.BigEndian.Uint64(h[:])
	}
	if err != nil {
		return 0, nil, err
	}
	if op != 8 {
		_, err = io.CopyN(io.Discard, br, int64(n)) //nolint:gosec // a router's own length
		return op, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(br, payload)
	return op, payload, err
}

// flood sends frames as fast as they are taken, until it is sent away, and comes again.
func (a *attack) flood(what string, frames []byte, i int) {
	for a.pause(200 * time.Millisecond) {
		c, err := a.dial("floods of "+what, 5, i)
		if err != nil {
			continue
		}
		br, status, err := a.request(c, "", a.Token)
		if err == nil && status == http.StatusSwitchingProtocols {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			var wg sync.WaitGroup
			wg.Go(func() {
				for a.ctx.Err() == nil {
					if _, err := c.Write(frames); err != nil {
						return
					}
				}
			})
			a.end("floods of "+what, br)
			_ = c.Close()
			wg.Wait()
		}
		_ = c.Close()
	}
}

// reconnect comes and goes.
func (a *attack) reconnect() {
	for a.pause(200 * time.Millisecond) {
		c, err := a.dial("reconnects", 6, 0)
		if err != nil {
			continue
		}
		_, _, err = a.request(c, "", a.Token)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			a.count(a.r.Cut, "reconnects")
		}
		_ = c.Close()
	}
}

// guess tries damaged cursors and tokens, all of them even if the time is over.
func (a *attack) guess(n, who int) {
	r := rand.New(rand.NewPCG(uint64(who), uint64(time.Now().UnixNano())))
	var c net.Conn
	for i := range n {
		a.pause(a.Lasts / time.Duration(2*n+1))
		if a.all.Err() != nil {
			break
		}
		if c == nil {
			var err error
			if c, err = a.dial("connections of guesses", 7, who); err != nil {
				continue
			}
		}
		query, token := "", a.Token
		if i%2 == 0 {
			query = "cursor=" + damage(r, a.Cursor)
		} else {
			token = damage(r, a.Token)
		}
		a.count(a.r.Done, "guesses")
		_, status, err := a.request(c, query, token)
		// A connection that was upgraded, or that the router asked to give up, is of no more use.
		if err != nil || status == http.StatusSwitchingProtocols || status == http.StatusBadRequest {
			_ = c.Close()
			c = nil
		}
	}
	if c != nil {
		_ = c.Close()
	}
}

// damage changes a text in one of the ways in which texts go wrong.
func damage(r *rand.Rand, s string) string {
	b := []byte(s)
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
	switch r.IntN(6) {
	case 0: // cut off
		return string(b[:r.IntN(len(b))])
	case 1: // one letter, or some
		for range 1 + r.IntN(5) {
			b[r.IntN(len(b))] = letters[r.IntN(len(letters))]
		}
	case 2: // longer
		return s + string(b[r.IntN(len(b)):])
	case 3: // nothing but noise
		noise := make([]byte, r.IntN(200))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		return base64.RawURLEncoding.EncodeToString(noise)
	case 4: // two places changed
		i, j := r.IntN(len(b)), r.IntN(len(b))
		b[i], b[j] = b[j], b[i]
	default: // huge
		return strings.Repeat(s, 1+r.IntN(40_000/len(s)))
	}
	return string(b)
}
