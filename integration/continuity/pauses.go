package continuity

import (
	"slices"
	"sort"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// window is the time of one fault, from its first act until all clients receive again. Times are microseconds since
// the run's epoch.
type window struct {
	fault       int // index into the run's faults
	from, until int64
	// probe is when the independent consumer received again, for faults that are measured from then on; 0 otherwise.
	probe int64
}

// charged is the longest delay of one client in one window.
type charged struct {
	window  int
	longest int64 // microseconds; the quiet delay is not taken off yet
	offset  uint32
}

// charge attributes every delay of a client to the window that covers it and keeps the longest of each window. A
// record stamped in a window is that window's also after the window's end, up to the beginning of the next one, which
// has the rest. What was stamped before a window and arrived after its beginning is charged with the part from the
// beginning on. What is left is quiet: its longest delay is returned. Windows are in order of time and do not overlap.
// A delay begins when a plain consumer beside the product had the record: felt says how late that was.
func charge(marks []mark, windows []window, felt func(*mark) int64) (out []charged, quiet int64) {
	longest := make(map[int]charged, 8)
	for i := range marks {
		m := &marks[i]
		if m.kind != checker.Record {
			continue
		}
		stamp, at := int64(m.stamp)*1000, m.at()
		due := min(stamp+felt(m), at)
		w := sort.Search(len(windows), func(i int) bool { return windows[i].until > stamp })
		if w == len(windows) || at < windows[w].from {
			quiet = max(quiet, at-due)
			continue
		}
		if windows[w].from > due {
			quiet = max(quiet, windows[w].from-due)
		}
		for ; w < len(windows) && windows[w].from <= at; w++ {
			end := at
			if w+1 < len(windows) {
				end = min(at, windows[w+1].from)
			}
			late := max(0, end-max(due, windows[w].from, windows[w].probe))
			if was, ok := longest[w]; !ok || late > was.longest {
				longest[w] = charged{window: w, longest: late, offset: m.offset}
			}
		}
	}
	for _, c := range longest {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b charged) int { return a.window - b.window })
	return out, quiet
}

// Pauses is what clients felt of the faults of one kind: per client and fault the longest delay of a record against a
// plain consumer, less the one that is usual when all is quiet.
type Pauses struct {
	Kind     Kind          `json:"kind"`
	Faults   int           `json:"faults"`
	Clients  int           `json:"clients"` // client and fault pairs that were measured
	Affected int           `json:"affected"`
	P50      time.Duration `json:"p50_ns"` // of the affected, as the next two
	P99      time.Duration `json:"p99_ns"`
	Max      time.Duration `json:"max_ns"`
	Others   time.Duration `json:"others_p99_ns"` // of clients whose node or router was not met
	Probe    time.Duration `json:"probe_ns"`      // longest delay that the independent consumer felt in these windows
	Bound    time.Duration `json:"bound_ns"`      // for P99; 0 when there is none
	Where    string        `json:"where"`         // of Max
	Buckets  []int         `json:"buckets"`       // histogram of the affected: how many below each of Edges, and beyond
}

// Missed reports whether the bound was not kept.
func (p *Pauses) Missed() bool { return p.Bound > 0 && max(p.P99, p.Others) > p.Bound }

// Edges are the upper bounds of a histogram's buckets: 1 ms doubled again and again, in half steps.
func Edges() []time.Duration {
	var out []time.Duration
	for d := time.Millisecond; d <= 40*time.Second; d *= 2 {
		out = append(out, d, d+d/2)
	}
	return out
}

func buckets(sorted []time.Duration) []int {
	edges := Edges()
	out := make([]int, len(edges)+1)
	for _, d := range sorted {
		out[sort.Search(len(edges), func(i int) bool { return d < edges[i] })]++
	}
	return out
}

// bound is what issue and README promise for a kind of fault; 0 is no promise.
func bound(kind Kind, linkTimeout time.Duration) time.Duration {
	const planned, sudden = 50 * time.Millisecond, 500 * time.Millisecond
	switch kind {
	case Join, Leave, Drain, Rolling, GroupEmpty, GroupDelete, EtcdKill, EtcdOutage, EtcdFreeze, EtcdWipe:
		return planned
	case Kill, Crash, Cut, Kafka:
		return sudden
	case Freeze, Hole:
		return linkTimeout + sudden
	case Quiet, RouterTerm, RouterKill:
	}
	return 0
}

func micro(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
