package session

import (
	"math"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// Done is the next offset of a partition that holds nothing more for a key. A cursor lists it only where the key
// came back to a partition: the one between tells which of the two stays is meant.
const Done = math.MaxInt64

// Stage is one home of a key whose partition changed when partitions were added.
type Stage struct {
	Partition int32
	// From is below every record that was written here by a producer that knew of this home.
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

// Resume tells how a cursor with these positions goes on; false when they are of no partition on the path.
func Resume(path []Stage, at []Position) (Plan, bool) {
	r := reached(path, at)
	if r < 0 {
		return Plan{}, false
	}
	plan := Plan{Reached: r}
	for _, p := range at {
		if !on(path, p.Partition) {
			continue
		}
		if p.Next == Done || finished(path, p, r) {
			if between(path, p.Partition, r) {
				plan.Done = append(plan.Done, p.Partition)
			}
			continue
		}
		plan.Lanes = append(plan.Lanes, Lane{p.Partition, link.Start{Kind: link.StartCursor, Value: p.Next}})
	}
	if len(plan.Lanes) == 0 {
		// Everything is done but what comes next.
		if r < len(path)-1 {
			r++
		}
		s := path[r]
		plan.Reached = r
		plan.Lanes = []Lane{{s.Partition, link.Start{Kind: link.StartCursor, Value: s.From}}}
	}
	return plan, true
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
// path twice counts as its first stay, unless one between is listed.
func reached(path []Stage, at []Position) int {
	listed := func(partition int32) bool {
		for _, p := range at {
			if p.Partition == partition {
				return true
			}
		}
		return false
	}
	for j := len(path) - 1; j >= 0; j-- {
		if !listed(path[j].Partition) {
			continue
		}
		first := true
		for i := j - 1; i >= 0 && first; i-- {
			if path[i].Partition == path[j].Partition {
				first = false
				for m := i + 1; m < j; m++ {
					if listed(path[m].Partition) {
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
			return j <= reached && j < len(path)-1 && path[j].Closed >= 0 && at.Next >= path[j].Closed
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

// At sets where a client with a cursor of this topic goes on. What it lists beside partitions where the key is known to
// have lived is read on, too: the topic's history may have been lost. A cursor that lists nothing else cannot be
// followed: the client is told of a gap, and gets what its last partition has.
func (o *Open) At(path []Stage, at []Position) {
	path, ok := widen(path, o.Partition, at)
	if !ok {
		o.Start, o.Gap = link.Start{Kind: link.StartEarliest}, link.GapMoved
		return
	}
	plan, _ := Resume(path, at)
	o.Resumed = true
	o.place(path, plan)
}

// widen puts the partitions that a cursor lists and the path does not have before the path; false when none is on it.
func widen(path []Stage, last int32, at []Position) ([]Stage, bool) {
	if len(path) < 2 {
		path = []Stage{{Partition: last, Until: Done, Closed: -1}}
	}
	var strange []Stage
	for _, p := range at {
		if !on(path, p.Partition) && p.Next != Done {
			strange = append(strange, Stage{Partition: p.Partition, Closed: -1})
		}
	}
	return append(strange, path...), len(strange) < len(at)
}

func (o *Open) place(path []Stage, plan Plan) {
	if plan.Simple(path) {
		o.Partition, o.Start = plan.Lanes[0].Partition, plan.Lanes[0].Start
		return
	}
	o.Path, o.Plan = path, plan
}
