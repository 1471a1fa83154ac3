package simulate

import "slices"

// How the group's coordinator and its members behave; the product's defaults.
const (
	sessionTimeout = 6 * sec
	heartbeatEvery = 400 * ms
)

// group is the consumer group at its coordinator, with cooperative rebalances: a partition that moves is first
// taken from its owner, and given to its next one in a later generation.
type group struct {
	w          *world
	generation int32
	members    []*member
	committed  []int64
	preparing  bool  // a rebalance waits for all members
	until      int64 // the coordinator does not answer until then
	partitions int32 // as far as its leader knows
	moving     int32 // a partition that somebody wants to see elsewhere
	movingTo   *member
}

// member is a membership, at the coordinator and (owned, generation) at its node.
type member struct {
	n     *nodeProc
	heard int64
	ready bool // has joined the rebalance that is being prepared

	assigned []int32 // what the coordinator gave it
	leaving  []int32 // what it must give up first

	// At the node.
	owned      []int32
	began      map[int32]int32 // the generation that each claim began in
	generation int32
	over       bool // the node has given this membership up
}

func (m *member) owns(p int32) bool { return slices.Contains(m.owned, p) }

func (g *group) begin() {
	g.partitions = g.w.set.partitions
	g.reset()
	g.w.every(500*ms, func() bool { g.expire(); return true })
}

// reset is a group that was deleted: its generations begin again.
func (g *group) reset() {
	g.generation, g.members, g.preparing, g.movingTo = 0, nil, false, nil
	g.committed = make([]int64, mostPartitions)
	for p := range g.committed {
		g.committed[p] = -1
	}
}

// grow is how the group's leader learns of added partitions: it looks now and then.
func (g *group) grow(partitions int32) {
	g.w.after(g.w.between(0, 5*sec), func() {
		if partitions > g.partitions {
			g.partitions = partitions
			g.prepare()
		}
	})
}

func (g *group) away() bool { return g.w.now < g.until }

// outage takes the coordinator away. Sessions begin anew when it is back.
func (g *group) outage(d int64) {
	g.until = max(g.until, g.w.now+d)
	g.w.note(anyone, anywhere, "GROUP coordinator away for %dms", d/ms)
	g.w.after(d, func() {
		if !g.away() {
			for _, m := range g.members {
				m.heard = g.w.now
			}
		}
	})
}

// join makes a node a member.
func (g *group) join(n *nodeProc) {
	if n.member != nil || n.draining {
		return
	}
	m := &member{n: n, began: map[int32]int32{}}
	n.member = m
	g.enter(m)
	n.proc.every(heartbeatEvery, func() bool {
		if m.over {
			return false
		}
		g.beat(m)
		return true
	})
}

// enter asks the coordinator to take the member in, until it does.
func (g *group) enter(m *member) {
	w := g.w
	w.after(w.delay(), func() {
		if m.over || m.n.proc.dead {
			return
		}
		if g.away() || m.n.kafkaCut {
			m.n.proc.after(w.between(100*ms, 500*ms), func() { g.enter(m) })
			return
		}
		if !slices.Contains(g.members, m) {
			m.heard = w.now
			g.members = append(g.members, m)
			g.prepare()
		}
		m.ready = true
		g.complete()
	})
}

// beat is a heartbeat, by which a member also learns that the group wants something of it.
func (g *group) beat(m *member) {
	w := g.w
	w.after(w.delay(), func() {
		if g.away() || m.n.kafkaCut {
			return
		}
		if !slices.Contains(g.members, m) {
			m.n.proc.after(w.delay(), func() { g.lost(m) })
			return
		}
		m.heard = w.now
		if g.preparing && !m.ready {
			m.n.proc.after(w.delay(), func() { g.rejoin(m) })
		}
	})
}

// rejoin takes part in a rebalance.
func (g *group) rejoin(m *member) {
	w := g.w
	w.after(w.delay(), func() {
		if g.away() || m.over || !slices.Contains(g.members, m) {
			return
		}
		m.heard, m.ready = w.now, true
		g.complete()
	})
}

// lost tells a node that it is no member any more: it gives everything up and joins anew.
func (g *group) lost(m *member) {
	if m.over {
		return
	}
	g.end(m)
	m.n.proc.after(g.w.between(50*ms, 300*ms), func() { g.join(m.n) })
}

// end gives a membership up at its node.
func (g *group) end(m *member) {
	m.over = true
	if m.n.member == m {
		m.n.member = nil
	}
	owned := m.owned
	m.owned = nil
	for _, p := range owned {
		m.n.revoked(p)
	}
}

// leave is an orderly end of a membership.
func (g *group) leave(n *nodeProc) {
	m := n.member
	if m == nil {
		return
	}
	for p, next := range n.marks {
		if next >= 0 && m.owns(int32(p)) {
			g.commit(n, m, int32(p), next)
		}
	}
	g.end(m)
	g.w.after(g.w.delay(), func() {
		if !g.away() {
			g.drop(m)
		}
	})
}

// closed is what the coordinator notices of a process's end: nothing, for a lost one until its session is over.
func (g *group) closed(n *nodeProc, _ bool) {
	if n.member != nil {
		n.member.over = true
	}
}

func (g *group) drop(m *member) {
	if slices.Contains(g.members, m) {
		g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
		g.prepare()
		g.complete()
	}
}

func (g *group) expire() {
	if g.away() {
		return
	}
	for _, m := range slices.Clone(g.members) {
		if g.w.now-m.heard > sessionTimeout {
			g.w.note(anyone, anywhere, "GROUP %s is not heard of any more", m.n.name)
			g.drop(m)
		}
	}
	if len(g.members) > 0 && !g.preparing && !g.settled() {
		g.prepare() // somebody's word that it gave a partition up was lost
	}
}

// settled reports whether every partition is somebody's, or about to be given up.
func (g *group) settled() bool {
	n := 0
	for _, m := range g.members {
		n += len(m.assigned) + len(m.leaving)
	}
	return n == int(g.partitions)
}

// prepare begins a rebalance.
func (g *group) prepare() {
	if !g.preparing {
		g.preparing = true
		for _, m := range g.members {
			m.ready = false
		}
	}
}

// complete ends a rebalance once everybody has joined it.
func (g *group) complete() {
	if !g.preparing || len(g.members) == 0 {
		return
	}
	for _, m := range g.members {
		if !m.ready {
			return
		}
	}
	g.preparing = false
	g.generation++
	g.assign()
	g.w.note(anyone, anywhere, "GROUP generation %d, %d members", g.generation, len(g.members))
	for _, m := range g.members {
		m.ready = false
		g.sync(m)
	}
}

// assign is sticky: everybody keeps what is its fair share.
func (g *group) assign() {
	total := int(g.partitions)
	most := (total + len(g.members) - 1) / len(g.members)
	taken := make([]bool, total)
	if !slices.Contains(g.members, g.movingTo) {
		g.movingTo = nil
	}
	for _, m := range g.members {
		m.leaving = nil
		m.assigned = slices.Clone(m.assigned)
		if i := slices.Index(m.assigned, g.moving); i >= 0 && g.movingTo != nil && g.movingTo != m {
			m.leaving = append(m.leaving, g.moving)
			m.assigned = slices.Delete(m.assigned, i, i+1)
		}
		for len(m.assigned) > most {
			last := len(m.assigned) - 1
			m.leaving = append(m.leaving, m.assigned[last])
			m.assigned = m.assigned[:last]
		}
		for _, p := range append(slices.Clone(m.assigned), m.leaving...) {
			taken[p] = true
		}
	}
	for p := range taken {
		if taken[p] {
			continue
		}
		least := g.members[0]
		if int32(p) == g.moving && g.movingTo != nil {
			g.movingTo.assigned = append(g.movingTo.assigned, g.moving)
			g.movingTo = nil
			continue
		}
		for _, m := range g.members[1:] {
			if len(m.assigned) < len(least.assigned) {
				least = m
			}
		}
		least.assigned = append(least.assigned, int32(p))
	}
}

// sync tells a member what it has.
func (g *group) sync(m *member) {
	w, generation := g.w, g.generation
	has := slices.Clone(m.assigned)
	m.n.proc.after(w.delay(), func() {
		if m.over {
			return
		}
		m.generation = generation
		gives := slices.DeleteFunc(slices.Clone(m.owned), func(p int32) bool { return slices.Contains(has, p) })
		for _, p := range gives {
			m.owned = slices.DeleteFunc(m.owned, func(o int32) bool { return o == p })
			m.n.revoked(p)
		}
		for _, p := range has {
			if !m.owns(p) {
				g.start(m, p, generation)
			}
		}
		if len(gives) > 0 {
			w.after(w.delay(), func() {
				m.leaving = nil
				if slices.Contains(g.members, m) && !g.away() {
					g.prepare()
				}
			})
		}
	})
}

// start begins a claim: the committed offset is fetched first.
func (g *group) start(m *member, p, generation int32) {
	w := g.w
	m.owned = append(m.owned, p)
	m.began[p] = generation
	w.after(w.delay(), func() {
		committed := g.committed[p]
		m.n.proc.after(w.delay(), func() {
			if !m.over && m.owns(p) && m.began[p] == generation {
				m.n.assigned(p, generation, m.generation, committed)
			}
		})
	})
}

// commit writes a committed offset; a member of another generation is refused.
func (g *group) commit(n *nodeProc, m *member, p int32, next int64) {
	w := g.w
	w.after(w.delay(), func() {
		if !g.away() && !n.kafkaCut && slices.Contains(g.members, m) {
			g.committed[p] = next
		}
	})
}

// rebalance makes the group balance anew, and move one partition, as joins and leaves do in larger groups.
func (g *group) rebalance() {
	if len(g.members) == 0 {
		return
	}
	g.moving, g.movingTo = int32(g.w.rng.IntN(int(g.partitions))), pick(g.w, g.members)
	g.w.note(anyone, anywhere, "GROUP rebalance: p%d to %s", g.moving, g.movingTo.n.name)
	g.prepare()
}

// owner is the node that the coordinator gave a partition, nil for none.
func (g *group) owner(p int32) *nodeProc {
	for _, m := range g.members {
		if slices.Contains(m.assigned, p) {
			return m.n
		}
	}
	return nil
}
