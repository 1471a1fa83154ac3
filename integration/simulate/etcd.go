package simulate

import (
	"maps"
	"slices"

	"github.com/pointsmanhq/pointsman/proto/directory"

	router "github.com/pointsmanhq/pointsman/router/simulated"
)

// etcd is the map. What it holds is an immutable snapshot, replaced by each change; watchers learn of each after a
// while, in order, and some after a long while.
type etcd struct {
	w        *world
	now      *snapshot
	leases   []*lease
	next     int64
	until    int64 // it is away until then
	watchers []*watcher
	backup   *snapshot // what a restore brings back
}

type snapshot struct {
	cluster  int
	rev      int64
	topic    *directory.Topic
	topicRev int64
	nodes    map[string]nodeKey
	claims   map[int32]claimKey

	pic *router.Picture // made once
}

type nodeKey struct {
	directory.Node
	lease, rev int64
}

type claimKey struct {
	directory.Claim
	lease, rev int64
}

type lease struct {
	id  int64
	end int64
	ttl int64
}

// watcher is somebody who follows etcd. A stalled one hears nothing until the stall is over.
type watcher struct {
	p     *proc
	cut   *bool
	tell  func(*snapshot)
	last  int64 // when the newest news arrives
	stall int64 // nothing arrives before
}

func (e *etcd) begin() {
	e.now = &snapshot{cluster: 1, rev: 1}
	e.w.every(500*ms, func() bool { e.expire(); return true })
}

func (st *snapshot) change() *snapshot {
	next := *st
	next.rev++
	next.nodes, next.claims, next.pic = maps.Clone(st.nodes), maps.Clone(st.claims), nil
	if next.nodes == nil {
		next.nodes = map[string]nodeKey{}
	}
	if next.claims == nil {
		next.claims = map[int32]claimKey{}
	}
	return &next
}

func (st *snapshot) withTopic(t *directory.Topic) *snapshot {
	next := st.change()
	next.topic, next.topicRev = t, next.rev
	return next
}

// before reports whether what is known already is newer: answers and watch events overtake each other.
func (st *snapshot) before(known *snapshot) bool {
	return known != nil && (st.cluster < known.cluster || st.cluster == known.cluster && st.rev < known.rev)
}

// picture is the snapshot as routers' tables take it.
func (st *snapshot) picture() router.Picture {
	if st.pic == nil {
		st.pic = &router.Picture{
			Revision: st.rev, Topic: st.topic,
			Nodes: make(map[string]directory.Node, len(st.nodes)), Claims: make(map[int32]directory.Claim, len(st.claims)),
		}
		for id, n := range st.nodes {
			st.pic.Nodes[id] = n.Node
		}
		for p, c := range st.claims {
			st.pic.Claims[p] = c.Claim
		}
	}
	return *st.pic
}

// put replaces what etcd holds and tells the watchers.
func (e *etcd) put(next *snapshot) {
	e.now = next
	for _, h := range e.watchers {
		e.inform(h, next)
	}
}

func (e *etcd) inform(h *watcher, st *snapshot) {
	if h.p.dead {
		return
	}
	h.last = max(h.last, h.stall, e.w.now+e.w.delay()*2)
	e.w.at(h.last, func() {
		if *h.cut || e.away() {
			return // resync tells when it is over
		}
		h.p.do(func() { h.tell(st) })
	})
}

// watch begins to follow. Lists at intervals make good what an outage or a cut swallowed.
func (e *etcd) watch(p *proc, cut *bool, tell func(*snapshot)) *watcher {
	e.watchers = slices.DeleteFunc(e.watchers, func(h *watcher) bool { return h.p.dead })
	h := &watcher{p: p, cut: cut, tell: tell}
	e.watchers = append(e.watchers, h)
	ask := func() bool {
		if !e.away() && !*cut {
			e.inform(h, e.now)
		}
		return true
	}
	p.after(e.w.delay(), func() { ask() })
	p.every(2*sec, ask)
	return h
}

// grant gives a lease.
func (e *etcd) grant(ttl int64) int64 {
	e.next++
	e.leases = append(e.leases, &lease{id: e.next, end: e.w.now + ttl, ttl: ttl})
	return e.next
}

func (e *etcd) find(id int64) *lease {
	for _, l := range e.leases {
		if l.id == id {
			return l
		}
	}
	return nil
}

func (e *etcd) expire() {
	if e.away() {
		return
	}
	for _, l := range slices.Clone(e.leases) {
		if l.end < e.w.now {
			e.w.note(anyone, anywhere, "ETCD lease %d ends", l.id)
			if next := e.revoke(l.id); next != nil {
				e.put(next)
			}
		}
	}
}

// revoke forgets a lease and returns what is left without its keys, nil if nothing changes.
func (e *etcd) revoke(id int64) *snapshot {
	e.leases = slices.DeleteFunc(e.leases, func(l *lease) bool { return l.id == id })
	next, changed := e.now.change(), false
	for k, n := range next.nodes {
		if n.lease == id {
			delete(next.nodes, k)
			changed = true
		}
	}
	for k, c := range next.claims {
		if c.lease == id {
			delete(next.claims, k)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return next
}

// outage takes etcd away for a while. Leases do not run out meanwhile, and begin anew with a new leader.
func (e *etcd) outage(d int64) {
	e.until = max(e.until, e.w.now+d)
	e.w.note(anyone, anywhere, "ETCD away for %dms", d/ms)
	e.w.after(d, func() {
		if !e.away() {
			e.back()
		}
	})
}

func (e *etcd) away() bool { return e.w.now < e.until }

func (e *etcd) back() {
	for _, l := range e.leases {
		l.end = e.w.now + l.ttl
	}
}

// wipe empties etcd, or takes it back to what a backup holds.
func (e *etcd) wipe(restore bool) {
	next := &snapshot{cluster: e.now.cluster + 1, rev: 1}
	e.leases = nil
	if restore && e.backup != nil {
		old := *e.backup
		old.cluster, old.pic = next.cluster, nil
		next = &old
		// Leases come back with the backup and begin anew.
		add := func(id int64) {
			if e.find(id) == nil {
				e.leases = append(e.leases, &lease{id: id, end: e.w.now + e.w.set.leaseTTL, ttl: e.w.set.leaseTTL})
			}
		}
		for _, k := range slices.Sorted(maps.Keys(next.nodes)) {
			add(next.nodes[k].lease)
		}
		for _, k := range slices.Sorted(maps.Keys(next.claims)) {
			add(next.claims[k].lease)
		}
	}
	e.w.note(anyone, anywhere, "ETCD emptied, backup restored %t", restore)
	e.put(next)
}

// etcdTxn changes etcd's contents at once, if change returns new ones, and reports what it holds then; nil if etcd
// did not answer.
func (n *nodeProc) etcdTxn(change func(*snapshot) *snapshot, done func(*snapshot)) {
	e := &n.w.etcd
	n.w.after(n.w.delay(), func() {
		if e.away() || n.etcdCut {
			n.proc.after(2*sec, func() { done(nil) })
			return
		}
		if next := change(e.now); next != nil {
			e.put(next)
		}
		st := e.now
		n.w.after(n.w.delay(), func() {
			if n.etcdCut {
				n.proc.after(2*sec, func() { done(nil) })
				return
			}
			n.proc.do(func() { done(st) })
		})
	})
}
