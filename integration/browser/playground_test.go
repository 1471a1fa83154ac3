package browser

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// playground is a running bin/playground.
type playground struct {
	*procs.Process
	page string
}

func gate(t *testing.T) {
	t.Helper()
	if os.Getenv("POINTSMAN_BROWSER") == "" {
		t.Skip("set POINTSMAN_BROWSER=1, or run make test-browser")
	}
}

// start runs bin/playground on free ports.
func start(t *testing.T, args ...string) *playground {
	t.Helper()
	bin := os.Getenv("POINTSMAN_BIN")
	if bin == "" {
		t.Fatal("POINTSMAN_BIN must name the folder with playground, router and wsnode; make test-browser does that")
	}
	ports := new(procs.Ports)
	t.Cleanup(func() { ports.Close() })
	addr, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	process, err := procs.Start(procs.Spec{
		Name: "playground", Path: filepath.Join(bin, "playground"), Log: filepath.Join(dir, "playground.log"),
		Args: append([]string{"--free-ports", "--listen=" + addr, "--dir=" + filepath.Join(dir, "stack")}, args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &playground{Process: process, page: "http://" + addr}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the playground said last:\n%s", p.Tail(60))
			for _, log := range []string{"router-1", "router-2"} {
				t.Logf("%s said last:\n%s", log, procs.Tail(filepath.Join(dir, "stack", log+".log"), 30))
			}
		}
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("the playground did not start within 2 minutes"))
	defer cancel()
	if err := p.WaitHTTP(ctx, p.page); err != nil {
		t.Fatal(err)
	}
	return p
}

// pids are those of the playground's routers and nodes, as its page gets them.
func (p *playground) pids(t *testing.T) []int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.page+"/api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text []byte
	buffer := make([]byte, 64<<10)
	// One whole state is there when the one after it begins.
	for state := regexp.MustCompile(`(?s)event: state.*event: state`); !state.Match(text); {
		n, err := resp.Body.Read(buffer)
		text = append(text, buffer[:n]...)
		if err != nil {
			t.Fatalf("read events: %v, after %q", err, text)
		}
	}
	var pids []int
	seen := map[int]bool{}
	for _, m := range regexp.MustCompile(`"pid":(\d+)`).FindAllSubmatch(text, -1) {
		pid, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		if !seen[pid] {
			seen[pid] = true
			pids = append(pids, pid)
		}
	}
	return pids
}

// expectGone waits until no process has any of the ids.
func expectGone(t *testing.T, pids []int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := procs.Poll(ctx, 20*time.Millisecond, func() error {
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStoppedPlaygroundLeavesNoProcess(t *testing.T) {
	gate(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, "--clients=4")
			pids := p.pids(t)
			if len(pids) != 5 {
				t.Errorf("got processes %v, want 2 routers and 3 nodes", pids)
			}
			if err := p.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Done():
			case <-time.After(30 * time.Second):
				t.Fatal("it did not stop")
			}
			want := 0
			if sig == syscall.SIGKILL {
				want = -1
			}
			if got := p.ExitCode(); got != want {
				t.Errorf("exit code: got %d, want %d", got, want)
			}
			expectGone(t, pids)
		})
	}
}
