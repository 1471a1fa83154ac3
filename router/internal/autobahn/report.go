package autobahn

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Test runs cases against a server, prints a report as the suite does, and fails for each case that failed.
func Test(t *testing.T, title string, s Server, cases []*Case) {
	t.Helper()
	results := make([]Result, len(cases))
	// A few at a time: most of them wait.
	var wg sync.WaitGroup
	turn := make(chan struct{}, 4)
	for i, c := range cases {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			results[i] = Run(s, c)
		})
	}
	wg.Wait()
	t.Logf("%s\n%s", title, report(results))
	for _, r := range results {
		if r.Behaviour == Failed {
			t.Errorf("case %s (%s): %s", r.Case.ID, r.Case.What, r.Why)
		}
	}
}

func report(results []Result) string {
	type row struct {
		counts map[Behaviour]int
		ids    []string // of cases that are not OK
		took   time.Duration
	}
	sections := map[string]*row{}
	all := &row{counts: map[Behaviour]int{}}
	for _, r := range results {
		name, _, _ := strings.Cut(r.Case.ID, ".")
		s := sections[name]
		if s == nil {
			s = &row{counts: map[Behaviour]int{}}
			sections[name] = s
		}
		for _, into := range []*row{s, all} {
			into.counts[r.Behaviour]++
			into.took += r.Took
		}
		if r.Behaviour != OK {
			s.ids = append(s.ids, r.Case.ID+" "+string(r.Behaviour))
		}
	}
	var b strings.Builder
	line := func(name string, s *row) {
		total := 0
		for _, n := range s.counts {
			total += n
		}
		fmt.Fprintf(&b, "  %-8s %4d cases  %4d ok  %3d non-strict  %3d informational  %3d failed  %7.1fs  %s\n", name, total,
			s.counts[OK], s.counts[NonStrict], s.counts[Informational], s.counts[Failed], s.took.Seconds(), strings.Join(s.ids, ", "))
	}
	names := make([]string, 0, len(sections))
	for n := range sections {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	for _, n := range names {
		line(n, sections[n])
	}
	line("all", all)
	return b.String()
}
