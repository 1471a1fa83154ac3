package nonblock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair is two ends of a TCP connection.
func pair(t *testing.T) (one, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	came := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		came <- c
	}()
	if one, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if other = <-came; other == nil {
		t.Fatal("no connection was accepted")
	}
	t.Cleanup(func() {
		_ = one.Close()
		_ = other.Close()
	})
	return one, other
}

func wrappedPair(t *testing.T) (wrapped, plain net.Conn) {
	t.Helper()
	c, plain := pair(t)
	return Wrap(c), plain
}

// More than the sockets hold goes both ways at once, and arrives as it was.
func TestCarriesMoreThanSocketsHold(t *testing.T) {
	wrapped, plain := wrappedPair(t)
	sent := make([]byte, 16<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	failed := make(chan error, 3)
	write := func(c net.Conn) {
		n, err := c.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		failed <- err
	}
	go write(wrapped)
	go write(plain)
	go func() {
		got := make([]byte, len(sent))
		_, err := io.ReadFull(plain, got)
		if err == nil && !bytes.Equal(got, sent) {
			err = errors.New("what the wrapped end wrote came damaged")
		}
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(wrapped, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read: %v, equal: %v", err, bytes.Equal(got, sent))
	}
	for range 3 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

func TestEndsAndDeadlines(t *testing.T) {
	wrapped, plain := wrappedPair(t)
	p := make([]byte, 10)
	if err := wrapped.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := wrapped.Read(p); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past the deadline: %d, %v", n, err)
	}
	if err := wrapped.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := wrapped.Read(nil); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
	if n, err := wrapped.Write(nil); n != 0 || err != nil {
		t.Errorf("write of nothing: %d, %v", n, err)
	}
	if err := wrapped.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := wrapped.Write(make([]byte, 64<<20)) // nobody reads
	if n == 0 || n == 64<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write that nobody reads: %d, %v", n, err)
	}
	if err := plain.Close(); err != nil { // with bytes unread: a reset
		t.Fatal(err)
	}
	if err := wrapped.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := wrapped.Read(p); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v", err)
	}
	if _, err := wrapped.Write(p); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after a reset: %v", err)
	}
	if err := wrapped.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := wrapped.Read(p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}

func TestEndOfStream(t *testing.T) {
	wrapped, plain := wrappedPair(t)
	if _, err := plain.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := plain.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(wrapped)
	if err != nil || string(got) != "last" {
		t.Errorf("read %q, %v", got, err)
	}
}

// A connection without a descriptor is left as it is.
func TestLeavesOthersAlone(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Wrap(a) != a {
		t.Error("a pipe was wrapped")
	}
}

func TestAllocatesNothing(t *testing.T) {
	wrapped, plain := wrappedPair(t)
	p := make([]byte, 100)
	there := make(chan error)
	go func() {
		_, err := io.Copy(plain, plain)
		there <- err
	}()
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := wrapped.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(wrapped, p); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a round", allocs)
	}
	_ = wrapped.Close()
	if err := <-there; err != nil {
		t.Error(err)
	}
}
