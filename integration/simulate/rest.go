package simulate

import (
	"fmt"
	"slices"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// restWithin is how long everything may take to come to rest once nothing goes wrong any more: sessions and leases
// have to time out, links to be dialled again, partitions to be rebalanced, incarnations to be raised.
const restWithin = 60 * sec

// heal ends all faults and waits for rest.
func (w *world) heal() {
	w.note(anyone, anywhere, "HEALED")
	w.net.cuts = map[way]int{}
	clear(w.net.slow)
	w.net.retry()
	w.etcd.until, w.group.until = 0, 0
	w.etcd.back()
	for _, h := range w.etcd.watchers {
		h.stall, h.last = 0, min(h.last, w.now+sec)
	}
	if w.kafka.deleted {
		w.kafka.create(int32(len(w.kafka.topic.parts)))
	}
	for _, p := range w.kafka.topic.parts {
		p.until, p.lag = 0, 0
		for len(p.open) > 0 {
			p.finish(p.open[0], w.chance(0.5))
		}
		p.advance()
	}
	up := false
	for _, m := range w.machines {
		if n := m.cur; n != nil && !n.proc.dead {
			n.kafkaCut, n.etcdCut = false, false
			n.proc.thaw()
			up = up || !n.draining
		}
	}
	if !up {
		w.machines[0].back(13 * sec)
		w.machines[1].back(0)
	}
	for i, r := range w.routers {
		if r.proc.dead {
			w.startRouter(i)
			continue
		}
		r.cut = false
		r.proc.thaw()
	}
	for _, c := range w.clients {
		c.pace, c.away = 0, false
		c.proc.thaw()
	}
	for _, g := range w.several {
		g.pace, g.away = 0, false
	}
	w.await(w.now + restWithin)
}

// await looks whether everything is at rest, until the deadline.
func (w *world) await(deadline int64) {
	w.after(500*ms, func() {
		client, why := w.unrest()
		switch {
		case why == "":
			w.over = true
		case w.now >= deadline:
			w.fail(client, "no rest %ds after the last fault: %s", restWithin/sec, why)
		default:
			w.await(deadline)
		}
	})
}

// unrest says what is not as it should be in the end, and whom it concerns.
func (w *world) unrest() (client int, why string) {
	if why := w.unrestOfMap(); why != "" {
		return anyone, why
	}
	for _, c := range w.clients {
		if why := c.unrest(); why != "" {
			return c.id, why
		}
	}
	for _, g := range w.several {
		if why := g.unrest(); why != "" {
			return g.all[0].id, why
		}
	}
	return anyone, w.unrestOfNodes()
}

// unrestOfMap compares what the group, etcd and the routers say.
func (w *world) unrestOfMap() string {
	topicID := directory.FormatTopicID(w.kafka.topic.id)
	st := w.etcd.now
	if st.topic == nil || st.topic.TopicID != topicID {
		return "etcd does not describe the topic"
	}
	if n := len(w.kafka.topic.parts); int(st.topic.Partitions) != n {
		return fmt.Sprintf("etcd says %d partitions, there are %d", st.topic.Partitions, n)
	}
	for _, g := range st.topic.Growth {
		if g.Closed == nil {
			return fmt.Sprintf("the growth from %d partitions is not closed", g.Partitions)
		}
	}
	for p := range st.topic.Partitions {
		owner, claim := w.group.owner(p), st.claims[p]
		if owner == nil || owner.proc.dead {
			return fmt.Sprintf("partition %d is assigned to nobody alive", p)
		}
		if claim.Instance != owner.instance {
			return fmt.Sprintf("partition %d: the group assigned it to %s, the claim is (%d, %d) of %s, instance %s",
				p, owner.name, claim.Incarnation, claim.Generation, claim.Node, claim.Instance)
		}
		for _, r := range w.routers {
			ln := r.lane(r.table.Route(p))
			if r.proc.dead || ln == nil || ln.peer == nil || ln.peer.n != owner {
				return fmt.Sprintf("%s does not send partition %d to its owner %s", r.name, p, owner.name)
			}
		}
	}
	return ""
}

// unrest of a client: not everything was delivered, or something of its session is still under way.
func (c *client) unrest() string {
	w := c.w
	var s *session
	switch {
	case c.group == nil && c.conn != nil:
		s = c.conn.session
	case c.group != nil && !c.follows:
		return ""
	case c.group != nil && c.group.conn != nil && c.group.conn.sock != nil:
		s = c.group.conn.sock.find(c)
	}
	if s == nil || c.waited || s.over {
		return "it is not connected"
	}
	if c.at.topicID != w.kafka.topic.id {
		return "it is in the former topic"
	}
	for _, q := range w.kafka.topic.homes(c.key) {
		p := w.kafka.topic.parts[q]
		if _, listed := c.at.next(q); !listed && w.forgotten {
			continue // nobody can tell that the key was there
		}
		if o := p.missing(c.key, max(c.owed(q), p.start), p.stable); o >= 0 {
			return fmt.Sprintf("record %d of partition %d was not delivered, the cursor is %v", o, q, c.at.list)
		}
	}
	states := s.core.Statuses(nil)
	share := w.set.window / 2 / int64(len(states))
	if s.sock != nil {
		share = s.sock.core.Status().Share
	}
	if !w.forgotten && len(states) != 1 {
		return fmt.Sprintf("%d partitions are followed", len(states))
	}
	if len(s.streams) != len(states) {
		return fmt.Sprintf("%d streams are attached", len(s.streams))
	}
	for _, st := range states {
		next, listed := c.at.next(st.Partition)
		stable := w.kafka.topic.parts[st.Partition].stable
		switch {
		case !listed || next != stable:
			return fmt.Sprintf("the cursor %d of partition %d was not moved to the end %d", next, st.Partition, stable)
		case st.Secondary != 0 || s.pending:
			return "a handover does not end"
		case st.Primary != s.r.table.Route(st.Partition) || st.Primary == 0:
			return "another link serves than the route"
		case st.Queued != 0:
			return fmt.Sprintf("%d bytes are said to wait for it", st.Queued)
		}
		ln := s.r.lane(st.Primary)
		t := ln.peer.find(st.Stream)
		if t == nil {
			return "the node does not know its stream"
		}
		if t.credit != st.Left {
			return fmt.Sprintf("the node has %d bytes of credit, the router says %d", t.credit, st.Left)
		}
		if st.Left > share && len(states) == 1 || st.Left <= share/2 {
			return fmt.Sprintf("credit leaked: %d bytes of %d are left", st.Left, share)
		}
	}
	return ""
}

// unrestOfNodes compares nodes' streams with the sessions'.
func (w *world) unrestOfNodes() string {
	for _, m := range w.machines {
		n := m.cur
		if n == nil || n.proc.dead {
			continue
		}
		streams := 0
		for _, l := range n.links {
			streams += len(l.streams)
			if ln := l.peer; ln.gone || ln.streams == nil || ln.streams.Len() != len(l.streams) {
				return fmt.Sprintf("%s: link to %s has %d streams, not the router's", n.name, ln.r.name, len(l.streams))
			}
		}
		for p, lp := range n.loops {
			if lp == nil {
				continue
			}
			st := lp.core.Status()
			streams -= st.Streams + st.Pending
			mine := slices.ContainsFunc(w.group.members, func(m *member) bool { return m.n == n && m.owns(int32(p)) })
			if st.Assigned != mine {
				return fmt.Sprintf("%s p%d: assigned is %t at the loop, %t in the group", n.name, p, st.Assigned, mine)
			}
			if st.Behind > 0 || st.Pending > 0 {
				return fmt.Sprintf("%s p%d: %d streams behind, %d pending", n.name, p, st.Behind, st.Pending)
			}
			if !mine && st.Streams == 0 {
				return fmt.Sprintf("%s p%d is still read, and nobody needs it", n.name, p)
			}
		}
		if streams != 0 {
			return fmt.Sprintf("%s: its links and its loops disagree by %d streams", n.name, streams)
		}
	}
	return ""
}
