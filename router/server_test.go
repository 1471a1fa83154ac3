package router

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/router/internal/limits"
)

// serving runs the clients' HTTP server with another handler.
func serving(t *testing.T, accept time.Duration, h http.HandlerFunc) (dial func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Router{cfg: Config{AcceptTimeout: accept}, log: zap.NewNop(), gate: limits.NewGate(limits.Config{Rate: 1000, Queue: 1})}
	server := r.server()
	server.Handler = h
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.serve(server, l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

const plainRequest = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// Whoever does not read the answer holds a descriptor for no longer than a request may take.
func TestAnswersThatNobodyReadsEnd(t *testing.T) {
	ended := make(chan error)
	dial := serving(t, 50*time.Millisecond, func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for text := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(text)
		}
		ended <- err
	})
	_, _ = dial().Write([]byte(plainRequest))
	select {
	case err := <-ended:
		t.Logf("it ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Error("the answer waits for ever")
	}
}

func TestOneRequestForEachConnection(t *testing.T) {
	dial := serving(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "once") })
	c := dial()
	_, _ = c.Write([]byte(plainRequest))
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if _, err := br.ReadByte(); err == nil || !resp.Close || string(body) != "once" {
		t.Errorf("%q, more to come: %v, end announced: %v", body, err == nil, resp.Close)
	}
}

func TestUpgradesOutliveTheTimeOfARequest(t *testing.T) {
	const accept = 20 * time.Millisecond
	dial := serving(t, accept, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("reading after the upgrade: %v", err)
		}
		if _, err := io.WriteString(c, "!"); err != nil {
			t.Errorf("writing after the upgrade: %v", err)
		}
	})
	c := dial()
	_, _ = c.Write([]byte(plainRequest))
	<-time.After(5 * accept)
	_, _ = c.Write([]byte("?"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
