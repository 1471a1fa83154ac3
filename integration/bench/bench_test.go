package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// TestHarnessMeasuresAndChecks runs a small part of the benchmark over the programs themselves, and says nothing of
// their speed.
func TestHarnessMeasuresAndChecks(t *testing.T) {
	bin := os.Getenv("POINTSMAN_BIN")
	if bin == "" || os.Getenv("POINTSMAN_STACK") == "" {
		t.Skip("it runs over real processes: make test-kafka")
	}
	programs := t.TempDir()
	for _, name := range []string{"router", "wsnode"} {
		if err := os.Symlink(filepath.Join(bin, name), filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", programs+string(filepath.Separator), "../cmd/bench", "../cmd/floor")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	scenarios, err := Choose("pace-5000,fan-out,burst,connect-10000,handover-join", true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("not done within 5 minutes"))
	defer cancel()
	rep, err := Do(ctx, Options{Scenarios: scenarios, Rounds: 1, Seconds: 0.3, Scale: 0.02, Kind: stack.Processes, Bin: programs, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Failures() {
		t.Error(f)
	}
	for _, want := range []struct{ scenario, subject, figure string }{
		{"pace-5000", product, "cpu_us"},
		{"pace-5000", floorProgram, "p99_ms"},
		{"fan-out", product, "link_records"},
		{"burst", floorProgram, "burst_rate"},
		{"connect-10000", product, "accepts_per_s"},
		{"handover-join", product, "moved"},
	} {
		if v, ok := rep.median(want.scenario, want.subject, want.figure); !ok || v < 0 {
			t.Errorf("%s of %s in %s: %v, %v", want.figure, want.subject, want.scenario, v, ok)
		}
	}
	if v, ok := rep.median("fan-out", product, "link_records"); ok && v != 1 {
		t.Errorf("a record of many subscribers crossed the link %v times, want once", v)
	}
	dir := t.TempDir()
	if err := rep.Publish(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Load(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := rep.String(), again.String(); a != b {
		t.Errorf("read again, the report says\n%s\nwant\n%s", b, a)
	}
}

// samples are rounds of one figure.
func samples(subject, name string, values ...float64) (out []Sample) {
	for i, v := range values {
		out = append(out, Sample{Subject: subject, Round: i, Figures: map[string]float64{name: v}})
	}
	return out
}

func TestBarsAreJudgedByPairedMedians(t *testing.T) {
	rep := &Report{Scale: 1}
	result := func(name string, all ...[]Sample) *Result {
		s, err := Choose(name, true)
		if err != nil {
			t.Fatal(err)
		}
		r := &Result{Scenario: s[0]}
		for _, one := range all {
			r.Samples = append(r.Samples, one...)
		}
		rep.Results = append(rep.Results, r)
		return r
	}
	result("pace-5000", samples(product, "cpu_us", 60, 300, 70), samples(floorProgram, "cpu_us", 40, 200, 50))
	failed := result("pace-10000", samples(product, "cpu_us", 40, 40, 40), samples(floorProgram, "cpu_us", 40, 40, 40))
	failed.Samples[1].Failed = "a record was lost"
	result("connect-10000", samples(product, "accepts_per_s", 3000), samples(floorProgram, "accepts_per_s", 4000))
	result("nodes-1", samples(product, "ingest_most_kb_s", 100))
	result("nodes-2", samples(product, "ingest_most_kb_s", 57))
	rep.judge()
	got := make(map[string]string)
	for _, b := range rep.Bars {
		verdict := strings.Fields(b.String())
		got[strings.TrimSpace(b.About)] = verdict[len(verdict)-1]
	}
	for about, want := range map[string]string{
		"CPU per message, times the floor's, pace-5000":  "met",
		"CPU per message, times the floor's, pace-10000": "measured", // not, because a sample failed
		"connects per second, connect-10000":             "met",
		"busiest node's ingest, nodes-2 of nodes-1":      "missed",
		"burst, share of the floor's rate":               "measured",
	} {
		if got[about] != want {
			t.Errorf("%s: %q, want %q", about, got[about], want)
		}
	}
}

func TestComparisonMarksWhatDoesNotOverlap(t *testing.T) {
	report := func(cpu, rate []float64) *Report {
		s, err := Choose("pace-5000", true)
		if err != nil {
			t.Fatal(err)
		}
		r := &Result{Scenario: s[0], Samples: append(samples(product, "cpu_us", cpu...), samples(product, "rate", rate...)...)}
		return &Report{Results: []*Result{r}}
	}
	old := report([]float64{50, 55, 60}, []float64{100, 110, 120})
	text := report([]float64{40, 42, 49}, []float64{90, 95, 105}).Compare(old)
	for _, line := range strings.Split(text, "\n") {
		switch {
		case strings.Contains(line, "CPU per delivered") && !strings.Contains(line, "-23.6 % * better"),
			strings.Contains(line, "delivered, records/s") && strings.Contains(line, "*"):
			t.Error(line)
		}
	}
	if !strings.Contains(text, "pace-5000") {
		t.Errorf("the comparison says %q", text)
	}
}

func TestScenariosAreChosenByName(t *testing.T) {
	all := Scenarios()
	seen := make(map[string]bool)
	for _, s := range all {
		if seen[s.Name] {
			t.Errorf("two scenarios are called %s", s.Name)
		}
		seen[s.Name] = true
	}
	for names, want := range map[string]int{"pace-2000": 1, "idle-*": 2, "burst, nodes-*": 4} {
		got, err := Choose(names, false)
		if err != nil || len(got) != want {
			t.Errorf("%q: %d scenarios, %v; want %d", names, len(got), err, want)
		}
	}
	if _, err := Choose("none", false); err == nil {
		t.Error("a scenario that does not exist was chosen")
	}
	short, err := Choose("", false)
	if err != nil || len(short) == 0 || len(short) >= len(all) {
		t.Errorf("the short run has %d of %d scenarios, %v", len(short), len(all), err)
	}
}

func TestHandoverRunsFromAClaimToTheEndOfItsMoves(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(1_000_000 + int64(ms)) }
	moves := []stretch{{at(10), at(60)}, {at(500), at(530)}}
	for _, c := range []struct {
		claims []time.Time
		want   time.Duration
	}{
		{nil, 0},
		{[]time.Time{at(0)}, 60 * time.Millisecond},
		{[]time.Time{at(0), at(40), at(450)}, 80 * time.Millisecond},
		{[]time.Time{at(600)}, 0}, // nobody had to move
	} {
		if got := slowest(c.claims, moves); got != c.want {
			t.Errorf("claims %v: %s, want %s", c.claims, got, c.want)
		}
	}
}

func TestMetricsAreSummedOverLabels(t *testing.T) {
	got, err := parseMetrics(strings.NewReader("# HELP a b\na{x=\"1 2\"} 3\na{x=\"2\"} 4\nb 1e3\n\n"))
	if err != nil || got["a"] != 7 || got["b"] != 1000 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestKeysAreSpreadEvenly(t *testing.T) {
	keys := keysOf("k", 3*partitions)
	seen := make(map[string]bool)
	for _, k := range keys {
		seen[k] = true
	}
	if len(seen) != len(keys) {
		t.Errorf("%d different keys of %d", len(seen), len(keys))
	}
}

// What was measured again takes its place, says how, and is judged anew.
func TestAmend(t *testing.T) {
	report := func(version string, cpu float64) *Report {
		s := Scenarios()[1]
		sample := func(subject string, v float64) Sample {
			return Sample{Subject: subject, Round: 1, Figures: map[string]float64{"cpu_us": v, "rate": 5000, "kept_up": 1, "p99_ms": 1}}
		}
		rep := &Report{Version: version, Command: "make bench", Rounds: 1, Seconds: 5, Scale: 1, Results: []*Result{
			{Scenario: s, Samples: []Sample{sample(product, cpu), sample(floorProgram, 10)}},
		}}
		rep.judge()
		return rep
	}
	rep := report("old", 30)
	if b := rep.Bars[0]; !b.Known || b.Met {
		t.Fatalf("before: %s", b)
	}
	rep.Amend(report("new", 12))
	if b := rep.Bars[0]; !b.Met || len(rep.Results) != 1 {
		t.Errorf("after: %s; %d results", b, len(rep.Results))
	}
	file := filepath.Join(t.TempDir(), "bench.json")
	if err := rep.Write(file); err != nil {
		t.Fatal(err)
	}
	rep, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if text := rep.String(); !strings.Contains(text, "measured again by make bench, version new") {
		t.Errorf("it does not say what was measured again:\n%s", text)
	}
}
