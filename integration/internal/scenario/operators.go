package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/overview"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// finding is a line of `wsnode doctor -o json`.
type finding struct{ Level, Check, Text, Remedy string }

func (w *world) doctor(bin string, flags ...string) ([]finding, int) {
	w.t.Helper()
	return w.doctorAt(bin, append([]string{"--kafka=" + strings.Join(w.Kafka(), ","), "--etcd=" + strings.Join(w.Etcd(), ",")}, flags...)...)
}

// doctorAt is doctor with flags that say where Kafka and etcd are.
func (w *world) doctorAt(bin string, flags ...string) (all []finding, code int) {
	w.t.Helper()
	args := append([]string{"doctor", "-o", "json", "--topic=" + w.Topic(), "--etcd-prefix=" + w.EtcdPrefix()}, flags...)
	cmd := exec.CommandContext(w.ctx, filepath.Join(bin, "wsnode"), args...) //nolint:gosec // our own program
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the code says it
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		w.t.Fatalf("doctor: %v: %s %s", err, out.String(), errs.String())
	}
	return all, cmd.ProcessState.ExitCode()
}

// expectFinding wants one of a check at a level, with these words, on one line, and with a remedy if it is bad.
func (w *world) expectFinding(all []finding, check, level string, words ...string) {
	w.t.Helper()
next:
	for _, f := range all {
		if f.Check != check || f.Level != level {
			continue
		}
		for _, word := range words {
			if !strings.Contains(f.Text+" "+f.Remedy, word) {
				continue next
			}
		}
		if strings.Contains(f.Text+f.Remedy, "\n") || level == "wrong" && f.Remedy == "" {
			w.t.Errorf("%+v is not one line with a remedy", f)
		}
		w.t.Logf("%s: %s. Remedy: %s", f.Check, f.Text, f.Remedy)
		return
	}
	w.t.Errorf("%s: want %s with %q among %+v", check, level, words, all)
}

// Doctor: it finds a healthy stack healthy, and then each of what is broken: a producer with another partitioner, a
// broker that cannot be reached, an etcd that is stopped, a session timeout that the brokers refuse.
func Doctor(t *testing.T) {
	bin := needPrograms(t)
	w := begin(t, stack.Options{Nodes: 2})
	w.producer.Close() // it uses murmur2, and has produced nothing
	w.place(bin, "murmur2")
	all, code := w.doctor(bin)
	if code != 0 {
		t.Errorf("a healthy stack: exit code %d, %+v", code, all)
	}
	for check, word := range map[string]string{
		"settings": "starts", "etcd": "answer", "map": "2 nodes live", "kafka": "answer", "session": "6s", "topic": w.Topic(),
		"topic settings": "no unclean", "group": "2 members", "transactions": "none", "records": "lie where murmur2 says", "clocks": "agree", "files": "may be open",
	} {
		w.expectFinding(all, check, "ok", word)
	}

	all, code = w.doctor(bin, "--group-session-timeout=2s")
	w.expectFinding(all, "session", "wrong", "refuse a session timeout of 2s", "--group-session-timeout", "group.min.session.timeout.ms")
	if code != 1 {
		t.Errorf("a refused session timeout: exit code %d, want 1", code)
	}
	gone := w.closedPort()
	all, _ = w.doctor(bin, "--kafka="+strings.Join(w.Kafka(), ",")+","+gone)
	w.expectFinding(all, "kafka", "wrong", gone, "connection refused", "--kafka")

	w.place(bin, "crc32")
	all, _ = w.doctor(bin)
	w.expectFinding(all, "records", "wrong", "other partitions than murmur2", "crc32 (librdkafka's default", "partitioner=murmur2_random")

	w.must(w.StopEtcd(w.ctx))
	all, code = w.doctor(bin)
	w.expectFinding(all, "etcd", "wrong", "does not answer", "connection refused", "--etcd")
	if code != 1 {
		t.Errorf("a stopped etcd: exit code %d, want 1", code)
	}
	w.must(w.StartEtcd(w.ctx))
	w.must(w.StopKafka(w.ctx))
	all, _ = w.doctor(bin)
	w.expectFinding(all, "kafka", "wrong", "no broker answers", "connection refused", "start the brokers")
	w.must(w.StartKafka(w.ctx))
}

// place writes records whose partitions `wsnode produce` chooses.
func (w *world) place(bin, by string) {
	w.t.Helper()
	var lines bytes.Buffer
	for i := range 64 {
		fmt.Fprintf(&lines, "client-%d:{}\n", i)
	}
	cmd := exec.CommandContext(w.ctx, filepath.Join(bin, "wsnode"), "produce", "--kafka="+strings.Join(w.Kafka(), ","), //nolint:gosec // our own program
		"--topic="+w.Topic(), "--partitioner="+by, "--delimiter=:")
	cmd.Stdin = &lines
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("produce: %v %s", err, out)
	}
}

func (w *world) closedPort() string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	defer l.Close()
	return l.Addr().String()
}

// command runs an operator command of the router.
func (w *world) command(bin string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.ctx, filepath.Join(bin, "router"), args...) //nolint:gosec // our own program
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// OperatorCommands: status and where tell the truth of a healthy stack, of a killed node and its stand-ins, of a key's
// sessions, and, when no router answers, of what etcd says.
func OperatorCommands(t *testing.T) {
	bin := needPrograms(t)
	w := begin(t, stack.Options{Nodes: 3})
	w.connect([]string{"alice"}, load.Options{})
	admin := "--admin=" + strings.TrimPrefix(w.Routers()[0].Admin, "http://")

	status := func() *overview.Status {
		t.Helper()
		out, err := w.command(bin, "status", "-o", "json", admin)
		if err != nil {
			t.Fatalf("status: %v %s", err, out)
		}
		s := new(overview.Status)
		w.must(json.Unmarshal([]byte(out), s))
		return s
	}
	eventually := func(what string, ok func(s *overview.Status) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
		defer cancel()
		var last *overview.Status
		err := procs.Poll(ctx, 200*time.Millisecond, func() error {
			if last = status(); !ok(last) {
				return fmt.Errorf("%s: %q", what, last.Problems)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%v: %+v", err, last)
		}
	}
	eventually("all is well", func(s *overview.Status) bool {
		routed := 0
		for _, n := range s.Nodes {
			routed += n.Routed
		}
		return len(s.Problems) == 0 && len(s.Nodes) == 3 && routed == int(w.Partitions()) && len(s.Routers) == 1 && s.Routers[0].Sessions == 1
	})
	out, err := w.command(bin, "where", "alice", admin)
	if err != nil || !strings.Contains(out, "the consumer group gave it to node-") || !strings.Contains(out, "sessions    1 on router") {
		t.Errorf("where: %v\n%s", err, out)
	}
	owner := ""
	for _, n := range w.Nodes() {
		if strings.Contains(out, "served by   "+n.ID+" ") {
			owner = n.ID
		}
	}
	w.must(w.KillNode(w.ctx, owner))
	eventually("the handover is told", func(s *overview.Status) bool {
		return len(s.Handovers) > 0 && (s.Handovers[0].Cause == "link_down" || len(s.Handovers) > 1 && s.Handovers[1].Cause == "link_down")
	})
	for _, h := range status().Handovers {
		if h.Cause == "link_down" {
			if h.Sessions != 1 || h.Unserved != 0 || h.PauseMS <= 0 || len(h.From) != 1 || h.From[0] != owner {
				t.Errorf("the killed node's handover: %+v", h)
			}
			break
		}
	}
	eventually("all is well again", func(s *overview.Status) bool { return len(s.Problems) == 0 && len(s.Nodes) == 2 })
	out, err = w.command(bin, "status", admin)
	t.Logf("%s", out)
	if err != nil || !strings.Contains(out, "node lost") {
		t.Errorf("status: %v", err)
	}
	// The router remembers an earlier owner's claim for a moment longer than etcd.
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	w.must(procs.Poll(ctx, 200*time.Millisecond, func() error {
		out, err := w.command(bin, "where", "alice", "--admin="+w.closedPort(), "--topic="+w.Topic(), "--etcd="+strings.Join(w.Etcd(), ","), "--etcd-prefix="+w.EtcdPrefix())
		if err != nil {
			return fmt.Errorf("where without a router: %w\n%s", err, out)
		}
		if !strings.Contains(out, "its lease in etcd lives") || !strings.Contains(out, "no router answers") {
			return fmt.Errorf("where without a router says:\n%s", out)
		}
		return nil
	}))
}
