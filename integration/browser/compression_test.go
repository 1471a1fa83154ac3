package browser

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// Chromium offers compression by itself; so does Node's ws, which TestForeignClients runs.
func TestChromiumReceivesCompressedRecords(t *testing.T) {
	gate(t)
	s := stack.StartKind(t, stack.Processes, stack.Options{Nodes: 1, RouterFlags: []string{"--compression", "--compression-threshold=100"}})
	producer, err := load.NewProducer(s.Kafka(), s.Topic())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	value := fmt.Sprintf(`{"text":%q}`, strings.Repeat("again and again ", 1000))
	if err := producer.Produce(t.Context(), &kgo.Record{Key: []byte("alice"), Value: []byte(value)}, &kgo.Record{Key: []byte("alice"), Value: []byte(`"short"`)}); err != nil {
		t.Fatal(err)
	}
	// A page of the router's own origin; what is on it makes no difference.
	b := open(t, "http"+strings.TrimPrefix(s.Routers()[0].URL, "ws")+"/v1/client.js")
	got := eval[[]string](b, `new Promise((done, fail) => {
		const ws = new WebSocket(location.origin.replace("http", "ws") + "/v1/ws?key=alice&from=earliest");
		const got = [];
		ws.onmessage = (e) => {
			const m = JSON.parse(e.data);
			if (m.type !== "record") return;
			got.push(JSON.stringify(m.value));
			if (got.length === 2) done([ws.extensions, ...got]);
		};
		ws.onclose = (e) => fail(new Error("closed with " + e.code + " " + e.reason));
	})`)
	if len(got) != 3 || !strings.HasPrefix(got[0], "permessage-deflate") || got[1] != value || got[2] != `"short"` {
		t.Errorf("got %.200q", got)
	}
}

// TestNodeReceivesCompressedRecords is the same for Node's ws, where it is installed.
func TestNodeReceivesCompressedRecords(t *testing.T) {
	gate(t)
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(root, ".cache", "foreign", "node", "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "ws")); err != nil {
		t.Skipf("%v: integration/scenarios/foreign/setup fetches it", err)
	}
	s := stack.StartKind(t, stack.Processes, stack.Options{Nodes: 1, RouterFlags: []string{"--compression", "--compression-threshold=100"}})
	producer, err := load.NewProducer(s.Kafka(), s.Topic())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	value := fmt.Sprintf(`{"text":%q}`, strings.Repeat("again and again ", 1000))
	if err := producer.Produce(t.Context(), &kgo.Record{Key: []byte("alice"), Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "-e", `
		const ws = new (require("ws"))(process.argv[1]);
		ws.on("message", (data) => {
			const m = JSON.parse(data.toString());
			if (m.type === "record") { console.log(ws.extensions + "|" + JSON.stringify(m.value)); ws.close(); }
		});`, s.Routers()[0].URL+"/v1/ws?key=alice&from=earliest")
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	out, err := cmd.CombinedOutput()
	if want := "permessage-deflate|" + value; err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("%v, got %.200q", err, out)
	}
}
