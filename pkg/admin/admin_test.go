package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
)

func newServer(listen string) *admin.Server {
	return admin.New(admin.Config{
		Listen: listen, Namespace: "pointsman_router", Build: buildinfo.Info{Version: "v1.2.3", Revision: "abc", Go: "go1.26"},
	})
}

func get(t *testing.T, s *admin.Server, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestMetricsHaveGoProcessBuildAndTheProgramsOwn(t *testing.T) {
	s := newServer("")
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "pointsman_router_records_total", Help: "Records."})
	s.Registry().MustRegister(c)
	c.Add(3)
	code, body := get(t, s, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	for _, want := range []string{
		"go_goroutines ", "process_resident_memory_bytes ", "pointsman_router_records_total 3",
		`pointsman_router_build_info{go="go1.26",revision="abc",version="v1.2.3"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

func TestNotReadyNamesTheReasons(t *testing.T) {
	s := newServer("")
	if code, body := get(t, s, "/readyz"); code != http.StatusOK || body != "ready\n" {
		t.Errorf("without checks: %d %q", code, body)
	}
	etcd := errors.New("no picture of etcd yet: dial tcp 127.0.0.1:2379: connection refused")
	s.Ready("nodes", func() error { return nil })
	s.Ready("etcd", func() error { return etcd })

	code, body := get(t, s, "/readyz")
	if want := "not ready\netcd: " + etcd.Error() + "\nnodes: ok\n"; code != http.StatusServiceUnavailable || body != want {
		t.Errorf("got %d %q, want 503 %q", code, body, want)
	}
	var got admin.Readiness
	code, body = get(t, s, "/readyz?format=json")
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusServiceUnavailable {
		t.Fatalf("%d, %v in %q", code, err, body)
	}
	if got.Ready || len(got.Checks) != 2 || got.Checks[0] != (admin.Check{Name: "etcd", Reason: etcd.Error()}) {
		t.Errorf("got %+v", got)
	}

	etcd = nil
	if code, body = get(t, s, "/readyz"); code != http.StatusOK || body != "ready\netcd: ok\nnodes: ok\n" {
		t.Errorf("healed: %d %q", code, body)
	}
	if code, body = get(t, s, "/livez"); code != http.StatusOK || body != "alive\n" {
		t.Errorf("/livez: %d %q", code, body)
	}
}

func TestDumpsAreJSON(t *testing.T) {
	s := newServer("")
	s.Vars("table", func() any { return map[string]int{"partitions": 64} })
	s.Vars("broken", func() any { return func() {} })
	if code, body := get(t, s, "/debug/vars/table"); code != http.StatusOK || strings.Join(strings.Fields(body), "") != `{"partitions":64}` {
		t.Errorf("one dump: %d %q", code, body)
	}
	if code, body := get(t, s, "/debug/vars/broken"); code != http.StatusInternalServerError || !strings.Contains(body, "unsupported type") {
		t.Errorf("a dump that is no JSON: %d %q", code, body)
	}
	if code, body := get(t, s, "/debug/vars/none"); code != http.StatusNotFound || !strings.Contains(body, "broken, table") {
		t.Errorf("no such dump: %d %q", code, body)
	}
	s.Vars("broken", func() any { return "mended" })
	if code, body := get(t, s, "/debug/vars"); code != http.StatusOK || strings.Join(strings.Fields(body), "") != `{"broken":"mended","table":{"partitions":64}}` {
		t.Errorf("all dumps: %d %q", code, body)
	}
}

func TestIndexListsWhatThereIsUntilTheProgramHasAPage(t *testing.T) {
	s := newServer("")
	s.HandleFunc("GET /api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") })
	code, body := get(t, s, "/")
	if code != http.StatusOK || !strings.Contains(body, "v1.2.3") || !strings.Contains(body, "/api/v1/nodes") || !strings.Contains(body, "/metrics") {
		t.Errorf("index: %d %q", code, body)
	}
	if code, _ = get(t, s, "/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
	if code, body = get(t, s, "/api/v1/nodes"); code != http.StatusOK || body != "[]" {
		t.Errorf("own handler: %d %q", code, body)
	}
	s.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "console") })
	if _, body = get(t, s, "/"); body != "console" {
		t.Errorf("own page: %q", body)
	}
	if code, body = get(t, s, "/debug/pprof/goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("profile: %d", code)
	}
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	s := newServer("127.0.0.1:0")
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	if err := admin.Probe(t.Context(), s.Addr(), "/readyz"); err != nil {
		t.Errorf("probe: %v", err)
	}
	s.Ready("drain", func() error { return errors.New("draining") })
	err := admin.Probe(t.Context(), s.Addr(), "/readyz")
	if err == nil || !strings.HasSuffix(err.Error(), "503 Service Unavailable: not ready; drain: draining") {
		t.Errorf("probe while not ready: %v", err)
	}

	// A request that never ends by itself must not hold up the exit.
	started := make(chan struct{})
	s.HandleFunc("/stream", func(_ http.ResponseWriter, r *http.Request) { close(started); <-r.Context().Done() })
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err = io.WriteString(conn, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-started

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after an orderly end", err)
	}
	if err := admin.Probe(t.Context(), s.Addr(), "/livez"); err == nil {
		t.Error("still answers after Run returned")
	}
}

func TestPortInUseSaysWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = newServer(l.Addr().String()).Run(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "admin address "+l.Addr().String()+" is in use by another process; choose another with --admin") {
		t.Errorf("got %v", err)
	}
	if err = newServer("256.0.0.1:0").Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "listen on admin address 256.0.0.1:0") {
		t.Errorf("got %v", err)
	}
}

func TestProbeReachesAServerThatListensEverywhere(t *testing.T) {
	for _, listen := range []string{":0", "0.0.0.0:0"} {
		s := newServer(listen)
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		_, port, _ := net.SplitHostPort(s.Addr())
		if err := admin.Probe(t.Context(), strings.TrimSuffix(listen, "0")+port, "/livez"); err != nil {
			t.Errorf("listen %s: %v", listen, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
