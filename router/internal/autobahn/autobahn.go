// Package autobahn is a port to Go of the client cases of the Autobahn TestSuite (its "fuzzingclient"), sections 1 to 7,
// 9 and 10: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, and large messages. The code is our
// own; cases carry the numbers of the suite's published list and do what the list says. The suite itself needs Python 2.
// Sections 12 and 13, which are about compression, are not in it. Only tests import this package.
package autobahn

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Behaviour is how a server did in a case, in the suite's own words.
type Behaviour string

// The behaviours. NonStrict is allowed by the protocol and not ideal, for example an error that is found late.
const (
	OK            Behaviour = "OK"
	NonStrict     Behaviour = "NON-STRICT"
	Informational Behaviour = "INFORMATIONAL"
	Failed        Behaviour = "FAILED"
)

// Result is how one case ended.
type Result struct {
	Case      *Case
	Behaviour Behaviour
	Why       string // of a failure
	Code      int    // the close code that the server sent; 0 none
	Took      time.Duration
}

// Opcodes.
const (
	opCont   = 0
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

const noStatus = 1005 // a close frame without a code

// event is a message or a pong from the server.
type event struct {
	op   byte
	data string
}

// step is bytes that the client sends, in writes of so many bytes each; 0: in one.
type step struct {
	data []byte
	chop int
}

// Case is one case of the list.
type Case struct {
	ID   string
	What string
	Echo bool // it needs a server that sends every message back

	steps  func() []step
	want   []event
	fail   []int // codes with one of which the server must close by itself; nil: it must not
	early  int   // the server should fail before this step, counted from 1; 0: no matter
	closes int   // the case closes with this code by itself, and the server must answer it; 0: the client closes after want
	loose  bool  // the events of want need not come
	inform bool  // whatever the server does is right
}

// Server is where the cases run.
type Server struct {
	Addr    string        // host:port
	Path    string        // of the request, with its query
	Talks   bool          // the server sends texts of its own, which do not count; cases that need an echo make no sense there
	Timeout time.Duration // how long the server may take; 0: 20 s
}

// Run runs one case on a connection of its own.
func Run(s Server, c *Case) (r Result) {
	began := time.Now()
	r = Result{Case: c, Behaviour: Failed}
	defer func() { r.Took = time.Since(began) }()
	if s.Timeout == 0 {
		s.Timeout = 20 * time.Second
	}
	k, err := dial(s)
	if err != nil {
		r.Why = err.Error()
		return r
	}
	defer func() { _ = k.conn.Close() }()
	k.run(s, c, &r)
	return r
}

// client is one connection.
type client struct {
	conn net.Conn
	br   *bufio.Reader

	mu     sync.Mutex
	events []event
	code   int           // of the server's close frame
	closed chan struct{} // a close frame has come, or the connection has ended
	ended  chan error    // how reading ended
	more   chan struct{} // one token when an event has come
}

func dial(s Server) (*client, error) {
	conn, err := net.DialTimeout("tcp", s.Addr, s.Timeout)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(s.Timeout))
	path := s.Path
	if path == "" {
		path = "/"
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + s.Addr + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	k := &client{conn: conn, br: bufio.NewReader(conn), closed: make(chan struct{}), ended: make(chan error, 1), more: make(chan struct{}, 1)}
	resp, err := http.ReadResponse(k.br, nil) //nolint:bodyclose // an upgrade has none; the connection ends with the case
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("the upgrade was answered with %s", resp.Status)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go k.read(s.Talks)
	return k, nil
}

// read collects what the server sends until its end.
func (k *client) read(talks bool) {
	var once sync.Once
	heard := func() { once.Do(func() { close(k.closed) }) }
	defer heard()
	for {
		op, data, err := k.frame()
		if err != nil {
			k.ended <- err
			return
		}
		k.mu.Lock()
		if op == opClose {
			k.code = noStatus
			if len(data) >= 2 {
				k.code = int(binary.BigEndian.Uint16(data))
			}
		} else if op != opText || !talks {
			k.events = append(k.events, event{op, string(data)})
		}
		k.mu.Unlock()
		if op == opClose {
			heard()
		}
		select {
		case k.more <- struct{}{}:
		default:
		}
	}
}

// frame reads a whole frame; servers under test do not fragment.
func (k *client) frame() (op byte, data []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(k.br, h[:2]); err != nil {
		return 0, nil, err
	}
	if h[0]&0xf0 != 0x80 || h[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("a frame of the server begins with %#x %#x", h[0], h[1])
	}
	op = h[0] & 0xf
	n := uint64(h[1])
	switch n {
	case 126:
		_, err = io.ReadFull(k.br, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(k.br, h[:8])
		n = binary.BigEndian.Uint64(h[:])
	}
	if err == nil && n > 1<<26 {
		err = fmt.Errorf("a frame of %d bytes", n)
	}
	if err != nil {
		return 0, nil, err
	}
	data = make([]byte, n)
	_, err = io.ReadFull(k.br, data)
	return op, data, err
}

func (k *client) send(s step) error {
	b := s.data
	for len(b) > 0 {
		n := len(b)
		if s.chop > 0 {
			n = min(n, s.chop)
		}
		if _, err := k.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// got waits until so many events have come, or the server closes.
func (k *client) got(n int) {
	for {
		k.mu.Lock()
		have := len(k.events)
		k.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-k.more:
		case <-k.closed:
			return
		}
	}
}

// patience is how long a server may take to notice an error before more is sent.
const patience = 5 * time.Second

func (k *client) run(s Server, c *Case, r *Result) {
	sent := make(chan bool, 1)
	go func() {
		strict := true
		for i, st := range c.steps() {
			if c.early > 0 && i+1 == c.early {
				select {
				case <-k.closed:
				case <-time.After(patience):
					strict = false
				}
			}
			if k.send(st) != nil {
				break // the server has closed: what it said is what counts
			}
		}
		sent <- strict
	}()
	if c.fail == nil && c.closes == 0 && !c.inform {
		<-sent
		sent <- true
		want := len(c.want)
		k.got(want)
		_ = k.send(step{data: closeFrame(1000, "")})
	}
	go func() {
		<-k.closed
		if c.fail != nil {
			// The server may give a client time to read why: the client has.
			if half, ok := k.conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		}
	}()
	var end error
	select {
	case end = <-k.ended:
	case <-time.After(s.Timeout):
		r.Why = "the server does not end the connection"
		return
	}
	_ = k.conn.Close() // ends a send that hangs
	strict := <-sent
	k.judge(c, r, end, strict)
}

func (k *client) judge(c *Case, r *Result, end error, strict bool) {
	r.Code = k.code
	if c.inform {
		r.Behaviour = Informational
		return
	}
	var timeout net.Error
	if errors.As(end, &timeout) && timeout.Timeout() {
		r.Why = "the server does not end the connection"
		return
	}
	whole := same(k.events, c.want)
	switch {
	case whole:
	case (c.fail != nil || c.loose) && prefix(k.events, c.want):
		strict = strict && c.loose
	default:
		r.Why = fmt.Sprintf("got %s, want %s", list(k.events), list(c.want))
		return
	}
	want := c.fail
	if want == nil {
		want = []int{1000}
		if c.closes != 0 {
			want = []int{c.closes}
		}
	}
	for _, code := range want {
		if k.code == code {
			r.Behaviour = OK
			if !strict {
				r.Behaviour = NonStrict
			}
			return
		}
	}
	r.Why = fmt.Sprintf("the server closed with %d, want one of %v (%v)", k.code, want, end)
}

func same(a, b []event) bool { return len(a) == len(b) && prefix(a, b) }

// prefix reports whether a is how b begins.
func prefix(a, b []event) bool {
	if len(a) > len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func list(events []event) string {
	var b bytes.Buffer
	for i, e := range events {
		if i == 5 {
			fmt.Fprintf(&b, " and %d more", len(events)-i)
			break
		}
		fmt.Fprintf(&b, "[%d: %d bytes %.20q]", e.op, len(e.data), e.data)
	}
	return b.String()
}
