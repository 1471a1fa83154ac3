package compare

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func sampled(design string, round, servers int, cpu, ingest float64) Sample {
	return Sample{Design: design, Round: round, Servers: servers, Clients: 1000, CPU: cpu, Ingest: ingest, Produced: 100, Delivered: 100, P50: 2, Outcome: Outcome{Due: 1}}
}

func TestOnlyOrderingsThatHeldInEverySampleAreStated(t *testing.T) {
	r := &Report{}
	for round := 1; round <= 2; round++ {
		for _, servers := range []int{1, 2, 4} {
			r.Samples = append(r.Samples,
				sampled("a", round, servers, 10, 1000),
				sampled("b", round, servers, 20, 1000/float64(servers)),
				sampled("c", round, servers, 10.5, 5))
		}
	}
	r.Samples[len(r.Samples)-2].CPU = 9 // b, once
	r.conclude()
	got := make(map[string]bool)
	for _, o := range r.Orderings {
		got[o.Figure+" "+o.Less+"<"+o.More] = true
	}
	for name, want := range map[string]bool{
		"cpu a<b": false, "cpu b<a": false, "cpu c<b": false, "cpu a<c": false, // once not, and too little
		"ingest c<a": true, "ingest c<b": true, "ingest b<a": false, // equal at one server
	} {
		if got[name] != want {
			t.Errorf("%s: stated %v, want %v", name, got[name], want)
		}
	}
}

func TestThePageShowsFiguresAndSaysWhatIsExtrapolated(t *testing.T) {
	r := &Report{Quick: true, Rounds: 1, Faults: []Fault{{Design: "plainrouter", Fault: KillServer, Clients: 10, Outcome: Outcome{Broken: 5, Lost: 1, First: "lost: one"}}}}
	for _, servers := range []int{1, 2, 4} {
		r.Samples = append(r.Samples, sampled("a", 1, servers, 10, 1000))
	}
	r.conclude()
	page, err := r.page("designs")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5 of 10", "**extrapolated**", "quick run", "not explained: lost: one", "designs/ingest.svg", "| a | 4 |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestFailuresAreNeitherGoodFiguresNorGone has one sample of one design fail, once.
func TestFailuresAreNeitherGoodFiguresNorGone(t *testing.T) {
	r := &Report{Rounds: 2}
	for round := 1; round <= 2; round++ {
		for _, servers := range []int{1, 2, 4} {
			r.Samples = append(r.Samples, sampled("a", round, servers, 10, 1000), sampled("b", round, servers, 20, 2000), sampled("c", round, servers, 40, 4000))
		}
		r.Faults = append(r.Faults, Fault{Design: "a", Round: round, Fault: KillServer, Clients: 10, Outcome: Outcome{Broken: 5}})
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	failed := sampled("a", 2, 4, 0, 0)
	failed.Outcome = Outcome{Failed: "too many | open files\nand a log"}
	r.Samples[len(r.Samples)-3] = failed
	r.Faults[1].Outcome = Outcome{Failed: "nobody connects"}
	r.conclude()
	for _, o := range r.Orderings {
		if o.Less == "a" || o.More == "a" {
			t.Errorf("an ordering over a failure: %+v", o)
		}
	}
	if !slices.ContainsFunc(r.Orderings, func(o Ordering) bool { return o.Less == "b" && o.More == "c" }) {
		t.Error("what is not concerned is not stated either")
	}
	page, err := r.page("designs")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| a | 4 | failed: too many / open files | - |", "failed: nobody connects | - |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "too many") || !strings.Contains(err.Error(), "nobody connects") {
		t.Errorf("the report's error is %v", err)
	}
	dir := filepath.Join(t.TempDir(), "designs")
	if err := r.Publish(dir); err == nil {
		t.Error("a report with failures was published")
	}
	if _, err := os.Stat(dir + ".md"); !os.IsNotExist(err) {
		t.Errorf("the page is there: %v", err)
	}
}
