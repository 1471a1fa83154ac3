package bridge

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// echo is a server that sends back what it receives.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // ends with the connection
			}()
		}
	}()
	return ln.Addr().String()
}

func TestHeldBridgeLosesNothingAndShutBridgeBreaks(t *testing.T) {
	var ports procs.Ports
	defer ports.Close()
	addr, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	b := New(addr, echo(t))
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	defer b.Shut()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say := func(text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	say("one")
	hear("one")

	b.Hold(true)
	say("two")
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v through a bridge that is held", n, err)
	}
	b.Hold(false)
	hear("two")

	b.Hold(true)
	b.Shut() // also when it is held
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %v, want a broken connection", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Fatal("a bridge that is shut accepts")
	}
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	if c, err = net.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say("three")
	hear("three")
}
