package identity

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	// endsTimeout bounds the question where partitions end. The next check waits for it, and records wait for checks.
	endsTimeout = 800 * time.Millisecond
	// roundEvery is how often a node notes where the partitions end, in case they become more.
	roundEvery = 30 * time.Second
	// rumour is how much earlier than this node anybody may hear of added partitions: brokers tell of them at
	// different times.
	rumour = 10 * time.Second
	// keepRounds is enough for one of them to be older than a rumour.
	keepRounds = 3
)

// round is where the partitions ended at a time.
type round struct {
	at   time.Time
	ends []int64
}

// history keeps the account of the topic's growth: it notices growth, says from where to where keys moved, and when
// no producer can be ignorant of it any more. began is the start of the check that found so many partitions.
func (k *Keeper) history(ctx context.Context, v View, began time.Time, partitions int32) {
	k.mu.Lock()
	seen := k.seen
	k.mu.Unlock()
	next := v.with(seen, partitions)
	switch {
	case partitions > next.Partitions:
		if grown, ok := k.grow(ctx, next, partitions); ok {
			next = grown
		}
	case partitions == v.Partitions:
		k.confirmed = began
		next = k.closing(ctx, next)
		k.round(ctx, next)
	}
	if next.Partitions != v.Partitions {
		k.log.Info("topic has more partitions", zap.Int32("partitions", next.Partitions), zap.Int32("old_partitions", v.Partitions))
		k.rounds = nil
	}
	if next.Partitions != v.Partitions || !directory.SameGrowth(next.Growth, v.Growth) {
		k.set(next)
		k.cfg.Grown(next)
	}
}

// grow is the view after a growth that Kafka tells of.
func (k *Keeper) grow(ctx context.Context, v View, partitions int32) (View, bool) {
	ends, ok := k.ends(ctx, v, v.Partitions)
	if !ok {
		return v, false
	}
	if k.confirmed.IsZero() {
		k.log.Warn("partitions were added before this node ran; if that happened more than once, records that were "+
			"written by a count in between may not be found", zap.Int32("old_partitions", v.Partitions), zap.Int32("partitions", partitions))
	}
	g := directory.Growth{Partitions: v.Partitions, Ends: ends, Since: time.Now().UTC()}
	for _, r := range k.rounds {
		if len(r.ends) == len(ends) && !r.at.After(k.confirmed.Add(-rumour)) {
			g.From = r.ends
		}
	}
	return v.grown(partitions, g), true
}

// closing notes where old partitions end once no producer can use the old count any more.
func (k *Keeper) closing(ctx context.Context, v View) View {
	for i := range v.Growth {
		g := v.Growth[i]
		if g.Closed != nil || time.Since(g.Since) < k.cfg.StaleAfter {
			continue
		}
		ends, ok := k.ends(ctx, v, g.Partitions)
		if !ok {
			return v
		}
		for p := range ends {
			// A leader that is new may not know the end yet: what anybody saw before counts too.
			ends[p] = max(ends[p], g.Ends[p])
			for _, r := range k.rounds {
				if p < len(r.ends) {
					ends[p] = max(ends[p], r.ends[p])
				}
			}
		}
		g.Closed = ends
		v.Growth = slices.Clone(v.Growth)
		v.Growth[i] = g
		k.log.Info("no producer can use the old partition count any more", zap.Int32("old_partitions", g.Partitions))
	}
	return v
}

// round notes where the partitions end, now and then.
func (k *Keeper) round(ctx context.Context, v View) {
	if n := len(k.rounds); n > 0 && time.Since(k.rounds[n-1].at) < roundEvery {
		return
	}
	ends, ok := k.ends(ctx, v, v.Partitions)
	if !ok {
		return
	}
	if len(k.rounds) == keepRounds {
		k.rounds = k.rounds[1:]
	}
	k.rounds = append(k.rounds, round{at: time.Now(), ends: ends})
}

func (k *Keeper) ends(ctx context.Context, v View, partitions int32) ([]int64, bool) {
	ask, cancel := context.WithTimeout(ctx, endsTimeout)
	defer cancel()
	ends, err := k.cfg.Ends(ask, v.ID, partitions)
	if err != nil {
		k.log.Debug("where the partitions end is not known yet", zap.Error(err))
		return nil, false
	}
	return ends, true
}
