package etcdmap_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pointsmanhq/pointsman/integration/internal/etcdtest"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

func containsAll(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

func TestEnsureTopicWritesOnceAndThenReads(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	var wg sync.WaitGroup
	got := make([]directory.Topic, 4)
	for i := range got {
		c := open(t, s)
		wg.Go(func() {
			want := aTopic()
			want.Group = fmt.Sprintf("g%d", i)
			var err error
			if got[i], err = c.EnsureTopic(ctx(t), want); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, g := range got {
		if g.Group != got[0].Group || g.V != directory.Version {
			t.Errorf("got %+v and %+v, want the same from all", got[0], g)
		}
	}
}

func TestUpdateTopicLosesNoUpdate(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	const clients, each = 3, 10
	var wg sync.WaitGroup
	for range clients {
		c := open(t, s)
		wg.Go(func() {
			if _, err := c.EnsureTopic(ctx(t), aTopic()); err != nil {
				t.Error(err)
			}
			for range each {
				if _, err := c.UpdateTopic(ctx(t), func(cur directory.Topic) (directory.Topic, bool) {
					cur.Incarnation++
					return cur, true
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := open(t, s).UpdateTopic(ctx(t), func(cur directory.Topic) (directory.Topic, bool) { return directory.Topic{}, false })
	if err != nil || got.Incarnation != 1+clients*each {
		t.Errorf("incarnation %d (%v), want %d", got.Incarnation, err, 1+clients*each)
	}
}

func TestUpdateTopicWithoutATopic(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	_, err := open(t, s).UpdateTopic(ctx(t), func(cur directory.Topic) (directory.Topic, bool) { return cur, true })
	if !errors.Is(err, etcdmap.ErrNoTopic) {
		t.Errorf("UpdateTopic = %v, want ErrNoTopic", err)
	}
}

func TestMalformedTopicIsExplained(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	putJSON(t, s, keys.TopicKey(), "what is this")
	_, err := open(t, s).EnsureTopic(ctx(t), aTopic())
	if !errors.Is(err, directory.ErrMalformed) || !containsAll(err.Error(), keys.TopicKey(), "etcdctl") {
		t.Errorf("EnsureTopic = %v, want ErrMalformed with the key and what to do", err)
	}
}

func TestEnsureTopicSaysWhyItStoppedWaiting(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	s.Stop()
	c := open(t, s, func(c *etcdmap.Config) { c.DialTimeout = 300 * time.Millisecond })
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.EnsureTopic(short, aTopic())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("EnsureTopic = %v, want the deadline and the refused connection", err)
	}
}

func TestMalformedValuesAreCountedOnceAndIgnored(t *testing.T) {
	t.Parallel()
	const said = "ignoring a malformed value in etcd"
	s := etcdtest.New(t)
	r := open(t, s)
	putJSON(t, s, keys.Claim(0), jsonClaim("a", 1))
	putJSON(t, s, keys.Claim(1), map[string]any{"v": 99, "node": "b"})
	putJSON(t, s, keys.Claims()+"seven", jsonClaim("a", 1))
	putJSON(t, s, keys.Nodes()+"x/y", node("i"))
	putJSON(t, s, keys.Node("c"), 7)
	putJSON(t, s, keys.TopicKey(), nil)
	putJSON(t, s, keys.Base()+"other", "not ours") // a later version's, perhaps
	v, second := r.watch(t), r.watch(t)
	p := v.until(t, "the good claim", owned(0, "a/a 1.1"))
	second.until(t, "the good claim", owned(0, "a/a 1.1"))
	if len(p.Claims) != 1 || len(p.Nodes) != 0 || p.Topic != nil {
		t.Errorf("got %+v, want the good claim alone", *p)
	}
	if n, logged := r.Stats().MalformedValues, r.logged(said); n != 5 || logged != 5 {
		t.Errorf("%d counted, %d logged, want 5: two watches met the same ones", n, logged)
	}
	putJSON(t, s, keys.Claim(0), "broken") // a good value turns bad, in a revision of its own
	v.until(t, "no claim", func(p *etcdmap.Picture) bool { return len(p.Claims) == 0 })
	putJSON(t, s, keys.Claim(0), jsonClaim("b", 2))
	v.until(t, "b owns 0", owned(0, "b/b 1.2"))
	if n := r.Stats().MalformedValues; n != 6 {
		t.Errorf("%d counted, want 6", n)
	}

	// What nobody can read does not stand in a node's way.
	a := r.publish(t, "a", "a1").registered(t)
	a.claim(1, 1, 1)
	v.until(t, "a owns 1", owned(1, "a/a1 1.1"))
}

func TestUserNameAndPassword(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t)
	direct(t, s, func(ctx context.Context, c *clientv3.Client) error {
		for _, err := range []func() error{
			func() error { _, err := c.RoleAdd(ctx, "root"); return err },
			func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err },
			func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
			func() error { _, err := c.AuthEnable(ctx); return err },
		} {
			if err := err(); err != nil {
				return err
			}
		}
		return nil
	})
	as := func(password string) func(*etcdmap.Config) {
		return func(c *etcdmap.Config) { c.Username, c.Password = "root", password }
	}
	for name, c := range map[string]*client{"wrong password": open(t, s, as("guess")), "no user name": open(t, s)} {
		if _, err := c.EnsureTopic(ctx(t), aTopic()); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: EnsureTopic = %v, want to be refused at once", name, err)
		}
	}
	s.Stop()
	c := open(t, s, as("secret")) // etcd need not be up
	v := c.watch(t)
	c.waitForLog(t, saidWaiting)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	a := c.publish(t, "a", "a1").registered(t)
	a.claim(0, 1, 1)
	v.until(t, "the claim", owned(0, "a/a1 1.1"))
	if err := a.Revoke(ctx(t)); err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := etcdtest.New(t, etcdtest.Config{TLS: true})
	c := open(t, s, func(c *etcdmap.Config) {
		c.TLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the certificate is etcd's own, made for this run
	})
	ensure(t, c)
	v := c.watch(t)
	v.until(t, "the topic", func(p *etcdmap.Picture) bool { return p.Topic != nil })

	plain := open(t, s)
	plain.watch(t)
	plain.waitForLog(t, saidWaiting)
	strict := open(t, s, func(c *etcdmap.Config) { c.TLS = &tls.Config{} })
	strict.watch(t)
	strict.waitForLog(t, saidWaiting)
	// On a busy machine the first request may end before the handshake has failed.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(30 * time.Second); ; {
		err, _ := strict.Health()
		if err != nil && strings.Contains(err.Error(), "certificate") {
			return
		}
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("etcd cannot be used because %v, want the certificate", err)
		}
	}
}
