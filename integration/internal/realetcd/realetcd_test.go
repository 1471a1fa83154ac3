package realetcd

import (
	"context"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

func TestDataOutlivesAKillAndNotAWipe(t *testing.T) {
	if os.Getenv("POINTSMAN_STACK") != "real" {
		t.Skip("builds etcd: POINTSMAN_STACK is not real (make test-kafka)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	bin, err := Build(ctx, "../..", "../../.work")
	if err != nil {
		t.Fatal(err)
	}
	var ports procs.Ports
	defer ports.Close()
	cfg := Config{Bin: bin, Dir: t.TempDir()}
	if cfg.Client, err = ports.Take(); err != nil {
		t.Fatal(err)
	}
	if cfg.Peer, err = ports.Take(); err != nil {
		t.Fatal(err)
	}
	s := New(cfg)
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Addr()}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	count := func() int64 {
		t.Helper()
		got, err := client.Get(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		return got.Count
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 1 {
		t.Errorf("after a kill: %d keys, want 1", got)
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 1 {
		t.Errorf("after a stop: %d keys, want 1", got)
	}
	if err := s.Wipe(ctx); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 0 {
		t.Errorf("after a wipe: %d keys, want 0", got)
	}
}
