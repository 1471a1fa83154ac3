package continuity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// around is how many lines of a client's story are told on each side of what went wrong.
const around = 12

// line is one line of a story.
type line struct {
	at    time.Time
	text  string
	wrong bool
	fault bool // always told
}

// story tells what one client saw, with the faults between, around the first thing that went wrong.
func (r *Run) story(truth *checker.Truth, c *checker.Client, found []checker.Kind) string {
	var lines []line
	for _, f := range r.faults {
		lines = append(lines, line{at: f.Began, fault: true, text: fmt.Sprintf("== fault %d: %s %s begins", f.N, f.Kind, f.Victim)})
		if !f.Ended.IsZero() {
			lines = append(lines, line{at: f.Ended, fault: true, text: fmt.Sprintf("== fault %d: %s is over", f.N, f.Kind)})
		}
		if !f.Healed.IsZero() {
			lines = append(lines, line{at: f.Healed, fault: true, text: fmt.Sprintf("== fault %d: healed", f.N)})
		}
	}
	lines = append(lines, told(truth, c)...)
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	first := slices.IndexFunc(lines, func(l line) bool { return l.wrong })
	if first < 0 {
		first = len(lines) - 1
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, client %s (key %s), %v:\n", r.opts.Seed, c.Name, c.Key, found)
	for i, l := range lines {
		near := i >= first-around && i <= first+around
		// The faults of the half minute before, and then everything.
		if !near && !(l.fault && lines[first].at.Sub(l.at).Abs() < 30*time.Second) {
			continue
		}
		sign := "  "
		if l.wrong {
			sign = "!!"
		}
		fmt.Fprintf(&b, "%s %s %s\n", sign, l.at.Format(clock), l.text)
	}
	return b.String()
}

// told is one client's sessions and events, and what it should have had.
func told(truth *checker.Truth, c *checker.Client) []line {
	var lines []line
	got := make(map[[2]int64]bool)
	newest := make(map[int32]int64)
	for i := range c.Sessions {
		s := &c.Sessions[i]
		if !s.HelloAt.IsZero() {
			lines = append(lines, line{at: s.HelloAt, wrong: s.Resumed && !s.Complete,
				text: fmt.Sprintf("session %d on %s: hello, resumed %v, complete %v, starts at %v", i+1, s.Router, s.Resumed, s.Complete, s.Start)})
		}
		for j := range s.Events {
			e := &s.Events[j]
			l := line{at: time.Unix(0, e.At)}
			id := [2]int64{int64(e.Partition), e.Offset}
			switch e.Kind {
			case checker.Record:
				l.text = fmt.Sprintf("record %d/%d stamped %s, after %s", e.Partition, e.Offset, time.UnixMilli(e.Timestamp).Format(clock),
					time.Duration(e.At-e.Timestamp*int64(time.Millisecond)).Round(time.Millisecond))
				last, any := newest[e.Partition]
				switch {
				case got[id]:
					l.wrong, l.text = true, l.text+" REPEATED"
				case any && e.Offset < last:
					l.wrong, l.text = true, l.text+fmt.Sprintf(" OUT OF ORDER, after %d", last)
				}
				got[id], newest[e.Partition] = true, max(last, e.Offset)
			case checker.Checkpoint:
				l.text = fmt.Sprintf("checkpoint %d/%d", e.Partition, e.Next)
			case checker.Gap:
				l.wrong, l.text = true, fmt.Sprintf("gap %q, goes on at %d/%d", e.Reason, e.Partition, e.Next)
			}
			lines = append(lines, l)
		}
		if s.Ended != nil {
			lines = append(lines, line{at: s.Ended.At, wrong: !s.Ended.Expected,
				text: fmt.Sprintf("session %d on %s: closed with %d %q", i+1, s.Router, s.Ended.Code, s.Ended.Reason)})
		}
	}
	for p, records := range truth.Of(c.Key) {
		for _, rec := range records {
			if !got[[2]int64{int64(p), rec.Offset}] && len(c.Sessions) > 0 && rec.Timestamp > c.Sessions[0].HelloAt.UnixMilli() {
				lines = append(lines, line{at: time.UnixMilli(rec.Timestamp), wrong: true, text: fmt.Sprintf("record %d/%d was made and NEVER RECEIVED", p, rec.Offset)})
			}
		}
	}
	return lines
}
