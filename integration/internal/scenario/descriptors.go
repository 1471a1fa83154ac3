package scenario

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

const fewFiles = 600

// FewDescriptors: a router may open 600 files, and one address takes what it can get: connections that say nothing, requests
// whose answer nobody reads, sockets. Clients of other addresses connect and receive all the while, operators get their
// answers, and links and etcd stay.
func FewDescriptors(t *testing.T) {
	bin := needPrograms(t)
	few := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nulimit -n %d && exec '%s' \"$@\"\n", fewFiles, filepath.Join(bin, "router"))
	if err := os.WriteFile(filepath.Join(few, "router"), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(bin, "wsnode"), filepath.Join(few, "wsnode")); err != nil {
		t.Fatal(err)
	}
	w := begin(t, stack.Options{Nodes: 2, Bin: few})
	names := keys("honest", 40)
	add := func(names []string) {
		t.Helper()
		_, err := w.fleet.Add(w.ctx, len(names), func(i int) load.Options { return load.Options{Key: names[i]} }, w.target)
		w.must(err)
	}
	add(names[:10])
	w.produce(names, 100, 128)
	w.must(w.settled(20 * time.Second))
	stop := w.greed(strings.TrimPrefix(w.Routers()[0].URL, "ws://"))
	admin := w.Routers()[0].Admin
	w.eventually(10*time.Second, "the address meets its limits", func() error {
		metrics := string(w.metrics(0))
		for _, limit := range []string{"address_clients", "open_handshakes"} {
			if !regexp.MustCompile(`limit_hits_total\{limit="` + limit + `"\} [1-9]`).MatchString(metrics) {
				return fmt.Errorf("not %s", limit)
			}
		}
		return nil
	})
	most := 0
	for n := 10; n < len(names); n += 5 {
		begun := time.Now()
		add(names[n : n+5])
		w.must(w.settled(20 * time.Second))
		if status, body := w.get(admin + "/readyz"); status != http.StatusOK {
			t.Errorf("readyz: %d %s", status, body)
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Routers()[0].PID))
		w.must(err)
		most = max(most, len(files))
		t.Logf("%d clients more in %s; %d files are open", 5, show(time.Since(begun)), len(files))
	}
	metrics := string(w.metrics(0))
	for _, quiet := range []string{`link_downs_total\{reason="[a-z]+"\} [1-9].*`, `etcd_away_seconds [1-9].*`, `limit_hits_total\{limit="(files|clients)"\} [1-9].*`} {
		if found := regexp.MustCompile(quiet).FindString(metrics); found != "" {
			t.Errorf("%s", found)
		}
	}
	stop()
	w.finish()
	for _, h := range w.fleet.Histories() {
		if len(h.Sessions) != 1 {
			t.Errorf("client %s has %d connections, want one that nothing broke", h.Name, len(h.Sessions))
		}
	}
	if most > fewFiles*9/10 {
		t.Errorf("%d files were open, of %d: nothing is left for links, etcd and operators", most, fewFiles)
	}
}

// greed takes as many connections as one address can get, in three ways, until it is stopped.
func (w *world) greed(addr string) (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	dialer := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}, Timeout: time.Second,
		Control: func(_, _ string, c syscall.RawConn) error { // answers do not fit
			return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		},
	}
	for _, request := range []string{
		"",
		"GET /v1/client.js HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/ws?key=greed HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	} {
		wg.Go(func() {
			conns := make([]net.Conn, 500)
			for i := 0; ctx.Err() == nil; i = (i + 1) % len(conns) {
				if conns[i] != nil {
					_ = conns[i].Close()
				}
				c, err := dialer.DialContext(ctx, "tcp", addr)
				if err != nil {
					conns[i] = nil
					continue
				}
				_, _ = c.Write([]byte(request))
				conns[i] = c
			}
			for _, c := range conns {
				if c != nil {
					_ = c.Close()
				}
			}
		})
	}
	stop = func() {
		cancel()
		wg.Wait()
	}
	w.t.Cleanup(stop)
	return stop
}
