// Package hub joins the router's parts: the table, the links, the sessions' cores and the clients' sockets. It feeds
// each core the events that concern it, under that session's lock, and carries out what the core asks for.
//
// Locks, in the order in which they may be taken: change (one table at a time), a session's lock (its own mu, or that of
// the socket that it shares with others), then one of the leaves: a bucket, the list of sockets, a link's streams, a link's queue, a client's outbox. No leaf is held while another lock is taken,
// and no goroutine that feeds sessions ever waits for a client or a node.
package hub

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

// Config is fixed for a hub's life.
type Config struct {
	Topic     string
	Session   session.Config
	Limits    clientconn.Limits
	ReadLimit int64 // of a client's message, bytes
	PackFrom  int   // length from which on records are compressed for clients that can take it; 0: never
	MaxKeys   int   // of one socket with several keys; default 100
	// MessageRate, MessageBurst and Ended are clientconn.Shared's.
	MessageRate, MessageBurst int
	Ended                     func(code int)
	// CatchUpRate is how many bytes per second one client may be sent, 0 for any number.
	CatchUpRate int64
	Logger      *zap.Logger
	Metrics     *metrics.Set
	Faults      Faults
}

const defaultMaxKeys = 100

// Pool is what the hub needs of links.Pool.
type Pool interface {
	Set(expect links.Expect, wants []links.Want)
}

// Errors of Open and Resolve.
var (
	ErrClosing  = errors.New("the router is stopping")
	ErrNoTopic  = errors.New("the topic is not known yet")
	ErrNoCursor = errors.New("the cursor belongs to another key")
	ErrBehind   = errors.New("the cursor is of a partition that this router has not heard of yet")
	ErrAlready  = errors.New("the key is followed on this socket already")
	ErrUnknown  = errors.New("the key is not followed on this socket")
	ErrTooMany  = errors.New("the socket has as many keys as the operator allows")
)

// Hub is the whole of a router's sessions. It implements links.Events.
type Hub struct {
	// Static after construction.
	cfg   Config
	log   *zap.Logger
	conns *clientconn.Shared
	turns sync.Pool
	start time.Time

	pool  Pool          // set by Use before any event
	poke  chan struct{} // capacity 1: a handover became pending; never closed
	serve sync.WaitGroup

	view    atomic.Pointer[view]
	lanes   atomic.Pointer[map[session.LinkID]*lane]
	buckets atomic.Pointer[[]*bucket]
	pending atomic.Int64 // sessions that want to be polled
	sockets sockets
	open    atomic.Int64 // clients
	keys    atomic.Int64 // client keys of all clients: sessions
	waiting atomic.Int64 // clients without a serving stream for one of their keys, at the last look
	queued  atomic.Int64 // bytes in outboxes, at the last look
	full    atomic.Int64 // clients that have used up their window, at the last look
	paced   atomic.Int64 // clients that have used up their rate, at the last look
	moves   moves

	strayMu sync.Mutex
	strays  map[*clientconn.Conn]struct{} // guarded by strayMu; connections that are no session
	cut     bool                          // guarded by strayMu; strays are ended at once, clients run no more

	change  sync.Mutex
	picture table.Picture                  // guarded by change
	up      map[session.LinkID]*table.Link // guarded by change
	closing bool                           // guarded by change; buckets added from now on are closed
}

// view is a table with what is derived from it once.
type view struct {
	*table.Table
	partitioner partitioner.Partitioner   // nil before the topic is known
	fit         error                     // why clients cannot be served, nil when they can
	claims      map[int32]directory.Claim // what etcd holds; the table remembers more
}

// New returns a hub without links and sessions.
func New(cfg Config) *Hub {
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = defaultMaxKeys
	}
	h := &Hub{
		cfg: cfg, log: cfg.Logger, start: time.Now(),
		conns: &clientconn.Shared{
			ReadLimit: cfg.ReadLimit, PackFrom: cfg.PackFrom, MessageRate: cfg.MessageRate, MessageBurst: cfg.MessageBurst, Ended: cfg.Ended,
		},
		poke: make(chan struct{}, 1),
		up:   map[session.LinkID]*table.Link{}, strays: map[*clientconn.Conn]struct{}{},
	}
	h.view.Store(&view{Table: table.Empty(), fit: ErrNoTopic})
	h.lanes.Store(&map[session.LinkID]*lane{})
	h.buckets.Store(&[]*bucket{})
	return h
}

// Use names the pool that is told which nodes to link; before any event.
func (h *Hub) Use(p Pool) { h.pool = p }

// Conns is what clients' connections are accepted with.
func (h *Hub) Conns() *clientconn.Shared { return h.conns }

// Table is the table in force.
func (h *Hub) Table() *table.Table { return h.view.Load().Table }

// Fit says why clients cannot be served, nil when they can. Without a node they can: they wait.
func (h *Hub) Fit() error { return h.view.Load().fit }

// Picture puts a new picture of etcd in force.
func (h *Hub) Picture(p table.Picture) {
	h.change.Lock()
	defer h.change.Unlock()
	h.picture = p
	h.rebuild("claim")
}

// Open implements links.Events: frames of the link are handled from now on.
func (h *Hub) Open(l *links.Link) links.Receiver {
	ln := newLane(h, l)
	h.change.Lock()
	defer h.change.Unlock()
	lanes := maps.Clone(*h.lanes.Load())
	lanes[l.ID] = ln
	h.lanes.Store(&lanes)
	return ln
}

// Up implements links.Events: the link may be routed to.
func (h *Hub) Up(l *links.Link) {
	h.change.Lock()
	defer h.change.Unlock()
	ln := (*h.lanes.Load())[l.ID]
	if ln == nil {
		return
	}
	h.up[l.ID] = &table.Link{ID: l.ID, Node: l.Node, Instance: l.Instance, Draining: ln.draining.Load()}
	h.rebuild("link_up")
}

// drain notes that a node wants to stop.
func (h *Hub) drain(id session.LinkID) {
	h.change.Lock()
	defer h.change.Unlock()
	if l := h.up[id]; l != nil && !l.Draining {
		l.Draining = true
		h.rebuild("claim")
	}
}

// Down implements links.Events: the sessions of the link move on, all in one batch.
func (h *Hub) Down(l *links.Link, reason string) {
	h.cfg.Metrics.LinkDowns.WithLabelValues(reason).Inc()
	h.change.Lock()
	defer h.change.Unlock()
	start := time.Now()
	ln := (*h.lanes.Load())[l.ID]
	if ln == nil {
		return
	}
	delete(h.up, l.ID)
	// The table without the link first: whoever routes a session from now on does not meet it again. Then the
	// streams are taken; what is attached to the link after that is told at once, see Session.Attach.
	old, next := h.put()
	orphans := ln.streams.Down()
	t := h.turn()
	t.move = h.moves.begin(start, "link_down", old.Table, next.Table)
	release := h.hold()
	for _, o := range orphans {
		s := o.Owner
		s.lock()
		if s.enter(t) {
			s.linkDown(t, l.ID, next)
			s.leave(t)
		}
		s.unlock()
	}
	h.reroute(t, old, next, "link_down")
	release()
	h.moved(t, start)
	if n := len(orphans); n > 0 {
		h.log.Info("streams moved from a dead link", zap.String("node", l.Node), zap.Int("streams", n),
			zap.Duration("took", time.Since(start)))
	}
	// Sessions ask for coverage of the dead link's streams until here.
	lanes := maps.Clone(*h.lanes.Load())
	delete(lanes, l.ID)
	h.lanes.Store(&lanes)
}

// rebuild puts a new table in force and tells the sessions whose route changed. The caller holds change.
func (h *Hub) rebuild(cause string) {
	start := time.Now()
	old, next := h.put()
	t := h.turn()
	t.move = h.moves.begin(start, cause, old.Table, next.Table)
	release := h.hold()
	h.reroute(t, old, next, cause)
	release()
	h.moved(t, start)
}

// moved ends the turn in which all concerned sessions were told of a new table.
func (h *Hub) moved(t *turn, start time.Time) {
	mv := t.move
	var before int64
	if mv != nil {
		before = mv.logged
		mv.logged = mv.sessions.Load()
	}
	t.end()
	took := time.Since(start)
	h.cfg.Metrics.Moves.Observe(took.Seconds())
	h.moves.end(mv, took)
	if mv != nil && mv.logged > before {
		from, to := h.moves.names(mv)
		h.log.Info("sessions move", zap.String("cause", mv.cause), zap.Int64("sessions", mv.logged-before), zap.Strings("from", from),
			zap.Strings("to", to), zap.Duration("took", took))
	}
}

// put builds the next table and stores it. The caller holds change.
func (h *Hub) put() (old, next *view) {
	old = h.view.Load()
	up := make([]table.Link, 0, len(h.up))
	for _, l := range h.up {
		up = append(up, *l)
	}
	tab, err := table.Build(old.Table, h.picture, up)
	if err != nil {
		// The last good topic stays in force; links come and go all the same.
		h.cfg.Metrics.BadTables.Inc()
		h.log.Error("picture of etcd cannot be used", zap.Error(err))
		kept := h.picture
		kept.Topic = nil
		if tab, err = table.Build(old.Table, kept, up); err != nil {
			return old, old
		}
	}
	next = h.derive(old, tab)
	h.grow(int(tab.Partitions()))
	h.view.Store(next)
	h.cfg.Metrics.Tables.Inc()
	h.want(next)
	return old, next
}

// derive finds the topic's partitioner.
func (h *Hub) derive(old *view, tab *table.Table) *view {
	v := &view{Table: tab, partitioner: old.partitioner, fit: old.fit, claims: h.picture.Claims}
	switch {
	case tab.Topic == nil:
		v.fit = ErrNoTopic
	case old.Topic == nil || old.Topic.Partitioner != tab.Topic.Partitioner:
		p, err := partitioner.New(tab.Topic.Partitioner)
		if err != nil {
			h.log.Error("topic's partitioner is not known to this router", zap.Error(err))
			v.fit = err
			return v
		}
		v.partitioner, v.fit = p, nil
		h.log.Info("topic found", zap.String("topic_id", tab.Topic.TopicID), zap.Int32("partitions", tab.Topic.Partitions),
			zap.String("partitioner", tab.Topic.Partitioner), zap.String("group", tab.Topic.Group))
	}
	return v
}

// want tells the pool which nodes to link.
func (h *Hub) want(v *view) {
	if v.Topic == nil {
		return
	}
	var wants []links.Want
	for _, n := range v.Nodes() {
		if n.Listed {
			wants = append(wants, links.Want{Node: n.ID, Instance: n.Instance, Addr: n.Addr})
		}
	}
	h.pool.Set(links.Expect{Topic: h.cfg.Topic, TopicID: v.TopicID, Partitions: v.Partitions()}, wants)
}

// reroute tells the sessions of the partitions whose route differs; after a change of the topic itself, all.
func (h *Hub) reroute(t *turn, old, next *view, cause string) {
	buckets := *h.buckets.Load()
	switch {
	case old.Topic == nil:
	case old.TopicID != next.TopicID:
		h.log.Warn("topic was recreated", zap.String("topic_id", next.Topic.TopicID), zap.Int32("partitions", next.Topic.Partitions))
		for _, b := range buckets {
			h.visit(t, b, func(s *Session) { s.recreate(t, next) })
		}
		return
	case table.Grew(old.Table, next.Table):
		h.log.Info("partitions were added, or all producers have heard of it", zap.Int32("before", old.Partitions()),
			zap.Int32("partitions", next.Partitions()))
		for _, b := range buckets {
			h.visit(t, b, func(s *Session) { s.grow(t, next) })
		}
	}
	for _, p := range table.Moved(old.Table, next.Table) {
		if int(p) < len(buckets) {
			h.visitEach(t, buckets[p].all(t), func(s *Session) { s.route(t, next, cause) })
		}
	}
}

// visit calls f for every session of a bucket, within a visit.
func (h *Hub) visit(t *turn, b *bucket, f func(s *Session)) { h.visitEach(t, b.snapshot(t), f) }

func (h *Hub) visitEach(t *turn, sessions []*Session, f func(s *Session)) {
	for _, s := range sessions {
		s.lock()
		if s.enter(t) {
			f(s)
			s.leave(t)
		}
		s.unlock()
	}
	t.flushWhenFull()
}

// hold keeps the frames of a batch together on every link until the returned function is called.
func (h *Hub) hold() (release func()) {
	lanes := *h.lanes.Load()
	for _, ln := range lanes {
		ln.link.Hold()
	}
	return func() {
		for _, ln := range lanes {
			ln.link.Release()
		}
	}
}

func (h *Hub) lane(id session.LinkID) *lane { return (*h.lanes.Load())[id] }
