package etcdmap

import (
	"context"
	"errors"
	"time"
)

// store is what this package needs of etcd; the tests put a simulated one in its place.
type store interface {
	// list reads every key of the topic, linearizably.
	list(ctx context.Context) (snapshot, error)
	// probe reads one key and the number of keys, linearizably.
	probe(ctx context.Context, key string) (probe, error)
	// watch reports every change from revision from on, until ctx ends. Watches share no stream.
	watch(ctx context.Context, from int64) watch
	// commit writes all puts or, if one of them finds another ModRevision than it expects, none and says what is there.
	commit(ctx context.Context, puts []write) (commitResult, error)

	grant(ctx context.Context, ttl time.Duration) (lease int64, err error)
	keepAlive(ctx context.Context, lease int64) error                                   // errLeaseGone
	leaseTTL(ctx context.Context, lease int64) (granted, left time.Duration, err error) // errLeaseGone
	revoke(ctx context.Context, lease int64) error                                      // nil also when it was gone

	close() error
}

// write is one key to write if its ModRevision is still ifRev (0: absent).
type write struct {
	key   string
	value []byte
	lease int64
	ifRev int64
}

type commitResult struct {
	done     bool
	revision int64
	found    []entry // when not done: the keys that are there
}

// watchUpdate is one response of a watch, or its end.
type watchUpdate struct {
	events    []event
	created   bool
	clusterID uint64
	err       error // the last update; errCompacted or anything else
}

// watch is one running watch. Every update on updates, also an empty one, is a sign of life.
type watch struct {
	updates <-chan watchUpdate
	// ask requests an empty update from the server. It does not block for long.
	ask func(ctx context.Context) error
}

var (
	errLeaseGone = errors.New("the lease has ended")
	errCompacted = errors.New("the watch's revision was compacted")
)

// refusedError is an error that waiting alone does not cure: etcd answered, and refuses.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }
