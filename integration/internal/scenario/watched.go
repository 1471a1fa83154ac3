package scenario

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/observe"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// still are the metrics that this scenario does not move, and why. A constant is of value all the same: it is exposed,
// which is checked.
var still = map[string]string{
	"pointsman_router_info":                  "always 1; its labels tell something",
	"pointsman_router_build_info":            "always 1; its labels tell something",
	"pointsman_wsnode_info":                  "always 1; its labels tell something",
	"pointsman_wsnode_build_info":            "always 1; its labels tell something",
	"pointsman_router_records_dropped_total": "counts what must not happen; if it moved here, the test would have found a bug",
	"pointsman_router_clients_limit":         "a setting",
	"pointsman_router_memory_limit_bytes":    "a setting",
	"pointsman_router_open_files_limit":      "a setting",
	"pointsman_wsnode_ring_limit_bytes":      "a setting",
	"pointsman_router_memory_short":          "memory suffices; what happens without is the business of the router's tests of limits",
	"pointsman_router_bad_tables_total":      "cannot happen either: whoever reads etcd refuses a topic without a proper id before a table is built",
	"pointsman_wsnode_topic_verified":        "stays 1 until Kafka has been away for longer than this test has time for; the node's tests of the topic's identity move it",
}

// fleeting are those that may come and go between two scrapes.
var fleeting = map[string]string{
	"pointsman_router_partitions_stood_in": "another node serves only until the group has heard of the death",
	"pointsman_wsnode_link_queued_bytes":   "the kernel takes megabytes for a router that stands still, more than clients' windows let be under way",
}

// Watched: a real Prometheus scrapes a running stack, through which go traffic and faults. Every query of the dashboard
// returns something, what is exposed is what docs/metrics.md lists, everything has moved but what `still` excuses, and
// the rules are evaluated.
func Watched(t testing.TB) {
	bin := needPrograms(t)
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		lacks(t, "prometheus is not installed (Debian: apt-get install prometheus), nothing scrapes the stack")
	}
	kinds, err := observe.ReadMetrics(root)
	if err != nil {
		t.Fatal(err)
	}
	dashboard, err := observe.ReadDashboard(root)
	if err != nil {
		t.Fatal(err)
	}
	i := newIssuer(t)
	i.rotate("first")
	w := begin(t, stack.Options{
		Routers: 2, Nodes: 3,
		// Requests wait for their turn. Links outlive the moments in which a node is held still.
		RouterFlags: append(i.flags(), "--trusted-proxies=127.0.0.1", "--handshake-rate=80", "--handshake-queue=400", "--link-timeout=10s",
			"--client-catchup-rate=512KiB"),
		// A small ring and a replay limit: a client that comes from the beginning meets a gap and is read for again, slowly.
		// What a link may hold for a router is soon too much.
		NodeFlags: []string{"--ring=1MiB", "--replay-limit=800", "--scan-rate=1MiB", "--link-buffer=64KiB", "--fetch-max-bytes=64KiB"},
	})
	v := &watched{world: w, p: w.prometheus(root), issuer: i}

	clients := keys("client", 200)
	for n, key := range clients {
		w.fleet.New(v.of(key, n, load.Options{Reconnect: w.other(n)}))
	}
	w.must(w.fleet.Connect(w.ctx, w.fleet.Clients(), w.target))
	w.must(w.producer.Burst(w.ctx, clients, 8000, 512))
	w.produce(clients, 500, 128)
	w.must(w.settled(time.Minute))
	v.clients()
	v.records(bin)
	v.nodes()
	v.rest(clients)
	w.must(w.quiet())

	for _, q := range dashboard.Queries {
		if err := v.p.sees(observe.Concrete(q.Expr, "5s")); err != nil {
			t.Errorf("dashboard, panel %q: %v", q.Where, err)
		}
	}
	for name, expr := range dashboard.Variables {
		if inner, ok := strings.CutPrefix(expr, "label_values("); ok {
			if err := v.p.sees(observe.Concrete(inner[:strings.LastIndex(inner, ",")], "5s")); err != nil {
				t.Errorf("dashboard, variable %s: %v", name, err)
			}
		}
	}
	v.p.exposes(kinds)
	v.p.moved(kinds)
	v.p.judges()
	w.consistent()
}

// watched lets happen what metrics tell of. What lasts for a moment only is held until Prometheus has seen it.
type watched struct {
	*world
	p      *prometheus
	issuer *issuer
}

// of completes the options of a client: its token, and an address of its own.
func (v *watched) of(key string, n int, o load.Options) load.Options {
	o.Key = key
	o.Token = func() string { return v.issuer.token(key, time.Hour) }
	o.Header = http.Header{"X-Forwarded-For": {fmt.Sprintf("192.0.2.%d", n+1)}}
	return o
}

// seen waits until Prometheus has seen all of it.
func (v *watched) seen(what string, exprs ...string) {
	v.t.Helper()
	v.eventually(20*time.Second, "Prometheus sees "+what, func() error {
		var errs []error
		for _, e := range exprs {
			errs = append(errs, v.p.sees(e))
		}
		return errors.Join(errs...)
	})
}

// clients is what clients do, and what is done to them.
func (v *watched) clients() {
	v.t.Helper()
	v.client(0, v.of("client-0000", 0, load.Options{From: "earliest"}))

	// Requests that are no WebSocket, one that is too large, and a connection that asks for nothing.
	address := strings.TrimPrefix(v.Routers()[0].URL, "ws://")
	for range 3 {
		v.get("http://" + address + "/v1/ws?key=x")
	}
	v.get("http://" + address + "/v1/ws?key=" + strings.Repeat("x", 40<<10))
	silent, err := (&net.Dialer{}).DialContext(v.ctx, "tcp", address)
	v.must(err)
	defer silent.Close()

	// One that does not read, and then has much to be read again for.
	deaf := v.client(0, v.of("deaf", 200, load.Options{ReadBuffer: 16 << 10}))
	deaf.Lagging()
	deaf.StopReading()
	v.must(v.producer.Burst(v.ctx, []string{"deaf"}, 2000, 8<<10))
	v.seen("a deaf client and a silent one", "pointsman_router_outbox_bytes > 0", "pointsman_router_sessions_window_full > 0", "pointsman_wsnode_streams_behind > 0",
		"pointsman_wsnode_behind_offsets > 0", "pointsman_router_handshakes_open > 0")
	deaf.ReadAgain()
	v.seen("it being read again for", "pointsman_wsnode_scans > 0")
	v.seen("it being held back by its rate", "pointsman_router_sessions_rate_limited > 0")
	v.must(deaf.Disconnect(v.ctx))

	// Keys of tokens that change, and that cannot be read.
	v.issuer.rotate("second")
	v.seen("two keys", "pointsman_router_auth_keys == 2")
	v.must(os.Remove(v.issuer.path))
	v.seen("that the keys are gone", "pointsman_router_auth_key_failures_total > 0")
	v.issuer.rotate("third")
}

// records are such as an operator hears of: with another partitioner, without a key, and held up by a transaction.
func (v *watched) records(bin string) {
	v.t.Helper()
	v.place(bin, "crc32")
	v.must(v.producer.Produce(v.ctx, &kgo.Record{Value: []byte("nobody's")}))
	tx, err := load.Begin(v.ctx, v.Kafka(), v.Topic(), "open", time.Minute)
	v.must(err)
	defer tx.Close()
	v.must(tx.Burst(v.ctx, keys("client", 20), 20, 64))
	v.seen("an open transaction", "pointsman_wsnode_uncommitted > 0")
	v.must(tx.End(v.ctx, true))
	v.p.fires("PointsmanPartitionerMismatch")

	// A node is behind Kafka for moments only.
	v.eventually(20*time.Second, "Prometheus sees a node that is behind", func() error {
		v.must(v.producer.Burst(v.ctx, []string{"nobody"}, 1000, 8<<10))
		return v.p.sees("max_over_time(pointsman_wsnode_lag[1m]) > 0")
	})
}

// nodes end without a word, in order, and all at once.
func (v *watched) nodes() {
	v.t.Helper()
	v.fault("node killed", func() error { return v.KillNode(v.ctx, v.Nodes()[0].ID) })
	v.add()
	v.fault("claim by a node that stands still", v.claimHeld)

	// Nobody can claim what a leaving node has.
	leaving, drained := v.Nodes()[0].ID, make(chan error, 1)
	v.fault("node drained", func() error {
		err := v.held(leaving, func() {
			go func() { drained <- v.DrainNode(v.ctx, leaving) }()
			v.seen("a node that leaves", "pointsman_wsnode_draining > 0")
		})
		return errors.Join(err, <-drained)
	})

	for _, n := range v.Nodes() {
		v.must(v.KillNode(v.ctx, n.ID))
	}
	v.seen("that nobody serves", "pointsman_router_partitions_unserved > 0", "pointsman_router_sessions_waiting > 0")
	// Those that come now find a topic that has grown meanwhile.
	v.must(load.AddPartitions(v.ctx, v.Kafka(), v.Topic(), v.Partitions()+1))
	v.add()
	v.add()
	v.seen("that the topic has grown", fmt.Sprintf("min(pointsman_router_partitions) == %d", v.Partitions()+1))
	v.must(v.settled(time.Minute))
}

// claimHeld publishes that a partition belongs to another node, which stands still: its sessions are served by the old one
// meanwhile, and when the new one moves again it sends what they have.
func (v *watched) claimHeld() error {
	all, err := v.directoryKeys()
	if err != nil {
		return err
	}
	key := fmt.Sprintf("claims/%d", v.partitionOf("client-0000"))
	claim, err := directory.ParseClaim([]byte(all[key]))
	if err != nil {
		return err
	}
	for _, n := range v.Nodes() {
		if n.ID == claim.Node {
			continue
		}
		node, err := directory.ParseNode([]byte(all["nodes/"+n.ID]))
		if err != nil {
			return err
		}
		claim.Node, claim.Instance = n.ID, node.Instance
		break
	}
	claim.Generation++
	text, err := directory.Marshal(claim)
	if err != nil {
		return err
	}
	if err := v.FreezeNode(v.ctx, claim.Node); err != nil {
		return err
	}
	if err := v.scribble(key, string(text)); err != nil {
		return err
	}
	v.seen("a handover", "pointsman_router_handovers_pending > 0")
	return v.ThawNode(v.ctx, claim.Node)
}

// held does something while all nodes but one stand still.
func (v *watched) held(but string, do func()) error {
	var others []string
	for _, n := range v.Nodes() {
		if n.ID != but {
			others = append(others, n.ID)
		}
	}
	for _, id := range others {
		if err := v.FreezeNode(v.ctx, id); err != nil {
			return err
		}
	}
	do()
	var errs []error
	for _, id := range others {
		errs = append(errs, v.ThawNode(v.ctx, id))
	}
	return errors.Join(errs...)
}

func (v *watched) add() {
	v.t.Helper()
	_, err := v.AddNode(v.ctx)
	v.must(err)
	v.p.scrape()
}

// rest is etcd, routers and the topic.
func (v *watched) rest(clients []string) {
	v.t.Helper()
	v.must(v.StopEtcd(v.ctx))
	v.seen("that etcd is away", "pointsman_router_etcd_away_seconds > 1", "pointsman_wsnode_etcd_away_seconds > 1")
	v.must(v.StartEtcd(v.ctx))
	v.must(v.scribble("nodes/stranger", "{"))

	// A router that takes nothing for a while.
	v.must(v.FreezeRouter(v.ctx, 0))
	v.must(v.producer.Burst(v.ctx, clients, 6000, 2<<10))
	v.p.scrape()
	v.must(v.ThawRouter(v.ctx, 0))

	name := v.target(1).Name
	v.fleet.ExpectEnds(name, true)
	v.fault("router replaced", func() error {
		if err := v.StopRouter(v.ctx, 1); err != nil {
			return err
		}
		v.seen("that a router left", "pointsman_router_draining > 0", "pointsman_wsnode_links == 1")
		return v.StartRouter(v.ctx, 1)
	})
	v.fleet.ExpectEnds(name, false)
	v.p.fires("PointsmanGaps")
}

// scribble puts something into etcd that is none of ours.
func (v *watched) scribble(key, value string) error {
	cl, err := clientv3.New(clientv3.Config{Endpoints: v.Etcd(), DialTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("etcd client: %w", err)
	}
	ctx, cancel := v.within(10 * time.Second)
	defer cancel()
	_, err = cl.Put(ctx, v.EtcdPrefix()+"/"+v.Topic()+"/"+key, value)
	return errors.Join(err, cl.Close())
}
