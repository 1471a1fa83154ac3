package etcdmap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a publication of node "n", instance "me", over a fake etcd without time.
type bench struct {
	t   *testing.T
	p   *publication
	f   *fakeEtcd
	now time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, f: newFakeEtcd(testKeys.Base()), now: epoch}
	b.p = newPublication(testKeys, "n", 5*time.Second, func(entry, error) {})
	if err := b.p.setNode(directory.Node{Instance: "me", Addr: "h:1", Started: epoch}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) want(part int32, incarnation int64, generation int32) {
	b.t.Helper()
	if err := b.p.setClaim(part, directory.Claim{Node: "n", Instance: "me", Incarnation: incarnation, Generation: generation}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) relist(why cause, foreign bool) {
	s, err := b.f.list(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.p.observe(change{list: &s, why: why, foreign: foreign})
}

// settle takes steps until there is nothing to do and returns what they were.
func (b *bench) settle() (did []string, last step) {
	b.t.Helper()
	for range 50 {
		s := b.p.next(b.now)
		for _, l := range s.lost {
			did = append(did, fmt.Sprintf("lost %d to %s", l.partition, l.winner.Instance))
		}
		switch {
		case s.err != nil:
			return append(did, "taken"), s
		case s.grant:
			lease, err := b.f.grant(b.t.Context(), b.p.leaseTTL)
			if err != nil {
				b.t.Fatal(err)
			}
			b.p.granted(lease)
			did = append(did, "grant")
		case s.ask != 0:
			ttl, left, err := b.f.leaseTTL(b.t.Context(), s.ask)
			if err != nil && !errors.Is(err, errLeaseGone) {
				b.t.Fatal(err)
			}
			b.p.holderTTL(s.ask, ttl, left)
			did = append(did, "ask")
		case len(s.puts) > 0:
			res, err := b.f.commit(b.t.Context(), s.puts)
			switch {
			case errors.Is(err, errLeaseGone):
				b.p.leaseGone(b.p.lease)
				did = append(did, "lease gone")
			case err != nil:
				b.t.Fatal(err)
			case !b.p.committed(s.puts, res):
				return append(did, "no news"), s
			case !res.done:
				did = append(did, "overtaken")
			default:
				did = append(did, fmt.Sprintf("put %d", len(s.puts)))
			}
		default:
			return did, s
		}
	}
	b.t.Fatalf("no end of steps: %v", did)
	return nil, step{}
}

func (b *bench) expect(want ...string) step {
	b.t.Helper()
	did, last := b.settle()
	if !slices.Equal(did, want) {
		b.t.Errorf("did %v, want %v", did, want)
	}
	return last
}

func (b *bench) holds(key, part string) {
	b.t.Helper()
	if got := string(b.f.keys[key].value); !strings.Contains(got, part) {
		b.t.Errorf("%s holds %q, want %s in it", key, got, part)
	}
}

func TestNothingIsDoneBeforeTheFirstList(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.want(0, 1, 1)
	b.expect()
	b.relist(causeStart, false)
	b.expect("grant", "put 2")
	if !b.p.registered {
		t.Error("not registered after its key was written")
	}
	b.expect()
}

func TestTransactionsHaveABound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.relist(causeStart, false)
	for p := range int32(300) {
		b.want(p, 1, 1)
	}
	b.expect("grant", "put 128", "put 128", "put 45")
	b.want(7, 1, 2)
	b.expect("put 1")
}

func TestLostLeasePublishesAllAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.relist(causeStart, false)
	b.want(0, 1, 1)
	b.want(1, 1, 1)
	b.expect("grant", "put 3")
	b.p.dropClaim(1)

	// etcd has deleted the keys; nobody has told yet.
	if err := b.f.revoke(t.Context(), b.p.lease); err != nil {
		t.Fatal(err)
	}
	if !b.p.leaseGone(b.p.lease) || b.p.leaseGone(b.p.lease) {
		t.Error("a lease is lost once")
	}
	b.expect("grant", "overtaken", "put 2")
	b.holds(testKeys.Claim(0), "me")
	if _, there := b.f.keys[testKeys.Claim(1)]; there {
		t.Error("a dropped claim came back")
	}

	// And the other way round: the watch is first.
	before := b.f.rev
	if err := b.f.revoke(t.Context(), b.p.lease); err != nil {
		t.Fatal(err)
	}
	for _, ev := range b.f.history {
		if ev.rev > before {
			b.p.observe(change{events: []event{ev}})
		}
	}
	b.expect("lease gone", "grant", "put 2")
}

func TestIDOfALivingInstance(t *testing.T) {
	t.Parallel()
	other := `{"v":1,"instance":"other","addr":"h:2","started":"2026-01-02T03:04:05Z","version":"","draining":false}`
	setup := func(t *testing.T) *bench {
		b := newBench(t)
		lease, err := b.f.grant(t.Context(), 8*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		b.f.put(testKeys.Node("n"), other, lease)
		b.relist(causeStart, false)
		b.want(0, 9, 9)
		if s := b.expect("ask"); !s.until.Equal(epoch.Add(8*time.Second + leaseSlack)) {
			t.Errorf("waits until %v", s.until)
		}
		return b
	}
	t.Run("it lives on", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.now = epoch.Add(9 * time.Second)
		b.expect()
		b.now = epoch.Add(8*time.Second + leaseSlack)
		if s := b.expect("ask"); !s.until.Equal(b.now.Add(lookAgain)) {
			t.Errorf("looks again at %v", s.until)
		}
		b.now = b.now.Add(lookAgain)
		if s := b.expect("ask", "taken"); !errors.Is(s.err, ErrNodeIDTaken) {
			t.Errorf("got %v", s.err)
		}
		b.holds(testKeys.Node("n"), "other")
	})
	t.Run("its lease ends", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.now = epoch.Add(8 * time.Second)
		if err := b.f.revoke(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		b.relist(causePeriodic, false)
		b.expect("grant", "put 2")
	})
	// An etcd that stood still does not end leases in time, and a new leader gives all their full time again; neither
	// must look like a living process.
	t.Run("nobody renews its lease", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.now = epoch.Add(8*time.Second + leaseSlack)
		if s := b.expect("ask"); !s.until.Equal(b.now.Add(lookAgain)) {
			t.Errorf("looks again at %v", s.until)
		}
		b.now, b.f.unrenewed = b.now.Add(lookAgain), 3*time.Second
		if s := b.expect("ask"); !s.until.Equal(b.now.Add(5*time.Second + leaseSlack)) {
			t.Errorf("waits until %v", s.until)
		}
		b.now = b.now.Add(5*time.Second + leaseSlack)
		if err := b.f.revoke(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if s := b.expect("ask"); !s.until.Equal(b.now.Add(leaseSlack)) { // its keys are about to go
			t.Errorf("waits until %v", s.until)
		}
		b.relist(causePeriodic, false)
		b.expect("grant", "put 2")
	})
	t.Run("an outage stops the clock", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.now = epoch.Add(60 * time.Second)
		b.relist(causeOutage, false)
		if s := b.expect(); !s.until.Equal(b.now.Add(8*time.Second + leaseSlack)) {
			t.Errorf("waits until %v", s.until)
		}
	})
	t.Run("no lease, no life", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.f.put(testKeys.Node("n"), other, 0)
		b.relist(causeStart, false)
		b.expect("grant", "put 1")
		b.holds(testKeys.Node("n"), "me")
	})
}

func TestOnlyNewerClaimsReplace(t *testing.T) {
	t.Parallel()
	value := func(instance string, incarnation int64, generation int32) string {
		v, err := directory.Marshal(directory.Claim{Node: "x", Instance: instance, Incarnation: incarnation, Generation: generation})
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	for name, c := range map[string]struct {
		there string
		wins  bool
	}{
		"absent":              {"", true},
		"older generation":    {value("x", 2, 4), true},
		"same generation":     {value("x", 2, 5), false},
		"newer generation":    {value("x", 2, 6), false},
		"older incarnation":   {value("x", 1, 99), true},
		"newer incarnation":   {value("x", 3, 1), false},
		"own, newer":          {value("me", 3, 1), true},
		"own, under no lease": {value("me", 2, 5), true},
		"malformed":           {"?", true},
	} {
		b := newBench(t)
		if c.there != "" {
			b.f.put(testKeys.Claim(3), c.there, 0)
		}
		b.relist(causeStart, false)
		b.want(3, 2, 5)
		if c.wins {
			b.expect("grant", "put 2")
			b.holds(testKeys.Claim(3), `"incarnation":2,"generation":5`)
		} else {
			b.expect("grant", "lost 3 to x", "put 1")
			b.expect() // told once
			if got := string(b.f.keys[testKeys.Claim(3)].value); got != c.there {
				t.Errorf("%s: replaced by %s", name, got)
			}
			b.want(3, 4, 1)
			b.expect("put 1")
		}
	}
}

func TestClaimOvertakenBetweenLookAndWrite(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.relist(causeStart, false)
	b.want(0, 1, 5)
	b.expect("grant", "put 2")
	b.f.put(testKeys.Claim(1), claimValue("x", 9), 0) // not seen yet
	b.want(1, 1, 5)
	b.want(2, 1, 5)
	b.expect("overtaken", "lost 1 to x", "put 1")
	b.holds(testKeys.Claim(2), "me")
}

func TestStaleViewOfAWipedEtcdDoesNotSpin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.relist(causeStart, false)
	b.want(0, 1, 1)
	for range 5 {
		b.f.put("/elsewhere", "", 0)
	}
	b.expect("grant", "put 2")
	b.f.wipe(1)
	b.f.put(testKeys.Claim(0), claimValue("x", 0), 0)
	b.want(0, 1, 2)
	b.expect("no news") // only the follower's list can tell
	b.relist(causeForeign, true)
	b.expect("lease gone", "grant", "put 2")
	b.holds(testKeys.Claim(0), "me")
}

func TestTopicIsRestored(t *testing.T) {
	t.Parallel()
	known := directory.Topic{Group: "g", TopicID: "0f0e0d0c-0b0a-0908-0706-050403020100", Partitions: 8, Partitioner: "murmur2", Incarnation: 3,
		Growth: []directory.Growth{{Partitions: 4, Ends: make([]int64, 4), Since: epoch}}}
	edit := func(f func(*directory.Topic)) string {
		c := known
		f(&c)
		v, err := directory.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	for name, c := range map[string]struct{ there, want string }{
		"lost":                 {"", `"incarnation":3`},
		"incarnation was less": {edit(func(c *directory.Topic) { c.Incarnation = 1 }), `"incarnation":3`},
		"incarnation is more":  {edit(func(c *directory.Topic) { c.Incarnation = 7 }), `"incarnation":7`},
		"had not grown":        {edit(func(c *directory.Topic) { c.Partitions, c.Growth = 4, nil }), `"partitions":8`},
		"has grown":            {edit(func(c *directory.Topic) { c.Partitions = 16 }), `"partitions":16`},
		"another topic": {edit(func(c *directory.Topic) {
			c.TopicID, c.Partitions, c.Growth, c.Incarnation = "00000000-0000-0000-0000-000000000001", 2, nil, 1
		}), `"partitions":2`},
		"malformed": {"?", "?"},
	} {
		b := newBench(t)
		b.p.topic = &known
		if c.there != "" {
			b.f.put(testKeys.TopicKey(), c.there, 0)
		}
		b.relist(causeStart, false)
		b.settle()
		if got := string(b.f.keys[testKeys.TopicKey()].value); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s in it", name, got, c.want)
		}
		if l := b.f.keys[testKeys.TopicKey()].lease; l != 0 {
			t.Errorf("%s: the topic is under lease %d", name, l)
		}
	}
}

// A transaction's answer can be ahead of the watch. An etcd that is restored just then, and has caught up with what the
// watch knew, looks like the past to whoever knows only that.
func TestListBehindATransactionsAnswerIsAnotherHistory(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.put(testKeys.Claim(0), claimValue("a", 1), 0)
		snap, err := b.list(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		known := snap.revision
		var heard []change
		f := &follower{
			m: b.m, mirror: newMirror(), sink: func(c change) { heard = append(heard, c) },
			known: func() int64 { return known },
		}
		f.list(context.Background(), causeStart)
		f.list(context.Background(), causePeriodic)
		known = snap.revision + 1 // a transaction was answered with the next revision
		if got := f.newest(); got != known {
			t.Errorf("newest known revision %d, want %d", got, known)
		}
		f.list(context.Background(), causePeriodic) // and yet etcd is where the watch was
		for i, want := range []bool{false, false, true} {
			if heard[i].foreign != want {
				t.Errorf("list %d: another history %v, want %v", i, heard[i].foreign, want)
			}
		}
	})
}
