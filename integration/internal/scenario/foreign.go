package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// foreignTools is where scenarios/foreign/setup puts the clients of other languages.
func foreignTools(t testing.TB) (scripts, tools string) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(dir, "integration", "scenarios", "foreign"), filepath.Join(dir, ".cache", "foreign")
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("the tests run outside the repository")
		}
	}
}

// needFile skips a test whose tool is not there.
func needFile(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%v: integration/scenarios/foreign/setup fetches it", err)
	}
}

// ForeignClients: WebSocket clients and producers of other languages, with their defaults, reach each other.
func ForeignClients(t *testing.T) {
	scripts, tools := foreignTools(t)
	if kindOf(t) == stack.InProcess {
		t.Skip("runs Python, Node and Java against real programs: make test-kafka does")
	}
	w := begin(t, stack.Options{Nodes: 2, Partitions: 50})

	receivers := []struct {
		name    string
		needs   string
		command []string
	}{
		{"PythonWebsockets", filepath.Join(tools, "venv", "bin", "python"), []string{filepath.Join(tools, "venv", "bin", "python"), filepath.Join(scripts, "receive.py")}},
		{"NodeWS", filepath.Join(tools, "node", "node_modules", "ws"), []string{"node", filepath.Join(scripts, "receive.cjs")}},
	}
	for _, tt := range receivers {
		t.Run(tt.name, func(t *testing.T) {
			needFile(t, tt.needs)
			w.receives(t, append(tt.command, w.Routers()[0].URL+"/v1/ws?key="+tt.name, "2"), filepath.Join(tools, "node", "node_modules"), tt.name)
		})
	}

	producers := []struct {
		name, needs string
		command     []string
	}{
		{"JavaProducer", filepath.Join(tools, "java", "Produce.class"), []string{"java", "-cp", filepath.Join(tools, "java") + "/*:" + filepath.Join(tools, "java"), "Produce", strings.Join(w.Kafka(), ","), w.Topic()}},
		{"KcatProducer", "/usr/bin/kcat", []string{"kcat", "-P", "-b", strings.Join(w.Kafka(), ","), "-t", w.Topic(), "-K", "\t", "-X", "partitioner=murmur2_random"}},
	}
	for _, tt := range producers {
		t.Run(tt.name, func(t *testing.T) {
			needFile(t, tt.needs)
			names := keys(tt.name, 40)
			w.connect(names, load.Options{})
			var lines strings.Builder
			for i := range 200 {
				fmt.Fprintf(&lines, "%s\t{\"n\":%d}\n", names[i%len(names)], i)
			}
			ctx, cancel := w.within(60 * time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, tt.command[0], tt.command[1:]...) //nolint:gosec // commands of this table
			cmd.Stdin = strings.NewReader(lines.String())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", tt.command[0], err, out)
			}
			if err := w.fleet.WaitCaughtUp(ctx, w.truth()); err != nil {
				t.Error(err)
			}
		})
	}
	if len(w.fleet.Clients()) == 0 {
		return // no producer of another language was there
	}
	w.finish()
}

// receives runs a foreign WebSocket client, produces what it waits for, and compares what it prints.
func (w *world) receives(t *testing.T, command []string, nodePath, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.ctx, 30*time.Second, errors.New("not within 30 s"))
	defer cancel()
	t.Setenv("NODE_PATH", nodePath)
	path, err := exec.LookPath(command[0])
	if err != nil {
		t.Skip(err)
	}
	p := run(t, path, command[1:]...)
	if err := p.says(ctx, `"type":"hello"`); err != nil {
		t.Fatal(err)
	}
	values := []string{`{ "first": 1.0 }`, `["second"]`}
	for _, v := range values {
		w.put(key, v)
	}
	code, err := p.exit(ctx)
	if err != nil || code != 0 {
		t.Fatalf("code %d, %v; it said:\n%s", code, err, p.output())
	}
	var got []string
	for line := range strings.Lines(p.output()) {
		var m struct {
			Type  string
			Value json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if m.Type == "record" {
			got = append(got, string(m.Value))
		}
	}
	if strings.Join(got, "|") != strings.Join(values, "|") {
		t.Errorf("received %q, want %q", got, values)
	}
}
