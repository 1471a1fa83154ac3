// Package claims decides which claims this node publishes. A claim says "the group assigned this partition to
// me in this generation, and I read it"; routers believe the newest. Generations grow for as long as the group
// lives; when it is deleted they begin again, and the topic's incarnation is raised so that new claims still
// beat old ones.
package claims

import (
	"maps"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	// settle is how long a claim may stand behind a newer one while we still hold the partition. A rebalance
	// that gave it to somebody else would have taken it from us by then: the group was reset.
	settle = 3 * time.Second
	// pause is how far apart two ticks may be; more means that we were frozen and know nothing of the group.
	pause = time.Second
	// again is when a raise that failed is tried again.
	again = time.Second
)

// Output is what a Core asks of its shell. No call may call back into the Core.
type Output interface {
	// Publish wants the claim in etcd.
	Publish(p int32, c directory.Claim)
	// Withdraw stops wanting it; nothing is deleted.
	Withdraw(p int32)
	// Raise asks for the topic's incarnation to be raised if it still is from; answered by Core.Raised or
	// Core.RaiseFailed. One is under way at a time.
	Raise(from int64)
}

// claim is one assigned partition.
type claim struct {
	generation  int32
	incarnation int64 // under which it began
	readable    bool
	since       time.Time
	winner      *directory.Claim // a newer one that it stands behind
	lostAt      time.Time
	agedAt      time.Time // since when a higher incarnation is known
}

// Core is the state machine. It is not safe for concurrent use.
type Core struct {
	node, instance string
	out            Output

	claims      map[int32]*claim
	incarnation int64 // the highest known
	highest     int32 // the highest generation seen, under the incarnation highestIn
	highestIn   int64

	raise   bool // the incarnation is to be raised
	raising bool // it was asked for
	retryAt time.Time
	ticked  time.Time
}

// New returns a core without claims. incarnation is what etcd says at the start.
func New(node, instance string, incarnation int64, out Output) *Core {
	return &Core{
		node: node, instance: instance, out: out,
		claims: map[int32]*claim{}, incarnation: incarnation, highestIn: incarnation,
	}
}

// Assigned says that the group assigned p in generation; current is the generation that the membership has
// reached by now, which tells a late message from a group that began anew.
func (c *Core) Assigned(now time.Time, p, generation, current int32) {
	c.Generation(now, max(generation, current))
	c.claims[p] = &claim{generation: generation, incarnation: c.incarnation}
}

// Generation says which generation the membership has reached, whether or not it brought an assignment: a node that
// gets nothing of a group that began anew may be the only one to know what came before.
func (c *Core) Generation(now time.Time, newest int32) {
	if newest <= 0 {
		return // no member yet
	}
	// If the generation went back, somebody who saw it earlier may have raised the incarnation already.
	if newest < c.highest && c.highestIn == c.incarnation {
		c.wantRaise(now)
	}
	c.highest, c.highestIn = newest, c.incarnation
}

// Readable says that p is being read, so that routers may come.
func (c *Core) Readable(now time.Time, p int32) {
	if cl := c.claims[p]; cl != nil {
		cl.readable, cl.since = true, now
		c.publish(p, cl)
	}
}

// Revoked says that the group took p away.
func (c *Core) Revoked(p int32) {
	if _, ok := c.claims[p]; ok {
		delete(c.claims, p)
		c.out.Withdraw(p)
	}
}

// Lost says that our claim of p stands behind a newer one in etcd.
func (c *Core) Lost(now time.Time, p int32, winner directory.Claim) {
	cl := c.claims[p]
	if cl == nil || c.claim(cl).beats(winner) {
		return // it was about a claim that we have replaced
	}
	c.Incarnation(winner.Incarnation)
	if cl.winner == nil {
		cl.lostAt = now
	}
	cl.winner = &winner
}

// Incarnation says what etcd holds. Claims that began before keep theirs for a while: they may be stale.
func (c *Core) Incarnation(n int64) { c.incarnation = max(c.incarnation, n) }

// Known is the highest incarnation known.
func (c *Core) Known() int64 { return c.incarnation }

// Raised answers Raise with what etcd holds now, whoever raised it. We saw the group begin anew, so what we
// hold belongs to the new incarnation.
func (c *Core) Raised(n int64) {
	c.raise, c.raising = false, false
	c.incarnation = max(c.incarnation, n)
	c.highestIn = c.incarnation
	for _, p := range slices.Sorted(maps.Keys(c.claims)) {
		cl := c.claims[p]
		cl.incarnation, cl.winner = c.incarnation, nil
		c.publish(p, cl)
	}
}

// RaiseFailed answers Raise; it is asked again.
func (c *Core) RaiseFailed(now time.Time) {
	c.raising = false
	c.retryAt = now.Add(again)
}

// Tick does what is due; call it a few times a second. alive says that Kafka answers, without which our
// assignments may be a thing of the past.
func (c *Core) Tick(now time.Time, alive bool) {
	frozen := !c.ticked.IsZero() && now.Sub(c.ticked) > pause
	c.ticked = now
	if c.raise && !c.raising && !now.Before(c.retryAt) {
		c.raising = true
		c.out.Raise(c.incarnation)
	}
	for _, p := range slices.Sorted(maps.Keys(c.claims)) { // in order, so that a run can be had again
		cl := c.claims[p]
		if cl.winner == nil {
			c.renew(now, p, cl, !frozen && alive)
			continue
		}
		if frozen || !alive {
			cl.lostAt = now
			continue
		}
		if now.Sub(cl.lostAt) < settle {
			continue
		}
		winner := *cl.winner
		cl.winner = nil
		if !cl.adopt(c.incarnation).beats(winner) {
			cl.winner, cl.lostAt = &winner, now // until the raise has helped
			c.wantRaise(now)
			continue
		}
		cl.incarnation = c.incarnation
		c.publish(p, cl)
	}
}

// renew moves a claim that we still hold into the incarnation that was raised since it began. Otherwise it would be
// older than claims of the group before, which routers remember for as long as they are linked to whoever made them.
func (c *Core) renew(now time.Time, p int32, cl *claim, sure bool) {
	switch {
	case cl.incarnation >= c.incarnation:
		cl.agedAt = time.Time{}
	case cl.agedAt.IsZero() || !sure:
		cl.agedAt = now
	case now.Sub(cl.agedAt) >= settle:
		cl.incarnation = c.incarnation
		c.publish(p, cl)
	}
}

func (c *Core) wantRaise(now time.Time) {
	c.raise = true
	if !c.raising {
		c.raising, c.retryAt = true, now
		c.out.Raise(c.incarnation)
	}
}

func (c *Core) publish(p int32, cl *claim) {
	if cl.readable && !c.raise {
		c.out.Publish(p, directory.Claim(c.claim(cl)))
	}
}

// ordered is a claim's value in the order of claims.
type ordered directory.Claim

// beats reports whether the claim may replace another node's. An equal one does not: a group never gives a partition
// to two members in one generation, so both are of that number because the group began anew.
func (o ordered) beats(other directory.Claim) bool { return directory.Claim(o).Newer(other) }

func (cl *claim) adopt(incarnation int64) ordered {
	return ordered{Incarnation: incarnation, Generation: cl.generation}
}

func (c *Core) claim(cl *claim) ordered {
	return ordered{
		V: directory.Version, Node: c.node, Instance: c.instance,
		Incarnation: cl.incarnation, Generation: cl.generation, Since: cl.since,
	}
}

// Published lists the claims that should stand in etcd now.
func (c *Core) Published() map[int32]directory.Claim {
	all := make(map[int32]directory.Claim, len(c.claims))
	for p, cl := range c.claims {
		if cl.readable {
			all[p] = directory.Claim(c.claim(cl))
		}
	}
	return all
}
