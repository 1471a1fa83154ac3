package continuity

import (
	"fmt"
	"strings"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// String is the table that a run prints.
func (rep *Report) String() string {
	var b strings.Builder
	c := rep.Counts
	fmt.Fprintf(&b, "seed %d, %.0f s, %d faults, %d clients, %d sessions, %d records in the topic, %d due, %d received\n",
		rep.Options.Seed, rep.Took, rep.made(), c.Clients, c.Sessions, c.Topic, c.Due, c.Received)
	for _, kind := range []checker.Kind{checker.Lost, checker.Repeated, checker.Reordered, checker.Foreign, checker.Corrupt, checker.Cursors, checker.Gaps, checker.Broken, checker.Unopened} {
		fmt.Fprintf(&b, "%s %d  ", kind, c.Offences[string(kind)])
	}
	fmt.Fprintf(&b, "against the protocol %d\n", c.Protocol)
	fmt.Fprintf(&b, "delay of a record: p50 %s p99 %s max %s before the first fault; p50 %s p99 %s max %s over the whole run\n",
		short(rep.Baseline.P50), short(rep.Baseline.P99), short(rep.Baseline.Max), short(rep.Delays.P50), short(rep.Delays.P99), short(rep.Delays.Max))
	if rep.Between.Count > 0 && len(rep.Pauses) > 0 {
		fmt.Fprintf(&b, "each client's longest delay outside the faults: p50 %s p99 %s max %s\n", short(rep.Between.P50), short(rep.Between.P99), short(rep.Between.Max))
	}
	if len(rep.Pauses) > 0 {
		fmt.Fprintf(&b, "%-13s %6s %8s %8s  %9s %9s %9s  %9s %9s %9s\n", "fault", "times", "pairs", "met", "p50", "p99", "max", "others", "probe", "bound")
	}
	for _, p := range rep.Pauses {
		limit, miss := "", ""
		if p.Bound > 0 {
			limit = short(p.Bound)
		}
		if p.Missed() {
			miss = "  MISSED"
		}
		fmt.Fprintf(&b, "%-13s %6d %8d %8d  %9s %9s %9s  %9s %9s %9s%s\n", p.Kind, p.Faults, p.Clients, p.Affected,
			short(p.P50), short(p.P99), short(p.Max), short(p.Others), short(p.Probe), limit, miss)
	}
	fmt.Fprintf(&b, "the machine: routers and nodes %.0f %%, clients and producers %.0f %%, Kafka and etcd %.0f %%, others %.0f %%; load average %.1f at the beginning, %.1f at the end\n",
		100*rep.Busy.Product, 100*rep.Busy.Clients, 100*rep.Busy.Backend, 100*rep.Busy.Others, rep.Busy.Loads[0], rep.Busy.Loads[len(rep.Busy.Loads)-1])
	for _, s := range rep.Slopes {
		told := "not judged"
		if s.Judged {
			told = "judged"
		}
		fmt.Fprintf(&b, "%-10s from %.0f s to %.0f s: memory %+.1f %%, goroutines %+.1f %% an hour (%s)\n", s.Process, s.From, s.To, s.RSS, s.Goroutines, told)
	}
	if rep.story != "" {
		fmt.Fprintf(&b, "\n%s", rep.story)
	}
	for _, f := range rep.Failed {
		fmt.Fprintf(&b, "FAILED: %s\n", f)
	}
	return b.String()
}

// made is how many faults there were; quiet times are none, and neither is what could not be done.
func (rep *Report) made() int {
	n := 0
	for _, f := range rep.Faults {
		if f.Kind != Quiet && f.Error == "" {
			n++
		}
	}
	return n
}
