package simulate

import (
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// publisher models pkg/etcdmap's: what a node wants to stand in etcd is written under its lease, unless a newer
// claim of another instance stands there, and written again when it is lost.
type publisher struct {
	n       *nodeProc
	lease   int64
	busy    bool
	want    []*directory.Claim
	told    []directory.Claim
	joined  bool
	leaving bool
	again   bool // step asked for while busy
}

func (p *publisher) start() {
	n := p.n
	n.proc.every(500*ms, func() bool { p.step(); return !p.leaving })
	n.proc.every(n.w.set.leaseTTL/3, func() bool { p.keepAlive(); return !p.leaving })
	p.step()
}

func (p *publisher) soon() { p.n.proc.after(0, p.step) }

func (p *publisher) keepAlive() {
	n, lease := p.n, p.lease
	if lease == 0 {
		return
	}
	found := false
	n.etcdTxn(func(*snapshot) *snapshot {
		if l := n.w.etcd.find(lease); l != nil {
			l.end, found = n.w.now+l.ttl, true
		}
		return nil
	}, func(st *snapshot) {
		if st != nil && !found && p.lease == lease {
			p.lease = 0
			p.step()
		}
	})
}

// step does what is next. One request is under way at a time.
func (p *publisher) step() {
	n := p.n
	if p.leaving || n.seen == nil || n.claims == nil {
		return
	}
	if p.busy {
		p.again = true
		return
	}
	if h, taken := n.seen.nodes[n.id]; taken && h.Instance != n.instance {
		return // until the lease of whoever has the id ends
	}
	if p.lease == 0 {
		p.busy = true
		lease := int64(0)
		n.etcdTxn(func(*snapshot) *snapshot {
			lease = n.w.etcd.grant(n.w.set.leaseTTL)
			return nil
		}, func(st *snapshot) {
			p.busy = false
			if st != nil {
				p.lease = lease
				p.step()
			}
		})
		return
	}
	p.write()
}

// write puts what is missing or different, if nobody changed it meanwhile.
func (p *publisher) write() {
	n := p.n
	self := directory.Node{V: 1, Instance: n.instance, Addr: n.m.place, Draining: n.draining}
	have, ok := n.seen.nodes[n.id]
	registered := ok && have.lease == p.lease && have.Node == self
	if registered && !p.joined {
		p.joined = true
		if !n.draining {
			n.w.group.join(n)
		}
	}
	type put struct {
		p   int32
		c   directory.Claim
		rev int64
	}
	var puts []put
	for i, c := range p.want {
		if c == nil {
			continue
		}
		at := int32(i)
		is, there := n.seen.claims[at]
		if there && is.lease == p.lease && is.Claim == *c {
			p.told[i] = directory.Claim{}
			continue
		}
		if there && is.Instance != n.instance && !c.Newer(is.Claim) {
			if p.told[i] != is.Claim {
				p.told[i] = is.Claim
				winner := is.Claim
				n.w.note(anyone, at, "%s p%d stands behind (%d, %d) of %s", n.name, at, winner.Incarnation, winner.Generation, winner.Node)
				n.proc.after(0, func() { n.claims.Lost(n.w.time(), at, winner) })
			}
			continue
		}
		puts = append(puts, put{at, *c, is.rev})
	}
	if registered && len(puts) == 0 {
		return
	}
	p.busy = true
	lease, nodeRev := p.lease, have.rev
	gone := false
	n.etcdTxn(func(st *snapshot) *snapshot {
		if n.w.etcd.find(lease) == nil {
			gone = true
			return nil
		}
		if st.nodes[n.id].rev != nodeRev && !registered {
			return nil
		}
		for _, w := range puts {
			if st.claims[w.p].rev != w.rev {
				return nil
			}
		}
		next := st.change()
		if !registered {
			next.nodes[n.id] = nodeKey{self, lease, next.rev}
		}
		for _, w := range puts {
			next.claims[w.p] = claimKey{w.c, lease, next.rev}
			n.w.note(anyone, w.p, "ETCD p%d claim (%d, %d) of %s", w.p, w.c.Incarnation, w.c.Generation, n.name)
		}
		return next
	}, func(st *snapshot) {
		p.busy = false
		if gone && p.lease == lease {
			p.lease = 0
		}
		switch {
		case st != nil && !st.before(n.seen):
			n.picture(st)
		case p.again:
			p.again = false
			p.step()
		}
	})
}
