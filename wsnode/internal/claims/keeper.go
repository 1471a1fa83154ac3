package claims

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// Publisher is where claims go; its methods do not wait.
type Publisher interface {
	SetClaim(p int32, c directory.Claim)
	DropClaim(p int32)
}

// Config is a Keeper's.
type Config struct {
	Node, Instance string
	Incarnation    int64 // what etcd said at the start
	Publisher      Publisher
	// Raise raises the topic's incarnation in etcd if it still is from, and returns what it is then.
	Raise func(ctx context.Context, from int64) (int64, error)
	// Alive reports whether Kafka answers.
	Alive func() bool
	// Generation is the generation that the membership has reached, 0 before the first; nil if nobody knows.
	Generation func() int32
	Logger     *zap.Logger
}

// every is how often the core's clock ticks.
const every = 250 * time.Millisecond

// Keeper is the shell around a Core.
type Keeper struct {
	// Static after construction.
	cfg  Config
	log  *zap.Logger
	wake chan struct{} // one place: lost has something

	mu    sync.Mutex
	core  *Core   // guarded by mu
	raise []int64 // guarded by mu; what Run has to raise

	// The publisher calls Lost while it works; it must not meet mu, under which we call the publisher.
	lostMu sync.Mutex
	lost   map[int32]directory.Claim // guarded by lostMu
}

// NewKeeper returns a keeper; Run gives it its clock.
func NewKeeper(cfg Config) *Keeper {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	k := &Keeper{cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), lost: map[int32]directory.Claim{}}
	k.core = New(cfg.Node, cfg.Instance, cfg.Incarnation, (*effects)(k))
	return k
}

// Run ticks until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-k.wake:
		}
		k.lostMu.Lock()
		lost := k.lost
		k.lost = map[int32]directory.Claim{}
		k.lostMu.Unlock()

		now := time.Now()
		k.mu.Lock()
		for p, winner := range lost {
			k.core.Lost(now, p, winner)
		}
		if k.cfg.Generation != nil {
			k.core.Generation(now, k.cfg.Generation())
		}
		k.core.Tick(now, k.cfg.Alive())
		raise := k.raise
		k.raise = nil
		k.mu.Unlock()
		for _, from := range raise {
			k.raiseFrom(ctx, from)
		}
	}
}

func (k *Keeper) raiseFrom(ctx context.Context, from int64) {
	k.log.Warn("the consumer group began anew; raising the incarnation of claims", zap.Int64("incarnation", from))
	n, err := k.cfg.Raise(ctx, from)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			k.log.Warn("incarnation not raised; trying again", zap.Error(err))
		}
		k.core.RaiseFailed(time.Now())
		return
	}
	k.core.Raised(n)
}

// Assigned says that the group assigned p. Call it before the partition's loop hears of it.
func (k *Keeper) Assigned(p, generation, current int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core.Assigned(time.Now(), p, generation, current)
}

// Readable says that p is being read.
func (k *Keeper) Readable(p int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core.Readable(time.Now(), p)
}

// Revoked says that the group took p away.
func (k *Keeper) Revoked(p int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core.Revoked(p)
}

// Lost says that a claim stands behind a newer one. It does not wait and may be called by the publisher.
func (k *Keeper) Lost(p int32, winner directory.Claim) {
	k.lostMu.Lock()
	k.lost[p] = winner
	k.lostMu.Unlock()
	k.poke()
}

// Incarnation says what etcd holds.
func (k *Keeper) Incarnation(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.core.Incarnation(n)
}

// Known is the highest incarnation known.
func (k *Keeper) Known() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.core.Known()
}

// Published lists the claims that should stand in etcd.
func (k *Keeper) Published() map[int32]directory.Claim {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.core.Published()
}

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// effects carries out what the core asks; mu is held.
type effects Keeper

func (e *effects) Publish(p int32, c directory.Claim) { e.cfg.Publisher.SetClaim(p, c) }
func (e *effects) Withdraw(p int32)                   { e.cfg.Publisher.DropClaim(p) }
func (e *effects) Raise(from int64) {
	e.raise = append(e.raise, from)
	(*Keeper)(e).poke()
}
