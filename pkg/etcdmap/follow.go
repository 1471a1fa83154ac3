package etcdmap

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	probeEvery = time.Second
	// hangProbes is how many probes in a row must be answered while the watch shows no sign of life, or tell of
	// changes that the watch does not bring, before the watch is begun again.
	hangProbes = 4
	lagProbes  = 2

	firstRetry   = 50 * time.Millisecond
	longestRetry = time.Second
)

// change is what a follower tells: the first and every later list as the difference to what was known, and every
// watch response that brought news.
type change struct {
	list      *snapshot // the whole of it, when this is a list
	why       cause     // why it was listed
	foreign   bool      // the list is of another history; nothing known before holds
	events    []event
	clusterID uint64
	revision  int64
}

// cause is why a watch was left and the map listed again.
type cause string

const (
	causeStart     cause = "start"
	causePeriodic  cause = "periodic"
	causeCompacted cause = "compacted"
	causeFailed    cause = "failed"
	causeOutage    cause = "outage"
	causeHang      cause = "hang"
	causeForeign   cause = "foreign"
	causeStopped   cause = "stopped"
)

// follower keeps a mirror equal to etcd. It has no end but its context's.
type follower struct {
	m      *Map
	mirror *mirror
	sink   func(change)
	known  func() int64    // the newest revision that the sink has heard of by other ways; may be nil
	doubt  <-chan struct{} // someone found the map to be otherwise than the sink was told; may be nil
}

// follow blocks until ctx ends and returns its cause.
func (m *Map) follow(ctx context.Context, doubt <-chan struct{}, known func() int64, sink func(change)) error {
	f := &follower{m: m, mirror: newMirror(), sink: sink, doubt: doubt, known: known}
	why, delay := causeStart, time.Duration(0)
	for {
		if !pause(ctx, delay) || !f.list(ctx, why) {
			return context.Cause(ctx)
		}
		begun := time.Now()
		var err error
		if why, err = f.watch(ctx); why == causeStopped {
			return context.Cause(ctx)
		}
		f.note(why, err)
		// A watch that ends as soon as it is begun must not become a storm of lists.
		if why != causePeriodic && time.Since(begun) < time.Second {
			delay = min(max(2*delay, firstRetry), longestRetry)
		} else {
			delay = 0
		}
	}
}

// pause waits for about d; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// list reads the map until it succeeds; false when ctx ended.
func (f *follower) list(ctx context.Context, why cause) bool {
	delay := firstRetry
	for {
		var snap snapshot
		known := f.newest() // whoever answers later in the same history knows it, too
		err := f.m.try(ctx, reading, func(ctx context.Context) (err error) {
			snap, err = f.m.store.list(ctx)
			return err
		})
		if err == nil {
			f.listed(snap, why, known)
			return true
		}
		if !pause(ctx, delay) {
			return false
		}
		delay = min(2*delay, longestRetry)
	}
}

// newest is the newest revision that is known of. A transaction's answer may be ahead of the watch: an etcd that is
// restored just then can look like the mirror's past, and only the answer tells.
func (f *follower) newest() int64 {
	if f.known == nil {
		return f.mirror.revision
	}
	return max(f.mirror.revision, f.known())
}

func (f *follower) listed(snap snapshot, why cause, known int64) {
	f.m.stats.lists.Add(1)
	isForeign := f.mirror.foreign(snap) || f.mirror.listed && snap.revision < known
	if isForeign {
		f.m.stats.wipes.Add(1)
		f.m.notices.warn("etcd was emptied, restored or replaced, taking its map as it is now",
			zap.Int64("old_revision", f.mirror.revision), zap.Int64("new_revision", snap.revision),
			zap.Uint64("old_cluster_id", f.mirror.clusterID), zap.Uint64("new_cluster_id", snap.clusterID), zap.Int("keys", len(snap.entries)))
	}
	events := f.mirror.replace(snap, isForeign)
	f.sink(change{list: &snap, why: why, foreign: isForeign, events: events, clusterID: snap.clusterID, revision: snap.revision})
}

// watch follows the changes after the last list until there is a reason to list again.
func (f *follower) watch(ctx context.Context) (cause, error) {
	ctx, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()

	from := f.mirror.revision + 1
	w := f.m.store.watch(ctx, from)
	type answer struct {
		question
		probe
		asked bool // the watch, for a sign of life
		err   error
	}
	answers := make(chan answer, 1) // one probe at a time
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	relist := time.NewTimer(jitter(f.m.cfg.RelistEvery))
	defer relist.Stop()

	created, probing, failing := false, false, false
	silent, lagging := 0, 0
	expecting := true // at first, that the watch is established
	for {
		select {
		case <-ctx.Done():
			return causeStopped, nil
		case <-relist.C:
			return causePeriodic, nil
		case <-f.doubt:
			return causeForeign, nil
		case u := <-w.updates:
			silent, expecting = 0, false
			switch {
			case ctx.Err() != nil:
				return causeStopped, nil
			case errors.Is(u.err, errCompacted):
				return causeCompacted, nil
			case u.err != nil:
				return causeFailed, u.err
			case u.clusterID != f.mirror.clusterID:
				return causeForeign, nil
			}
			created = true
			if news := f.mirror.apply(u.events); len(news) > 0 {
				lagging = 0
				f.sink(change{events: news, clusterID: u.clusterID, revision: f.mirror.revision})
			}
		case <-tick.C:
			if probing {
				continue
			}
			probing = true
			a := answer{question: f.mirror.ask()}
			a.question.revision = f.newest()
			watching := created
			probes.Go(func() {
				a.probe, a.err = f.probe(ctx, a.question)
				// Before the first change after its start etcd leaves a watch's request for progress unanswered.
				if a.asked = a.err == nil && watching && a.probe.revision >= from; a.asked {
					// Its failure shows as silence; the stream heals by itself or is replaced.
					_ = w.ask(ctx)
				}
				answers <- a
			})
		case a := <-answers:
			probing = false
			if a.err != nil {
				failing = true
				continue
			}
			if failing {
				return causeOutage, nil // whatever the watch missed or will still bring: the list says it now
			}
			if expecting {
				silent++
			}
			if silent >= hangProbes {
				return causeHang, nil
			}
			expecting = expecting || a.asked
			switch f.mirror.judge(a.question, a.probe) {
			case foreign:
				return causeForeign, nil
			case behind:
				if lagging++; lagging > lagProbes {
					return causeHang, nil
				}
			case current:
				lagging = 0
			}
		}
	}
}

// probe asks etcd whether the mirror is still true.
func (f *follower) probe(ctx context.Context, q question) (probe, error) {
	key := q.newest.key
	if key == "" {
		key = f.m.keys.TopicKey()
	}
	var p probe
	err := f.m.try(ctx, reading, func(ctx context.Context) (err error) {
		p, err = f.m.store.probe(ctx, key)
		return err
	})
	return p, err
}

func (f *follower) note(why cause, err error) {
	if why == causePeriodic {
		return
	}
	f.m.stats.restarts.Add(1)
	switch why {
	case causeCompacted:
		f.m.stats.compactions.Add(1)
		f.m.notices.info("etcd compacted what the watch had not read yet, listing the map again")
	case causeHang:
		f.m.stats.hangs.Add(1)
		f.m.notices.warn("the watch was silent although etcd answers, listing the map again")
	case causeFailed:
		f.m.notices.info("the watch ended, listing the map again", zap.Error(err))
	default: // an outage's end and a wipe are reported where they are found out
	}
}

func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }
