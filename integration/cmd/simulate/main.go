// Command simulate plays seeded schedules of faults against the state machines of routers and nodes, see package
// simulate. It ends with 1 and the timeline of the client concerned when a promise is broken.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/integration/simulate"
)

func main() {
	seeds := flag.Int("seeds", 10_000, "how many schedules to play")
	from := flag.Uint64("from", 1, "the first seed; 0 takes the time of day")
	seed := flag.Uint64("seed", 0, "play this seed alone, and tell its timeline if it fails")
	every := flag.Duration("progress", 10*time.Second, "how often to say how far it has come")
	lines := flag.Int("lines", 0, "how long a timeline may be; 0 for a few hundred lines")
	keepOn := flag.Bool("all", false, "go on after a violation, and tell no timelines")
	flag.Parse()
	if *seed != 0 {
		*from, *seeds = *seed, 1
	}
	if *from == 0 {
		*from = uint64(time.Now().UnixNano())
	}
	os.Exit(run(*from, *seeds, *lines, *keepOn, *every))
}

func run(from uint64, seeds, lines int, keepOn bool, every time.Duration) int {
	began, told, violations := time.Now(), time.Now(), 0
	var sum simulate.Stats
	for i := range seeds {
		st, v := simulate.Run(simulate.Options{Seed: from + uint64(i)})
		sum.Add(st)
		if v != nil && keepOn {
			violations++
			fmt.Println(v)
			v = nil
		}
		if v != nil {
			if told := simulate.Explain(v.Seed, lines); told != nil {
				v = told
			}
			fmt.Println(v)
			fmt.Printf("violated after %d schedules; again with: go run ./integration/cmd/simulate -seed %d\n", i+1, v.Seed)
			return 1
		}
		if time.Since(told) >= every {
			told = time.Now()
			fmt.Printf("%d schedules, %.0f a minute\n", i+1, float64(i+1)/time.Since(began).Minutes())
		}
	}
	took := time.Since(began)
	fmt.Printf("%d schedules from seed %d in %s, %.0f a minute: %d violations\n",
		sum.Schedules, from, took.Round(time.Millisecond), float64(sum.Schedules)/took.Minutes(), violations)
	fmt.Printf("simulated %s, %d events; delivered %d records to %d connections; %d handovers, %d duplicates dropped, %d gaps, %d checkpoints, %d scans\n",
		sum.Simulated.Round(time.Second), sum.Events, sum.Records, sum.Connects, sum.Handovers, sum.Duplicates, sum.Gaps, sum.Checkpoints, sum.Scans)
	fmt.Printf("%d schedules judged in full; in %d the history of growth was wiped, which excuses order and gap moved\n",
		sum.Schedules-sum.Forgotten, sum.Forgotten)
	names := make([]string, 0, len(sum.Faults))
	for name := range sum.Faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Printf("  %6d  %s\n", sum.Faults[name], name)
	}
	return min(violations, 1)
}
