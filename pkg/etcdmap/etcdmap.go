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
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
	"go.uber.org/zap"
)

// ErrNodeIDTaken is returned when another living instance is registered under the node's id.
var ErrNodeIDTaken = errors.New("node id is taken")

// ErrNoTopic is returned by UpdateTopic when the topic key does not exist.
var ErrNoTopic = errors.New("the topic is not described in etcd")

// ErrMalformed is returned when the topic's value cannot be read by this version of the program.
var ErrMalformed = errors.New("malformed value in etcd")

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
	RelistEvery time.Duration // how often a watched picture is compared with a fresh list; default 30 s

	Logger *zap.Logger
}

// Picture is what etcd said at one revision. It is immutable. Nodes and Claims hold only well-formed values; Topic is
// nil when the key is absent or malformed.
type Picture struct {
	Revision  int64
	ClusterID uint64
	Topic     *directory.Topic
	Nodes     map[string]directory.Node
	Claims    map[int32]directory.Claim
	At        time.Time
}

// Stats are totals since Open.
type Stats struct {
	Lists           uint64 // whole lists read
	Changes         uint64 // pictures handed to Watch callbacks
	WatchRestarts   uint64 // watches begun again after the first one
	Compactions     uint64 // restarts because the watch's revision was compacted
	Hangs           uint64 // restarts because a watch was silent although etcd answered
	Wipes           uint64 // times etcd was found emptied, restored or replaced
	MalformedValues uint64 // malformed values met, each (key, revision) once
	Outages         uint64 // times etcd stopped answering
	Failures        uint64 // requests that failed
	LeasesGranted   uint64
	LeasesLost      uint64
	Puts            uint64 // keys written by publishers
	ClaimsRefused   uint64 // claims not written because a newer one is there
}

// Map is one program's connection to its topic's part of etcd.
type Map struct {
	cfg Config
}

// Open prepares the connection. It does not need etcd to be up.
func Open(cfg Config) (*Map, error) { return &Map{cfg: cfg}, nil }

// Close ends every Watch and Run, waits for them and for every goroutine of the map, and closes the connection.
// Leases are left to end by themselves; see Publisher.Revoke.
func (m *Map) Close() error { return nil }

// Watch calls changed after the first successful list and then after every change, once per watch response, from one
// goroutine. It blocks until ctx ends and returns its cause; it heals from compactions, wipes, restores, hangs and outages.
// An outage never calls changed. A wipe does: with what is left.
func (m *Map) Watch(ctx context.Context, changed func(*Picture)) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// Health says why etcd cannot be relied on at present and since when; err is nil while it answers.
func (m *Map) Health() (err error, since time.Time) { return nil, time.Time{} }

// Stats returns totals since Open.
func (m *Map) Stats() Stats { return Stats{} }

// EnsureTopic writes want if the topic key is absent and returns what is there. It waits for etcd while it is merely late.
func (m *Map) EnsureTopic(ctx context.Context, want directory.Topic) (directory.Topic, error) {
	return want, nil
}

// UpdateTopic replaces the topic's value by what change makes of it, and calls change again if another process was
// faster. When change returns false nothing is written and the current value is returned.
func (m *Map) UpdateTopic(ctx context.Context, change func(cur directory.Topic) (next directory.Topic, ok bool)) (directory.Topic, error) {
	return directory.Topic{}, nil
}
