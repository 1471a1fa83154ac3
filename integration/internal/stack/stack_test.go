package stack

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// The life of a stack: everything that an interface method promises happens, on the kind that the environment asks
// for.
func TestStackDoesWhatItSays(t *testing.T) {
	s := Start(t, Options{Routers: 2, Nodes: 2, Partitions: 4})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if errors.Is(err, ErrUnsupported) {
			t.Logf("left out: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	ids := func() string {
		var out []string
		for _, n := range s.Nodes() {
			out = append(out, n.ID)
		}
		return strings.Join(out, " ")
	}
	ready := func(url string) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return procs.Poll(ctx, pollEvery, func() error { return procs.CheckHTTP(ctx, url+"/readyz") })
	}

	n, err := s.AddNode(ctx)
	must(err)
	if got := s.Nodes(); len(got) != 3 || got[2].ID != n.ID {
		t.Fatalf("nodes %s, added %s", ids(), n.ID)
	}
	first, second := s.Nodes()[0], s.Nodes()[1]
	must(ready(n.Admin))

	must(s.FreezeNode(ctx, first.ID))
	must(s.ThawNode(ctx, first.ID))
	must(ready(first.Admin))
	must(s.KillNode(ctx, first.ID))
	must(s.DrainNode(ctx, second.ID))
	if got := ids(); got != n.ID {
		t.Fatalf("nodes %s after a kill and a drain, want %s", got, n.ID)
	}
	if err := s.KillNode(ctx, first.ID); err == nil {
		t.Error("a node was killed twice")
	}

	before := s.Routers()[1]
	must(s.KillRouter(ctx, 1))
	if err := procs.CheckHTTP(ctx, before.Admin+"/livez"); err == nil {
		t.Error("a killed router answers")
	}
	must(s.StartRouter(ctx, 1))
	must(ready(before.Admin))
	if err := s.StartRouter(ctx, 1); err == nil {
		t.Error("a running router was started")
	}
	must(RestartRouter(ctx, s, 0))
	must(s.FreezeRouter(ctx, 0))
	must(s.ThawRouter(ctx, 0))

	must(s.StopEtcd(ctx))
	must(s.StartEtcd(ctx))
	must(s.WipeEtcd(ctx))
	must(s.StopKafka(ctx))
	must(s.StartKafka(ctx))
	// What was there before a wipe and a restart is there again.
	if _, err := ensureTopic(ctx, s.Kafka(), Options{Topic: s.Topic(), Partitions: 4}); err != nil {
		t.Error(err)
	}
	for _, r := range s.Routers() {
		must(ready(r.Admin))
	}
	for _, n := range s.Nodes() {
		must(ready(n.Admin))
	}
}

func TestFlagsOfOneProcess(t *testing.T) {
	var cfg struct {
		Heartbeat  time.Duration
		EtcdPrefix string
		RingBytes  int64
		Etcd       []string
	}
	if err := applyFlags(&cfg, []string{"--heartbeat=1s", "--etcd-prefix=/x", "--ring-bytes=5", "--etcd=a,b"}); err != nil {
		t.Fatal(err)
	}
	if cfg.Heartbeat != time.Second || cfg.EtcdPrefix != "/x" || cfg.RingBytes != 5 || len(cfg.Etcd) != 2 {
		t.Errorf("got %+v", cfg)
	}
	for _, bad := range []string{"--no-such=1", "--heartbeat=soon", "heartbeat=1s", "--heartbeat"} {
		if err := applyFlags(&cfg, []string{bad}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
