package clientconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

const patience = 10 * time.Second

// harness serves one connection at a time to whoever knocks.
type harness struct {
	t      *testing.T
	shared *Shared
	http   *httptest.Server
	conns  chan *Conn
	texts  chan string
	ended  chan *Conn
}

// Drained implements Owner for all connections of the harness.
func (h *harness) Drained() {}

func newHarness(t *testing.T, secure bool) *harness {
	h := &harness{
		t: t, shared: &Shared{ReadLimit: 1 << 10},
		conns: make(chan *Conn, 10), texts: make(chan string, 10), ended: make(chan *Conn, 10),
	}
	h.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := h.shared.Accept(w, r, "")
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		c.SetOwner(h)
		go func() {
			c.Serve(func(text []byte) { h.texts <- string(text) })
			h.ended <- c
		}()
		h.conns <- c
	}))
	if secure {
		h.http.StartTLS()
	} else {
		h.http.Start()
	}
	t.Cleanup(func() {
		h.http.Close()
		h.shared.Wait()
	})
	return h
}

func (h *harness) url() string { return "ws" + strings.TrimPrefix(h.http.URL, "http") }

// dial connects the library's client.
func (h *harness) dial() (*websocket.Conn, *Conn) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, h.url(), &websocket.DialOptions{HTTPClient: h.http.Client()})
	if err != nil {
		h.t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	h.t.Cleanup(func() { _ = ws.CloseNow() })
	c := receive(h.t, "connection", h.conns)
	h.t.Cleanup(func() { c.Abort(1006) })
	return ws, c
}

// knock connects by hand: extra goes out in the same write as the request.
func (h *harness) knock(extra []byte, readBuffer int) (net.Conn, *bufio.Reader, *Conn) {
	h.t.Helper()
	raw, err := net.Dial("tcp", h.http.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = raw.Close() })
	if readBuffer > 0 {
		if err := raw.(*net.TCPConn).SetReadBuffer(readBuffer); err != nil {
			h.t.Fatal(err)
		}
	}
	request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if h.shared.PackFrom > 0 {
		request += "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" // as Chromium does
	}
	request += "\r\n"
	if _, err := raw.Write(append([]byte(request), extra...)); err != nil {
		h.t.Fatal(err)
	}
	br := bufio.NewReader(raw)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		h.t.Fatalf("upgrade: %v, %v", resp, err)
	}
	c := receive(h.t, "connection", h.conns)
	h.t.Cleanup(func() { c.Abort(1006) })
	return raw, br, c
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}

func read(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, msg, err := ws.Read(ctx)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return string(msg)
}

func frame(op Opcode, payload string) []byte {
	return Seal(append(Reserve(nil), payload...), 0, op)
}

// masked is a client's frame.
func masked(op byte, payload []byte) []byte {
	var key [4]byte
	_, _ = rand.Read(key[:])
	f := []byte{fin | op}
	switch {
	case len(payload) <= 125:
		f = append(f, 0x80|byte(len(payload)))
	default:
		f = append(f, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	f = append(f, key[:]...)
	for i, b := range payload {
		f = append(f, b^key[i%4])
	}
	return f
}

func TestSealedFramesAreReadByTheLibraryAtEverySize(t *testing.T) {
	h := newHarness(t, false)
	ws, c := h.dial()
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 200000} {
		want := strings.Repeat("x", n)
		c.Queue(frame(Text, want), 5)
		c.Flush()
		if got := read(t, ws); got != want {
			t.Errorf("a message of %d bytes came as %d", n, len(got))
		}
	}
}

func TestEverythingQueuedGoesOutInOneWrite(t *testing.T) {
	h := newHarness(t, false)
	raw, _, c := h.knock(nil, 0)
	var want []byte
	for i := range 100 {
		f := frame(Text, strings.Repeat("x", i))
		c.Queue(f, 1)
		want = append(want, f...)
	}
	if left := c.Flush(); left != 100 {
		t.Errorf("cost %d has left, want 100", left)
	}
	// One write arrives as one read on the loopback, when it fits.
	got := make([]byte, len(want)+1)
	n, err := raw.Read(got)
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Errorf("the first read got %d bytes of %d, %v", n, len(want), err)
	}
	if c.Queued() != 0 || c.out != nil {
		t.Error("the outbox keeps a buffer")
	}
}

func TestBytesSentWithTheRequestAreNotLost(t *testing.T) {
	h := newHarness(t, false)
	long := strings.Repeat("y", 700)
	extra := append(masked(1, []byte("early")), masked(1, []byte(long))...)
	h.knock(extra, 0)
	if got := receive(t, "message", h.texts); got != "early" {
		t.Errorf("got %q", got)
	}
	if got := receive(t, "message", h.texts); got != long {
		t.Errorf("got %d bytes", len(got))
	}
}

func TestClientThatDoesNotReadBlocksNobodyAndGetsEverything(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcp", true: "tls"}[secure], func(t *testing.T) {
			h := newHarness(t, secure)
			ws, c := h.dial()
			payload := strings.Repeat("z", 10000)
			const n = 2000 // 20 MB: more than sockets take
			var left int64
			for range n {
				c.Queue(frame(Binary, payload), 7)
				left += c.Flush()
			}
			if c.Queued() == 0 {
				t.Skip("the sockets took everything")
			}
			for range n {
				if got := read(t, ws); got != payload {
					t.Fatalf("a message came as %d bytes", len(got))
				}
			}
			waitFor(t, "the outbox to be empty", func() bool { return c.Queued() == 0 })
			if left += c.Collect(); left != n*7 {
				t.Errorf("cost %d has left in all, want %d", left, n*7)
			}
			waitFor(t, "the writer goroutine's end", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return !c.writing && c.out == nil
			})
		})
	}
}

func TestControlFramesShareTheOutbox(t *testing.T) {
	h := newHarness(t, false)
	raw, br, c := h.knock(nil, 0)
	c.Queue(frame(Text, "record"), 1)
	if _, err := raw.Write(masked(byte(opPing), []byte("hi"))); err != nil {
		t.Fatal(err)
	}
	// The pong takes along what was queued before it.
	if op, p := readFrame(t, br); op != Text || string(p) != "record" {
		t.Errorf("first frame is %d %q", op, p)
	}
	if op, p := readFrame(t, br); op != 10 || string(p) != "hi" {
		t.Errorf("second frame is %d %q, want the pong", op, p)
	}
	if left := c.Flush(); left != 1 {
		t.Errorf("cost %d is reported, want 1", left)
	}
}

func readFrame(t *testing.T, br *bufio.Reader) (Opcode, []byte) {
	t.Helper()
	var h [2]byte
	if _, err := io.ReadFull(br, h[:]); err != nil {
		t.Fatal(err)
	}
	n := int(h[1])
	if n == 126 {
		var l [2]byte
		if _, err := io.ReadFull(br, l[:]); err != nil {
			t.Fatal(err)
		}
		n = int(binary.BigEndian.Uint16(l[:]))
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(br, p); err != nil {
		t.Fatal(err)
	}
	return Opcode(h[0] &^ fin), p
}

func TestPingFloodOfAClientThatDoesNotReadCostsNoMemory(t *testing.T) {
	h := newHarness(t, false)
	raw, _, c := h.knock(nil, 4<<10)
	fill := frame(Binary, strings.Repeat("z", 100000))
	waitFor(t, "the socket to be full", func() bool {
		c.Queue(fill, 0)
		c.Flush()
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.writing
	})
	before := c.Queued()
	ping := masked(byte(opPing), bytes.Repeat([]byte("p"), 125))
	for range 10000 {
		if _, err := raw.Write(ping); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := raw.Write(masked(1, []byte("after"))); err != nil {
		t.Fatal(err)
	}
	receive(t, "message behind the pings", h.texts)
	if after := c.Queued(); after > before {
		t.Errorf("the outbox grew from %d to %d bytes", before, after)
	}
}

func TestCloseTellsCodeAndReason(t *testing.T) {
	for _, secure := range []bool{false, true} {
		h := newHarness(t, secure)
		ws, c := h.dial()
		c.Queue(frame(Text, "last"), 0)
		c.Close(closecode.GoingAway, "the router is stopping")
		c.Queue(frame(Text, "too late"), 0)
		if got := read(t, ws); got != "last" {
			t.Errorf("got %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, _, err := ws.Read(ctx)
		cancel()
		var ce websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != 1001 || ce.Reason != "the router is stopping" {
			t.Errorf("closed with %v", err)
		}
		if got := receive(t, "end", h.ended); got.Code() != 1001 {
			t.Errorf("code %d", got.Code())
		}
	}
}

func TestReasonsTooLongAreCutAtARune(t *testing.T) {
	f := appendClose(nil, 4000, strings.Repeat("é", 100))
	if len(f) > 2+maxControl {
		t.Errorf("close frame of %d bytes", len(f))
	}
	if s := string(f[4:]); strings.ToValidUTF8(s, "?") != s {
		t.Errorf("reason %q is not UTF-8", s)
	}
}

func TestClientsCloseIsAnsweredWithItsCode(t *testing.T) {
	for _, code := range []int{closecode.Normal, closecode.Internal, closecode.Shed, 3059, 4999} {
		for _, secure := range []bool{false, true} {
			h := newHarness(t, secure)
			ws, _ := h.dial()
			if err := ws.Close(websocket.StatusCode(code), "enough"); err != nil {
				t.Errorf("close: %v", err)
			}
			if got := receive(t, "end", h.ended); got.Code() != ByClient {
				t.Errorf("code %d for a client that closed with %d, want that it was the client", got.Code(), code)
			}
		}
	}
}

func TestBinaryMessagesAreRefused(t *testing.T) {
	h := newHarness(t, false)
	ws, _ := h.dial()
	if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("data")); err != nil {
		t.Fatal(err)
	}
	_, _, err := ws.Read(t.Context())
	if websocket.CloseStatus(err) != closecode.UnsupportedData {
		t.Errorf("closed with %v", err)
	}
	receive(t, "end", h.ended)
}

func TestMessagesTooLargeAreRefused(t *testing.T) {
	h := newHarness(t, false)
	ws, _ := h.dial()
	if err := ws.Write(t.Context(), websocket.MessageText, bytes.Repeat([]byte("x"), 5000)); err != nil {
		t.Fatal(err)
	}
	_, _, err := ws.Read(t.Context())
	if websocket.CloseStatus(err) != closecode.TooBig {
		t.Errorf("closed with %v", err)
	}
	if got := receive(t, "end", h.ended); got.Code() != closecode.TooBig {
		t.Errorf("code %d", got.Code())
	}
}

func TestBrokenSocketEndsWithoutACode(t *testing.T) {
	h := newHarness(t, false)
	raw, _, _ := h.knock(nil, 0)
	if err := raw.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = raw.Close()
	if got := receive(t, "end", h.ended); got.Code() != 1006 {
		t.Errorf("code %d, want 1006", got.Code())
	}
}

func limits() Limits {
	return Limits{Ping: 20 * time.Second, Dead: time.Minute, Stall: 5 * time.Minute}
}

func TestSilentClientIsAskedAndThenGivenUp(t *testing.T) {
	h := newHarness(t, false)
	_, br, c := h.knock(nil, 0) // answers no pings
	start := time.Now()
	at := func(d time.Duration) { c.Check(start.Add(d), start, limits()) }
	at(19 * time.Second)
	if c.pinged != 0 {
		t.Error("asked too early")
	}
	at(21 * time.Second)
	at(22 * time.Second)
	at(42 * time.Second)
	for range 2 {
		if op, _ := readFrame(t, br); op != opPing {
			t.Errorf("frame %d, want a ping", op)
		}
	}
	at(61 * time.Second)
	op, p := readFrame(t, br)
	if code := int(binary.BigEndian.Uint16(p)); op != opClose || code != closecode.DeadPeer {
		t.Errorf("frame %d %q, want a close with %d", op, p, closecode.DeadPeer)
	}
	at(67 * time.Second) // it does not answer the close either
	if got := receive(t, "end", h.ended); got.Code() != closecode.DeadPeer {
		t.Errorf("code %d", got.Code())
	}
}

func TestSilenceWhileThisProcessSleptDoesNotCount(t *testing.T) {
	h := newHarness(t, false)
	_, _, c := h.knock(nil, 0)
	woke := time.Now().Add(time.Hour)
	c.Check(woke.Add(time.Second), woke, limits())
	if c.isClosing() {
		t.Error("given up right after waking")
	}
}

func TestClientWithAFullSocketIsAliveWhileItTakesBytes(t *testing.T) {
	h := newHarness(t, false)
	raw, _, c := h.knock(nil, 0)
	fill := frame(Binary, strings.Repeat("z", 100000))
	full := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.writing
	}
	fillUp := func() {
		waitFor(t, "the socket to be full", func() bool {
			c.Queue(fill, 0)
			c.Flush()
			return full()
		})
	}
	fillUp()
	start := time.Now()
	// It does not read for minutes and answers no pings: that is a slow client, not a dead one.
	for s := range 280 {
		c.Check(start.Add(time.Duration(s)*time.Second), start, limits())
	}
	if c.isClosing() || !full() {
		t.Fatal("a slow client was given up")
	}
	// Now it reads some: the clock starts again.
	waitFor(t, "progress", func() bool {
		if err := raw.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.CopyN(io.Discard, raw, 1<<20)
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.progress > start.UnixNano()
	})
	fillUp()
	again := time.Now()
	for s := range 700 {
		c.Check(again.Add(time.Duration(s)*time.Second), start, limits())
	}
	if got := receive(t, "end", h.ended); got.Code() != closecode.DeadPeer {
		t.Errorf("code %d, want %d after five minutes without a byte", got.Code(), closecode.DeadPeer)
	}
}

func TestFlushAllocatesNothing(t *testing.T) {
	if raced {
		t.Skip("not with the race detector")
	}
	h := newHarness(t, false)
	raw, _, c := h.knock(nil, 0)
	go func() { _, _ = io.Copy(io.Discard, raw) }()
	f := frame(Text, strings.Repeat("x", 200))
	send := func() {
		c.Queue(f, 1)
		c.Flush()
	}
	send()
	if n := testing.AllocsPerRun(2000, send); n >= 1 {
		t.Errorf("%v allocations per message", n)
	}
}

func TestBuffersAreUsedAgain(t *testing.T) {
	var p bufferPool
	for _, n := range []int{1, 512, 513, 5000, 1 << 20} {
		b := p.get(n)
		if cap(b.b) < n || len(b.b) != 0 {
			t.Errorf("a buffer for %d bytes has room for %d and holds %d", n, cap(b.b), len(b.b))
		}
		b.b = append(b.b, make([]byte, n)...)
		p.put(b)
	}
	huge := p.get(3 << 20)
	p.put(huge)
	if b := p.get(3 << 20); b == huge {
		t.Error("a huge buffer was kept")
	}
	b := p.get(100)
	b.b = append(b.b, "0123456789"...)
	grown, off := p.extend(b, 4, 5000)
	if off != 0 || string(grown.b) != "456789" {
		t.Errorf("grown to %q at %d", grown.b, off)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}
