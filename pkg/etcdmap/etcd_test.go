package etcdmap

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// watchServer notes what watches are opened with, and refuses them; or it answers nothing and notes their end.
type watchServer struct {
	pb.UnimplementedWatchServer
	opened chan metadata.MD
	ended  chan struct{} // nil: refuse
}

func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	s.opened <- md
	if s.ended != nil {
		<-stream.Context().Done()
		s.ended <- struct{}{}
	}
	return errors.New("no")
}

// serveWatches returns a store whose etcd has nothing but watches.
func serveWatches(t *testing.T, ws *watchServer) *etcdStore {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterWatchServer(g, ws)
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	s := newEtcdStore(Config{Endpoints: []string{ln.Addr().String()}, DialTimeout: time.Second}, testKeys.Base())
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// soon is how long a test waits for what comes at once.
const soon = 30 * time.Second

func await[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(soon):
		t.Fatalf("%s does not come", what)
	}
	return v
}

// TestWatchesRequireALeader: a member that lost its cluster ends such a watch; it would keep others open and silent.
func TestWatchesRequireALeader(t *testing.T) {
	t.Parallel()
	ws := &watchServer{opened: make(chan metadata.MD, 1)}
	w := serveWatches(t, ws).watch(t.Context(), 1)
	if u := await(t, "the refusal", w.updates); u.err == nil {
		t.Errorf("got %+v, want the refusal", u)
	}
	if got := (<-ws.opened).Get("hasleader"); len(got) != 1 || got[0] != "true" {
		t.Errorf("hasleader is %q, want true", got)
	}
}

// A watch that is given up while etcd is silent leaves nothing open: its stream would stay for the life of the process.
func TestAWatchThatWasNotAnsweredIsClosed(t *testing.T) {
	t.Parallel()
	ws := &watchServer{opened: make(chan metadata.MD, 10), ended: make(chan struct{}, 10)}
	s := serveWatches(t, ws)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		w := s.watch(ctx, 1)
		await(t, "the stream", ws.opened)
		if err := w.ask(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		await(t, "the stream's end", ws.ended)
	}
}
