package checker

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind names a Verdict of a Report.
type Kind string

// The kinds of verdicts.
const (
	Lost      Kind = "lost"
	Repeated  Kind = "repeated"
	Reordered Kind = "reordered"
	Foreign   Kind = "foreign"
	Corrupt   Kind = "corrupt"
	Cursors   Kind = "cursors"
	Gaps      Kind = "gaps"
	Broken    Kind = "broken"
	Unopened  Kind = "unopened"
)

// Verdicts lists all kinds with what was found, in a fixed order.
func (r *Report) Verdicts() []struct {
	Kind Kind
	*Verdict
} {
	type row = struct {
		Kind Kind
		*Verdict
	}
	return []row{
		{Lost, &r.Lost},
		{Repeated, &r.Repeated},
		{Reordered, &r.Reordered},
		{Foreign, &r.Foreign},
		{Corrupt, &r.Corrupt},
		{Cursors, &r.Cursors},
		{Gaps, &r.Gaps},
		{Broken, &r.Broken},
		{Unopened, &r.Unopened},
	}
}

// Err is nil when nothing was found but what the test allows. A run in which nothing was due is an error too:
// it proves nothing.
func (r *Report) Err(allowed ...Kind) error {
	var errs []error
	if r.Expected == 0 {
		errs = append(errs, errors.New("no record was due: the run proves nothing"))
	}
	for _, v := range r.Verdicts() {
		if v.Count > 0 && !slices.Contains(allowed, v.Kind) {
			errs = append(errs, fmt.Errorf("%s %d, first: %s", v.Kind, v.Count, v.First))
		}
	}
	return errors.Join(errs...)
}

// String is the table that tests print.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "clients %d  sessions %d  topic %d  due %d  received %d\n", r.Clients, r.Sessions, r.Topic, r.Expected, r.Received)
	for i, v := range r.Verdicts() {
		if i > 0 {
			b.WriteString("  ")
		}
		fmt.Fprintf(&b, "%s %d", v.Kind, v.Count)
	}
	if r.Excused > 0 {
		fmt.Fprintf(&b, "  (announced %d)", r.Excused)
	}
	fmt.Fprintf(&b, "\ndelay p50 %s  p99 %s  max %s (%d records)", short(r.Delay.P50), short(r.Delay.P99), short(r.Delay.Max), r.Delay.Count)
	if len(r.Faults) > 0 {
		fmt.Fprintf(&b, "\n%-24s %9s %9s %9s %9s %9s  longest pause at", "fault", "clients", "p50", "p99", "max", "silence")
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "\n%-24s %9d %9s %9s %9s %9s  %s", f.Name, f.Clients, short(f.P50), short(f.P99), short(f.Max), short(f.Silence), f.Who)
	}
	for _, v := range r.Verdicts() {
		if v.Count > 0 {
			fmt.Fprintf(&b, "\nfirst %s: %s", v.Kind, v.First)
		}
	}
	return b.String()
}

func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
