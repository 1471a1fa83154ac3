package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/edge"
	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
	"github.com/pointsmanhq/pointsman/router/internal/nodetest"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

const patience = 15 * time.Second

// rig is a router without etcd: the test says what etcd would.
type rig struct {
	t        *testing.T
	log      *nodetest.Log
	hub      *hub.Hub
	pool     *links.Pool
	http     *httptest.Server
	registry *prometheus.Registry
	pic      table.Picture
	gen      int32
}

type rigOptions struct {
	partitions int32
	heartbeat  time.Duration
	window     int64
	dead       time.Duration // of links
	catchUp    int64         // bytes per second
}

func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	if o.partitions == 0 {
		o.partitions = 4
	}
	if o.heartbeat == 0 {
		o.heartbeat = 15 * time.Second
	}
	if o.window == 0 {
		o.window = 128 << 10
	}
	if o.dead == 0 {
		o.dead = patience
	}
	r := &rig{t: t, log: nodetest.NewLog(o.partitions), registry: prometheus.NewRegistry()}
	zero := func() float64 { return 0 }
	set := metrics.New(r.registry, metrics.Gauges{
		Nodes: zero, Partitions: zero, StoodIn: zero, Unserved: zero, Draining: zero,
		Sessions: zero, Keys: zero, Waiting: zero, Pending: zero, Queued: zero, Full: zero, Paced: zero, LinksUp: zero, Streams: zero, TableRevision: zero,
		TableAge: zero, EtcdAway: zero, LinkDials: zero, LinkFailures: zero, Malformed: zero,
		AuthKeys: zero, AuthKeysAge: zero, AuthFailures: zero,
	})
	r.hub = hub.New(hub.Config{
		Topic:     "records",
		Session:   session.Config{Window: o.window, Heartbeat: o.heartbeat},
		Limits:    clientconn.Limits{Ping: 20 * time.Second, Dead: time.Minute, Stall: time.Minute},
		ReadLimit: clientmsg.MaxControl, MaxKeys: 200, CatchUpRate: o.catchUp, Logger: zap.NewNop(), Metrics: set,
	})
	r.pool = links.NewPool(links.Config{
		Router: "router", DialTimeout: patience, PingEvery: o.dead / 10, DeadAfter: o.dead,
		RetryMost: 50 * time.Millisecond, Logger: zap.NewNop(),
	}, r.hub)
	r.hub.Use(r.pool)
	e := edge.New(edge.Config{Auth: edge.AuthNone{}, ResumeTimeout: patience, Logger: zap.NewNop(), Metrics: set}, r.hub)
	r.http = httptest.NewServer(e)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.hub.Run(ctx)
	}()
	t.Cleanup(func() {
		r.http.Close()
		r.hub.Cut()
		r.pool.Close()
		cancel()
		<-done
	})
	r.pic = table.Picture{
		Topic: &directory.Topic{
			V: 1, Group: "g", TopicID: directory.FormatTopicID(nodetest.TopicID()), Partitions: o.partitions, Partitioner: "murmur2",
		},
		Nodes: map[string]directory.Node{}, Claims: map[int32]directory.Claim{},
	}
	return r
}

// put shows the hub a copy of the picture.
func (r *rig) put() {
	r.pic.Revision++
	p := r.pic
	p.At = time.Now()
	p.Nodes, p.Claims = map[string]directory.Node{}, map[int32]directory.Claim{}
	for k, v := range r.pic.Nodes {
		p.Nodes[k] = v
	}
	for k, v := range r.pic.Claims {
		p.Claims[k] = v
	}
	r.hub.Picture(p)
}

// start starts a node, lists it and waits until it is linked.
func (r *rig) start(id string) *nodetest.Node {
	r.t.Helper()
	n := nodetest.Start(r.t, r.log, id, id+"-1")
	r.list(n)
	r.put()
	r.linked(n)
	return n
}

func (r *rig) list(n *nodetest.Node) {
	r.pic.Nodes[n.ID] = directory.Node{V: 1, Instance: n.Instance, Addr: n.Addr()}
}

func (r *rig) linked(n *nodetest.Node) {
	r.t.Helper()
	waitFor(r.t, "node "+n.ID+" to be linked", func() bool {
		for _, s := range r.hub.Nodes(func(string) string { return "" }) {
			if s.Instance == n.Instance && s.Linked {
				return true
			}
		}
		return false
	})
}

// claim gives partitions to a node, in a new generation; none means all.
func (r *rig) claim(n *nodetest.Node, partitions ...int32) {
	r.gen++
	if len(partitions) == 0 {
		for p := range r.log.Partitions {
			partitions = append(partitions, p)
		}
	}
	for _, p := range partitions {
		r.pic.Claims[p] = directory.Claim{V: 1, Node: n.ID, Instance: n.Instance, Incarnation: 1, Generation: r.gen}
	}
	r.put()
}

// disturb does one random thing to one of the nodes, or nothing.
func (r *rig) disturb(rng *rand.Rand, nodes []*nodetest.Node) {
	node := nodes[rng.IntN(len(nodes))]
	switch rng.IntN(6) {
	case 0:
		node.Break()
	case 1:
		node.Freeze()
		time.AfterFunc(50*time.Millisecond, node.Thaw)
	case 2, 3:
		r.claim(node, rng.Int32N(8), rng.Int32N(8), rng.Int32N(8))
	case 4:
		node.Checkpoint(rng.Int32N(8))
	}
}

func (r *rig) partition(key string) int32 {
	r.t.Helper()
	p, ok := r.hub.Partition([]byte(key))
	if !ok {
		r.t.Fatal("the topic is not known")
	}
	return p
}

func (r *rig) append(key, value string) int64 {
	return r.log.Append(r.partition(key), key, []byte(value))
}

func (r *rig) consistent() {
	r.t.Helper()
	if c := r.hub.Consistency(); len(c.Problems) > 0 {
		r.t.Errorf("inconsistent: %q", c.Problems)
	}
}

// metric reads a counter or gauge; with a label value, of that label.
func (r *rig) metric(name string, label ...string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "pointsman_router_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) > 0 && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() != label[0]) {
				continue
			}
			if h := m.GetHistogram(); h != nil {
				return float64(h.GetSampleCount())
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

// client is a WebSocket client.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func (r *rig) dial(query url.Values, protocols ...string) (*client, *http.Response, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.http.URL, "http")+clientmsg.Path+"?"+query.Encode(),
		&websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		return nil, resp, err
	}
	ws.SetReadLimit(-1)
	r.t.Cleanup(func() { _ = ws.CloseNow() })
	return &client{t: r.t, ws: ws}, resp, nil
}

// connect opens a client of a key; more are name, value pairs of the query.
func (r *rig) connect(key string, more ...string) *client {
	r.t.Helper()
	q := url.Values{"key": {key}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	c, resp, err := r.dial(q)
	if err != nil {
		r.t.Fatalf("connect: %v, %+v", err, resp)
	}
	return c
}

func (c *client) read() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, msg, err := c.ws.Read(ctx)
	return msg, err
}

// next reads one message and checks its type.
func (c *client) next(kind string) clientmsg.Message {
	c.t.Helper()
	msg, err := c.read()
	if err != nil {
		c.t.Fatalf("wait for %s: %v", kind, err)
	}
	m, err := clientmsg.Parse(msg)
	if err != nil {
		c.t.Fatalf("%s: %v", msg, err)
	}
	if m.Type != kind {
		c.t.Fatalf("got %s, want %s", msg, kind)
	}
	return m
}

// until skips messages of other types.
func (c *client) until(kind string) clientmsg.Message {
	c.t.Helper()
	for {
		msg, err := c.read()
		if err != nil {
			c.t.Fatalf("wait for %s: %v", kind, err)
		}
		m, err := clientmsg.Parse(msg)
		if err != nil {
			c.t.Fatalf("%s: %v", msg, err)
		}
		if m.Type == kind {
			return m
		}
	}
}

func (c *client) record(offset int64, value string) clientmsg.Message {
	c.t.Helper()
	m := c.next(clientmsg.TypeRecord)
	if m.Offset != offset || string(m.Value) != value {
		c.t.Fatalf("record %d %q, want %d %q", m.Offset, m.Value, offset, value)
	}
	return m
}

// closed waits for the close and returns its code and reason.
func (c *client) closed() (int, string) {
	c.t.Helper()
	for {
		_, err := c.read()
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if !errors.As(err, &ce) {
			c.t.Fatalf("ended with %v, want a close", err)
		}
		return int(ce.Code), ce.Reason
	}
}

func quoted(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}
