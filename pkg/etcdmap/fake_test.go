package etcdmap

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// fakeEtcd is a store in memory whose faults are switches. It has just enough of etcd's semantics for a bubble of
// simulated time; the real one is tried in integration/etcdmap.
type fakeEtcd struct {
	base string

	mu        sync.Mutex
	cluster   uint64
	rev       int64
	compacted int64
	keys      map[string]entry
	history   []event
	leases    map[int64]time.Duration
	unrenewed time.Duration // how much of every lease has passed
	nextLease int64
	watches   map[*fakeWatch]struct{}

	down    chan struct{} // not nil: requests wait for it to be closed, or their time
	mute    bool          // watches send nothing, not even a sign of life
	lossy   bool          // watches give signs of life but lose events
	breakAt error         // watches end with it at once
	lists   int
	probes  int
	begun   []int64 // start revisions of the watches
}

type fakeWatch struct {
	ctx   context.Context
	from  int64
	queue []watchUpdate
	some  chan struct{}
}

func newFakeEtcd(base string) *fakeEtcd {
	return &fakeEtcd{base: base, cluster: 1, rev: 1, keys: map[string]entry{}, leases: map[int64]time.Duration{}, watches: map[*fakeWatch]struct{}{}}
}

func (f *fakeEtcd) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if down {
		f.down = make(chan struct{})
	} else {
		close(f.down)
		f.down = nil
	}
}

// up waits until etcd answers, as the real client does.
func (f *fakeEtcd) up(ctx context.Context) error {
	for {
		f.mu.Lock()
		down := f.down
		f.mu.Unlock()
		if down == nil {
			return ctx.Err()
		}
		select {
		case <-down:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// put writes as any other client would.
func (f *fakeEtcd) put(key, value string, lease int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	f.changeLocked(event{entry: entry{key: key, value: []byte(value), rev: f.rev, lease: lease}})
}

func (f *fakeEtcd) changeLocked(evs ...event) {
	for _, ev := range evs {
		if ev.deleted {
			delete(f.keys, ev.key)
		} else {
			f.keys[ev.key] = ev.entry
		}
	}
	evs = slices.DeleteFunc(evs, func(ev event) bool { return !strings.HasPrefix(ev.key, f.base) })
	if len(evs) == 0 {
		return
	}
	f.history = append(f.history, evs...)
	for w := range f.watches {
		f.sendLocked(w, watchUpdate{events: evs, clusterID: f.cluster})
	}
}

func (f *fakeEtcd) sendLocked(w *fakeWatch, u watchUpdate) {
	if f.mute {
		return
	}
	if f.lossy {
		u.events = nil
	}
	w.queue = append(w.queue, u)
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// wipe begins another history.
func (f *fakeEtcd) wipe(cluster uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cluster, f.rev, f.history = cluster, 1, nil
	clear(f.keys)
	clear(f.leases)
	clear(f.watches)
}

func (f *fakeEtcd) list(ctx context.Context) (snapshot, error) {
	if err := f.up(ctx); err != nil {
		return snapshot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	s := snapshot{clusterID: f.cluster, revision: f.rev}
	for _, k := range slices.Sorted(maps.Keys(f.keys)) {
		if strings.HasPrefix(k, f.base) {
			s.entries = append(s.entries, f.keys[k])
		}
	}
	return s, nil
}

func (f *fakeEtcd) probe(ctx context.Context, key string) (probe, error) {
	if err := f.up(ctx); err != nil {
		return probe{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.probes++
	p := probe{clusterID: f.cluster, revision: f.rev, newest: f.keys[key]}
	for k := range f.keys {
		if strings.HasPrefix(k, f.base) {
			p.count++
		}
	}
	return p, nil
}

func (f *fakeEtcd) watch(ctx context.Context, from int64) watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = append(f.begun, from)
	w := &fakeWatch{ctx: ctx, from: from, some: make(chan struct{}, 1)}
	updates := make(chan watchUpdate)
	switch {
	case f.breakAt != nil:
		f.sendLocked(w, watchUpdate{err: f.breakAt})
	case from < f.compacted:
		f.sendLocked(w, watchUpdate{err: errCompacted})
	default:
		f.watches[w] = struct{}{}
		f.sendLocked(w, watchUpdate{created: true, clusterID: f.cluster})
		for _, ev := range f.history {
			if ev.rev >= from {
				f.sendLocked(w, watchUpdate{events: []event{ev}, clusterID: f.cluster})
			}
		}
	}
	go func() { // ends with the watch's context
		for {
			select {
			case <-ctx.Done():
				f.mu.Lock()
				delete(f.watches, w)
				f.mu.Unlock()
				return
			case <-w.some:
			}
			f.mu.Lock()
			queue := w.queue
			w.queue = nil
			f.mu.Unlock()
			for _, u := range queue {
				select {
				case updates <- u:
				case <-ctx.Done():
				}
			}
		}
	}()
	return watch{updates: updates, ask: func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, on := f.watches[w]; on && f.rev >= from { // etcd answers only once it has reached the start
			f.sendLocked(w, watchUpdate{clusterID: f.cluster})
		}
		return nil
	}}
}

// endWatches ends all watches with err.
func (f *fakeEtcd) endWatches(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watches {
		f.sendLocked(w, watchUpdate{err: err})
		delete(f.watches, w)
	}
}

func (f *fakeEtcd) commit(ctx context.Context, writes []write) (commitResult, error) {
	if err := f.up(ctx); err != nil {
		return commitResult{}, err
	}
	if len(writes) > maxOps {
		return commitResult{}, errors.New("too many operations in one transaction")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := commitResult{done: true, revision: f.rev}
	for _, w := range writes {
		if f.keys[w.key].rev != w.ifRev {
			res.done = false
		}
	}
	if !res.done {
		for _, w := range writes {
			if e, ok := f.keys[w.key]; ok {
				res.found = append(res.found, e)
			}
		}
		return res, nil
	}
	for _, w := range writes {
		if _, ok := f.leases[w.lease]; !ok && w.lease != 0 {
			return commitResult{}, errLeaseGone
		}
	}
	f.rev++
	res.revision = f.rev
	var evs []event
	for _, w := range writes {
		evs = append(evs, event{entry: entry{key: w.key, value: w.value, rev: f.rev, lease: w.lease}})
	}
	f.changeLocked(evs...)
	return res, nil
}

func (f *fakeEtcd) grant(ctx context.Context, ttl time.Duration) (int64, error) {
	if err := f.up(ctx); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextLease++
	f.leases[f.nextLease] = ttl
	return f.nextLease, nil
}

func (f *fakeEtcd) keepAlive(ctx context.Context, lease int64) error {
	if err := f.up(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.leases[lease]; !ok {
		return errLeaseGone
	}
	return nil
}

func (f *fakeEtcd) leaseTTL(ctx context.Context, lease int64) (granted, left time.Duration, err error) {
	if err := f.up(ctx); err != nil {
		return 0, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ttl, ok := f.leases[lease]
	if !ok {
		return 0, 0, errLeaseGone
	}
	return ttl, ttl - f.unrenewed, nil
}

func (f *fakeEtcd) revoke(ctx context.Context, lease int64) error {
	if err := f.up(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.leases, lease)
	f.rev++
	var gone []event
	for _, k := range slices.Sorted(maps.Keys(f.keys)) {
		if f.keys[k].lease == lease {
			gone = append(gone, event{entry: entry{key: k, rev: f.rev}, deleted: true})
		}
	}
	f.changeLocked(gone...)
	return nil
}

func (f *fakeEtcd) close() error { return nil }
