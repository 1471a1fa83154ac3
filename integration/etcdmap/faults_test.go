package etcdmap_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap/zapcore"

	"github.com/pointsmanhq/pointsman/integration/internal/etcdtest"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	saidAway    = "etcd cannot be used, what is known stays in force"
	saidWaiting = "etcd cannot be used yet, waiting for it"
	saidBack    = "etcd can be used again"
	saidWiped   = "etcd was emptied, restored or replaced, taking its map as it is now"
	saidLost    = "the node's lease in etcd has ended, publishing everything again"
)

// cluster is two nodes with four claims each, and a router that sees them.
type cluster struct {
	etcd   *etcdtest.Server
	nodes  *client // the map of both nodes
	router *client
	a, b   *publisher
	view   *view
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	s := etcdtest.New(t)
	c := &cluster{etcd: s, nodes: open(t, s), router: open(t, s)}
	c.view = c.router.watch(t)
	ensure(t, c.nodes)
	c.a = c.nodes.publish(t, "a", "a1").registered(t)
	c.b = c.nodes.publish(t, "b", "b1").registered(t)
	for p := range int32(4) {
		c.a.claim(p, 1, 1)
		c.b.claim(p+4, 1, 1)
	}
	c.whole(t)
	return c
}

// whole waits until the router sees everything.
func (c *cluster) whole(t *testing.T) *etcdmap.Picture {
	t.Helper()
	return c.view.until(t, "the whole map", isWhole)
}

// again waits until etcd holds everything, seen by a router that knew nothing before, and the old router sees it too.
func (c *cluster) again(t *testing.T) *etcdmap.Picture {
	t.Helper()
	fresh := open(t, c.etcd).watch(t).until(t, "the whole map in etcd", isWhole)
	c.view.until(t, "the map that is in etcd", func(p *etcdmap.Picture) bool {
		return maps.Equal(p.Claims, fresh.Claims) && maps.Equal(p.Nodes, fresh.Nodes) && reflect.DeepEqual(p.Topic, fresh.Topic)
	})
	return fresh
}

func isWhole(p *etcdmap.Picture) bool {
	if p.Topic == nil || len(p.Nodes) != 2 || len(p.Claims) != 8 {
		return false
	}
	for part, cl := range p.Claims {
		if want := map[bool]string{true: "a", false: "b"}[part < 4]; cl.Node != want {
			return false
		}
	}
	return true
}

func (c *cluster) leaseOf(t *testing.T, key string) (id clientv3.LeaseID) {
	t.Helper()
	direct(t, c.etcd, func(ctx context.Context, cl *clientv3.Client) error {
		resp, err := cl.Get(ctx, key)
		if err != nil {
			return err
		}
		if len(resp.Kvs) != 1 {
			return fmt.Errorf("%s is not there", key)
		}
		id = clientv3.LeaseID(resp.Kvs[0].Lease)
		return nil
	})
	return id
}

func TestOutageKeepsTheLastPicture(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	before := len(c.view.all())
	c.etcd.Stop()
	c.router.waitForLog(t, saidAway)
	c.nodes.waitForLog(t, saidAway)
	if err, since := c.router.Health(); err == nil || time.Since(since) > patient {
		t.Errorf("Health = %v since %v while etcd is away", err, since)
	}
	c.a.claim(0, 1, 2) // wanted meanwhile, written when it is back
	if n := len(c.view.all()); n != before {
		t.Errorf("%d new pictures in an outage", n-before)
	}
	if err := c.etcd.Start(); err != nil {
		t.Fatal(err)
	}
	c.view.until(t, "the claim of the outage", owned(0, "a/a1 1.2"))
	c.again(t)
	c.router.waitForLog(t, saidBack)
	c.nodes.waitForLog(t, saidBack)
	if err, _ := c.router.Health(); err != nil {
		t.Errorf("Health = %v after the outage", err)
	}
	for _, cl := range []*client{c.router, c.nodes} {
		if away, back := cl.logged(saidAway), cl.logged(saidBack); away != 1 || back != 1 {
			t.Errorf("one outage was announced %d times and its end %d times", away, back)
		}
		if got := cl.Stats(); got.Outages != 1 || got.Wipes != 0 {
			t.Errorf("got %+v, want one outage and no wipe", got)
		}
	}
}

func TestEtcdRestartsBetweenTwoProbes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.etcd.Stop()
	if err := c.etcd.Start(); err != nil {
		t.Fatal(err)
	}
	c.b.claim(0, 1, 2)
	c.view.until(t, "b owns 0", owned(0, "b/b1 1.2"))
	if w := c.router.Stats().Wipes; w != 0 {
		t.Errorf("%d wipes, want none: the data is the same", w)
	}
}

func TestEverythingStartsBeforeEtcd(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	s.Stop()
	c := open(t, s)
	if err, _ := c.Health(); err == nil {
		t.Error("Health is nil before etcd has answered")
	}
	v := c.watch(t)
	ensured := make(chan error, 1)
	wait := ctx(t)
	go func() {
		_, err := c.EnsureTopic(wait, aTopic())
		ensured <- err
	}()
	a := c.publish(t, "a", "a1")
	a.claim(0, 1, 1)
	c.waitForLog(t, saidWaiting)
	if n := len(v.all()); n != 0 {
		t.Errorf("%d pictures before etcd has answered", n)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	a.registered(t)
	if err := <-ensured; err != nil {
		t.Fatal(err)
	}
	v.until(t, "the claim", owned(0, "a/a1 1.1"))
	c.waitForLog(t, saidBack)
	if n := c.logged(saidWaiting); n != 1 {
		t.Errorf("waiting was announced %d times, want once", n)
	}
}

func TestRevokedLeaseIsNoticedAndEverythingPublishedAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	old := c.leaseOf(t, keys.Node("a"))
	begun := time.Now()
	direct(t, c.etcd, func(ctx context.Context, cl *clientv3.Client) error {
		_, err := cl.Revoke(ctx, old)
		return err
	})
	c.view.until(t, "a is gone", func(p *etcdmap.Picture) bool { return len(p.Nodes) == 1 || isWhole(p) && p.Revision > 0 })
	c.nodes.waitForLog(t, saidLost)
	c.again(t)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a lost lease took %v to mend", took)
	}
	if now := c.leaseOf(t, keys.Claim(0)); now == old || now != c.leaseOf(t, keys.Node("a")) {
		t.Errorf("claim under lease %x, node under %x, the old one was %x", now, c.leaseOf(t, keys.Node("a")), old)
	}
	if got := c.nodes.Stats().LeasesLost; got != 1 {
		t.Errorf("%d leases lost, want 1", got)
	}
}

func TestExpiredLeaseIsNoticedAndEverythingPublishedAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.etcd.CutOff()
	gone := make(chan struct{})
	go func() { // etcd itself ends the leases
		defer close(gone)
		_ = c.etcd.Do(ctx(t), func(ctx context.Context, cl *clientv3.Client) error { // what went wrong is seen below
			for {
				resp, err := cl.Get(ctx, keys.Nodes(), clientv3.WithPrefix())
				if err != nil {
					return err
				}
				if resp.Count == 0 {
					return nil
				}
				for range cl.Watch(ctx, keys.Nodes(), clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1)) {
					break
				}
			}
		})
	}()
	<-gone
	c.etcd.Heal()
	c.nodes.said.until(t, "both leases are missed", func() bool { return c.nodes.logged(saidLost) == 2 })
	c.again(t)
	if got := c.nodes.Stats().LeasesLost; got != 2 {
		t.Errorf("%d leases lost, want 2", got)
	}
}

func TestWipedEtcdIsFilledAgain(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("noticed as an outage %v", away), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			if _, err := c.nodes.UpdateTopic(ctx(t), func(cur directory.Topic) (directory.Topic, bool) {
				cur.Incarnation = 4
				return cur, true
			}); err != nil {
				t.Fatal(err)
			}
			c.view.until(t, "incarnation 4", func(p *etcdmap.Picture) bool { return p.Topic.Incarnation == 4 })
			if away {
				c.etcd.Stop()
				c.router.waitForLog(t, saidAway)
			}
			if err := c.etcd.Wipe(); err != nil {
				t.Fatal(err)
			}
			c.router.waitForLog(t, saidWiped)
			c.nodes.waitForLog(t, saidWiped)
			p := c.again(t)
			if p.Topic.Incarnation != 4 {
				t.Errorf("the topic came back with incarnation %d, want 4", p.Topic.Incarnation)
			}
			if p.Topic.Group != "g" || p.Topic.Partitions != 8 {
				t.Errorf("the topic came back as %+v", *p.Topic)
			}
			c.b.claim(0, 4, 1) // and life goes on
			c.view.until(t, "b owns 0", owned(0, "b/b1 4.1"))
			if w := c.router.Stats().Wipes; w != 1 {
				t.Errorf("%d wipes, want 1", w)
			}
		})
	}
}

func TestRestoredBackupIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	backup := filepath.Join(t.TempDir(), "backup")
	if err := c.etcd.Save(backup); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes.UpdateTopic(ctx(t), func(cur directory.Topic) (directory.Topic, bool) {
		cur.Incarnation, cur.Partitions = 2, 16
		return cur, true
	}); err != nil {
		t.Fatal(err)
	}
	c.b.claim(0, 2, 1)
	c.a.DropClaim(0)
	c.view.until(t, "b owns 0", owned(0, "b/b1 2.1"))
	if err := c.etcd.Restore(backup); err != nil {
		t.Fatal(err)
	}
	// The router may see the very same history again when the nodes are fast.
	c.nodes.waitForLog(t, saidWiped)
	want := func(p *etcdmap.Picture) bool {
		return owner(p, 0) == "b/b1 2.1" && p.Topic != nil && p.Topic.Incarnation == 2 && len(p.Nodes) == 2 && len(p.Claims) == 8
	}
	p := open(t, c.etcd).watch(t).until(t, "what it was before the restore, in etcd", want)
	c.view.until(t, "what it was before the restore", want)
	if p.Topic.Partitions != 16 {
		t.Errorf("the topic has %d partitions again, want 16", p.Topic.Partitions)
	}
}

func TestKeysDeletedByHandComeBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	direct(t, c.etcd, func(ctx context.Context, cl *clientv3.Client) error {
		_, err := cl.Delete(ctx, "/pointsman/", clientv3.WithPrefix())
		return err
	})
	c.again(t)
	if got := c.nodes.Stats(); got.LeasesLost != 0 {
		t.Errorf("%d leases lost, want none", got.LeasesLost)
	}
}

func TestCompactionDuringADisconnection(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	r := open(t, s)
	v := r.watch(t)
	putJSON(t, s, keys.Claim(0), jsonClaim("a", 1))
	v.until(t, "the first claim", owned(0, "a/a 1.1"))
	s.Disconnect()
	for g := range int32(5) {
		putJSON(t, s, keys.Claim(0), jsonClaim("b", g+2))
	}
	direct(t, s, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, keys.Claim(0))
		if err != nil {
			return err
		}
		_, err = c.Compact(ctx, resp.Header.Revision)
		return err
	})
	if err := s.Reconnect(); err != nil {
		t.Fatal(err)
	}
	v.until(t, "the last claim", owned(0, "b/b 1.6"))
	putJSON(t, s, keys.Claim(1), jsonClaim("c", 1))
	v.until(t, "one more", owned(1, "c/c 1.1"))
	if got := r.Stats(); got.Wipes != 0 || got.Compactions+got.Outages == 0 {
		t.Errorf("got %+v, want a compaction or an outage and no wipe", got)
	}
}

func jsonClaim(by string, generation int32) directory.Claim {
	c := claim(by, by, 1, generation)
	c.V = directory.Version
	return c
}

func TestCutOffRouterCatchesUp(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	r := open(t, s)
	v := r.watch(t)
	putJSON(t, s, keys.Claim(0), jsonClaim("a", 1))
	v.until(t, "the first claim", owned(0, "a/a 1.1"))
	s.CutOff()
	putJSON(t, s, keys.Claim(0), jsonClaim("b", 2))
	r.waitForLog(t, saidAway)
	if last := v.all()[len(v.all())-1]; owner(last, 0) != "a/a 1.1" {
		t.Errorf("owner of 0 is %s while cut off", owner(last, 0))
	}
	s.Heal()
	v.until(t, "the second claim", owned(0, "b/b 1.2"))
	r.waitForLog(t, saidBack)
}

func TestPeriodicListFindsNothingToTell(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	r := open(t, s, func(c *etcdmap.Config) { c.RelistEvery = 20 * time.Millisecond })
	v := r.watch(t)
	putJSON(t, s, keys.Claim(0), jsonClaim("a", 1))
	v.until(t, "a claim", owned(0, "a/a 1.1"))
	before := r.Stats()
	for i := int32(2); r.Stats().Lists < before.Lists+20; i++ {
		putJSON(t, s, "/pointsman/elsewhere", i) // time passes as etcd answers
	}
	got := r.Stats()
	if got.Changes != before.Changes || got.Wipes != 0 || got.WatchRestarts != 0 {
		t.Errorf("20 lists of the same map: %+v, before %+v", got, before)
	}
	putJSON(t, s, keys.Claim(0), jsonClaim("b", 2))
	v.until(t, "b owns 0", owned(0, "b/b 1.2"))
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	for _, up := range []bool{true, false} {
		c := open(t, s)
		if !up {
			s.Stop()
		}
		watched := make(chan error, 1)
		go func() { watched <- c.Watch(context.Background(), func(*etcdmap.Picture) {}) }()
		a := c.publish(t, "a", "a1")
		if up {
			a.registered(t)
		} else {
			c.waitForLog(t, saidWaiting)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-watched; !errors.Is(err, etcdmap.ErrClosed) {
			t.Errorf("Watch = %v, want ErrClosed", err)
		}
		if err := a.end(t); !errors.Is(err, etcdmap.ErrClosed) {
			t.Errorf("Run = %v, want ErrClosed", err)
		}
		if _, err := c.EnsureTopic(ctx(t), aTopic()); !errors.Is(err, etcdmap.ErrClosed) {
			t.Errorf("EnsureTopic = %v, want ErrClosed", err)
		}
	}
}

// Not parallel: it looks at every goroutine of the process.
func TestCloseLeavesNoGoroutineBehind(t *testing.T) {
	s := etcdtest.New(t)
	c := open(t, s)
	c.watch(t).until(t, "a picture", func(*etcdmap.Picture) bool { return true })
	c.publish(t, "a", "a1").registered(t)
	s.CutOff() // requests are under way for as long as they may
	c.waitForLog(t, saidAway)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	stacks := make([]byte, 1<<20)
	for _, g := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(g, "pkg/etcdmap.") {
			t.Errorf("still there after Close:\n%s", g)
		}
	}
}

func TestWarningsSayWhatHappened(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	s.Stop()
	c := open(t, s)
	c.watch(t)
	c.waitForLog(t, saidWaiting)
	e := c.logs.FilterMessage(saidWaiting).All()[0]
	if e.Level != zapcore.WarnLevel {
		t.Errorf("level %v, want warn", e.Level)
	}
	if text := fmt.Sprint(e.ContextMap()); !containsAll(text, s.Addr(), "connection refused") {
		t.Errorf("the warning says %s", text)
	}
}
