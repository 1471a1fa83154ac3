package etcdmap

import (
	"errors"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// watchServer notes what watches are opened with, and refuses them.
type watchServer struct {
	pb.UnimplementedWatchServer
	opened chan metadata.MD
}

func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	s.opened <- md
	return errors.New("no")
}

// TestWatchesRequireALeader: a member that lost its cluster ends such a watch; it would keep others open and silent.
func TestWatchesRequireALeader(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ws := &watchServer{opened: make(chan metadata.MD, 1)}
	g := grpc.NewServer()
	pb.RegisterWatchServer(g, ws)
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	defer func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	s := newEtcdStore(Config{Endpoints: []string{ln.Addr().String()}, DialTimeout: time.Second}, testKeys.Base())
	w := s.watch(t.Context(), 1, 7)
	select {
	case u := <-w.updates:
		if u.err == nil {
			t.Errorf("got %+v, want the refusal", u)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the watch does not end")
	}
	md := <-ws.opened
	if got := md.Get("hasleader"); len(got) != 1 || got[0] != "true" {
		t.Errorf("hasleader is %q, want true", got)
	}
	if got := md.Get("pointsman-watch"); len(got) != 1 || got[0] != "7" {
		t.Errorf("the stream is labelled %q, want 7", got)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
