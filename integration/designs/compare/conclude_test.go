package compare

import (
	"math"
	"strings"
	"testing"
)

func sampled(design string, round, servers int, cpu, ingest float64) Sample {
	return Sample{Design: design, Round: round, Servers: servers, Clients: 1000, CPU: cpu, Ingest: ingest, Outcome: Outcome{Due: 1}}
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
	for _, f := range r.Fits {
		switch {
		case f.Figure == "ingest" && f.Design == "b":
			if f.Form != shrinks || math.Abs(f.At100-0.01) > 1e-6 {
				t.Errorf("b's ingest: %+v, want 1 / servers", f)
			}
		case f.Figure == "ingest" && f.Design == "a" && math.Abs(f.At100-1) > 1e-6:
			t.Errorf("a's ingest: %+v, want a constant", f)
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
