package simulate

import (
	"slices"
	"testing"
	"time"
)

// TestEveryPromiseIsKept plays the first schedules; make simulate plays thousands. It also looks whether they
// consist of something.
func TestEveryPromiseIsKept(t *testing.T) {
	seeds := 250
	if testing.Short() {
		seeds = 100
	}
	var sum Stats
	for seed := range seeds {
		st, v := Run(Options{Seed: uint64(seed + 1)})
		sum.Add(st)
		if v != nil {
			t.Fatal(Explain(v.Seed, 0))
		}
	}
	for _, f := range kinds() {
		if sum.Faults[f.name] == 0 {
			t.Errorf("no schedule had the fault %q", f.name)
		}
	}
	for what, n := range map[string]int{
		"records": sum.Records / 100, "duplicates": int(sum.Duplicates), "handovers": sum.Handovers, "gaps": sum.Gaps,
		"checkpoints": sum.Checkpoints, "scans": sum.Scans,
	} {
		if n < seeds/10 {
			t.Errorf("hardly any %s: %d in %d schedules", what, n, seeds)
		}
	}
}

// TestRunCanBeHadAgain compares two runs of a seed to the last event: nothing but the seed may decide anything, or a
// violation could not be explained.
func TestRunCanBeHadAgain(t *testing.T) {
	for seed := range uint64(40) {
		first, second := newWorld(Options{Seed: seed, Timeline: true}), newWorld(Options{Seed: seed, Timeline: true})
		first.play()
		second.play()
		if !slices.Equal(first.trace.lines, second.trace.lines) {
			for i, l := range first.trace.lines {
				if i >= len(second.trace.lines) || l != second.trace.lines[i] {
					t.Fatalf("seed %d differs from line %d on:\n%+v\n%+v", seed, i, l, second.trace.lines[i:min(i+1, len(second.trace.lines))])
				}
			}
			t.Fatalf("seed %d: %d lines and %d", seed, len(first.trace.lines), len(second.trace.lines))
		}
		if first.now != second.now || first.stats.Events != second.stats.Events {
			t.Fatalf("seed %d: %d events until %s, then %d until %s", seed,
				first.stats.Events, time.Duration(first.now), second.stats.Events, time.Duration(second.now))
		}
		// Telling the story must not change it.
		quiet, _ := Run(Options{Seed: seed})
		if quiet.Events != first.stats.Events || quiet.Records != first.stats.Records {
			t.Fatalf("seed %d: %d events with a timeline and %d without", seed, first.stats.Events, quiet.Events)
		}
	}
}
