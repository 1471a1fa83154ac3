package stack

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// Everything that Breakable promises happens, on a kind that runs processes.
func TestStackBreaks(t *testing.T) {
	kind, err := KindFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if kind != Real {
		t.Skip("needs processes over Kafka and etcd: POINTSMAN_STACK=real")
	}
	s, ok := Start(t, Options{Nodes: 2, Partitions: 4, Bridged: true}).(Breakable)
	if !ok {
		t.Fatal("a stack of processes is not Breakable")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dial := func(addr string) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	first := s.Nodes()[0]
	must(s.CutNode(first.ID))
	if err := dial(first.Addr); err == nil {
		t.Error("a node that was cut off takes connections")
	}
	must(s.MendNode(first.ID))
	must(dial(first.Addr))
	must(s.HoldNode(first.ID, true))
	must(s.HoldNode(first.ID, false))

	for _, inOrder := range []bool{true, false} {
		before := s.Nodes()[0]
		must(s.RestartNode(ctx, before.ID, inOrder))
		after := s.Nodes()[len(s.Nodes())-1]
		if after.ID != before.ID || after.Addr != before.Addr || after.PID == before.PID {
			t.Errorf("restarted %+v, and it is %+v", before, after)
		}
	}
	pid := s.Backend()["etcd"]
	must(s.FreezeEtcd(ctx))
	must(s.ThawEtcd(ctx))
	must(s.KillEtcd(ctx))
	if now := s.Backend(); now["etcd"] != 0 || now["kafka"] == 0 {
		t.Errorf("after etcd was killed there are %v", now)
	}
	must(s.StartEtcd(ctx))
	if now := s.Backend()["etcd"]; now == 0 || now == pid {
		t.Errorf("etcd is process %d, and was %d before it was killed", now, pid)
	}
	for _, n := range s.Nodes() {
		must(procs.Poll(ctx, pollEvery, func() error { return procs.CheckHTTP(ctx, n.Admin+"/readyz") }))
	}
}
