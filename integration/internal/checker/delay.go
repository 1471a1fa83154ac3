package checker

import (
	"slices"
	"time"
)

// Delays sums up how long records were on their way: receive time less the record's timestamp.
type Delays struct {
	Count int64
	P50   time.Duration
	P99   time.Duration
	Max   time.Duration
	Who   string // where Max was seen
}

// FaultDelays is what clients felt of one fault: per client, the longest time in the fault's window that a record
// was on its way. What lies outside of the window belongs to the faults before and after.
type FaultDelays struct {
	Fault
	Clients int // clients that received something in the window
	P50     time.Duration
	P99     time.Duration
	Max     time.Duration
	Who     string
	// Silence is the longest time that a client received nothing while a record for it was on its way.
	Silence time.Duration
	// Pauses is each client's longest delay, in ascending order, for histograms.
	Pauses []time.Duration
}

// Quantile of an ascending list; 0 for an empty one.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted)-1) + 0.5)
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Between measures the delays of the records stamped in [from, until), over all clients that were not made
// slow on purpose.
func Between(clients []Client, from, until time.Time) Delays {
	lo, hi := from.UnixMilli(), until.UnixMilli()
	return delays(clients, func(e *Event) bool { return e.Timestamp >= lo && e.Timestamp < hi })
}

func delays(clients []Client, counts func(*Event) bool) Delays {
	var d Delays
	var all []time.Duration
	for i := range clients {
		c := &clients[i]
		if c.Lagging {
			continue
		}
		for j := range c.Sessions {
			for k := range c.Sessions[j].Events {
				e := &c.Sessions[j].Events[k]
				if e.Kind != Record || e.Backlog || !counts(e) {
					continue
				}
				delay := e.delay()
				all = append(all, delay)
				if delay > d.Max || d.Who == "" {
					d.Max, d.Who = delay, c.place(e)
				}
			}
		}
	}
	slices.Sort(all)
	d.Count, d.P50, d.P99 = int64(len(all)), Quantile(all, 0.50), Quantile(all, 0.99)
	return d
}

func measure(r *Report, clients []Client, faults []Fault) {
	r.Delay = delays(clients, func(*Event) bool { return true })
	for _, f := range faults {
		r.Faults = append(r.Faults, measureFault(clients, f))
	}
}

func measureFault(clients []Client, f Fault) FaultDelays {
	out := FaultDelays{Fault: f}
	from, until := f.From.UnixNano(), f.Until.UnixNano()
	for i := range clients {
		c := &clients[i]
		if c.Lagging {
			continue
		}
		longest := time.Duration(-1)
		var last int64 // receipt of the client's record before
		for j := range c.Sessions {
			for k := range c.Sessions[j].Events {
				e := &c.Sessions[j].Events[k]
				if e.Kind != Record {
					continue
				}
				stamped := e.Timestamp * int64(time.Millisecond)
				if !e.Backlog && stamped < until && e.At >= from {
					end := min(e.At, until)
					pause := max(0, time.Duration(end-max(stamped, from)))
					longest = max(longest, pause)
					if pause > out.Max || out.Who == "" {
						out.Max, out.Who = pause, c.place(e)
					}
					if last > 0 {
						out.Silence = max(out.Silence, time.Duration(end-max(last, stamped, from)))
					}
				}
				last = e.At
			}
		}
		if longest >= 0 {
			out.Pauses = append(out.Pauses, longest)
		}
	}
	slices.Sort(out.Pauses)
	out.Clients, out.P50, out.P99 = len(out.Pauses), Quantile(out.Pauses, 0.50), Quantile(out.Pauses, 0.99)
	return out
}

// delay is never negative: stamps are whole milliseconds, cut off.
func (e *Event) delay() time.Duration {
	return max(0, time.Duration(e.At-e.Timestamp*int64(time.Millisecond)))
}

func (c *Client) place(e *Event) string {
	return "client " + c.Name + " (key " + c.Key + ") partition " + itoa(int64(e.Partition)) + " offset " + itoa(e.Offset)
}
