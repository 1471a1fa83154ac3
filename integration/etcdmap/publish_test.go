package etcdmap_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pointsmanhq/pointsman/integration/internal/etcdtest"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
)

func TestRouterSeesWhatNodesPublish(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c, r := open(t, s), open(t, s)
	v := r.watch(t)
	v.until(t, "the first picture, of nothing", func(p *etcdmap.Picture) bool {
		return p.Topic == nil && len(p.Nodes) == 0 && len(p.Claims) == 0 && p.ClusterID != 0
	})
	ensure(t, c)
	a := c.publish(t, "a", "a1").registered(t)
	a.claim(0, 1, 1)
	a.claim(7, 1, 1)
	p := v.until(t, "two claims", func(p *etcdmap.Picture) bool { return len(p.Claims) == 2 })
	if p.Topic == nil || p.Topic.Partitions != 8 || p.Nodes["a"].Instance != "a1" || owner(p, 7) != "a/a1 1.1" {
		t.Fatalf("got %+v", *p)
	}

	draining := node("a1")
	draining.Draining = true
	a.SetNode(draining)
	v.until(t, "draining", func(p *etcdmap.Picture) bool { return p.Nodes["a"].Draining })

	// What is no longer wanted stays until somebody newer has it.
	a.DropClaim(7)
	b := c.publish(t, "b", "b1").registered(t)
	b.claim(7, 1, 2)
	v.until(t, "b owns 7", owned(7, "b/b1 1.2"))
	for _, p := range v.all() {
		if p.Nodes["b"].Instance != "" && owner(p, 7) == "nobody" {
			t.Errorf("partition 7 had no owner at revision %d", p.Revision)
		}
	}
}

func TestClaimIsReplacedOnlyByANewerOne(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c := open(t, s)
	v := c.watch(t)
	a := c.publish(t, "a", "a1").registered(t)
	b := c.publish(t, "b", "b1").registered(t)
	a.claim(3, 1, 5)
	v.until(t, "a owns 3", owned(3, "a/a1 1.5"))

	refused := func(incarnation int64, generation int32, n int) {
		t.Helper()
		b.claim(3, incarnation, generation)
		b.signal.until(t, "b is refused", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.lost) == n })
		if got := b.lost[n-1]; got != "3 to a/a1 1.5" {
			t.Errorf("Lost(%s), want 3 to a/a1 1.5", got)
		}
		b.DropClaim(3)
	}
	refused(1, 4, 1)
	refused(1, 5, 2)
	refused(0, 9, 3)
	a.claim(3, 1, 4) // its own claim it may replace by anything
	v.until(t, "a owns 3 in generation 4", owned(3, "a/a1 1.4"))
	b.claim(3, 1, 5)
	v.until(t, "b owns 3", owned(3, "b/b1 1.5"))
	a.signal.until(t, "a hears of it", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.lost) == 1 })
	a.claim(3, 2, 1)
	v.until(t, "a owns 3 in incarnation 2", owned(3, "a/a1 2.1"))
	if got := c.Stats().ClaimsRefused; got < 4 {
		t.Errorf("%d claims refused, want at least 4", got)
	}
}

func TestClaimComesBackWhenTheNewerOneEnds(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c := open(t, s)
	v := c.watch(t)
	a := c.publish(t, "a", "a1").registered(t)
	b := c.publish(t, "b", "b1").registered(t)
	b.claim(0, 1, 9)
	v.until(t, "b owns 0", owned(0, "b/b1 1.9"))
	a.claim(0, 1, 8)
	a.signal.until(t, "a is refused", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.lost) == 1 })
	if err := b.Revoke(ctx(t)); err != nil {
		t.Fatal(err)
	}
	v.until(t, "a owns 0", owned(0, "a/a1 1.8"))
}

func TestManyClaimsGoInFewTransactions(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c := open(t, s)
	v := c.watch(t)
	a := c.publish(t, "a", "a1").registered(t)
	before := v.until(t, "a", func(p *etcdmap.Picture) bool { return len(p.Nodes) == 1 }).Revision
	const n = 1000
	for p := range int32(n) {
		a.claim(p, 1, 1)
	}
	after := v.until(t, "all claims", func(p *etcdmap.Picture) bool { return len(p.Claims) == n }).Revision
	if took := after - before; took > 20 {
		t.Errorf("%d claims took %d transactions, want at most 20", n, took)
	}
}

func TestOrderlyExitRevokesAtOnce(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c := open(t, s)
	v := c.watch(t)
	a := c.publish(t, "a", "a1").registered(t)
	a.claim(0, 1, 1)
	v.until(t, "a owns 0", owned(0, "a/a1 1.1"))
	if err := a.Revoke(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if err := a.end(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	v.until(t, "nothing left", func(p *etcdmap.Picture) bool { return len(p.Nodes) == 0 && len(p.Claims) == 0 })
	begun := time.Now()
	c.publish(t, "a", "a2").registered(t)
	if took := time.Since(begun); took > shortly {
		t.Errorf("the next instance was registered after %v, it need not have waited", took)
	}
	if err := a.Revoke(ctx(t)); err != nil {
		t.Errorf("second Revoke = %v, want nil", err)
	}
}

func TestSecondNodeUnderALivingIDIsRefused(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c, d := open(t, s), open(t, s)
	v := c.watch(t)
	a := c.publish(t, "a", "a1").registered(t)
	begun := time.Now()
	second := d.publish(t, "a", "a2")
	second.claim(0, 9, 9)
	err := second.end(t)
	if !errors.Is(err, etcdmap.ErrNodeIDTaken) {
		t.Fatalf("Run = %v, want ErrNodeIDTaken", err)
	}
	for _, want := range []string{`"a"`, "a1", "127.0.0.1:9080", "another id"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %s", err, want)
		}
	}
	if took := time.Since(begun); took < shortly {
		t.Errorf("it gave up after %v, before one lease time", took)
	}
	d.waitForLog(t, "the node id is registered by another instance, waiting for its lease to end")
	a.claim(1, 1, 1)
	p := v.until(t, "a owns 1", owned(1, "a/a1 1.1"))
	if p.Nodes["a"].Instance != "a1" || owner(p, 0) != "nobody" {
		t.Errorf("the refused instance published something: %+v", *p)
	}
}

func TestRestartedNodeWaitsForItsOldLease(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c := open(t, s)
	v := c.watch(t)
	a := c.publish(t, "a", "a1").registered(t)
	a.claim(0, 1, 1)
	v.until(t, "a1 owns 0", owned(0, "a/a1 1.1"))
	a.stop() // as a kill: nothing is revoked
	if err := a.end(t); err != nil {
		t.Fatal(err)
	}
	again := c.publish(t, "a", "a2").registered(t)
	again.claim(0, 1, 1)
	v.until(t, "a2 owns 0", owned(0, "a/a2 1.1"))
}

func TestInstanceThatWasReplacedGivesUp(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	c, d := open(t, s), open(t, s)
	v := d.watch(t)
	old := c.publish(t, "a", "a1").registered(t)
	// As if the old process had been frozen for so long that its lease ended and another took the id.
	s.CutOff()
	revokeAll(t, s)
	s.Heal()
	c.waitForLog(t, "the node's lease in etcd has ended, publishing everything again")
	v.until(t, "a1 again", func(p *etcdmap.Picture) bool { return p.Nodes["a"].Instance == "a1" })

	putJSON(t, s, keys.Node("b"), node("b1")) // without a lease: not a living instance's
	c.publish(t, "b", "b2").registered(t)
	v.until(t, "b2 took b", func(p *etcdmap.Picture) bool { return p.Nodes["b"].Instance == "b2" })

	var lease clientv3.LeaseID
	direct(t, s, func(ctx context.Context, c *clientv3.Client) error {
		l, err := c.Grant(ctx, 600)
		if err != nil {
			return err
		}
		lease = l.ID
		_, err = c.Put(ctx, keys.Node("a"), `{"v":1,"instance":"a9","addr":"127.0.0.1:1","started":"2026-01-02T03:04:05Z","version":"x","draining":false}`,
			clientv3.WithLease(lease))
		return err
	})
	v.until(t, "a9", func(p *etcdmap.Picture) bool { return p.Nodes["a"].Instance == "a9" })
	direct(t, s, func(ctx context.Context, c *clientv3.Client) error { // and its lease ends in time after all
		_, err := c.Revoke(ctx, lease)
		return err
	})
	v.until(t, "a1 again", func(p *etcdmap.Picture) bool { return p.Nodes["a"].Instance == "a1" })
	old.stop()
}

// revokeAll ends every lease there is.
func revokeAll(t *testing.T, s *etcdtest.Server) {
	t.Helper()
	direct(t, s, func(ctx context.Context, c *clientv3.Client) error {
		l, err := c.Leases(ctx)
		if err != nil {
			return err
		}
		for _, lease := range l.Leases {
			if _, err := c.Revoke(ctx, lease.ID); err != nil {
				return err
			}
		}
		return nil
	})
}
