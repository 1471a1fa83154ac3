package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
)

// lives cuts a client's history where the log began anew for it: at its gaps of the given reason. In each part offsets
// mean one thing, so each can be held against the topic as it was then. The gaps are returned beside the parts, which
// are one more.
func lives(c *checker.Client, reason string) (parts []checker.Client, gaps []checker.Event) {
	part := checker.Client{Name: c.Name, Key: c.Key, Lagging: c.Lagging}
	for i := range c.Sessions {
		s := c.Sessions[i]
		from := 0
		for j, e := range s.Events {
			if e.Kind != checker.Gap || e.Reason != reason {
				continue
			}
			gaps = append(gaps, e)
			before := s
			before.Ended, before.Events = nil, s.Events[from:j]
			if len(before.Events) > 0 || !before.Resumed {
				part.Sessions = append(part.Sessions, before)
			}
			parts = append(parts, part)
			part.Sessions = nil
			from = j + 1
			s.Resumed, s.HelloAt = false, time.Unix(0, e.At)
			s.Start = []checker.Position{{Partition: e.Partition, Next: e.Next}}
		}
		s.Events = s.Events[from:]
		part.Sessions = append(part.Sessions, s)
	}
	return append(parts, part), gaps
}

// judgeLife holds one part of every client's history against the topic as it was then.
func (w *world) judgeLife(truth *checker.Truth, life int, reason string, allowed ...checker.Kind) {
	w.t.Helper()
	var clients []checker.Client
	for _, h := range w.fleet.Histories() {
		parts, _ := lives(&h, reason)
		if life >= len(parts) {
			w.t.Errorf("client %s (key %s) was told of %d gaps with reason %s, want %d", h.Name, h.Key, len(parts)-1, reason, life)
			continue
		}
		if len(parts[life].Sessions) > 0 {
			clients = append(clients, parts[life])
		}
	}
	r := checker.Check(truth, clients, nil)
	w.t.Logf("%s, life %d\n%s", w.t.Name(), life, r)
	if err := r.Err(allowed...); err != nil {
		w.t.Errorf("life %d: %v", life, err)
	}
}

// waitLife waits until every client has the newest record of its key in the given life of the log.
func (w *world) waitLife(clients []*load.Client, truth *checker.Truth, life int, reason string) {
	w.t.Helper()
	ctx, cancel := w.within(time.Minute)
	defer cancel()
	for _, c := range clients {
		err := c.Wait(ctx, func(s *checker.Client) bool {
			parts, _ := lives(s, reason)
			if life >= len(parts) {
				return false
			}
			_, _, behind := checker.Behind(truth, &parts[life])
			return !behind
		})
		if err != nil {
			w.t.Fatalf("key %s has not everything of life %d: %v; it saw %s", c.Key(), life, err, told(c))
		}
	}
}

// gapsOf lists a client's gaps, whatever their reason.
func gapsOf(c *checker.Client) (out []checker.Event) {
	for i := range c.Sessions {
		for _, e := range c.Sessions[i].Events {
			if e.Kind == checker.Gap {
				out = append(out, e)
			}
		}
	}
	return out
}

// skipped asserts that a client was told of one gap, of the given reason, and has every record of its key but those
// between the last one before the gap and oldest. The topic must have been read before anything was taken from it.
func (w *world) skipped(c *load.Client, full *checker.Truth, reason string, oldest int64) {
	w.t.Helper()
	h := c.History()
	gaps := gapsOf(&h)
	if len(gaps) != 1 || gaps[0].Reason != reason {
		w.t.Errorf("key %s was told of the gaps %+v, want one with reason %s", c.Key(), gaps, reason)
		return
	}
	var got []int64
	before := int64(-1)
	after := false
	for i := range h.Sessions {
		for _, e := range h.Sessions[i].Events {
			switch {
			case e.Kind == checker.Gap:
				after = true
			case e.Kind == checker.Record:
				got = append(got, e.Offset)
				if !after {
					before = e.Offset
				}
			}
		}
	}
	var want []int64
	taken := 0
	for _, r := range full.Of(c.Key())[w.partitionOf(c.Key())] {
		if r.Offset <= before || r.Offset >= oldest {
			want = append(want, r.Offset)
		} else {
			taken++
		}
	}
	w.t.Logf("key %s: %d records, then a gap up to %d over %d records, then the rest of %d", c.Key(), indexAfter(got, before), gaps[0].Next, taken, len(got))
	if taken == 0 {
		w.t.Errorf("key %s missed nothing: the test proves nothing", c.Key())
	}
	if gaps[0].Next > oldest || !slices.Equal(got, want) {
		w.t.Errorf("key %s: gap up to %d, offsets received\n%v\nwant, around a gap up to %d\n%v", c.Key(), gaps[0].Next, got, oldest, want)
	}
}

func indexAfter(offsets []int64, last int64) int {
	return slices.IndexFunc(append(slices.Clone(offsets), last+1), func(o int64) bool { return o > last })
}

// told is what a client was told, in short, for messages.
func told(c *load.Client) []string {
	h := c.History()
	var out []string
	for i := range h.Sessions {
		s := &h.Sessions[i]
		records := 0
		for _, e := range s.Events {
			switch e.Kind {
			case checker.Record:
				records++
			case checker.Gap:
				out = append(out, "gap "+e.Reason)
			case checker.Checkpoint:
			}
		}
		out = append(out, fmt.Sprintf("%d records", records), fmt.Sprintf("%d waits", s.Waiting))
		if s.Ended != nil {
			out = append(out, "end "+s.Ended.Reason)
		}
	}
	return out
}
