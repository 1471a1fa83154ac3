package overview_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/overview"
)

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		list []int32
		want string
	}{
		{nil, ""}, {[]int32{4}, "4"}, {[]int32{0, 1, 2, 3, 7}, "0-3, 7"}, {[]int32{1, 3}, "1, 3"},
		{[]int32{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}, "0, 2, 4, 6, 8, 10, 12, 14, …"},
	} {
		if got := overview.Ranges(c.list); got != c.want {
			t.Errorf("%v: got %q, want %q", c.list, got, c.want)
		}
	}
}

// healthy is a stack in order.
func healthy(partitions int32, nodes int) *overview.Status {
	s := &overview.Status{
		Of: overview.OfRouter, ID: "router-1", At: time.Unix(1_800_000_000, 0).UTC(),
		Topic: &overview.Topic{Name: "orders", Partitions: partitions, Partitioner: "murmur2", Group: "g"},
	}
	for i := range nodes {
		s.Nodes = append(s.Nodes, overview.Node{
			ID: fmt.Sprintf("pointsman-wsnode-%d", i), Instance: fmt.Sprintf("%016x", i), Addr: "10.0.0.1:9080", Admin: "10.0.0.1:9081",
			Version: "v1.2.3", Zone: "eu-central-1a", Started: s.At, Listed: true, Linked: true, RTT: 0.123, Routed: 41,
			Streams: 12345, Behind: 17, Lag: 1234, Memory: 1 << 30, Ring: 256 << 20,
		})
	}
	for p := range partitions {
		s.Partitions = append(s.Partitions, overview.Partition{
			Partition: p, Node: s.Nodes[int(p)%nodes].ID, Generation: 1234, Since: s.At, Sessions: 1234, Reading: true,
			Head: 1_234_567_890, Lag: 12, Uncommitted: 3, Streams: 1234, Behind: 5, Lowest: 1_234_567_000, Scanning: true, ScanAt: 1_234_567_100,
		})
	}
	return s
}

func TestLargestStackStaysSmall(t *testing.T) {
	s := healthy(4096, 100)
	for range 64 {
		s.Handovers = append(s.Handovers, overview.Handover{At: s.At, Cause: "link_down", From: []string{"pointsman-wsnode-1"}, To: []string{"pointsman-wsnode-2"}})
	}
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	// Even with every number there is; a console asks every two seconds.
	if len(body) > 1200<<10 {
		t.Errorf("the status of 4,096 partitions and 100 nodes has %d bytes, want at most 1,200 KiB", len(body))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { admin.Answer(w, r, http.StatusOK, s) }))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	counted := &count{r: resp.Body}
	z, err := gzip.NewReader(counted)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil || string(got) != string(body) {
		t.Fatalf("the compressed answer differs: %v", err)
	}
	if counted.n > 200<<10 {
		t.Errorf("compressed it has %d bytes, want at most 200 KiB", counted.n)
	}
	t.Logf("%d bytes, %d on the wire", len(body), counted.n)
}

type count struct {
	r io.Reader
	n int
}

func (c *count) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestProblemsAreFoundAndSayWhatToDo(t *testing.T) {
	s := healthy(6, 3)
	if s.Diagnose(); len(s.Problems) != 0 {
		t.Fatalf("a stack in order has problems: %q", s.Problems)
	}
	for _, c := range []struct {
		name  string
		wreck func(s *overview.Status)
		want  []string
	}{
		{"etcd away", func(s *overview.Status) { s.Etcd.Error = "no answer" }, []string{"etcd does not answer (no answer)"}},
		{"no topic", func(s *overview.Status) { s.Topic = nil }, []string{"not described in etcd", "--etcd-prefix"}},
		{"no node", func(s *overview.Status) { s.Nodes, s.Partitions = nil, nil }, []string{"no node lives", "wsnode --topic=orders"}},
		{"all leave", func(s *overview.Status) {
			for i := range s.Nodes {
				s.Nodes[i].Draining = true
			}
		}, []string{"all nodes are draining", "wsnode --topic=orders"}},
		{"dead node", func(s *overview.Status) {
			s.Nodes[1].Linked, s.Nodes[1].LinkError = false, `failed: Get "http://x": dial tcp 10.0.0.1:9080: connect: connection refused`
			for _, p := range []int{1, 4} {
				s.Partitions[p].Node, s.Partitions[p].StandIn, s.Partitions[p].Claimed = s.Nodes[2].ID, true, s.Nodes[1].ID
			}
		}, []string{"cannot link it: dial tcp 10.0.0.1:9080: connect: connection refused.", "2 partitions (1, 4): stand-ins serve"}},
		{"nobody", func(s *overview.Status) { s.Partitions[3].Node = "" }, []string{"nobody serves partition 3"}},
		{"far behind", func(s *overview.Status) { s.Partitions[2].Lag = 50_000 }, []string{"partition 2: 50000 records not read yet"}},
		{"mute node", func(s *overview.Status) { s.Nodes[0].Unheard = "connection refused" }, []string{"did not say how far it is"}},
		{"sick node", func(s *overview.Status) { s.Nodes[0].Problem = "kafka: gone" }, []string{"is not ready: kafka: gone"}},
		{"foreign producer", func(s *overview.Status) {
			s.Mismatches = []overview.Mismatch{{Partition: 3, Offset: 9, Count: 7, LooksLike: "crc32"}}
		}, []string{"partitioner murmur2: 7 records in partition 3 (the newest at offset 9; crc32 puts it there)"}},
		{"malformed", func(s *overview.Status) { s.Etcd.Malformed = 2 }, []string{"2 values in etcd"}},
	} {
		s := healthy(6, 3)
		c.wreck(s)
		s.Diagnose()
		all := strings.Join(s.Problems, "\n")
		for _, want := range c.want {
			if !strings.Contains(all, want) {
				t.Errorf("%s: got %q, want %q in it", c.name, s.Problems, want)
			}
		}
	}
}

func TestWhyNamesTheReason(t *testing.T) {
	for _, c := range []struct {
		of   overview.Of
		p    overview.Partition
		want string
	}{
		{overview.OfRouter, overview.Partition{Node: "a"}, "gave it to a, and its link is up"},
		{overview.OfRouter, overview.Partition{}, "no node lives"},
		{overview.OfRouter, overview.Partition{Claimed: "a"}, "a has the newest claim, but no node is linked"},
		{overview.OfRouter, overview.Partition{Node: "b", StandIn: true}, "no node has claimed"},
		{overview.OfRouter, overview.Partition{Node: "b", StandIn: true, Claimed: "a"}, "b stands in: a has the newest claim"},
		{overview.OfRouter, overview.Partition{Node: "b", Claimed: "a"}, "b owned it before and serves on"},
		{overview.OfRouter, overview.Partition{Node: "b", Remembered: true}, "b owned it before and serves on: etcd holds no claim"},
		{overview.OfEtcd, overview.Partition{Node: "a"}, "its lease in etcd lives"},
		{overview.OfEtcd, overview.Partition{Node: "a", StandIn: true}, "not in etcd any more"},
	} {
		s := &overview.Status{Of: c.of}
		if got := s.Why(&c.p); !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q, want %q in it", c.p, got, c.want)
		}
	}
}
