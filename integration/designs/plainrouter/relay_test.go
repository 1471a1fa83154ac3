package plainrouter

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// ends is a TCP connection by its two ends.
func ends(t *testing.T, l net.Listener) (dialed, accepted net.Conn) {
	t.Helper()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialed.Close() })
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return dialed, accepted
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

// TestAProxiedClientCostsTwoDescriptors has pairs of connections carry bytes both ways and then wait for more.
func TestAProxiedClientCostsTwoDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := &Router{pairs: make(map[net.Conn]struct{}), toward: prometheus.NewCounter(prometheus.CounterOpts{Name: "toward"})}
	const pairs = 50
	before := 0
	var clients, nodes []net.Conn
	for i := range pairs + 1 {
		if i == 1 {
			before = descriptors(t) // the first has made the poller's own
		}
		client, inner := ends(t, l)
		outer, node := ends(t, l)
		clients, nodes = append(clients, client), append(nodes, node)
		r.open.Add(1)
		go r.relay(inner, outer, []byte("early,"))
		for _, way := range []struct {
			from, to   net.Conn
			text, want string
		}{{client, node, "ask", "early,ask"}, {node, client, "answer", "answer"}} {
			if _, err := way.from.Write([]byte(way.text)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(way.want))
			if _, err := io.ReadFull(way.to, got); err != nil || string(got) != way.want {
				t.Fatalf("got %q, %v, want %q", got, err, way.want)
			}
		}
	}
	// The test has the far ends of both connections, the router the near ones.
	if got := descriptors(t) - before; got != 4*pairs {
		t.Errorf("%d pairs cost %d descriptors, want %d", pairs, got, 4*pairs)
	}
	for i := range clients {
		_, _ = clients[i].Close(), nodes[i].Close()
	}
	r.open.Wait()
}

// TestRelayCarriesWhatNoBufferHolds sends more than buffers and sockets hold, to a client that reads late, and then
// the end.
func TestRelayCarriesWhatNoBufferHolds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := &Router{pairs: make(map[net.Conn]struct{}), toward: prometheus.NewCounter(prometheus.CounterOpts{Name: "toward"})}
	client, inner := ends(t, l)
	outer, node := ends(t, l)
	r.open.Add(1)
	go r.relay(inner, outer, nil)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var writing sync.WaitGroup
	writing.Go(func() {
		if _, err := node.Write(want); err != nil {
			t.Error(err)
		}
		_ = node.Close()
	})
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	writing.Wait()
	_ = client.Close()
	r.open.Wait()
}
