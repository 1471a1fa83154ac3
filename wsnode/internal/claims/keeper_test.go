package claims

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// board is an etcd that holds one claim in our way. Like the real publisher it tells of it from within.
type board struct {
	mu     sync.Mutex
	keeper *Keeper
	inWay  directory.Claim
	stands map[int32]directory.Claim
	raised []int64
	fail   int // how many raises fail
}

func (b *board) SetClaim(p int32, c directory.Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.Newer(b.inWay) {
		b.keeper.Lost(p, b.inWay)
		return
	}
	b.stands[p] = c
}

func (b *board) DropClaim(p int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.stands, p)
}

func (b *board) raise(_ context.Context, from int64) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.raised = append(b.raised, from)
	if b.fail > 0 {
		b.fail--
		return 0, errors.New("etcd is away")
	}
	return from + 1, nil
}

func TestClaimInTheWayOfALivingGroupIsOvercome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{inWay: by("gone", 1, 99), stands: map[int32]directory.Claim{}, fail: 1}
		k := NewKeeper(Config{
			Node: "n1", Instance: "i1", Incarnation: 1, Publisher: b, Raise: b.raise, Alive: func() bool { return true },
		})
		b.keeper = k
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); k.Run(ctx) }()
		defer func() { cancel(); <-done }()
		k.Assigned(7, 2, 2)
		k.Readable(7)
		<-time.After(settle + 2*again)
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if c := b.stands[7]; c.Incarnation != 2 || c.Generation != 2 || c.Node != "n1" {
			t.Errorf("etcd holds %+v, want our claim under incarnation 2", c)
		}
		if !slices.Equal(b.raised, []int64{1, 1}) {
			t.Errorf("raised from %v, want one failure and one success", b.raised)
		}
		if all := k.Published(); len(all) != 1 || all[7].Incarnation != 2 || k.Known() != 2 {
			t.Errorf("the keeper says %+v, incarnation %d", all, k.Known())
		}
	})
}
