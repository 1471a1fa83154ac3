package session

import (
	"math"
	"slices"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// Done is the next offset of a partition that holds nothing more for a key. A cursor lists it only where the key
// came back to a partition: the one between tells which of the two stays is meant.
const Done = math.MaxInt64

// Stage is one home of a key whose partition changed when partitions were added.
type Stage struct {
	Partition int32
	// From is below every record that was written here by a producer that knew of this home, but for those below the
	// end of an earlier stay: whoever has let that one go has them.
	From int64
	// Until is where the partition ended when the key was seen to move on: producers that were quiet then wrote
	// nothing here above it, and nothing elsewhere before it. The last stage has no end: math.MaxInt64.
	Until int64
	// Closed is where it ended when no producer could be ignorant of the move any more, -1 if that is to come.
	Closed int64
}

// Position says that every record of the key below Next was delivered.
type Position struct {
	Partition int32
	Next      int64
}

// Lane is where a session begins in one partition.
type Lane struct {
	Partition int32
	Start     link.Start
}

// Plan is how to begin on a path of several stages.
type Plan struct {
	Lanes   []Lane
	Reached int     // the latest stage that was begun
	Done    []int32 // partitions that have to be listed as done
}

// Simple reports whether the plan is one partition, the key's last, and nothing else.
func (p *Plan) Simple(path []Stage) bool {
	return len(p.Lanes) == 1 && len(p.Done) == 0 && p.Reached == len(path)-1
}

// Resume tells how a cursor with these positions goes on; false when none of them is a place in a partition on the
// path. A plan has a lane in the stage that it reached: what a cursor says is done is never all there is to read.
func Resume(path []Stage, at []Position) (Plan, bool) {
	r := reached(path, at)
	if r < 0 {
		return Plan{}, false
	}
	var plan Plan
	for _, p := range at {
		if p.Next != Done && on(path, p.Partition) && !finished(path, p, r) {
			plan.Lanes = append(plan.Lanes, Lane{p.Partition, link.Start{Kind: link.StartCursor, Value: p.Next}})
		}
	}
	if len(plan.Lanes) == 0 {
		// Everything is done but what comes next. There is a next stage, for the last one is never finished.
		r++
		plan.Lanes = []Lane{{path[r].Partition, link.Start{Kind: link.StartCursor, Value: path[r].From}}}
	}
	plan.Reached = r
	for _, p := range at {
		if between(path, p.Partition, r) && !plan.reads(p.Partition) {
			plan.Done = append(plan.Done, p.Partition)
		}
	}
	return plan, true
}

func (p *Plan) reads(partition int32) bool {
	return slices.ContainsFunc(p.Lanes, func(l Lane) bool { return l.Partition == partition })
}

// Begin tells how a client without a cursor begins. Earliest begins at the key's first home, a time everywhere, the
// others at its last one; where producers may still write to an older one, what they write from now on is due, too.
func Begin(path []Stage, start link.Start) Plan {
	last := len(path) - 1
	if start.Kind == link.StartEarliest {
		return Plan{Lanes: []Lane{{path[0].Partition, start}}}
	}
	plan := Plan{Reached: last}
	for i, s := range path {
		begin := start
		switch {
		case laterStage(path, i, len(path)):
			continue // its latest stay decides
		case i < last && start.Kind != link.StartTime:
			if s.Closed >= 0 {
				if between(path, s.Partition, last) {
					plan.Done = append(plan.Done, s.Partition)
				}
				continue
			}
			begin = link.Start{Kind: link.StartLatest}
		}
		plan.Lanes = append(plan.Lanes, Lane{s.Partition, begin})
	}
	return plan
}

func on(path []Stage, partition int32) bool {
	for i := range path {
		if path[i].Partition == partition {
			return true
		}
	}
	return false
}

// laterStage reports whether the partition of stage i is that of another one after it and before end.
func laterStage(path []Stage, i, end int) bool {
	for j := i + 1; j < end; j++ {
		if path[j].Partition == path[i].Partition {
			return true
		}
	}
	return false
}

// between reports whether the key was in another partition, then in this one, then in the other again, all within
// the stages up to reached: a cursor without this partition would not tell the two stays apart.
func between(path []Stage, partition int32, reached int) bool {
	for m := 1; m < reached; m++ {
		if path[m].Partition != partition {
			continue
		}
		for a := range m {
			if path[a].Partition != partition && laterStageAfter(path, a, m, reached) {
				return true
			}
		}
	}
	return false
}

func laterStageAfter(path []Stage, a, m, reached int) bool {
	for b := m + 1; b <= reached; b++ {
		if path[b].Partition == path[a].Partition {
			return true
		}
	}
	return false
}

// reached is the latest stage that a cursor with these positions has begun, -1 for none. A partition that is on the
// path twice counts as its first stay, unless one between is listed. One that is done tells stays apart, but no stage
// is reached by it alone: the one that was reached is still read.
func reached(path []Stage, at []Position) int {
	listed := func(partition int32, done bool) bool {
		return slices.ContainsFunc(at, func(p Position) bool { return p.Partition == partition && (done || p.Next != Done) })
	}
	for j := len(path) - 1; j >= 0; j-- {
		if !listed(path[j].Partition, false) {
			continue
		}
		first := true
		for i := j - 1; i >= 0 && first; i-- {
			if path[i].Partition == path[j].Partition {
				first = false
				for m := i + 1; m < j; m++ {
					if listed(path[m].Partition, true) {
						return j
					}
				}
			}
		}
		if first {
			return j
		}
	}
	return -1
}

// finished reports whether a partition has nothing more for the key, now or later.
func finished(path []Stage, at Position, reached int) bool {
	for j := len(path) - 1; j >= 0; j-- {
		if path[j].Partition == at.Partition {
			return j <= reached && j < len(path)-1 && path[j].Closed >= 0 && at.Next >= max(path[j].Closed, path[j].Until)
		}
	}
	return false
}

// From sets where a client without a cursor begins.
func (o *Open) From(path []Stage, start link.Start) {
	o.Start = start
	if len(path) > 1 {
		o.place(path, Begin(path, start))
	}
}

// At sets where a client with a cursor of this topic goes on; the cursor lists a partition once. What it lists beside
// partitions where the key is known to have lived is read on, too: the topic's history may have been lost. A cursor that
// lists nothing else, or too much of it, cannot be followed: the client is told of a gap, and gets what its last
// partition has.
func (o *Open) At(path []Stage, at []Position) {
	path, plan, ok := resume(path, o.Partition, at)
	if !ok {
		o.Start, o.Gap = link.Start{Kind: link.StartEarliest}, link.GapMoved
		return
	}
	o.Resumed = true
	o.place(path, plan)
}

// maxStrange bounds the partitions off the path that a session reads. They are read for as long as it lasts, and anybody
// can make up a cursor that lists every partition; an honest one lists one for each growth that was forgotten.
const maxStrange = 8

// resume is Resume on the path with the partitions before it that the cursor lists beside those on the path; false when
// none is on it, or too many are not. last is the key's home, path nil if it never moved.
func resume(path []Stage, last int32, at []Position) ([]Stage, Plan, bool) {
	if len(path) < 2 {
		path = []Stage{{Partition: last, Until: Done, Closed: -1}}
	}
	var strange []Stage
	var use []Position
	ok := false
	for _, p := range at {
		switch known := on(path, p.Partition); {
		case known:
			ok = ok || p.Next != Done
		case p.Next == Done:
			continue
		case len(strange) == maxStrange:
			return nil, Plan{}, false
		default:
			strange = append(strange, Stage{Partition: p.Partition, Closed: -1})
		}
		use = append(use, p)
	}
	if !ok {
		return nil, Plan{}, false
	}
	path = append(strange, path...)
	plan, ok := Resume(path, use)
	return path, plan, ok
}

func (o *Open) place(path []Stage, plan Plan) {
	if plan.Simple(path) {
		o.Partition, o.Start = plan.Lanes[0].Partition, plan.Lanes[0].Start
		return
	}
	o.Path, o.Plan = path, plan
}
