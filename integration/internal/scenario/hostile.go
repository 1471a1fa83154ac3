package scenario

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/hostile"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// AttackerEnv tells a copy of the test program to be the attacker; it holds the target.
const AttackerEnv = "POINTSMAN_ATTACK"

// niceEnv is the niceness of the attackers, 19 by default: they have a machine of their own in life, and what they take from
// the router's processors here is no fault of the router.
const niceEnv = "POINTSMAN_ATTACK_NICE"

const (
	hostileBudget = 192 << 20 // bytes
	hostileRounds = 3
	quietTime     = 5 * time.Second
	hostileTime   = 10 * time.Second
	// hostileFloor is what an attack may add whatever the quiet delay is: attacker, router, node, Kafka and the judge
	// share few processors, and the scheduler's turns among them are no fault of the router.
	hostileFloor = 100 * time.Millisecond
	// tooBusy is a delay without attackers by which nothing can be judged.
	tooBusy      = 50 * time.Millisecond
	attackReport = "attack: "
)

// Attack is the attacker's whole life: an attack for each line that it reads, and a report at the end.
func Attack(t *testing.T, in io.Reader, out io.Writer) {
	var target hostile.Target
	if err := json.Unmarshal([]byte(os.Getenv(AttackerEnv)), &target); err != nil {
		t.Fatal(err)
	}
	var report hostile.Report
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		hostile.Run(t.Context(), target, &report)
		_, _ = fmt.Fprintln(out, "over")
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(out, "%s%s\n", attackReport, text)
}

// Hostile: attackers open thousands of connections that say nothing, read nothing, flood, lie and guess. Honest clients
// receive every record once and in order, hardly later than without them; the router stays within its memory, and
// every refusal is one that the documentation names.
func Hostile(t *testing.T) {
	i := newIssuer(t)
	i.rotate("first")
	w := begin(t, stack.Options{Nodes: 2, RouterFlags: []string{
		"--auth=jwt", "--jwks=" + i.path, "--jwt-issuer=scenario", "--jwt-audience=pointsman",
		fmt.Sprintf("--memory-limit=%d", hostileBudget), "--client-window=384KiB", "--accept-timeout=5s", "--max-handshakes=2000",
		"--handshake-rate-per-address=100", "--client-message=64KiB",
	}})
	if w.Routers()[0].PID == 0 {
		t.Skip("the attackers need a router that is a process of its own")
	}
	w.backlog("flood", 1000, 4<<10)
	token := func(key string) func() string { return func() string { return i.token(key, time.Hour) } }
	names := keys("honest", 100)
	_, err := w.fleet.Add(w.ctx, len(names), func(n int) load.Options {
		return load.Options{Key: names[n], Token: token(names[n])}
	}, w.target)
	w.must(err)
	w.produce(names, 500, 128)
	w.must(w.settled(30 * time.Second))
	victim := w.client(0, load.Options{Key: "flood", Token: token("flood")})
	victim.Lagging() // nothing more is written for it
	a := startAttacker(w, hostile.Target{
		Addr: strings.TrimPrefix(w.Routers()[0].URL, "ws://"), Key: "flood", Token: i.token("flood", time.Hour), Cursor: victim.Cursor(),
		Lasts: hostileTime, Scale: 100, Guesses: 10_200 / hostileRounds,
	})
	var quiet, under []time.Duration
	window := func(name string, during func()) time.Duration {
		from := time.Now()
		during()
		until := time.Now()
		w.must(w.settled(30 * time.Second))
		d := checker.Between(w.fleet.Histories(), from, until)
		t.Logf("%s: %d records, p50 %s, p99 %s, max %s", name, d.Count, show(d.P50), show(d.P99), show(d.Max))
		return d.P99
	}
	for range hostileRounds {
		quiet = append(quiet, window("quiet", func() { w.at(time.Now(), quietTime) }))
		under = append(under, window("under attack", func() { w.must(a.attack()) }))
	}
	quiet = append(quiet, window("quiet", func() { w.at(time.Now(), quietTime) }))
	report, err := a.stop()
	w.must(err)
	judgeAttack(w, report)

	// Medians of interleaved windows: a moment in which the machine had something else to do is in few of them.
	q, u := middle(quiet), middle(under)
	t.Logf("p99 of honest clients: %s without attackers, %s under attack", show(q), show(u))
	switch most := max(2*q, q+hostileFloor); {
	case os.Getenv("POINTSMAN_FIGURES") == "":
	case q > tooBusy:
		t.Logf("not judged: without attackers it is above %s, so this machine has other things to do", tooBusy)
	case u > most:
		t.Errorf("under attack the p99 is %s, want %s at most", show(u), show(most))
	}
	for _, r := range w.Routers() {
		peak, ok := status(r.PID, "VmHWM")
		t.Logf("memory of %s: %d MB at most, budget %d MB", r.Name, peak>>20, hostileBudget>>20)
		if !ok || peak > hostileBudget {
			t.Errorf("%s had %d MB at most, more than its budget of %d MB", r.Name, peak>>20, hostileBudget>>20)
		}
		if r.Ended != "" {
			t.Errorf("%s ended: %s", r.Name, r.Ended)
		}
	}
	w.finish()
	for _, h := range w.fleet.Histories() {
		if len(h.Sessions) != 1 {
			t.Errorf("client %s has %d connections, want one that nothing broke", h.Name, len(h.Sessions))
		}
	}
}

func middle(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// backlog writes records of one key.
func (w *world) backlog(key string, n, size int) {
	w.t.Helper()
	w.must(w.producer.BurstOf(w.ctx, n, func(i int) *kgo.Record { return load.Sample(key, int64(i), size) }))
}

// attacker is the attacker's process.
type attacker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// startAttacker runs this very program again, more patient than everybody else: attackers have machines of their own.
func startAttacker(w *world, target hostile.Target) *attacker {
	w.t.Helper()
	text, err := json.Marshal(target)
	w.must(err)
	nice := os.Getenv(niceEnv)
	if nice == "" {
		nice = "19"
	}
	args := []string{"-n", nice, os.Args[0], "-test.run=^TestAttacker$", "-test.timeout=5m"}
	cmd := exec.CommandContext(w.ctx, "nice", args...)
	cmd.Env = append(os.Environ(), AttackerEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	w.must(err)
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	return &attacker{cmd: cmd, in: in, out: s}
}

// attack lets it attack once.
func (a *attacker) attack() error {
	if _, err := fmt.Fprintln(a.in, "attack"); err != nil {
		return fmt.Errorf("attacker: %w", err)
	}
	for a.out.Scan() {
		if a.out.Text() == "over" {
			return nil
		}
	}
	return fmt.Errorf("the attacker went away: %w", a.cmd.Wait())
}

func (a *attacker) stop() (r hostile.Report, err error) {
	if err := a.in.Close(); err != nil {
		return r, fmt.Errorf("attacker: %w", err)
	}
	for a.out.Scan() {
		if text, ok := strings.CutPrefix(a.out.Text(), attackReport); ok {
			err = json.Unmarshal([]byte(text), &r)
		}
	}
	if ended := a.cmd.Wait(); ended != nil {
		return r, fmt.Errorf("attacker: %w", ended)
	}
	return r, err
}

// judgeAttack holds what attackers were told against README's tables, and sees that every limit was met.
func judgeAttack(w *world, r hostile.Report) {
	w.t.Helper()
	w.t.Logf("attempted %v", r.Done)
	w.t.Logf("answered with statuses %v, close codes %v; ended without a word %v", r.Statuses, r.Codes, r.Cut)
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	w.must(err)
	for name, met := range map[string]map[int]int{"statuses": r.Statuses, "closecodes": r.Codes} {
		documented := rows(readme, name)
		if len(documented) < 10 {
			w.t.Fatalf("README's table %s has %d rows", name, len(documented))
		}
		for code, n := range met {
			if !documented[code] {
				w.t.Errorf("%d refusals with %d, which README's table of %s does not name", n, code, name)
			}
		}
	}
	for _, status := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		if r.Statuses[status] == 0 {
			w.t.Errorf("nobody was refused with %d", status)
		}
	}
	for _, code := range []int{1009, 4012} {
		if r.Codes[code] == 0 {
			w.t.Errorf("nobody was closed with %d", code)
		}
	}
	for what, least := range map[string]int{"guesses": 10_000, "half-open connections": 5000, "clients that do not read": 1000, "answers that nobody reads": 300} {
		if r.Done[what] < least {
			w.t.Errorf("%d %s, want %d at least", r.Done[what], what, least)
		}
	}
	for what, n := range r.Cut {
		// A socket that is given up in the middle of a large frame, or that sends on after its close, ends without one.
		if what == "half-open connections" || what == "slow heads" {
			w.t.Errorf("%d %s ended without an answer", n, what)
		}
	}
	metrics := w.metrics(0)
	for _, limit := range []string{"open_handshakes", "handshake_time", "messages", "message_size", "address_handshakes", "memory", "shed"} {
		if !regexp.MustCompile(`limit_hits_total\{limit="` + limit + `"\} [1-9]`).Match(metrics) {
			w.t.Errorf("limit %s was not met", limit)
		}
	}
	for _, line := range bytes.Split(metrics, []byte("\n")) {
		if bytes.HasPrefix(line, []byte("pointsman_router_limit_hits_total")) {
			w.t.Logf("%s", line)
		}
	}
}

// rows are the numbers in the first column of one of README's tables.
func rows(readme []byte, name string) map[int]bool {
	_, rest, _ := bytes.Cut(readme, []byte("<!-- "+name+":begin -->"))
	table, _, _ := bytes.Cut(rest, []byte("<!-- "+name+":end -->"))
	out := map[int]bool{}
	for line := range bytes.Lines(table) {
		cells := strings.Split(string(line), "|")
		if len(cells) < 2 {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(cells[1])); err == nil {
			out[n] = true
		}
	}
	return out
}

// metrics are what router i exposes.
func (w *world) metrics(i int) []byte {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.Routers()[i].Admin+"/metrics", nil)
	w.must(err)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	w.must(err)
	return text
}

// status reads a size that the kernel tells of a process, in bytes.
func status(pid int, field string) (int64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}
