// Package etcdmap_test runs pkg/etcdmap against a real etcd: its clients are cut off, its leases end, its data is
// lost, restored and compacted.
package etcdmap_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/integration/internal/etcdtest"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	topic   = "records"
	patient = 30 * time.Second // how long a test waits for what must happen
	shortly = 2 * time.Second  // the shortest lease
)

var keys = directory.Keys{Prefix: "/pointsman", Topic: topic}

// started is when everything in these tests began; etcd values need some time.
var started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// signal wakes those who wait for a condition on something that others change.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// until waits for ok, which is looked at again whenever s fires.
func (s *signal) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patient)
	defer deadline.Stop()
	for {
		changed := s.next()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("waited %v for: %s", patient, what)
		}
	}
}

// client is one Map and its log.
type client struct {
	*etcdmap.Map
	logs *observer.ObservedLogs
	said signal
}

func open(t *testing.T, s *etcdtest.Server, edit ...func(*etcdmap.Config)) *client {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	c := &client{logs: logs}
	cfg := etcdmap.Config{
		Endpoints: s.Endpoints(), Prefix: keys.Prefix, Topic: topic,
		DialTimeout: time.Second,
		RelistEvery: time.Hour, // nothing here may need it
		Logger:      zap.New(core, zap.Hooks(func(zapcore.Entry) error { c.said.fire(); return nil })),
	}
	for _, f := range edit {
		f(&cfg)
	}
	m, err := etcdmap.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Map = m
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close map: %v", err)
		}
		if t.Failed() {
			for _, e := range logs.All() {
				t.Log(e.Time.Format("05.000"), e.Level, e.Message, e.ContextMap())
			}
		}
	})
	return c
}

func (c *client) waitForLog(t *testing.T, message string) {
	t.Helper()
	c.said.until(t, "log "+message, func() bool { return c.logged(message) > 0 })
}

func (c *client) logged(message string) int { return c.logs.FilterMessage(message).Len() }

// view is what a router would see.
type view struct {
	told signal

	mu   sync.Mutex
	pics []*etcdmap.Picture
}

func (c *client) watch(t *testing.T) *view {
	t.Helper()
	v := &view{}
	go func() {
		// Ends with the map, which waits for it.
		_ = c.Watch(context.Background(), func(p *etcdmap.Picture) { // ErrClosed
			v.mu.Lock()
			v.pics = append(v.pics, p)
			v.mu.Unlock()
			v.told.fire()
		})
	}()
	return v
}

func (v *view) all() []*etcdmap.Picture {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]*etcdmap.Picture(nil), v.pics...)
}

// until waits for a picture that satisfies ok and returns it. Only the newest counts.
func (v *view) until(t *testing.T, what string, ok func(*etcdmap.Picture) bool) *etcdmap.Picture {
	t.Helper()
	var got *etcdmap.Picture
	defer func() {
		if t.Failed() && got != nil {
			t.Logf("last picture: %+v", *got)
		}
	}()
	v.told.until(t, what, func() bool {
		all := v.all()
		if len(all) == 0 {
			return false
		}
		got = all[len(all)-1]
		return ok(got)
	})
	return got
}

func node(instance string) directory.Node {
	return directory.Node{Instance: instance, Addr: "127.0.0.1:9080", Started: started, Version: "test"}
}

func claim(nodeID, instance string, incarnation int64, generation int32) directory.Claim {
	return directory.Claim{Node: nodeID, Instance: instance, Incarnation: incarnation, Generation: generation, Since: started}
}

func aTopic() directory.Topic {
	return directory.Topic{
		Group: "g", TopicID: "0f0e0d0c-0b0a-0908-0706-050403020100", Partitions: 8, Partitioner: "murmur2", Incarnation: 1,
	}
}

// publisher is one node that publishes.
type publisher struct {
	*etcdmap.Publisher
	id, instance string
	stop         context.CancelFunc
	ended        chan error

	signal signal
	mu     sync.Mutex
	lost   []string
}

func (c *client) publish(t *testing.T, id, instance string) *publisher {
	t.Helper()
	p := &publisher{id: id, instance: instance, ended: make(chan error, 1)}
	p.Publisher = c.NewPublisher(etcdmap.PublisherConfig{
		NodeID: id, Node: node(instance), LeaseTTL: shortly,
		Lost: func(part int32, w directory.Claim) {
			p.mu.Lock()
			p.lost = append(p.lost, fmt.Sprintf("%d to %s/%s %d.%d", part, w.Node, w.Instance, w.Incarnation, w.Generation))
			p.mu.Unlock()
			p.signal.fire()
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	t.Cleanup(cancel)
	go func() { p.ended <- p.Run(ctx) }() // the map waits for it
	return p
}

func (p *publisher) registered(t *testing.T) *publisher {
	t.Helper()
	select {
	case <-p.Registered():
	case err := <-p.ended:
		t.Fatalf("publisher %s ended: %v", p.id, err)
	case <-time.After(patient):
		t.Fatalf("publisher %s: not registered after %v", p.id, patient)
	}
	return p
}

func (p *publisher) claim(part int32, incarnation int64, generation int32) {
	p.SetClaim(part, claim(p.id, p.instance, incarnation, generation))
}

func (p *publisher) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patient):
		t.Fatalf("publisher %s does not end", p.id)
		return nil
	}
}

// owner returns what the picture says about a partition: node/instance incarnation.generation.
func owner(p *etcdmap.Picture, part int32) string {
	c, ok := p.Claims[part]
	if !ok {
		return "nobody"
	}
	return fmt.Sprintf("%s/%s %d.%d", c.Node, c.Instance, c.Incarnation, c.Generation)
}

func owned(part int32, by string) func(*etcdmap.Picture) bool {
	return func(p *etcdmap.Picture) bool { return owner(p, part) == by }
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), patient)
	t.Cleanup(cancel)
	return c
}

// direct talks to etcd past everything that cuts the maps off.
func direct(t *testing.T, s *etcdtest.Server, f func(context.Context, *clientv3.Client) error) {
	t.Helper()
	if err := s.Do(ctx(t), f); err != nil {
		t.Fatal(err)
	}
}

func putJSON(t *testing.T, s *etcdtest.Server, key string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	direct(t, s, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Put(ctx, key, string(b))
		return err
	})
}

func ensure(t *testing.T, c *client) {
	t.Helper()
	if _, err := c.EnsureTopic(ctx(t), aTopic()); err != nil {
		t.Fatal(err)
	}
}
