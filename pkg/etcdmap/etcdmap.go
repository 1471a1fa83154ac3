// Package etcdmap keeps the map of who reads what in etcd: nodes publish themselves and their claims under a lease,
// routers watch. It is the only package that knows the etcd client.
//
// etcd is a map, not a part of delivery: everything here heals by itself for as long as its context lives, and while
// etcd is away the last picture stays in force. Errors are returned only for what waiting cannot cure.
package etcdmap

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// ErrNodeIDTaken is returned when another living instance is registered under the node's id.
var ErrNodeIDTaken = errors.New("node id is taken")

// ErrNoTopic is returned by UpdateTopic when the topic key does not exist.
var ErrNoTopic = errors.New("the topic is not described in etcd")

// ErrClosed is returned by everything that is called after Close.
var ErrClosed = errors.New("etcd map is closed")

// Config says where etcd is and which part of it this topic uses.
type Config struct {
	Endpoints []string // host:port or URL
	Prefix    string   // "/pointsman"
	Topic     string
	TLS       *tls.Config // nil: no TLS
	Username  string
	Password  string

	DialTimeout time.Duration // how long one request may wait for etcd; default 3 s
	RelistEvery time.Duration // about how often a watched picture is compared with a fresh list; default 30 s

	Logger *zap.Logger // nil: silent
}

// Stats are totals since Open.
type Stats struct {
	Lists           uint64 // whole lists read
	Changes         uint64 // pictures handed to Watch callbacks
	WatchRestarts   uint64 // watches begun again for other reasons than the periodic list
	Compactions     uint64 // of these, because the watch's revision was compacted
	Hangs           uint64 // of these, because a watch was silent although etcd answered
	Wipes           uint64 // times etcd was found emptied, restored or replaced, by each Watch and Publisher
	MalformedValues uint64 // malformed values met, each (key, revision) once
	Outages         uint64 // times etcd stopped answering
	Failures        uint64 // requests that failed
	LeasesGranted   uint64
	LeasesLost      uint64
	Puts            uint64 // keys written by publishers
	ClaimsRefused   uint64 // claims not written because a newer one is there, once per winner
}

type counters struct {
	lists, changes, restarts, compactions, hangs, wipes atomic.Uint64
	leasesGranted, leasesLost, puts, claimsRefused      atomic.Uint64
}

// Map is one program's connection to its topic's part of etcd.
type Map struct {
	cfg       Config
	keys      directory.Keys
	log       *zap.Logger
	store     store
	health    *health
	notices   *notices
	malformed *malformedSeen
	stats     counters

	ctx    context.Context // ends with Close, cause ErrClosed
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	closed bool
	topic  *directory.Topic // the newest known, to write it again after a wipe
	users  sync.WaitGroup   // calls in progress; joined under mu while not closed
}

// Open prepares the connection. It does not need etcd to be up.
func Open(cfg Config) (*Map, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("open etcd map: no endpoint given")
	}
	for _, ep := range cfg.Endpoints {
		if strings.TrimSpace(ep) == "" {
			return nil, errors.New("open etcd map: an endpoint is empty")
		}
	}
	if cfg.Topic == "" || strings.Contains(cfg.Topic, "/") {
		return nil, errors.New("open etcd map: the topic must be named, without slashes")
	}
	m := newMap(cfg, nil)
	m.store = newEtcdStore(m.cfg, m.keys.Base())
	return m, nil
}

func newMap(cfg Config, s store) *Map {
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 3 * time.Second
	}
	if cfg.RelistEvery <= 0 {
		cfg.RelistEvery = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	log := cfg.Logger.With(zap.Strings("endpoints", cfg.Endpoints))
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Map{
		cfg:       cfg,
		keys:      directory.Keys{Prefix: cfg.Prefix, Topic: cfg.Topic},
		log:       log,
		store:     s,
		health:    newHealth(log, time.Now()),
		notices:   newNotices(log),
		malformed: newMalformedSeen(log),
		ctx:       ctx,
		cancel:    cancel,
	}
}

// Close ends every Watch and Run, waits for them and for every goroutine of the map, and closes the connection; it must
// not be called from a callback. Leases are left to end by themselves; see Publisher.Revoke. Later calls do nothing.
func (m *Map) Close() error {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	m.mu.Unlock()
	m.cancel(ErrClosed)
	m.users.Wait()
	if !first {
		return nil
	}
	return m.store.close()
}

// enter joins the calls that Close waits for. The returned context also ends with the map.
func (m *Map) enter(ctx context.Context) (context.Context, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, ErrClosed
	}
	m.users.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		m.users.Done()
	}, nil
}

// try makes one request, bounded in time, and tells health how it went.
func (m *Map) try(ctx context.Context, a aspect, request func(context.Context) error) error {
	started := time.Now()
	bounded, cancel := context.WithTimeout(ctx, m.cfg.DialTimeout)
	defer cancel()
	err := request(bounded)
	switch {
	case err == nil, errors.Is(err, errLeaseGone):
		m.health.ok(a)
	case ctx.Err() != nil: // the caller's end says nothing about etcd
	default:
		m.health.fail(a, started, err)
	}
	return err
}

// Watch calls changed after the first successful list and then after every change, once per watch response, from one
// goroutine. It blocks until ctx ends and returns its cause; it heals from compactions, wipes, restores, hangs and outages.
// An outage never calls changed. A wipe does: with what is left.
func (m *Map) Watch(ctx context.Context, changed func(*Picture)) error {
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	var pic *Picture
	return m.follow(ctx, nil, nil, func(c change) {
		m.noteTopic(c.events)
		old := pic
		if old == nil {
			old = &Picture{Nodes: map[string]directory.Node{}, Claims: map[int32]directory.Claim{}}
		}
		next, differs := old.with(m.keys, c.events, m.malformed.note)
		if pic != nil && !differs {
			return
		}
		next.Revision, next.ClusterID, next.At = c.revision, c.clusterID, time.Now()
		pic = next
		m.stats.changes.Add(1)
		changed(pic)
	})
}

// Health says why etcd cannot be relied on at present and since when; err is nil while it answers. It is only as fresh as the
// map's use: a running Watch or Publisher asks at least once a second.
func (m *Map) Health() (err error, since time.Time) {
	since, err = m.health.state()
	return err, since
}

// Stats returns totals since Open.
func (m *Map) Stats() Stats {
	outages, failures := m.health.totals()
	return Stats{
		Lists:           m.stats.lists.Load(),
		Changes:         m.stats.changes.Load(),
		WatchRestarts:   m.stats.restarts.Load(),
		Compactions:     m.stats.compactions.Load(),
		Hangs:           m.stats.hangs.Load(),
		Wipes:           m.stats.wipes.Load(),
		MalformedValues: m.malformed.count(),
		Outages:         outages,
		Failures:        failures,
		LeasesGranted:   m.stats.leasesGranted.Load(),
		LeasesLost:      m.stats.leasesLost.Load(),
		Puts:            m.stats.puts.Load(),
		ClaimsRefused:   m.stats.claimsRefused.Load(),
	}
}
