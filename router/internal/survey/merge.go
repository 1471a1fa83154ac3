package survey

import (
	"slices"

	"github.com/pointsmanhq/pointsman/pkg/overview"
)

// maxMismatches bounds the misplaced records of all nodes that are shown.
const maxMismatches = 50

// Merge puts the nodes' answers into a status: each partition's numbers come from the node that serves it.
func Merge(s *overview.Status, answers Answers) {
	at := make(map[int32]int, len(s.Partitions))
	for i := range s.Partitions {
		at[s.Partitions[i].Partition] = i
	}
	routers := map[string]*overview.Router{}
	for i := range s.Routers {
		routers[s.Routers[i].ID] = &s.Routers[i]
	}
	var others []*overview.Router
	for i := range s.Nodes {
		n := &s.Nodes[i]
		a, asked := answers[n.Instance]
		switch {
		case !asked:
			n.Unheard = "it was not asked in time"
			continue
		case a.Err != nil:
			n.Unheard = a.Err.Error()
			continue
		}
		heard(n, a.Status)
		for j := range a.Status.Partitions {
			p := &a.Status.Partitions[j]
			if k, ok := at[p.Partition]; ok && s.Partitions[k].Node == n.ID && (p.Reading || p.Streams > 0) {
				numbers(&s.Partitions[k], p)
			}
		}
		for _, r := range a.Status.Routers {
			known := routers[r.ID]
			if known == nil {
				known = &overview.Router{ID: r.ID, Version: r.Version, Remote: r.Remote, Since: r.Since}
				routers[r.ID] = known
				others = append(others, known)
			}
			known.Nodes++
			known.Streams += r.Streams
			if !known.Self && r.Since.Before(known.Since) {
				known.Since = r.Since
			}
		}
		s.Mismatches = append(s.Mismatches, a.Status.Mismatches...)
	}
	for _, r := range others {
		s.Routers = append(s.Routers, *r)
	}
	s.Sort()
	// A partition that moved was read by several nodes: the one that counted last has counted all since it came.
	seen := map[int32]bool{}
	s.Mismatches = slices.DeleteFunc(s.Mismatches, func(m overview.Mismatch) bool {
		again := seen[m.Partition]
		seen[m.Partition] = true
		return again
	})
	s.Mismatches = s.Mismatches[:min(len(s.Mismatches), maxMismatches)]
}

// heard notes what a node says of itself.
func heard(n *overview.Node, s *overview.Status) {
	for i := range s.Nodes {
		if own := &s.Nodes[i]; own.Instance == n.Instance {
			n.Stage, n.Problem, n.Streams, n.Behind, n.Lag = own.Stage, own.Problem, own.Streams, own.Behind, own.Lag
			n.Memory, n.Ring, n.Mismatched, n.Keyless = own.Memory, own.Ring, own.Mismatched, own.Keyless
			n.Draining = n.Draining || own.Draining
		}
	}
}

func numbers(to, from *overview.Partition) {
	to.Reading, to.Head, to.Lag, to.Uncommitted = from.Reading, from.Head, from.Lag, from.Uncommitted
	to.Streams, to.Behind, to.Lowest, to.Scanning, to.ScanAt = from.Streams, from.Behind, from.Lowest, from.Scanning, from.ScanAt
}
