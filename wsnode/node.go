// Package wsnode is the node: a member of the consumer group that reads partitions of one Kafka topic and
// serves their records to routers. It has no global state, so that a whole cluster runs in one process.
package wsnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/claims"
	"github.com/pointsmanhq/pointsman/wsnode/internal/identity"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/linkserver"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/placement"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// ErrKilled is what Run returns after Kill.
var ErrKilled = errors.New("the node was stopped at once")

// Node is one node. It runs once.
type Node struct {
	// Static after New.
	cfg      Config
	log      *zap.Logger
	instance string
	started  time.Time
	admin    *admin.Server // nil without Config.Admin
	check    *placement.Checker
	faults   func(partition.Output) partition.Output // nil but in test builds
	keys     directory.Keys
	metrics  *metrics
	doors    doors

	killed chan struct{}
	kill   sync.Once
	asked  chan struct{} // closed when somebody asked for a drain
	ask    sync.Once
	ready  chan struct{}

	// Set by start, in this order, and then fixed; stage says how far it has come.
	kafka     broker
	etcd      register
	identity  *identity.Keeper
	listener  net.Listener
	links     *linkserver.Server
	publisher publisher
	claims    *claims.Keeper
	runner    *runner.Runner
	group     group
	member    membership
	stage     atomic.Pointer[string]
	up        atomic.Bool // everything above is set

	picture  atomic.Pointer[etcdmap.Picture]
	pictured chan struct{} // one place: there is a new picture
	draining atomic.Bool
	handing  atomic.Bool // draining, and streams may be left
	alone    atomic.Bool // the log said that nobody can take over
	addr     atomic.Pointer[string]

	publishing sync.Mutex // of what etcd is told of the node

	joined atomic.Pointer[time.Time] // when the membership began

	records, bytes atomic.Uint64 // admitted by live readers
}

// New prepares a node. An error is a bad setting.
func New(cfg Config, deps Deps) (*Node, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	by, err := partitioner.New(cfg.Partitioner)
	if err != nil {
		return nil, err
	}
	instance, err := random(8)
	if err != nil {
		return nil, err
	}
	faults, err := damage(cfg.Fault)
	if err != nil {
		return nil, err
	}
	log := deps.Logger
	if log == nil {
		log = zap.NewNop()
	}
	log = log.With(zap.String("node", cfg.ID))
	n := &Node{
		cfg: cfg, log: log, instance: instance, started: time.Now().UTC(),
		check:    placement.New(by, log.Named("placement")),
		faults:   faults,
		keys:     directory.Keys{Prefix: cfg.EtcdPrefix, Topic: cfg.Topic},
		doors:    realDoors(),
		killed:   make(chan struct{}),
		asked:    make(chan struct{}),
		ready:    make(chan struct{}),
		pictured: make(chan struct{}, 1),
	}
	n.at("starting")
	n.metrics = newMetrics(n)
	if cfg.Admin != "" {
		build := buildinfo.Read()
		build.Version = cfg.Version
		n.admin = admin.New(admin.Config{
			Listen: cfg.Admin, Namespace: namespace, Build: build, Logger: log.Named("admin"),
		})
		n.operate()
		if err := n.admin.Registry().Register(n.metrics); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	if deps.Registerer != nil {
		if err := deps.Registerer.Register(n.metrics); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return n, nil
}

// ID is the node's id.
func (n *Node) ID() string { return n.cfg.ID }

// Instance is the id of this run of the node.
func (n *Node) Instance() string { return n.instance }

// Addr is the address that routers dial, "" before the node listens.
func (n *Node) Addr() string {
	if a := n.addr.Load(); a != nil {
		return *a
	}
	return ""
}

// AdminAddr is where the admin server listens, "" without one or before Run.
func (n *Node) AdminAddr() string {
	if n.admin == nil {
		return ""
	}
	return n.admin.Addr()
}

// Ready is closed once the node is published and a member of the group. What it was assigned may take a moment
// longer; /readyz tells.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Kill stops the node without a word to anybody, as far as that is possible from within: links are cut, and
// what etcd holds stays until its lease ends. Run returns ErrKilled.
func (n *Node) Kill() { n.kill.Do(func() { close(n.killed) }) }

// Drain asks the node to stop in order, as the end of Run's context does. It returns at once.
func (n *Node) Drain() { n.ask.Do(func() { close(n.asked) }) }

func (n *Node) at(stage string) { n.stage.Store(&stage) }

// Run starts the node and serves until ctx ends; then it drains and returns nil. Other errors say why the node
// could not start or go on.
func (n *Node) Run(ctx context.Context) error {
	// Everything below lives until the drain is over: hard ends it, and Kill ends hard at any time.
	hard, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	ctx, soft := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	over := make(chan struct{})
	defer close(over)
	when := func(what <-chan struct{}, do func()) {
		waiting.Go(func() {
			select {
			case <-what:
				do()
			case <-over:
			}
		})
	}
	when(n.killed, func() { cancel(ErrKilled) })
	when(n.asked, soft)
	// Starting may be given up at any time.
	starting, stopStarting := context.WithCancelCause(hard)
	defer stopStarting(nil)
	stop := context.AfterFunc(ctx, func() { stopStarting(errStopped) })
	defer stop()
	defer soft()

	life := &life{ctx: hard, cancel: cancel}
	defer life.wait()
	defer cancel(nil)
	if n.admin != nil {
		if err := n.admin.Listen(); err != nil {
			return err
		}
		life.run("admin server", n.admin.Run)
	}
	closing, err := n.start(starting, life)
	defer closing()
	switch cause := context.Cause(starting); {
	case err == nil:
	case errors.Is(cause, errStopped):
		n.log.Info("stopped before the start was over")
		return nil
	case cause != nil:
		return cause
	default:
		return err
	}
	select {
	case <-ctx.Done():
		return n.drain(hard)
	case <-hard.Done():
		return context.Cause(hard)
	}
}

var errStopped = errors.New("asked to stop")

// life owns the goroutines of a run; the first that fails ends it.
type life struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func (l *life) run(what string, f func(ctx context.Context) error) {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		if err := f(l.ctx); err != nil && l.ctx.Err() == nil {
			l.cancel(fmt.Errorf("%s: %w", what, err))
		}
	}()
}

func (l *life) wait() { l.wg.Wait() }

// start brings the parts up, each when those it needs are there. closing undoes what was done, and is never nil.
func (n *Node) start(ctx context.Context, life *life) (closing func(), err error) {
	var undo []func()
	closing = func() {
		life.cancel(nil)
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}

	n.at("waiting for kafka")
	n.kafka, err = n.doors.kafka(ctx, kafka.Config{
		Brokers: n.cfg.Kafka, Topic: n.cfg.Topic, ClientID: "pointsman-" + n.cfg.ID, TLS: n.cfg.KafkaTLS,
		SASL:          kafka.SASL(n.cfg.KafkaSASL),
		FetchMaxBytes: int32(min(n.cfg.FetchMaxBytes, 1<<30)), FetchPace: n.cfg.FetchPace,
		Logger: n.log.Named("kafka"),
	})
	if err != nil {
		return closing, err
	}
	undo = append(undo, func() { n.closed("kafka client", n.kafka.Close()) })

	n.at("waiting for etcd")
	n.etcd, err = n.doors.etcd(etcdmap.Config{
		Endpoints: n.cfg.Etcd, Prefix: n.cfg.EtcdPrefix, Topic: n.cfg.Topic, TLS: n.cfg.EtcdTLS,
		Username: n.cfg.EtcdUser, Password: n.cfg.EtcdPassword, Logger: n.log.Named("etcd"),
	})
	if err != nil {
		return closing, err
	}
	undo = append(undo, func() { n.closed("etcd map", n.etcd.Close()) })
	life.run("etcd watch", func(ctx context.Context) error { return n.etcd.Watch(ctx, n.seePicture) })
	if err := n.firstPicture(ctx); err != nil {
		return closing, err
	}

	n.at("comparing kafka and etcd")
	idCfg := n.identityConfig()
	view, incarnation, err := identity.Settle(ctx, idCfg, n.living)
	if err != nil {
		return closing, err
	}
	n.check.SetLayout(view.Partitions, view.Growth)
	n.identity = identity.New(idCfg, view)

	n.at("opening the link listener")
	n.listener, err = listen(ctx, n.cfg.Listen)
	if err != nil {
		return closing, err
	}
	undo = append(undo, func() { _ = n.listener.Close() })
	addr, derived := n.advertised(ctx)
	n.addr.Store(&addr)

	n.build(view, incarnation)
	// In reverse: routers first, then the group, whose end revokes what the loops still hold.
	undo = append(undo, n.runner.Close, n.waitGroup, func() { n.links.Close(0, websocket.StatusGoingAway, "") })
	n.group, err = n.kafka.Join(kafka.GroupConfig{
		Group: n.cfg.Group, SessionTimeout: n.cfg.GroupSessionTimeout, Handler: groupMember{n},
	})
	if err != nil {
		return closing, err
	}
	n.up.Store(true)

	life.run("topic identity", func(ctx context.Context) error { n.identity.Run(ctx); return nil })
	life.run("claims", func(ctx context.Context) error { n.claims.Run(ctx); return nil })
	life.run("pictures", func(ctx context.Context) error { n.followPictures(ctx); return nil })
	life.run("links", func(ctx context.Context) error { return n.links.Serve(ctx, n.listener) })

	n.at("registering in etcd")
	life.run("publisher", n.publisher.Run)
	select {
	case <-n.publisher.Registered():
	case <-ctx.Done():
		return closing, context.Cause(ctx)
	}
	n.join(life)
	if derived {
		life.run("address", n.followAddress)
	}
	n.log.Info("node is published", zap.String("addr", addr), zap.String("instance", n.instance))
	n.at("")
	close(n.ready)
	return closing, nil
}

// build makes the parts that know each other.
func (n *Node) build(view identity.View, incarnation int64) {
	n.publisher = n.etcd.Publish(etcdmap.PublisherConfig{
		NodeID: n.cfg.ID, Node: n.value(false), LeaseTTL: n.cfg.EtcdLease,
		Lost: func(p int32, winner directory.Claim) { n.claims.Lost(p, winner) },
	})
	n.claims = claims.NewKeeper(claims.Config{
		Node: n.cfg.ID, Instance: n.instance, Incarnation: incarnation, Publisher: n.publisher,
		Raise: n.identity.Raise,
		Alive: func() bool { err, _ := n.identity.Health(); return err == nil && n.identity.Described() == nil },
		// The group is there before Run.
		Generation: func() int32 { return n.group.Generation() },
		Logger:     n.log.Named("claims"),
	})
	n.runner = runner.New(runner.Config{
		Loop: partition.Config{
			ReplayLimit: n.cfg.ReplayLimit, CheckpointEvery: n.cfg.CheckpointEvery,
			TruncatedAfter: n.cfg.TruncatedAfter, Linger: max(n.cfg.Linger, 0),
		},
		RingBudget: n.cfg.Ring, ScanRate: max(n.cfg.ScanRate, 0),
		TopicID: view.ID, Partitions: view.Partitions,
		Log: n.kafka, Identity: n.identity,
		Mark:     func(p int32, next int64) { n.group.Mark(p, next) },
		Admitted: n.admitted,
		Gap:      func(r link.GapReason) { n.metrics.gaps.WithLabelValues(r.String()).Inc() },
		Output:   n.faults,
		Logger:   n.log.Named("partitions"),
	})
	n.runner.SetClaims(n.claims)
	n.links = linkserver.New(linkserver.Config{
		Welcome: n.welcome, Token: n.cfg.LinkToken, TLS: n.cfg.LinkTLS, Timeout: n.cfg.LinkStallTimeout,
		Buffer: n.cfg.LinkBuffer, Handler: n.runner, Logger: n.log.Named("links"),
	})
}

func (n *Node) identityConfig() identity.Config {
	return identity.Config{
		Group: n.cfg.Group, Partitioner: n.cfg.Partitioner, Key: n.keys.TopicKey(),
		Topic: func(ctx context.Context) ([16]byte, int32, error) {
			t, err := n.kafka.Topic(ctx)
			return t.ID, t.Partitions, err
		},
		Missing: func(err error) bool { return errors.Is(err, kafka.ErrTopicNotFound) },
		Ends: func(ctx context.Context, topic [16]byte, partitions int32) ([]int64, error) {
			return n.kafka.Ends(ctx, topic, partitions)
		},
		StaleAfter:  n.cfg.ProducerMetadataAge,
		Directory:   n.etcd,
		Incarnation: func() int64 { return n.claims.Known() },
		Changed: func(v identity.View) {
			n.check.SetLayout(v.Partitions, nil)
			n.runner.TopicChanged(v.ID, v.Partitions)
			// Routers learn the new topic from the Welcome of a new link.
			n.links.Disconnect(websocket.StatusServiceRestart, "the topic was recreated")
		},
		Grown: func(v identity.View) {
			n.check.SetLayout(v.Partitions, v.Growth)
			n.runner.Grow(v.Partitions)
		},
		Logger: n.log.Named("topic"),
	}
}

func (n *Node) admitted(p int32, b *source.Batch) {
	n.records.Add(uint64(len(b.Records)))
	n.bytes.Add(uint64(b.Bytes))
	n.check.Check(p, b.Records, time.Now())
}

func (n *Node) welcome() link.Welcome {
	v := n.identity.View()
	return link.Welcome{
		Node: n.cfg.ID, Instance: n.instance, Topic: n.cfg.Topic, TopicID: v.ID, Partitions: v.Partitions,
		Version: link.Version, Build: n.cfg.Version,
	}
}

func (n *Node) value(draining bool) directory.Node {
	return directory.Node{
		V: directory.Version, Instance: n.instance, Addr: n.Addr(), Admin: n.advertisedAdmin(), Started: n.started,
		Version: n.cfg.Version, Zone: n.cfg.Zone, Draining: draining,
	}
}

// listen opens the port for links, with words for the commonest mistake.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("address %s for links is in use by another process; choose another with --listen: %w", addr, err)
	case err != nil:
		return nil, fmt.Errorf("listen for links on %s: %w", addr, err)
	}
	return l, nil
}

func (n *Node) closed(what string, err error) {
	if err != nil {
		n.log.Warn("closing failed", zap.String("part", what), zap.Error(err))
	}
}
