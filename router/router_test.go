package router_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/router"
)

const patience = 15 * time.Second

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func config(t *testing.T) router.Config {
	return router.Config{
		Topic: "records", Etcd: []string{closedPort(t)}, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", DrainTimeout: time.Second,
	}
}

// running starts a router and returns a function that ends it in order and gives what Run returned.
func running(t *testing.T, cfg router.Config, log *zap.Logger) (*router.Router, func() error) {
	t.Helper()
	r, err := router.New(cfg, router.Deps{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	ended := false
	stop := func() error {
		cancel()
		if ended {
			return nil
		}
		ended = true
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			t.Fatalf("the router does not stop within %s", patience)
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case <-r.Listening():
	case err := <-done:
		ended = true
		t.Fatalf("run: %v", err)
	case <-time.After(patience):
		t.Fatal("the router does not listen")
	}
	return r, stop
}

func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestRouterWithoutEtcdWaitsAndSaysSo(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	r, stop := running(t, config(t), zap.New(core))
	var body string
	waitFor(t, "/readyz to blame etcd", func() bool {
		var status int
		status, body = get(t, "http://"+r.AdminAddr()+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "waiting for etcd")
	})
	if status, body := get(t, "http://"+r.Addr()+"/v1/ws?key=a", "Connection", "Upgrade", "Upgrade", "websocket"); status != 503 || !strings.Contains(body, "topic") {
		t.Errorf("clients get %d %q", status, body)
	}
	waitFor(t, "the log to tell", func() bool { return logs.FilterMessage("waiting").Len() > 0 })
	for path, want := range map[string]int{
		"/livez": 200, "/metrics": 200, "/api/v1/nodes": 200, "/api/v1/assignments": 200, "/debug/vars": 200,
		"/api/v1/where?key=alice": 503, "/api/v1/where": 400,
	} {
		if status, body := get(t, "http://"+r.AdminAddr()+path); status != want {
			t.Errorf("%s: %d %q, want %d", path, status, body, want)
		}
	}
	if _, body := get(t, "http://"+r.AdminAddr()+"/metrics"); !strings.Contains(body, "pointsman_router_sessions 0") {
		t.Error("the metrics lack pointsman_router_sessions")
	}
	select {
	case <-r.Ready():
		t.Error("it is ready")
	default:
	}
	if err := stop(); err != nil {
		t.Errorf("an orderly stop gave %v", err)
	}
}

// TestDrainingRouterIsUnreadyBeforeItRefuses: balancers look at /readyz, and until they have, clients still come.
func TestDrainingRouterIsUnreadyBeforeItRefuses(t *testing.T) {
	cfg := config(t)
	cfg.DrainTimeout, cfg.DrainDelay = 2*patience, patience
	r, err := router.New(cfg, router.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, drain := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Listening()
	drain()
	waitFor(t, "/readyz to say that it drains", func() bool {
		status, body := get(t, "http://"+r.AdminAddr()+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "draining")
	})
	// It knows no topic, and says so to whoever comes; a router that takes nobody says that it is stopping.
	if status, body := get(t, "http://"+r.Addr()+"/v1/ws?key=a", "Connection", "Upgrade", "Upgrade", "websocket"); status != 503 || !strings.Contains(body, "topic") {
		t.Errorf("a client that comes meanwhile gets %d %q", status, body)
	}
	r.Kill()
	select {
	case err := <-done:
		if !errors.Is(err, router.ErrKilled) {
			t.Errorf("got %v, want ErrKilled", err)
		}
	case <-time.After(patience):
		t.Fatal("a second signal does not end the delay")
	}
}

func TestKilledRouterSaysSo(t *testing.T) {
	r, err := router.New(config(t), router.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(context.Background()) }()
	<-r.Listening()
	r.Kill()
	r.Kill()
	select {
	case err := <-done:
		if !errors.Is(err, router.ErrKilled) {
			t.Errorf("run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
}

func TestPortInUseNamesTheFlag(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for flag, change := range map[string]func(*router.Config){
		"--listen": func(c *router.Config) { c.Listen = l.Addr().String() },
		"--admin":  func(c *router.Config) { c.Admin = l.Addr().String() },
	} {
		cfg := config(t)
		change(&cfg)
		r, err := router.New(cfg, router.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("run: %v, want an error that names %s", err, flag)
		}
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*router.Config){
		"no topic":     func(c *router.Config) { c.Topic = "" },
		"jwt":          func(c *router.Config) { c.Auth = "jwt" },
		"unknown auth": func(c *router.Config) { c.Auth = "magic" },
		"bad origin":   func(c *router.Config) { c.Origins = []string{"[x"} },
	} {
		cfg := config(t)
		change(&cfg)
		if _, err := router.New(cfg, router.Deps{}); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q has more than one line", name, err)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}
