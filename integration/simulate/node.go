package simulate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
	node "github.com/pointsmanhq/pointsman/wsnode/simulated"
)

// machine is a place where nodes run, one after another, under one address.
type machine struct {
	w     *world
	place string
	runs  int
	cur   *nodeProc // nil before the first
}

// nodeProc is one run of a node: the shell around its loops and claims.
type nodeProc struct {
	w        *world
	m        *machine
	proc     *proc
	name     string // for timelines
	id       string
	instance string

	topicID    [16]byte
	past       [][16]byte
	partitions int32
	growth     []directory.Growth
	rounds     []round // where the partitions ended
	confirmed  int64   // when Kafka was last asked and told of no growth
	loops      []*loop
	claims     *node.Claims
	marks      []int64
	member     *member
	links      []*nodeLink
	nextLink   node.LinkID
	pub        publisher
	seen       *snapshot // etcd, as far as this node knows
	listening  bool
	draining   bool
	kafkaOK    bool // the last look at the topic went well
	kafkaCut   bool
	etcdCut    bool
	ring       int64
	disagrees  int64 // since when etcd names another topic than Kafka; 0 while it does not
}

func (w *world) newInstance() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], w.rng.Uint64())
	return fmt.Sprintf("%x", b)
}

// start runs a new process on the machine. Under a fresh id it need not wait for its predecessor's lease.
func (m *machine) start() {
	w := m.w
	m.runs++
	n := &nodeProc{
		w: w, m: m, instance: w.newInstance(), kafkaOK: true,
		loops: make([]*loop, mostPartitions), marks: make([]int64, mostPartitions),
	}
	for p := range n.marks {
		n.marks[p] = -1
	}
	// Nodes share their memory among different numbers of partitions.
	n.ring = w.set.ring * pick(w, []int64{1, 1, 4, 32}) / 4
	n.id = m.place
	if w.chance(0.5) {
		n.id = fmt.Sprintf("%s-%d", m.place, m.runs)
	}
	n.name = fmt.Sprintf("%s.%d", m.place, m.runs)
	n.proc = &proc{w: w, name: n.name}
	n.pub = publisher{n: n, want: make([]*directory.Claim, mostPartitions), told: make([]directory.Claim, mostPartitions)}
	m.cur = n
	w.note(anyone, anywhere, "NODE %s starts as %s, instance %s", n.name, n.id, n.instance)
	w.etcd.watch(n.proc, &n.etcdCut, n.picture)
	n.proc.after(w.between(ms, 100*ms), n.settle)
}

// settle compares Kafka and etcd until they agree, as identity.Settle does.
func (n *nodeProc) settle() {
	w := n.w
	again := func() { n.proc.after(w.between(100*ms, sec), n.settle) }
	if n.seen == nil || w.kafka.deleted || n.kafkaCut {
		again()
		return
	}
	id := w.kafka.topic.id
	n.partitions, n.growth = int32(len(w.kafka.topic.parts)), nil
	n.etcdTxn(func(st *snapshot) *snapshot {
		switch {
		case st.topic == nil:
			return st.withTopic(n.describe(id, 1))
		case st.topic.TopicID != directory.FormatTopicID(id) && len(st.nodes) == 0:
			return st.withTopic(n.describe(id, st.topic.Incarnation))
		}
		return nil
	}, func(st *snapshot) {
		if n.topicID != ([16]byte{}) {
			return
		}
		if st == nil || st.topic == nil || st.topic.TopicID != directory.FormatTopicID(id) {
			again()
			return
		}
		if n.topicID == ([16]byte{}) {
			n.partitions, n.growth = st.topic.Partitions, st.topic.Growth
			n.run(id, max(st.topic.Incarnation, 1))
		}
	})
}

func (n *nodeProc) describe(id [16]byte, incarnation int64) *directory.Topic {
	w := n.w
	for _, count := range w.kafka.topics[id].counts {
		knows := slices.ContainsFunc(n.growth, func(g directory.Growth) bool { return g.Partitions == count })
		w.forgotten = w.forgotten || !knows && count < n.partitions
	}
	return &directory.Topic{
		V: directory.Version, Group: "g", TopicID: directory.FormatTopicID(id), Partitions: n.partitions,
		Partitioner: "murmur2", Incarnation: incarnation, Growth: n.growth,
	}
}

func (n *nodeProc) run(id [16]byte, incarnation int64) {
	n.topicID, n.listening = id, true
	n.claims = node.NewClaims(n.id, n.instance, incarnation, (*claimsOutput)(n))
	n.pub.start()
	n.proc.every(sec, func() bool { n.identify(); return true })
	n.proc.every(250*ms, func() bool {
		if n.member != nil {
			n.claims.Generation(n.w.time(), n.member.generation)
		}
		n.claims.Tick(n.w.time(), n.kafkaOK)
		return true
	})
	n.proc.every(sec, func() bool { n.commit(); return true })
}

// identify asks Kafka what the topic is, and makes etcd say the same.
func (n *nodeProc) identify() {
	w := n.w
	w.after(w.delay(), func() {
		ok, id, t := !w.kafka.deleted && !n.kafkaCut, w.kafka.topic.id, w.kafka.topic
		began, partitions := w.now, int32(len(t.parts))
		n.proc.after(w.delay(), func() {
			ok := ok && !slices.Contains(n.past, id)
			if n.kafkaOK = ok; !ok {
				return
			}
			if id != n.topicID {
				n.past = append(n.past, n.topicID)
				n.topicID = id
				n.partitions, n.growth, n.rounds = partitions, nil, nil
				for _, lp := range n.loops {
					if lp != nil {
						lp.topicChanged(id)
					}
				}
				for _, l := range slices.Clone(n.links) {
					l.end(true)
				}
			}
			n.history(t, partitions, began)
			n.reconcile()
		})
	})
}

func (n *nodeProc) reconcile() {
	if n.seen == nil {
		return
	}
	id := directory.FormatTopicID(n.topicID)
	t := n.seen.topic
	if t != nil && t.TopicID == id && t.Incarnation >= n.claims.Known() && t.Partitions >= n.partitions &&
		directory.SameGrowth(t.Growth, directory.MergeGrowth(t.Growth, n.growth)) {
		n.disagrees = 0
		return
	}
	if t != nil && t.TopicID != id && !n.knew(t.TopicID) {
		if n.disagrees == 0 {
			n.disagrees = n.w.now
		}
		if n.w.now-n.disagrees < 10*sec {
			return // another node may have heard of a recreation before us
		}
	}
	was := ""
	if t != nil {
		was = t.TopicID
	}
	known := n.claims.Known()
	n.etcdTxn(func(st *snapshot) *snapshot {
		if st.topic == nil {
			return st.withTopic(n.describe(n.topicID, known))
		}
		if st.topic.TopicID != was {
			return nil
		}
		next := n.describe(n.topicID, max(st.topic.Incarnation, known))
		if st.topic.TopicID == id {
			next.Partitions = max(next.Partitions, st.topic.Partitions)
			next.Growth = directory.MergeGrowth(st.topic.Growth, n.growth)
		}
		return st.withTopic(next)
	}, func(*snapshot) {})
}

func (n *nodeProc) knew(topicID string) bool {
	return slices.ContainsFunc(n.past, func(id [16]byte) bool { return directory.FormatTopicID(id) == topicID })
}

// picture takes in what etcd says.
func (n *nodeProc) picture(st *snapshot) {
	if st.before(n.seen) {
		return
	}
	n.seen = st
	if n.claims == nil {
		return
	}
	if st.topic != nil {
		n.claims.Incarnation(st.topic.Incarnation)
	}
	n.pub.step()
}

func (n *nodeProc) commit() {
	m := n.member
	if m == nil {
		return
	}
	for p, next := range n.marks {
		if next >= 0 && m.owns(int32(p)) {
			n.w.group.commit(n, m, int32(p), next)
		}
	}
}

// groupMember is what the group tells.

func (n *nodeProc) assigned(p, generation, current int32, committed int64) {
	n.w.note(anyone, p, "%s p%d assigned in generation %d, committed %d", n.name, p, generation, committed)
	n.claims.Assigned(n.w.time(), p, generation, current)
	lp := n.loop(p, true)
	lp.assigned = true
	lp.visit(func(now time.Time) { lp.core.Assign(now, committed) })
}

func (n *nodeProc) revoked(p int32) {
	n.w.note(anyone, p, "%s p%d revoked", n.name, p)
	n.claims.Revoked(p)
	if lp := n.loop(p, false); lp != nil {
		lp.assigned = false
		lp.visit(func(now time.Time) { lp.core.Revoke(now) })
	}
}

// accept answers a router's hello.
func (n *nodeProc) accept(ln *lane) {
	if !n.listening {
		ln.toRouter.send(0, func() { ln.refused("not listening yet") })
		return
	}
	n.nextLink++
	l := &nodeLink{n: n, id: n.nextLink, peer: ln, out: ln.toRouter, heard: n.w.now}
	l.out.handled = l.writable
	ln.peer = l
	n.links = append(n.links, l)
	l.watch()
	id, partitions, draining := n.topicID, n.partitions, n.draining
	l.send(controlSize, func(ln *lane) { ln.welcome(id, partitions, draining) })
}

// claimsOutput carries out what the claims core asks.
type claimsOutput nodeProc

func (o *claimsOutput) Publish(p int32, c directory.Claim) {
	o.w.note(anyone, p, "%s p%d claims (%d, %d)", o.name, p, c.Incarnation, c.Generation)
	o.pub.want[p] = &c
	o.pub.soon()
}

func (o *claimsOutput) Withdraw(p int32) {
	o.pub.want[p] = nil
	o.pub.told[p] = directory.Claim{}
}

func (o *claimsOutput) Raise(from int64) {
	n := (*nodeProc)(o)
	n.w.note(anyone, anywhere, "%s raises the incarnation from %d", n.name, from)
	n.etcdTxn(func(st *snapshot) *snapshot {
		if st.topic == nil || st.topic.Incarnation > from {
			return nil
		}
		t := *st.topic
		t.Incarnation = from + 1
		return st.withTopic(&t)
	}, func(st *snapshot) {
		if st == nil || st.topic == nil {
			n.claims.RaiseFailed(n.w.time())
			return
		}
		n.claims.Raised(st.topic.Incarnation)
	})
}

// drain stops the node in order, as on SIGTERM.
func (n *nodeProc) drain() {
	if n.draining || n.claims == nil {
		n.exit(true)
		return
	}
	w := n.w
	w.note(anyone, anywhere, "NODE %s drains", n.name)
	n.draining = true
	n.pub.step()
	for _, l := range n.links {
		l.send(controlSize, func(ln *lane) { ln.draining() })
	}
	w.group.leave(n)
	n.proc.after(w.between(5*sec, 12*sec), func() { n.leave() })
	n.drained()
}

// drained goes on with a drain once the routers have left.
func (n *nodeProc) drained() {
	if !n.draining || n.member != nil {
		return
	}
	for _, l := range n.links {
		if len(l.streams) > 0 {
			return
		}
	}
	n.proc.after(0, n.leave)
}

// leave revokes the lease and exits.
func (n *nodeProc) leave() {
	if n.pub.leaving {
		return
	}
	n.pub.leaving = true
	exit := func(*snapshot) { n.exit(true) }
	lease := n.pub.lease
	n.etcdTxn(func(st *snapshot) *snapshot { return n.w.etcd.revoke(lease) }, exit)
}

// exit ends the process. orderly ends its connections; a lost machine says nothing to anybody.
func (n *nodeProc) exit(orderly bool) {
	if n.proc.dead {
		return
	}
	n.w.note(anyone, anywhere, "NODE %s ends, orderly %t", n.name, orderly)
	n.proc.dead = true
	n.w.group.closed(n, orderly)
	for _, l := range slices.Clone(n.links) {
		if orderly {
			peer := l.peer
			l.out.send(0, func() { peer.down("reset by the node") })
		} else {
			l.out.drop()
		}
		l.ended = true
		l.peer.toNode.closed = true
	}
	n.links = nil
	for _, lp := range n.loops {
		if lp != nil {
			lp.Stop()
			lp.retired = true
		}
	}
}
