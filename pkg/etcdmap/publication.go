package etcdmap

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// leaseSlack is how much later than its time to live a dead instance's lease may be seen to end.
const leaseSlack = 2 * time.Second

const (
	// renewedWithin is how far a lease that somebody renews may be from its full time: it is renewed every second, and
	// etcd tells whole seconds.
	renewedWithin = 2 * time.Second
	// lookAgain is how long after one look at a lease another one shows whether it is renewed.
	lookAgain = 2500 * time.Millisecond
)

// wanted is a claim to publish, with its value made once.
type wanted struct {
	claim directory.Claim
	value []byte
}

// holder is another instance that is registered under this node's id.
type holder struct {
	instance string
	node     directory.Node // zero if its value is malformed
	lease    int64
	seen     time.Time
	ttl      time.Duration // 0: not asked yet

	// For when that time is over: etcd may have stood still meanwhile, or given all leases their full time again.
	due      time.Time     // the next look at the lease
	answered bool          // by etcd, since due
	left     time.Duration // what it said; negative for a lease that is gone
	renewed  int           // looks in a row that found somebody renewing it
}

// publication is the state machine of what a node publishes: what is wanted, what is known of etcd, and the next step
// that brings the two together. It has no clock, goroutines or I/O.
type publication struct {
	keys      directory.Keys
	id        string
	leaseTTL  time.Duration
	malformed func(entry, error)

	node      directory.Node
	nodeValue []byte
	claims    map[int32]wanted
	topic     *directory.Topic // to write again if the key is lost

	mirror     *mirror
	lease      int64 // 0: none
	registered bool  // the node's key is there under lease
	holder     *holder
	told       map[int32]directory.Claim // the winners that were reported
}

func newPublication(keys directory.Keys, id string, leaseTTL time.Duration, malformed func(entry, error)) *publication {
	return &publication{
		keys: keys, id: id, leaseTTL: leaseTTL, malformed: malformed,
		claims: map[int32]wanted{}, mirror: newMirror(), told: map[int32]directory.Claim{},
	}
}

// step is what to do next. At most one of puts, grant and ask is set; none: wait for an event, or until the time given.
type step struct {
	puts  []write
	grant bool
	ask   int64 // a lease whose time to live is needed
	until time.Time
	lost  []lostClaim
	held  *holder // newly found: the wait for its end begins
	err   error   // ErrNodeIDTaken
}

type lostClaim struct {
	partition int32
	winner    directory.Claim
}

func (p *publication) setNode(n directory.Node) error {
	value, err := directory.Marshal(n)
	if err != nil {
		return err
	}
	p.node, p.nodeValue = n, value
	return nil
}

func (p *publication) setClaim(part int32, c directory.Claim) error {
	value, err := directory.Marshal(c)
	if err != nil {
		return err
	}
	p.claims[part] = wanted{claim: c, value: value}
	return nil
}

func (p *publication) dropClaim(part int32) {
	delete(p.claims, part)
	delete(p.told, part)
}

// observe takes in what the follower tells.
func (p *publication) observe(c change) {
	if c.list == nil {
		p.mirror.apply(c.events)
		return
	}
	p.mirror.replace(*c.list, c.foreign)
	if p.holder != nil && c.why != causePeriodic {
		// Leases do not run out while etcd is away, and begin anew with a new leader.
		h := p.holder
		h.seen, h.due, h.answered, h.renewed = time.Time{}, time.Time{}, false, 0
	}
}

// granted takes in a new lease.
func (p *publication) granted(lease int64) { p.lease, p.registered = lease, false }

// leaseGone takes in that a lease has ended; true if it was the present one.
func (p *publication) leaseGone(lease int64) bool {
	if p.lease != lease || lease == 0 {
		return false
	}
	p.lease, p.registered = 0, false
	return true
}

// holderTTL takes in the time to live of the lease that was asked for, and how much is left of it. A lease that is
// gone has none.
func (p *publication) holderTTL(lease int64, ttl, left time.Duration) {
	h := p.holder
	if h == nil || h.lease != lease {
		return
	}
	if h.ttl == 0 {
		h.ttl = max(ttl, p.leaseTTL) // one that is gone counts as one of the usual length: its keys go any moment
		return
	}
	if h.answered, h.left = true, left; ttl == 0 {
		h.left = -1
	}
}

// committed takes in the result of a transaction. false: it taught nothing, so that the follower must find out first
// what happened to etcd.
func (p *publication) committed(puts []write, res commitResult) bool {
	var learned []event
	if res.done {
		for _, w := range puts {
			learned = append(learned, event{entry: entry{key: w.key, value: w.value, rev: res.revision, lease: w.lease}})
		}
		return len(p.mirror.apply(learned)) > 0
	}
	for _, w := range puts {
		i := slices.IndexFunc(res.found, func(e entry) bool { return e.key == w.key })
		if i < 0 {
			learned = append(learned, event{entry: entry{key: w.key, rev: res.revision}, deleted: true})
		} else {
			learned = append(learned, event{entry: res.found[i]})
		}
	}
	return len(p.mirror.apply(learned)) > 0
}

// next says what to do now.
func (p *publication) next(now time.Time) step {
	if !p.mirror.listed {
		return step{}
	}
	if s, free := p.idFree(now); !free {
		return s
	}
	if p.lease == 0 {
		return step{grant: true}
	}
	var s step
	nodeKey := p.keys.Node(p.id)
	p.registered = p.published(nodeKey, p.nodeValue)
	if !p.registered {
		s.puts = append(s.puts, p.write(nodeKey, p.nodeValue, p.lease))
	}
	if w, ok := p.topicWrite(); ok {
		s.puts = append(s.puts, w)
	}
	for part, want := range p.claims {
		key := p.keys.Claim(part)
		if p.published(key, want.value) {
			delete(p.told, part)
			continue
		}
		if winner, refused := p.newerClaim(key, want.claim); refused {
			if p.told[part] != winner {
				p.told[part] = winner
				s.lost = append(s.lost, lostClaim{part, winner})
			}
			continue
		}
		s.puts = append(s.puts, p.write(key, want.value, p.lease))
	}
	// The node's own key goes first: a claim is useless to those who cannot find the node.
	slices.SortStableFunc(s.puts, func(a, b write) int { return rank(a.key, nodeKey) - rank(b.key, nodeKey) })
	if len(s.puts) > maxOps {
		s.puts = s.puts[:maxOps]
	}
	return s
}

func rank(key, first string) int {
	if key == first {
		return 0
	}
	return 1
}

// idFree says whether this instance may register, and otherwise what to do until it may.
func (p *publication) idFree(now time.Time) (step, bool) {
	e, there := p.mirror.entries[p.keys.Node(p.id)]
	if !there || e.lease == 0 || e.lease == p.lease { // a value without a lease is no living instance's
		p.holder = nil
		return step{}, true
	}
	n, err := directory.ParseNode(e.value)
	if err != nil {
		p.malformed(e, err)
	}
	if n.Instance == p.node.Instance {
		p.holder = nil
		return step{}, true
	}
	var s step
	if p.holder == nil || p.holder.instance != n.Instance {
		p.holder = &holder{instance: n.Instance, node: n, lease: e.lease, seen: now}
		s.held = p.holder
	}
	h := p.holder
	h.lease = e.lease
	if h.seen.IsZero() {
		h.seen = now
	}
	if h.ttl == 0 {
		s.ask = h.lease
		return s, false
	}
	if h.due.IsZero() {
		h.due = h.seen.Add(h.ttl + leaseSlack)
	}
	if s.until = h.due; now.Before(s.until) {
		return s, false
	}
	if !h.answered {
		s.ask = h.lease
		return s, false
	}
	h.answered = false
	if h.left < h.ttl-renewedWithin { // nobody renews it: it will end
		h.renewed, h.due = 0, now.Add(max(0, h.left)+leaseSlack)
	} else if h.renewed++; h.renewed < 2 {
		h.due = now.Add(lookAgain)
	}
	if s.until = h.due; now.Before(s.until) {
		return s, false
	}
	if h.instance == "" {
		s.err = fmt.Errorf("%w: another program keeps the key %s with a value that this one cannot read: give this node another id, or stop that program",
			ErrNodeIDTaken, e.key)
		return s, false
	}
	s.err = fmt.Errorf("%w: %q is registered by another running process (instance %s at %s, started %s): give this node another id, or stop that process",
		ErrNodeIDTaken, p.id, h.instance, h.node.Addr, h.node.Started.Format(time.RFC3339))
	return s, false
}

// published reports whether key holds value under the present lease.
func (p *publication) published(key string, value []byte) bool {
	e, ok := p.mirror.entries[key]
	return ok && e.lease == p.lease && bytes.Equal(e.value, value)
}

func (p *publication) write(key string, value []byte, lease int64) write {
	return write{key: key, value: value, lease: lease, ifRev: p.mirror.entries[key].rev}
}

// newerClaim returns the claim that stands in the way of c, if one does: of another instance and not older.
func (p *publication) newerClaim(key string, c directory.Claim) (directory.Claim, bool) {
	e, ok := p.mirror.entries[key]
	if !ok {
		return directory.Claim{}, false
	}
	is, err := directory.ParseClaim(e.value)
	if err != nil {
		p.malformed(e, err) // nobody can use it
		return directory.Claim{}, false
	}
	if is.Instance == c.Instance || c.Newer(is) {
		return directory.Claim{}, false
	}
	return is, true
}

// topicWrite restores the topic key when it was lost or has gone back.
func (p *publication) topicWrite() (write, bool) {
	if p.topic == nil {
		return write{}, false
	}
	want := *p.topic
	e, there := p.mirror.entries[p.keys.TopicKey()]
	if there {
		have, err := directory.ParseTopic(e.value)
		if err != nil {
			p.malformed(e, err)
			return write{}, false // an operator must look at it
		}
		merged, differs := mergeTopic(have, want)
		if !differs {
			return write{}, false
		}
		want = merged
	}
	value, err := directory.Marshal(want)
	if err != nil {
		return write{}, false
	}
	return p.write(p.keys.TopicKey(), value, 0), true
}
