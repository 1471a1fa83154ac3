package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/bridge"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/pkg/client"
)

// Got is a record that a client library handed to its program.
type Got struct {
	Partition int32
	Offset    int64
}

// Follower is a client library at work on one key, from the oldest record on.
type Follower struct {
	Name, Key string
	// Look tells what the program got so far, in its order, how many connections that took, and how many tokens were
	// sent on an open one.
	Look func() (got []Got, connections, renewals int)
}

// Trial is what followers connect to. Both ways to the routers lead over bridges, which the trial cuts.
type Trial struct {
	URLs   []string // the first is where everybody begins
	Tokens string   // GET with ?key= answers a token for it
	Module string   // the JavaScript client in the repository
	Direct []string // the routers without bridges
}

// FollowThroughFaults runs client libraries over a node's death, a router's death and ten seconds without a network,
// with tokens that live for seconds, and compares what each handed out with the topic.
func FollowThroughFaults(t testing.TB, kind stack.Kind, flags []string, begin func(Trial) []Follower) {
	i := newIssuer(t)
	i.rotate("first")
	for n, flag := range i.flags() {
		if strings.HasPrefix(flag, "--heartbeat=") {
			flag = "--heartbeat=4s" // six seconds of silence are the network, and not a busy machine
		}
		flags = slices.Insert(flags, n, flag)
	}
	w := beginOn(t, kind, stack.Options{Routers: 2, Nodes: 3, RouterFlags: flags})
	trial, bridges := w.bridged(i)
	followers := begin(trial)
	names := make([]string, len(followers))
	for n, f := range followers {
		names[n] = f.Key
	}
	w.produce(names, 20*float64(len(names)), 128)
	w.caughtUp(followers, flowing)

	connections := func() (all []int) {
		for _, f := range followers {
			_, n, _ := f.Look()
			all = append(all, n)
		}
		return all
	}
	before := connections()
	w.must(w.KillNode(w.ctx, w.Nodes()[0].ID))
	w.caughtUp(followers, flowing)
	if after := connections(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a node was killed, and clients noticed: they had %v connections, then %v", before, after)
	}

	w.must(w.KillRouter(w.ctx, 0))
	w.caughtUp(followers, flowing)
	w.must(w.StartRouter(w.ctx, 0))
	killed := connections()

	begun := time.Now()
	for _, b := range bridges {
		b.Hold(true)
	}
	w.at(begun, size(w, 4*time.Second, 10*time.Second))
	for _, b := range bridges {
		b.Shut()
		w.must(b.Open())
	}
	w.caughtUp(followers, flowing)
	w.eventually(30*time.Second, "every client renews its token", func() error {
		for _, f := range followers {
			if _, _, renewed := f.Look(); renewed == 0 {
				return fmt.Errorf("%s has not", f.Name)
			}
		}
		return nil
	})

	w.must(w.quiet())
	w.caughtUp(followers, 0)
	for n, f := range followers {
		got, connected, renewed := f.Look()
		lost, repeated, reordered := w.compare(f.Key, got)
		t.Logf("%s: %d records, %d connections, %d renewals; %d lost, %d repeated, %d reordered", f.Name, len(got), connected, renewed, lost, repeated, reordered)
		if lost != 0 || repeated != 0 || reordered != 0 {
			t.Errorf("%s did not get what the topic holds", f.Name)
		}
		if killed[n] <= before[n] || connected <= killed[n] {
			t.Errorf("%s had %d connections, %d after a router was killed, %d after the network was away: the faults did not reach it",
				f.Name, before[n], killed[n], connected)
		}
	}
}

// bridged puts a bridge before each router, and hands out tokens.
func (w *world) bridged(i *issuer) (Trial, []*bridge.Bridge) {
	w.t.Helper()
	ports := new(procs.Ports)
	w.t.Cleanup(func() { _ = ports.Close() })
	root, _ := foreignTools(w.t)
	trial := Trial{Module: filepath.Join(root, "..", "..", "..", "pkg", "clientjs", "client.js")}
	var bridges []*bridge.Bridge
	for _, r := range w.Routers() {
		addr, err := ports.Take()
		w.must(err)
		b := bridge.New(addr, strings.TrimPrefix(r.URL, "ws://"))
		w.must(b.Open())
		w.t.Cleanup(b.Shut)
		bridges = append(bridges, b)
		trial.URLs = append(trial.URLs, "ws://"+addr)
		trial.Direct = append(trial.Direct, r.URL)
	}
	tokens := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = fmt.Fprint(rw, i.token(r.URL.Query().Get("key"), 6*time.Second))
	}))
	w.t.Cleanup(tokens.Close)
	trial.Tokens = tokens.URL
	return trial, bridges
}

// flowing is how many records beyond those that the topic held after a fault show that a client receives again.
const flowing = 10

// caughtUp waits until every follower has as many records as the topic holds for it now, and some more.
func (w *world) caughtUp(followers []Follower, more int) {
	w.t.Helper()
	truth := w.truth()
	w.eventually(time.Minute, "every client has all records", func() error {
		for _, f := range followers {
			due := more
			for _, records := range truth.Of(f.Key) {
				due += len(records)
			}
			if got, _, _ := f.Look(); len(got) < due {
				return fmt.Errorf("%s has %d of %d", f.Name, len(got), due)
			}
		}
		return nil
	})
}

// compare counts how what was got differs from the key's records in the topic.
func (w *world) compare(key string, got []Got) (lost, repeated, reordered int) {
	seen, newest := map[Got]bool{}, map[int32]int64{}
	for _, g := range got {
		switch last, any := newest[g.Partition]; {
		case seen[g]:
			repeated++
		case any && g.Offset < last:
			reordered++
		default:
			newest[g.Partition] = g.Offset
		}
		seen[g] = true
	}
	for partition, records := range w.truth().Of(key) {
		for _, r := range records {
			at := Got{partition, r.Offset}
			if !seen[at] {
				lost++
			}
			delete(seen, at)
		}
	}
	if len(seen) > 0 {
		w.t.Errorf("%s got %d records that the topic does not hold", key, len(seen))
	}
	return lost, repeated, reordered
}

// ClientLibraries: the Go client and, over real programs, the JavaScript client in Node, with both kinds of sockets
// that Node has, go through the faults that end connections.
func ClientLibraries(t *testing.T) {
	kind := kindOf(t)
	FollowThroughFaults(t, kind, nil, func(trial Trial) []Follower {
		followers := inGo(t, trial, keys("go", 4))
		if kind == stack.InProcess {
			return followers
		}
		return append(followers, inNode(t, trial)...)
	})
}

// inGo follows keys with pkg/client.
func inGo(t testing.TB, trial Trial, names []string) []Follower {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var following sync.WaitGroup
	t.Cleanup(func() {
		stop()
		following.Wait()
	})
	followers := make([]Follower, 0, len(names))
	for _, key := range names {
		c, err := client.Connect(ctx, client.Config{
			URLs: trial.URLs, From: "earliest", MaxBackoff: time.Second, DialTimeout: 2 * time.Second,
			Token: func(ctx context.Context) (string, error) { return fetch(ctx, trial.Tokens+"?key="+key) },
		})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var got []Got
		following.Go(func() {
			defer func() { _ = c.Close() }()
			for event, err := range c.Events(ctx) {
				switch {
				case ctx.Err() != nil:
					return
				case err != nil:
					t.Errorf("%s: %v", key, err)
					return
				}
				switch e := event.(type) {
				case *client.Record:
					mu.Lock()
					got = append(got, Got{e.Partition, e.Offset})
					mu.Unlock()
				case *client.Disconnected:
					t.Logf("%s of %s: %v", time.Now().Format("15:04:05.000"), key, e.Err)
				}
			}
		})
		followers = append(followers, Follower{Name: "pkg/client of " + key, Key: key, Look: func() ([]Got, int, int) {
			mu.Lock()
			defer mu.Unlock()
			s := c.Stats()
			return append([]Got(nil), got...), int(s.Connections), int(s.Renewals)
		}})
	}
	return followers
}

func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(text), errors.Join(err, resp.Body.Close())
}

// inNode follows keys with the JavaScript client, two with each kind of socket that there is.
func inNode(t *testing.T, trial Trial) []Follower {
	scripts, tools := foreignTools(t)
	modules := filepath.Join(tools, "node", "node_modules")
	var followers []Follower
	for _, kind := range []string{"builtin", "ws"} {
		args := []string{"--experimental-websocket"} // Node 20 has its WebSocket behind this switch
		if kind == "ws" {
			if _, err := os.Stat(filepath.Join(modules, "ws")); err != nil {
				t.Logf("left out: %v: integration/scenarios/foreign/setup fetches it", err)
				continue
			}
			args = nil
		}
		names := keys("node-"+kind, 2)
		t.Setenv("NODE_PATH", modules)
		args = append(args, filepath.Join(scripts, "follow.mjs"), trial.Module, kind, strings.Join(trial.URLs, ","), trial.Tokens)
		p := run(t, "node", append(args, names...)...)
		t.Cleanup(func() {
			for line := range strings.Lines(p.output()) {
				if !strings.HasPrefix(line, "record ") {
					t.Logf("Node (%s): %s", kind, line)
				}
			}
		})
		for _, key := range names {
			followers = append(followers, Follower{Name: "client.js in Node (" + kind + ") of " + key, Key: key, Look: func() ([]Got, int, int) {
				return printed(p.output(), key)
			}})
		}
	}
	return followers
}

// printed reads what follow.mjs says of a key.
func printed(output, key string) (got []Got, connections, renewals int) {
	for line := range strings.Lines(output) {
		var g Got
		rest, ok := strings.CutPrefix(line, "record "+key+" ")
		if !ok || !strings.HasSuffix(rest, "\n") {
			continue
		}
		if _, err := fmt.Sscan(rest, &g.Partition, &g.Offset, &connections, &renewals); err == nil {
			got = append(got, g)
		}
	}
	return got, connections, renewals
}

// PythonExample: the program in docs/protocol.md, over a router's death and a restart of its own.
func PythonExample(t *testing.T) {
	if kindOf(t) == stack.InProcess {
		t.Skip("runs Python against real programs: make test-kafka does")
	}
	scripts, tools := foreignTools(t)
	python := filepath.Join(tools, "venv", "bin", "python")
	needFile(t, python)
	w := begin(t, stack.Options{Routers: 1, Nodes: 1})
	example := filepath.Join(scripts, "..", "..", "..", "docs", "follow.py")
	store := filepath.Join(t.TempDir(), "cursor")
	var programs []*program
	start := func() {
		programs = append(programs, run(t, python, example, w.Routers()[0].URL, "alice", store))
	}
	start()
	follower := Follower{Name: "docs/follow.py", Key: "alice", Look: func() (got []Got, _, _ int) {
		for _, p := range programs {
			for line := range strings.Lines(p.output()) {
				var m struct {
					Type string
					Got
				}
				if json.Unmarshal([]byte(line), &m) == nil && m.Type == "record" {
					got = append(got, m.Got)
				}
			}
		}
		return got, 0, 0
	}}
	all := []Follower{follower}
	w.produce([]string{"alice"}, 20, 128)
	w.caughtUp(all, flowing)
	w.must(w.KillRouter(w.ctx, 0))
	w.must(w.StartRouter(w.ctx, 0))
	w.caughtUp(all, flowing)
	first := programs[0]
	w.must(first.cmd.Process.Signal(syscall.SIGINT))
	if _, err := first.exit(w.ctx); err != nil {
		t.Fatal(err)
	}
	start()
	w.caughtUp(all, flowing)
	w.must(w.quiet())
	w.caughtUp(all, 0)
	got, _, _ := follower.Look()
	lost, repeated, reordered := w.compare("alice", got)
	t.Logf("%d records; %d lost, %d repeated, %d reordered", len(got), lost, repeated, reordered)
	// The program may be stopped between a record's effect and its cursor: that one record comes again.
	if lost != 0 || repeated > 1 || reordered != 0 {
		t.Errorf("it did not print what the topic holds; it said:\n%.2000s", first.output())
	}
}

// SeveralKeysInNode: the JavaScript client follows several keys on one connection, one of them added later, over the death
// of a node and of routers.
func SeveralKeysInNode(t *testing.T) {
	scripts, tools := foreignTools(t)
	needFile(t, filepath.Join(tools, "node", "node_modules", "ws"))
	w := begin(t, stack.Options{Routers: 2, Nodes: 2})
	t.Setenv("NODE_PATH", filepath.Join(tools, "node", "node_modules"))
	names := keys("several", 6)
	module := filepath.Join(scripts, "..", "..", "..", "pkg", "clientjs", "client.js")
	urls := w.Routers()[0].URL + "," + w.Routers()[1].URL
	p := run(t, "node", append([]string{filepath.Join(scripts, "follow.mjs"), module, "ws", urls, "several"}, names...)...)
	followers := make([]Follower, 0, len(names))
	for _, key := range names {
		followers = append(followers, Follower{Name: "client.js of " + key, Key: key, Look: func() ([]Got, int, int) { return printed(p.output(), key) }})
	}
	w.produce(names, 60, 128)
	w.caughtUp(followers, flowing)
	w.must(w.KillNode(w.ctx, w.Nodes()[0].ID))
	w.caughtUp(followers, flowing)
	if _, n, _ := followers[0].Look(); n != 1 {
		t.Errorf("a node was killed, and the client has had %d connections", n)
	}
	for i := range 2 {
		w.must(w.KillRouter(w.ctx, i))
		w.caughtUp(followers, flowing)
		w.must(w.StartRouter(w.ctx, i))
	}
	w.must(w.quiet())
	w.caughtUp(followers, 0)
	for _, f := range followers {
		got, connected, _ := f.Look()
		lost, repeated, reordered := w.compare(f.Key, got)
		t.Logf("%s: %d records, %d connections; %d lost, %d repeated, %d reordered", f.Name, len(got), connected, lost, repeated, reordered)
		if lost != 0 || repeated != 0 || reordered != 0 || connected != 3 {
			t.Errorf("%s did not get what the topic holds; it said:\n%.1000s", f.Name, p.output())
		}
	}
}

// TypesOfJavaScriptClient: the types say what TypeScript programs rely on.
func TypesOfJavaScriptClient(t *testing.T) {
	scripts, tools := foreignTools(t)
	compiler := filepath.Join(tools, "node", "node_modules", "typescript", "bin", "tsc")
	needFile(t, compiler)
	args := []string{compiler, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", filepath.Join(scripts, "types.ts")}
	if out, err := exec.CommandContext(t.Context(), "node", args...).CombinedOutput(); err != nil { //nolint:gosec // a path of this repository
		t.Errorf("%v\n%s", err, out)
	}
}
