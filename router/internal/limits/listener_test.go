package limits

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const waiting = 10 * time.Second

// counts are the limits that were met.
type counts struct {
	mu sync.Mutex
	n  map[Limit]int
}

func (c *counts) add(l Limit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[Limit]int{}
	}
	c.n[l]++
}

func (c *counts) of(l Limit) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[l]
}

// serveHTTP serves "ok" behind a bounded listener.
func serveHTTP(t *testing.T, most int, patience time.Duration) (*Listener, *counts) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	met := new(counts)
	l := NewGate(Config{Count: met.add}).Listen(inner, ListenConfig{Silent: most})
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }),
		ReadHeaderTimeout: patience, IdleTimeout: patience, MaxHeaderBytes: 4 << 10, ConnState: l.State,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l, met
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(waiting))
	return c
}

func answerTo(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	_ = resp.Body.Close()
	return resp
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(waiting)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, waiting)
		}
		<-tick.C
	}
}

func TestSilentConnectionsDisplaceEachOther(t *testing.T) {
	l, met := serveHTTP(t, 3, time.Minute)
	first := dial(t, l)
	eventually(t, "the first one to be silent", func() bool { return l.Silent() == 1 })
	for range 3 {
		dial(t, l)
	}
	if resp := answerTo(t, first); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the first one got %d %v", resp.StatusCode, resp.Header)
	}
	if met.of(Open) != 1 || l.Silent() != 3 {
		t.Errorf("%d turned away, %d silent", met.of(Open), l.Silent())
	}
	// Whoever sends a request gets its answer.
	honest := dial(t, l)
	_, _ = honest.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if resp := answerTo(t, honest); resp.StatusCode != http.StatusOK {
		t.Errorf("a request got %d", resp.StatusCode)
	}
}

// A client whose request takes its time is not pushed out by one address that connects and connects.
func TestAnAddressDisplacesItsOwnSilentConnections(t *testing.T) {
	l, met := serveHTTP(t, 4, time.Minute)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	slow, err := from.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Skipf("a second address of this machine cannot be used: %v", err) // other systems than Linux have one
	}
	t.Cleanup(func() { _ = slow.Close() })
	_ = slow.SetDeadline(time.Now().Add(waiting))
	eventually(t, "the slow one to be silent", func() bool { return l.Silent() == 1 })
	for i := range 10 {
		dial(t, l)
		eventually(t, "the others to come", func() bool { return met.of(Open) == max(0, i-2) && l.Silent() == min(4, i+2) })
	}
	_, _ = slow.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if resp := answerTo(t, slow); resp.StatusCode != http.StatusOK {
		t.Errorf("the slow one got %d", resp.StatusCode)
	}
	eventually(t, "its place to be free", func() bool { return l.Silent() == 3 || l.Silent() == 4 })
}

func TestRequestsThatDoNotComeGetAnAnswer(t *testing.T) {
	l, met := serveHTTP(t, 0, 50*time.Millisecond)
	silent, slow := dial(t, l), dial(t, l)
	_, _ = slow.Write([]byte("GET / HTTP/1.1\r\nHost:"))
	for _, c := range []net.Conn{silent, slow} {
		if resp := answerTo(t, c); resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("got %d", resp.StatusCode)
		}
	}
	eventually(t, "nobody to be left", func() bool { return l.Silent() == 0 && met.of(HandshakeTime) == 2 })
	// One that was answered goes without a word when it is idle.
	idle := dial(t, l)
	_, _ = idle.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	answerTo(t, idle)
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("more came")
	}
	if met.of(HandshakeTime) != 2 {
		t.Error("an idle connection counts as a late one")
	}
}

func TestLargeHeadsAreCounted(t *testing.T) {
	l, met := serveHTTP(t, 0, time.Minute)
	c := dial(t, l)
	_, _ = c.Write(append([]byte("GET / HTTP/1.1\r\nX: "), make([]byte, 64<<10)...))
	if resp := answerTo(t, c); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", resp.StatusCode)
	}
	if met.of(Head) != 1 {
		t.Errorf("counted %d", met.of(Head))
	}
}

// exhausted is a listener of a process that has no descriptor left.
type exhausted struct{ net.Listener }

func (exhausted) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

func TestMissingDescriptorsAreExplained(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	met := new(counts)
	l := NewGate(Config{Logger: zap.New(core), Count: met.add}).Listen(exhausted{}, ListenConfig{Silent: 10})
	if err := l.Starved(); err != nil {
		t.Errorf("starved before anything happened: %v", err)
	}
	for range 3 {
		if _, err := l.Accept(); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("accept: %v", err)
		}
	}
	if met.of(Files) != 3 || logs.Len() != 1 {
		t.Errorf("%d counted, %d lines", met.of(Files), logs.Len())
	}
	entry := logs.All()[0].ContextMap()
	if n, ok := entry["limit"].(uint64); !ok || n == 0 || entry["remedy"] == "" {
		t.Errorf("the log says %v", entry)
	}
	if l.Starved() == nil {
		t.Error("nothing is starved")
	}
}

func TestRoomLeavesDescriptorsForOthers(t *testing.T) {
	for _, tt := range []struct {
		files                    uint64
		wanted, silent, queue    int
		clients, most, atMostAll int
		byFiles                  bool
	}{
		{1024, 0, 0, 2000, 512, 256, 896, true},
		{20000, 0, 0, 2000, 13648, 4096, 19744, true},
		{20000, 5000, 100, 2000, 5000, 100, 19744, false},
		{1024, 100000, 0, 10, 630, 256, 896, true},
		{1 << 40, 0, 0, 0, 1<<20 - 4096 - 256, 4096, 1 << 20, true},
	} {
		clients, most, byFiles := Room(tt.files, tt.wanted, tt.silent, tt.queue)
		if clients != tt.clients || most != tt.most || byFiles != tt.byFiles {
			t.Errorf("%+v: %d clients, %d silent, %v", tt, clients, most, byFiles)
		}
		if clients+most > tt.atMostAll {
			t.Errorf("%+v: nothing is left", tt)
		}
	}
}

// serveHeld answers requests only when release is closed.
func serveHeld(t *testing.T, cfg ListenConfig) (l *Listener, met *counts, release chan struct{}) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	met, release = new(counts), make(chan struct{})
	l = NewGate(Config{Count: met.add}).Listen(inner, cfg)
	server := &http.Server{
		Handler:           l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })),
		ReadHeaderTimeout: time.Minute, ConnState: l.State, ConnContext: l.Context,
	}
	server.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l, met, release
}

func TestRequestsUnderWayAreBoundedByAddressAndInAll(t *testing.T) {
	proxies, err := ParseProxies([]string{"127.0.0.1"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cfg    ListenConfig
		room   int
		met    Limit
		status int
	}{
		"of one address": {ListenConfig{Silent: 100, Busy: 8}, 6, AddressBusy, http.StatusTooManyRequests},
		"in all":         {ListenConfig{Silent: 2, Busy: 8, Proxies: proxies}, 10, Busy, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			l, met, release := serveHeld(t, tt.cfg)
			for i := range tt.room {
				_, _ = dial(t, l).Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
				eventually(t, "the request to be seen", func() bool { return l.Busy() == i+1 })
			}
			if resp := answerTo(t, dial(t, l)); resp.StatusCode != tt.status || resp.Header.Get("Retry-After") == "" {
				t.Errorf("one too many got %d %v", resp.StatusCode, resp.Header)
			}
			if met.of(tt.met) != 1 {
				t.Errorf("%s counted %d times", tt.met, met.of(tt.met))
			}
			close(release)
			eventually(t, "all to be answered", func() bool { return l.Busy() == 0 && l.Silent() == 0 })
			c := dial(t, l)
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			if resp := answerTo(t, c); resp.StatusCode != http.StatusOK {
				t.Errorf("afterwards one gets %d", resp.StatusCode)
			}
		})
	}
}

func TestTLSHandshakesHaveARate(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	met := new(counts)
	l := NewGate(Config{Count: met.add, Rate: 1000, PerRate: 2, Queue: 2000}).Listen(inner, ListenConfig{Secure: true})
	done := make(chan struct{})
	accepted := 0
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted++
			_ = c.Close()
		}
	}()
	const many = 200
	start := time.Now()
	for range many {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Read(make([]byte, 1)) // until it is closed
		_ = c.Close()
	}
	took := time.Since(start)
	_ = l.Close()
	<-done
	// Two seconds' worth may come at once, and two more with each second.
	if most := 6 + 2*int(took/time.Second); accepted > most || accepted == 0 {
		t.Errorf("%d handshakes of one address in %s, want %d at most", accepted, took, most)
	}
	if met.of(SecureRate) != many-accepted {
		t.Errorf("%d refused, counted %d", many-accepted, met.of(SecureRate))
	}
}

func TestLargeHeadsAreCountedOverTLS(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	met := new(counts)
	l := NewGate(Config{Count: met.add}).Listen(inner, ListenConfig{Secure: true, Head: 4 << 10})
	server := httptest.NewUnstartedServer(l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	_ = server.Listener.Close()
	server.Listener = l
	server.Config.ConnState, server.Config.ConnContext, server.Config.MaxHeaderBytes = l.State, l.Context, 4<<10
	server.StartTLS()
	defer server.Close()
	for _, size := range []int{100, 64 << 10} {
		c, err := tls.Dial("tcp", l.Addr().String(), server.Client().Transport.(*http.Transport).TLSClientConfig) //nolint:forcetypeassert // it is one
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", size) + "\r\n\r\n"))
		_, _ = io.ReadAll(io.LimitReader(c, 12))
		_ = c.Close()
	}
	eventually(t, "the large one to be counted", func() bool { return met.of(Head) == 1 })
}
