package wsnode

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap/zaptest"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// patience bounds every wait of these tests; it is reached only when one fails.
const patience = 10 * time.Second

// cluster is a Kafka with one topic and one group, whose partitions all go to the first member.
type cluster struct {
	mu         sync.Mutex
	id         [16]byte
	partitions int32
	logs       map[int32][]source.Record
	sinks      map[int32]runner.Sink
	next       map[int32]int64
	generation int32
	left       chan struct{} // closed when the member has left
}

func newCluster() *cluster {
	return &cluster{
		id: [16]byte{1}, partitions: 2, generation: 4, left: make(chan struct{}),
		logs: map[int32][]source.Record{}, sinks: map[int32]runner.Sink{}, next: map[int32]int64{},
	}
}

func (c *cluster) Close() error { return nil }

func (c *cluster) Topic(context.Context) (kafka.Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return kafka.Topic{ID: c.id, Partitions: c.partitions}, nil
}

func (c *cluster) boundsLocked(p int32) source.Bounds {
	end := int64(len(c.logs[p]))
	return source.Bounds{Stable: end, High: end}
}

func (c *cluster) Ends(_ context.Context, _ [16]byte, partitions int32) ([]int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ends := make([]int64, partitions)
	for p := range ends {
		ends[p] = c.boundsLocked(int32(p)).High
	}
	return ends, nil
}

func (c *cluster) Bounds(_ context.Context, _ [16]byte, p int32) (source.Bounds, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boundsLocked(p), nil
}

func (c *cluster) OffsetAt(context.Context, [16]byte, int32, int64) (int64, bool, error) {
	return 0, false, nil
}

func (c *cluster) Scan(_ context.Context, _ [16]byte, p int32, from int64, _ int32) (*source.Batch, *source.Bounds, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.batchLocked(p, from), nil, nil
}

func (c *cluster) batchLocked(p int32, from int64) *source.Batch {
	end := int64(len(c.logs[p]))
	return &source.Batch{From: from, Next: end, Records: slices.Clone(c.logs[p][from:]), Bounds: c.boundsLocked(p)}
}

func (c *cluster) Read(_ [16]byte, p int32, from int64, s runner.Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sinks[p], c.next[p] = s, from
}

func (c *cluster) StopRead(p int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sinks, p)
}

// produce appends a record and hands it to the partition's reader, if there is one.
func (c *cluster) produce(p int32, key, value string) {
	c.mu.Lock()
	c.logs[p] = append(c.logs[p], source.Record{
		Offset: int64(len(c.logs[p])), Key: []byte(key), HasKey: true, Value: []byte(value), Timestamp: time.Now().UnixMilli(),
	})
	s := c.sinks[p]
	var b *source.Batch
	if s != nil {
		b = c.batchLocked(p, c.next[p])
		c.next[p] = b.Next
	}
	c.mu.Unlock()
	if s != nil {
		s.Batch(b)
	}
}

func (c *cluster) Join(cfg kafka.GroupConfig) (group, error) {
	return &member{c: c, h: cfg.Handler, marks: map[int32]int64{}}, nil
}

type member struct {
	c     *cluster
	h     kafka.GroupHandler
	mu    sync.Mutex
	marks map[int32]int64
}

func (m *member) Run(ctx context.Context) error {
	m.c.mu.Lock()
	n := m.c.partitions
	m.c.mu.Unlock()
	for p := range n {
		m.h.Assigned(p, m.Generation(), -1)
	}
	<-ctx.Done()
	for p := range n {
		m.h.Revoked(p)
	}
	close(m.c.left)
	return nil
}

func (m *member) Mark(p int32, next int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[p] = next
}

func (m *member) Generation() int32 {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.c.generation
}

// registry is an etcd.
type registry struct {
	mu      sync.Mutex
	topic   *directory.Topic
	nodes   map[string]directory.Node
	claims  map[int32]directory.Claim
	changed chan struct{} // closed by the next change
	revoked bool
	taken   bool // the node's id belongs to another
}

func newRegistry() *registry {
	return &registry{nodes: map[string]directory.Node{}, claims: map[int32]directory.Claim{}, changed: make(chan struct{})}
}

func (r *registry) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *registry) picture() (*etcdmap.Picture, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &etcdmap.Picture{Topic: r.topic, Nodes: maps.Clone(r.nodes), Claims: maps.Clone(r.claims)}, r.changed
}

func (r *registry) Watch(ctx context.Context, changed func(*etcdmap.Picture)) error {
	for {
		p, next := r.picture()
		changed(p)
		select {
		case <-next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *registry) Health() (err error, since time.Time) { return nil, time.Time{} }
func (r *registry) Stats() etcdmap.Stats                 { return etcdmap.Stats{} }
func (r *registry) Close() error                         { return nil }

func (r *registry) EnsureTopic(_ context.Context, want directory.Topic) (directory.Topic, error) {
	r.change(func() {
		if r.topic == nil {
			r.topic = &want
		}
	})
	return *r.topic, nil
}

func (r *registry) UpdateTopic(_ context.Context, change func(directory.Topic) (directory.Topic, bool)) (directory.Topic, error) {
	r.change(func() {
		if next, ok := change(*r.topic); ok {
			r.topic = &next
		}
	})
	return *r.topic, nil
}

func (r *registry) Publish(cfg etcdmap.PublisherConfig) publisher {
	return &entry{r: r, cfg: cfg, registered: make(chan struct{})}
}

type entry struct {
	r          *registry
	cfg        etcdmap.PublisherConfig
	registered chan struct{}
}

func (e *entry) Run(ctx context.Context) error {
	if e.r.taken {
		return etcdmap.ErrNodeIDTaken
	}
	e.SetNode(e.cfg.Node)
	close(e.registered)
	<-ctx.Done()
	return nil
}

func (e *entry) Registered() <-chan struct{} { return e.registered }
func (e *entry) SetNode(n directory.Node)    { e.r.change(func() { e.r.nodes[e.cfg.NodeID] = n }) }
func (e *entry) SetClaim(p int32, c directory.Claim) {
	e.r.change(func() { e.r.claims[p] = c })
}
func (e *entry) DropClaim(int32) {}
func (e *entry) Revoke(context.Context) error {
	e.r.change(func() {
		e.r.revoked = true
		delete(e.r.nodes, e.cfg.NodeID)
		clear(e.r.claims)
	})
	return nil
}

// bench is one node over fakes.
type bench struct {
	t    *testing.T
	c    *cluster
	r    *registry
	n    *Node
	stop context.CancelFunc
	done chan error
}

func prepare(t *testing.T, change ...func(*Config)) *bench {
	t.Helper()
	cfg := Config{ID: "n1", Topic: "t", Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", DrainTimeout: patience, Linger: time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	n, err := New(cfg, Deps{Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, c: newCluster(), r: newRegistry(), n: n, done: make(chan error, 1)}
	n.doors = doors{
		machine: thisMachine{},
		kafka:   func(context.Context, kafka.Config) (broker, error) { return b.c, nil },
		etcd:    func(etcdmap.Config) (register, error) { return b.r, nil },
	}
	return b
}

// run starts the node; the test's end stops it.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.done <- b.n.Run(ctx)
	}()
	b.t.Cleanup(func() {
		b.n.Kill()
		cancel()
		<-ended
	})
}

func (b *bench) ready() {
	b.t.Helper()
	b.run()
	select {
	case <-b.n.Ready():
	case err := <-b.done:
		b.t.Fatalf("the node ended: %v", err)
	case <-time.After(patience):
		b.t.Fatal("the node does not become ready")
	}
}

// until waits for something that etcd will say.
func (b *bench) until(what string, is func(*etcdmap.Picture) bool) {
	b.t.Helper()
	limit := time.After(patience)
	for {
		p, next := b.r.picture()
		if is(p) {
			return
		}
		select {
		case <-next:
		case <-limit:
			b.t.Fatalf("etcd never says that %s", what)
		}
	}
}

func (b *bench) ended() error {
	b.t.Helper()
	select {
	case err := <-b.done:
		return err
	case <-time.After(patience):
		b.t.Fatal("the node does not end")
		return nil
	}
}

// peer is a router's link.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
	seen []string
}

func (b *bench) dial() *peer {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+b.n.Addr()+link.Path, &websocket.DialOptions{Subprotocols: []string{link.Subprotocol}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.CloseNow() })
	p := &peer{t: b.t, conn: conn}
	p.send(link.AppendHello(nil, &link.Hello{Router: "r1", Version: link.Version}))
	p.expect("welcome n1")
	return p
}

func (p *peer) send(msg []byte) {
	p.t.Helper()
	if err := p.conn.Write(context.Background(), websocket.MessageBinary, msg); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) attach(stream uint64, partition int32, key string) {
	p.send(link.AppendAttach(nil, &link.Attach{
		Stream: stream, Partition: partition, Key: []byte(key), Start: link.Start{Kind: link.StartLatest}, Credit: 1 << 20,
	}))
}

// expect reads until the frame comes; checkpoints and the like are passed over.
func (p *peer) expect(want string) {
	p.t.Helper()
	for {
		for len(p.seen) > 0 {
			got := p.seen[0]
			p.seen = p.seen[1:]
			if got == want {
				return
			}
		}
		if err := p.read(); err != nil {
			p.t.Fatalf("wait for %q: %v", want, err)
		}
	}
}

func (p *peer) read() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, msg, err := p.conn.Read(ctx)
	if err != nil {
		return err
	}
	return link.DecodeToRouter(msg, p)
}

// closed reads until the node closes the link.
func (p *peer) closed() websocket.StatusCode {
	for {
		if err := p.read(); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func (p *peer) note(format string, args ...any) error {
	p.seen = append(p.seen, fmt.Sprintf(format, args...))
	return nil
}
func (p *peer) Welcome(f *link.Welcome) error     { return p.note("welcome %s", f.Node) }
func (p *peer) Attached(f link.Attached) error    { return p.note("attached %d", f.Stream) }
func (p *peer) Record(f *link.Record) error       { return p.note("record %s", f.Value) }
func (p *peer) Checkpoint(*link.Checkpoint) error { return nil }
func (p *peer) Gap(f link.Gap) error              { return p.note("gap %d", f.Stream) }
func (p *peer) Closed(f link.Closed) error        { return p.note("closed %d %v", f.Stream, f.Reason) }
func (p *peer) Draining() error                   { return p.note("draining") }

var errBroken = errors.New("broken on purpose")

func takenAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}
