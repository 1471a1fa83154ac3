package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// get fetches a page of an admin server; status 0 when it does not answer.
func (w *world) get(url string) (status int, body string) {
	ctx, cancel := w.within(5 * time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if closed := resp.Body.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// eventually asks again and again until the answer is nil: for what has no event to wait for, such as another
// process's pages.
func (w *world) eventually(d time.Duration, what string, ask func() error) {
	w.t.Helper()
	ctx, cancel := w.within(d)
	defer cancel()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			w.t.Fatalf("%s: %v; the last answer was: %v", what, context.Cause(ctx), err)
		}
	}
}

// nodeIn finds the serving node in an answer of /api/v1/where.
func nodeIn(body string) (string, error) {
	var answer struct {
		Node  string `json:"node"`
		Owner string `json:"owner"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return "", fmt.Errorf("where: %w: %s", err, body)
	}
	if answer.Node == "" {
		return "", fmt.Errorf("where names no node: %s", body)
	}
	return answer.Node, nil
}

// memory is the resident memory of every process of the product, in bytes, by name; empty in one process.
func (w *world) memory() map[string]int64 {
	out := make(map[string]int64)
	for _, r := range w.Routers() {
		if n, ok := resident(r.PID); ok {
			out["router "+r.Name] = n
		}
	}
	for _, n := range w.Nodes() {
		if m, ok := resident(n.PID); ok {
			out["node "+n.ID] = m
		}
	}
	return out
}

func resident(pid int) (int64, bool) {
	if pid == 0 {
		return 0, false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}

// growth is what a process may gain while one client does not read: the node's ring fills up to its budget, the
// session's window to its own, and the garbage collector may double what lives.
const growth = 160 << 20

func (w *world) compareMemory(before, after map[string]int64) {
	w.t.Helper()
	for name, now := range after {
		w.t.Logf("memory of %s: %d MB before, %d MB after", name, before[name]>>20, now>>20)
		if now-before[name] > growth {
			w.t.Errorf("memory of %s grew by %d MB", name, (now-before[name])>>20)
		}
	}
}

// serves reports whether a node itself says that it serves streams of a partition.
func (w *world) serves(id string, partition int32) error {
	for _, n := range w.Nodes() {
		if n.ID != id {
			continue
		}
		status, body := w.get(n.Admin + "/metrics")
		if status != 200 {
			return fmt.Errorf("metrics of %s: HTTP %d %s", id, status, body)
		}
		for line := range strings.Lines(body) {
			if !strings.HasPrefix(line, "pointsman_wsnode_streams") {
				continue
			}
			fields := strings.Fields(line)
			if v, err := strconv.ParseFloat(fields[len(fields)-1], 64); err == nil && v > 0 {
				return nil
			}
		}
		return fmt.Errorf("node %s has no streams while it should serve partition %d", id, partition)
	}
	return fmt.Errorf("node %s does not run", id)
}
