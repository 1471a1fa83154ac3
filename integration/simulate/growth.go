package simulate

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// mostPartitions is how many a topic may grow to.
const mostPartitions = 12

// How a node keeps the account of the topic's growth, see wsnode/internal/identity: faster, to fit into a run.
const (
	roundEvery = 2 * sec
	rumour     = 500 * ms
	// closeAfter is how long producers may be ignorant of added partitions, and more.
	closeAfter = 10 * sec
	staleMost  = 5 * sec
)

// round is where the partitions ended at a time.
type round struct {
	at   int64
	ends []int64
}

// homeOf is where a key lives among so many partitions.
func homeOf(key string, partitions int32) int32 {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int32(h % uint32(partitions))
}

// grows adds partitions to the topic once or twice in a run.
func (w *world) grows() {
	for range 1 + w.rng.IntN(2) {
		w.after(w.between(sec, 12*sec), w.growNow)
	}
}

func (w *world) growNow() {
	st := w.etcd.now.topic
	switch n := int32(len(w.kafka.topic.parts)); {
	// What nobody noticed is in nobody's account: an operator waits for that before adding more.
	case !w.calm() && (w.kafka.deleted || st == nil || st.Partitions != n || st.TopicID != directory.FormatTopicID(w.kafka.topic.id)):
		w.after(sec, w.growNow)
	case !w.calm() && n < mostPartitions:
		w.stats.Faults["partitions added"]++
		w.kafka.grow(min(mostPartitions, n+1+int32(w.rng.IntN(int(n)))))
	}
}

// count is the partition count that the producer of a record goes by.
func (w *world) count() int32 {
	t := w.kafka.topic
	if n := len(t.counts); n > 0 && !w.set.quiet && w.now-t.grownAt < w.set.stale && w.chance(0.5) {
		return t.counts[n-1]
	}
	return int32(len(t.parts))
}

// ends asks Kafka where the first so many partitions end; nil when a leader is away. Kafka's leaders refuse while they
// are new and do not know the end yet (KIP-207); a growth's order rests on that, its end does not: there they may lag.
func (n *nodeProc) ends(t *topic, partitions int32, lagging bool) []int64 {
	ends := make([]int64, partitions)
	for i := range ends {
		p := t.parts[i]
		if p.away() || p.lag > 0 && !lagging {
			return nil
		}
		ends[i] = p.high()
	}
	return ends
}

// history notices growth and tells of it.
func (n *nodeProc) history(t *topic, partitions int32, began int64) {
	w := n.w
	if n.seen != nil && n.seen.topic != nil && n.seen.topic.TopicID == directory.FormatTopicID(n.topicID) {
		seen := n.seen.topic
		knows := slices.ContainsFunc(seen.Growth, func(g directory.Growth) bool { return g.Partitions == n.partitions })
		if seen.Partitions == n.partitions || seen.Partitions > n.partitions && seen.Partitions <= partitions && knows {
			n.partitions, n.growth = seen.Partitions, directory.MergeGrowth(seen.Growth, n.growth)
		}
	}
	if partitions > n.partitions {
		ends := n.ends(t, n.partitions, false)
		if ends == nil {
			return
		}
		g := directory.Growth{Partitions: n.partitions, Ends: ends, Since: w.time()}
		for _, r := range n.rounds {
			if r.at <= n.confirmed-rumour && len(r.ends) == len(ends) {
				g.From = r.ends
			}
		}
		w.note(anyone, anywhere, "%s tells of %d partitions: %+v", n.name, partitions, g)
		n.partitions, n.growth, n.rounds = partitions, append(slices.Clone(n.growth), g), nil
		return
	}
	n.confirmed = began
	for i, g := range n.growth {
		if g.Closed != nil || w.time().Sub(g.Since) < time.Duration(closeAfter) {
			continue
		}
		if ends := n.ends(t, g.Partitions, true); ends != nil {
			for p := range ends {
				ends[p] = max(ends[p], g.Ends[p])
				for _, r := range n.rounds {
					if p < len(r.ends) {
						ends[p] = max(ends[p], r.ends[p])
					}
				}
			}
			n.growth = slices.Clone(n.growth)
			n.growth[i].Closed = ends
			w.note(anyone, anywhere, "%s closes the growth from %d partitions: %v", n.name, g.Partitions, ends)
		}
	}
	if k := len(n.rounds); k > 0 && w.now-n.rounds[k-1].at < roundEvery {
		return
	}
	if ends := n.ends(t, n.partitions, true); ends != nil {
		n.rounds = append(n.rounds, round{w.now, ends})
	}
}

// path is the session's key's way through the topic's growth.
func (s *session) path(t *router.Table) []router.Stage {
	return t.Path(func(n int32) int32 { return homeOf(s.key, n) })
}

// grow follows the key.
func (s *session) grow(now time.Time, t *router.Table) {
	home, path := homeOf(s.key, t.Partitions()), s.path(t)
	if path == nil && home == s.partition {
		return
	}
	s.partition = home
	if s.greeted {
		s.core.Grow(now, path)
	} else {
		s.judge()
	}
	s.route(now, t)
}

// judge begins a session anew whose client was not greeted yet.
func (s *session) judge() {
	s.core.Close()
	if s.sock != nil {
		s.sock.rejoin(s)
		return
	}
	o := s.resolve()
	o.Since = s.core.Heard()
	s.core = router.NewSession(&s.r.cfg, s, o)
}
