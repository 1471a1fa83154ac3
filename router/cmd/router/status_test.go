package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// operators is a router's admin server that says what it is told to.
func operators(t *testing.T, path string, says any) (flag string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { admin.Answer(w, r, http.StatusOK, says) })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return "--admin=" + strings.TrimPrefix(srv.URL, "http://")
}

func stack() *overview.Status {
	at := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	return &overview.Status{
		Of: overview.OfRouter, ID: "router-1", At: at, Table: overview.Table{Revision: 1234, AgeMS: 754_000},
		Topic:    &overview.Topic{Name: "orders", Partitions: 3, Partitioner: "murmur2", Group: "pointsman-orders"},
		Problems: []string{"node-2 is in etcd,\x1b[31m but router-1 cannot link it"},
		Nodes: []overview.Node{
			{ID: "node-1", Version: "v1.2.3", Zone: "a", Started: at.Add(-76 * time.Hour), Listed: true, Linked: true, Routed: 3, Streams: 12345, Behind: 2, Memory: 300 << 20},
			{ID: "node-2", Started: at.Add(-time.Hour), Listed: true, Draining: true, Unheard: "connection refused"},
		},
		Routers: []overview.Router{
			{ID: "router-1", Self: true, Sessions: 5012, Streams: 5020, Nodes: 1, Memory: 2 << 30, Since: at.Add(-time.Minute)},
			{ID: "router-2", Streams: 7, Nodes: 1, Remote: "10.0.0.9:4711", Since: at.Add(-time.Minute)},
		},
		Partitions: []overview.Partition{
			{Partition: 0, Node: "node-1", Generation: 7, Since: at.Add(-time.Hour), Reading: true, Head: 1000, Lag: 2, Streams: 5},
			{Partition: 1, Node: "node-1", Generation: 6, StandIn: true, Claimed: "node-2", Since: at.Add(-time.Hour)},
			{Partition: 2, Node: "node-1", Generation: 7, Since: at, Reading: true, Head: 1_000_000, Streams: 1, Behind: 1, Lowest: 10, Scanning: true, ScanAt: 20, Uncommitted: 5000},
		},
		Handovers: []overview.Handover{
			{At: at.Add(-4 * time.Second), Cause: "link_down", From: []string{"node-2"}, To: []string{"node-1"}, Partitions: 1, Sessions: 1700, PauseMS: 12.345},
			{At: at.Add(-time.Hour), Cause: "claim", To: []string{"node-2"}, Partitions: 1},
		},
		Mismatches: []overview.Mismatch{},
	}
}

func TestStatusIsReadableAtThreeInTheMorning(t *testing.T) {
	code, out, errs := invoke(t, "status", operators(t, overview.Path, stack()))
	want := `orders: 3 partitions, murmur2, group pointsman-orders
seen by router router-1 at 03:00:00Z; etcd revision 1234, unchanged for 12m34s

! "node-2 is in etcd,\x1b[31m but router-1 cannot link it"

NODE    PARTITIONS  STREAMS  BEHIND  LAG   MEMORY    UP  VERSION  ZONE  STATE
node-1           3   12,345       2    0  300 MiB  3d4h  v1.2.3   a     ok
node-2           0        ?       ?    ?        ?  1h0m                 not linked, draining, not heard

ROUTER    CLIENTS  STREAMS  NODES  WAITING  MOVING   MEMORY    UP  VERSION  FROM
router-1    5,012    5,020      1        0       0  2.0 GiB  1m0s           this router
router-2                 7      1                            1m0s           10.0.0.9:4711

Partitions that need a look
PARTITION  NODE    GENERATION  SINCE       HEAD  LAG  STREAMS  BEHIND
        1  node-1           6   1h0m          -    -        -       -  stands in for node-2
        2  node-1           7     0s  1,000,000    0        1       1  5,000 held back by open transactions

Catch-ups running
PARTITION  NODE    CLIENTS BEHIND  FURTHEST  READING AT       HEAD    TO GO
        2  node-1               1        10          20  1,000,000  999,980

Last handovers
 AGO  CAUSE      PARTITIONS  CLIENTS  LONGEST PAUSE  FROM    TO
  4s  node lost           1    1,700         12.3ms  node-2  node-1
1h0m  new owner           1        0           none  nobody  node-2
`
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit code %d, got\n%s\nwant\n%s\nstderr %q", code, out, want, errs)
	}
	if _, out, _ := invoke(t, "status", "--partitions", operators(t, overview.Path, stack())); !strings.Contains(out, "\n        0  node-1") {
		t.Errorf("--partitions does not list partition 0:\n%s", out)
	}
}

func TestStatusForPrograms(t *testing.T) {
	code, out, _ := invoke(t, "status", "-o", "json", operators(t, overview.Path, stack()))
	got := new(overview.Status)
	if err := json.Unmarshal([]byte(out), got); code != 0 || err != nil || got.Nodes[0].Streams != 12345 {
		t.Errorf("exit code %d, %v, %+v", code, err, got)
	}
	// Watched, it is one line each time.
	var lines bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen := heard{func(text string) {
		lines.WriteString(text)
		if strings.Count(lines.String(), "\n") == 3 {
			cancel()
		}
	}}
	flag := operators(t, overview.Path, stack())
	code = options.Run(ctx, description(), &program{}, []string{"status", "-w", "--every=100ms", "-o", "json", flag}, options.Env{Stdout: seen, Stderr: seen})
	for line := range strings.Lines(lines.String()) {
		if err := json.Unmarshal([]byte(line), got); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	if code != 0 {
		t.Errorf("exit code %d of an interrupted watch, want 0", code)
	}
}

func TestWhereTellsNodeReasonAndSessions(t *testing.T) {
	head, lag := int64(1200), int64(3)
	says := map[string]any{
		"key": "alice", "topic": "orders", "partition": 21, "partitions": 32, "partitioner": "murmur2", "node": "node-3", "instance": "i3",
		"why": "the consumer group gave it to node-3", "head": head, "lag": 2, "router": "router-1", "clients_total": 2,
		"clients": []map[string]any{
			{"remote": "10.0.0.7:4242", "since": time.Now().Add(-2 * time.Hour), "protocol": "json", "node": "node-3", "cursor": "AUtL", "partition": 21, "next": 1197, "greeted": true, "lag": lag, "queued_bytes": 12},
		},
	}
	code, out, errs := invoke(t, "where", "alice", operators(t, "/api/v1/where", says))
	want := `alice is in partition 21 of 32 (murmur2)
served by   node-3 (instance i3)
because     the consumer group gave it to node-3
head        1,200, 2 records not read yet
sessions    2 on router router-1

CLIENT         CONNECTED     NEXT  LAG  QUEUED  SERVED BY  CURSOR
10.0.0.7:4242       2h0m  21:1197    3      12  node-3     AUtL
and 1 more
`
	if code != 0 || out != want {
		t.Errorf("exit code %d, %q, got\n%s\nwant\n%s", code, errs, out, want)
	}
}

func TestNobodyAnswersSaysWhatToDo(t *testing.T) {
	closed := strings.TrimPrefix(operators(t, "/x", nil), "--admin=")
	srv := httptest.NewServer(http.NotFoundHandler())
	gone := strings.TrimPrefix(srv.URL, "http://")
	srv.Close()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"status", "--admin=" + gone}, []string{"no router answers at " + gone, "connection refused", "--admin", "--topic"}},
		{[]string{"where", "alice", "--admin=" + gone}, []string{"no router answers at " + gone, "connection refused", "--admin", "--topic"}},
		{[]string{"status", "--admin=" + gone, "--topic=x", "--etcd=" + gone}, []string{"no router answers", "etcd at " + gone, "--etcd"}},
		{[]string{"where", "alice", "--admin=" + closed}, []string{"no router is at " + closed, "a node?"}},
	} {
		code, out, errs := invoke(t, c.args...)
		if code != options.ExitFailure || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, %q, want one line of error", c.args, code, out, errs)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%q: %q lacks %q", c.args, errs, want)
			}
		}
	}
}

func TestEtcdAloneTellsOwnersAndWhatIsLate(t *testing.T) {
	at := time.Now().Add(-time.Minute)
	pic := &etcdmap.Picture{
		Revision: 9,
		Topic:    &directory.Topic{V: 1, Group: "g", TopicID: "t", Partitions: 3, Partitioner: "murmur2"},
		Nodes:    map[string]directory.Node{"a": {Instance: "a1", Addr: "10.0.0.1:9080"}},
		Claims: map[int32]directory.Claim{
			0: {Node: "a", Instance: "a1", Generation: 4, Since: at},
			1: {Node: "b", Instance: "b1", Generation: 3, Since: at},
		},
	}
	s := fromEtcd("orders", pic)
	if s.Partitions[0].Node != "a" || s.Partitions[0].StandIn || !s.Partitions[1].StandIn || s.Partitions[2].Node != "" || s.Nodes[0].Routed != 1 {
		t.Errorf("got %+v, %+v", s.Partitions, s.Nodes)
	}
	known := fromEtcd("orders", pic)
	known.Of, known.ID = overview.OfRouter, "router-1"
	known.Partitions[1].StandIn, known.Partitions[1].Claimed, known.Partitions[1].Node = true, "b", "a"
	compare(known, pic, time.Now())
	if len(known.Problems) != 0 {
		t.Errorf("a router that knows all is called late: %q", known.Problems)
	}
	known.Partitions[0].Generation = 3
	compare(known, pic, time.Now())
	if len(known.Problems) != 1 || !strings.Contains(known.Problems[0], "partitions 0: its watch is behind") {
		t.Errorf("got %q", known.Problems)
	}
}
