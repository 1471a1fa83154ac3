package scenario

import (
	"context"
	"encoding/json"
	"errors"
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

// growth is what a process may gain while one client does not read, with what the garbage collector may add to it. It
// is less than what is produced for that client meanwhile over processes.
const growth = 48 << 20

func (w *world) compareMemory(before, after map[string]int64) {
	w.t.Helper()
	for name, now := range after {
		w.t.Logf("memory of %s: %d MB before, %d MB after", name, before[name]>>20, now>>20)
		if now-before[name] > growth {
			w.t.Errorf("memory of %s grew by %d MB", name, (now-before[name])>>20)
		}
	}
}

// vars are the parts of /debug/vars that scenarios look at.
type vars struct {
	Consistency struct {
		Problems []string `json:"problems"`
		Remarks  []string `json:"remarks"`
	} `json:"consistency"`
	Partitions []struct {
		Partition int32 `json:"partition"`
		Assigned  bool  `json:"assigned"`
		Readable  bool  `json:"readable"`
		Streams   int   `json:"streams"`
		Behind    int   `json:"behind"`
		Head      int64 `json:"head"`
		Lowest    int64 `json:"lowest"`
		RingLow   int64 `json:"ring_low"`
		Scanned   int64 `json:"scan_bytes"`
	} `json:"partitions"`
}

func (w *world) vars(admin string) (vars, error) {
	var v vars
	status, body := w.get(admin + "/debug/vars")
	if status != http.StatusOK {
		return v, fmt.Errorf("%s/debug/vars: HTTP %d %.200s", admin, status, body)
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return v, fmt.Errorf("%s/debug/vars: %w", admin, err)
	}
	return v, nil
}

// serves reports whether a node, and no other, has streams of a partition, by the nodes' own account.
func (w *world) serves(id string, partition int32) error {
	found := false
	for _, n := range w.Nodes() {
		v, err := w.vars(n.Admin)
		if err != nil {
			return err
		}
		for _, p := range v.Partitions {
			if p.Partition != partition || p.Streams == 0 {
				continue
			}
			if n.ID != id {
				return fmt.Errorf("node %s has %d streams of partition %d, which %s should serve", n.ID, p.Streams, partition, id)
			}
			found = true
		}
	}
	if !found {
		return fmt.Errorf("node %s has no stream of partition %d", id, partition)
	}
	return nil
}

// consistent waits until every router and node finds itself in order: what its parts say of each other agrees.
func (w *world) consistent() {
	w.t.Helper()
	admins := make(map[string]string)
	for _, r := range w.Routers() {
		admins[r.Name] = r.Admin
	}
	for _, n := range w.Nodes() {
		admins[n.ID] = n.Admin
	}
	for name, admin := range admins {
		if admin == "" {
			continue // somebody else's stack, whose admin addresses are not known
		}
		w.eventually(15*time.Second, name+" is consistent", func() error {
			v, err := w.vars(admin)
			if err == nil && (v.Consistency.Problems == nil || len(v.Consistency.Problems) > 0) {
				err = errors.New(strings.Join(v.Consistency.Problems, "; "))
			}
			return err
		})
	}
}
