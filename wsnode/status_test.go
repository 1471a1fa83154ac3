package wsnode

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/overview"
)

func TestNodeTellsOperatorsItsOwnPart(t *testing.T) {
	b := prepare(t)
	b.ready()
	b.until("both partitions are claimed", claimed)
	r := b.dial()
	r.attach(1, 1, "k")
	r.expect("attached 1")
	b.c.produce(1, "k", "one")
	r.expect("record one")
	var s overview.Status
	// The loops' numbers are up to half a second old.
	waitFor(t, "the node tells of the stream and its head", func() bool {
		code, body := b.get(overview.Path)
		s = overview.Status{}
		if err := json.Unmarshal([]byte(body), &s); code != http.StatusOK || err != nil {
			t.Fatalf("%d %s: %v", code, body, err)
		}
		return len(s.Partitions) == 2 && s.Partitions[1].Head == 1 && s.Partitions[1].Streams == 1
	})
	if s.Of != overview.OfNode || s.Instance != b.n.Instance() || s.Topic == nil || s.Topic.Partitions != 2 {
		t.Errorf("got %+v, topic %+v", s, s.Topic)
	}
	if p := s.Partitions[1]; p.Generation != 4 || p.Since.IsZero() || !p.Reading || p.StandIn || p.Node != "n1" {
		t.Errorf("partition 1: %+v", p)
	}
	if len(s.Nodes) != 1 || s.Nodes[0].Streams != 1 || s.Nodes[0].Memory == 0 || !s.Nodes[0].Listed || s.Nodes[0].Routed != 2 {
		t.Errorf("nodes: %+v", s.Nodes)
	}
	if len(s.Routers) != 1 || s.Routers[0].Streams != 1 || s.Routers[0].ID == "" {
		t.Errorf("routers: %+v", s.Routers)
	}
}

func TestNodePublishesAnAdminAddressThatOthersReach(t *testing.T) {
	for _, c := range []struct{ listen, host string }{
		{"127.0.0.1:0", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.1"}, // that of the links
		{"[::]:0", "127.0.0.1"},
	} {
		b := prepare(t, func(cfg *Config) { cfg.Admin = c.listen })
		b.ready()
		p, _ := b.r.picture()
		host, port, err := net.SplitHostPort(p.Nodes["n1"].Admin)
		if err != nil || host != c.host || !strings.HasSuffix(b.n.AdminAddr(), ":"+port) {
			t.Errorf("--admin=%s: etcd says %q, listening on %s, want host %s: %v", c.listen, p.Nodes["n1"].Admin, b.n.AdminAddr(), c.host, err)
		}
	}
}

// waitFor looks again and again.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}
