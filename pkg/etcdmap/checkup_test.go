package etcdmap

import (
	"testing"
	"time"
)

func TestLookReadsTheMapOnce(t *testing.T) {
	f := newFakeEtcd(testKeys.Base())
	m := newMap(Config{Prefix: testKeys.Prefix, Topic: testKeys.Topic}, f)
	defer func() { _ = m.Close() }()
	f.put(f.base+"topic", `{"v":1,"group":"g","topic_id":"00000000-0000-0000-0000-00000000000a","partitions":3,"partitioner":"murmur2","incarnation":1}`, 0)
	f.put(f.base+"claims/1", `{"v":1,"node":"a","instance":"i","incarnation":1,"generation":2,"since":"2026-01-02T03:04:05Z"}`, 0)
	f.put(f.base+"claims/2", `nonsense`, 0)
	p, err := m.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Topic == nil || p.Topic.Partitions != 3 || len(p.Claims) != 1 || p.Claims[1].Node != "a" || time.Since(p.At) > time.Minute {
		t.Errorf("got %+v", p)
	}
	if got := m.Stats().MalformedValues; got != 1 {
		t.Errorf("%d malformed values, want 1", got)
	}
	if err := m.TryWriting(t.Context()); err != nil {
		t.Error(err)
	}
	if len(f.leases) != 0 {
		t.Errorf("a lease was left behind: %v", f.leases)
	}
}
