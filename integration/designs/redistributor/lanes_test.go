package redistributor

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// sender is a server that takes bundles, or none.
type sender struct {
	mu   sync.Mutex
	dead bool     // guarded by mu
	got  [][]byte // guarded by mu
}

func (s *sender) Send(_ context.Context, _ Place, bundle []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errors.New("connection refused")
	}
	s.got = append(s.got, bundle)
	return nil
}

func (s *sender) Close() error { return nil }

func (s *sender) live(t *testing.T) (kinds []kind) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = false
	for _, b := range s.got {
		if err := parse(b, func(m *message) { kinds = append(kinds, m.kind) }); err != nil {
			t.Fatal(err)
		}
	}
	return kinds
}

// withLanes runs a test on a clock of its own, on which a head goes out every second.
func withLanes(t *testing.T, test func(s *sender, ls *lanes, to Place)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sender{}
		ls := newLanes(s, zap.NewNop(), func(int) {})
		ctx, cancel := context.WithCancel(t.Context())
		ls.ctx = ctx
		var heads sync.WaitGroup
		heads.Go(func() {
			for ctx.Err() == nil {
				ls.head((&message{kind: kindHead, offset: 1}).append)
				pause(ctx, time.Second)
			}
		})
		test(s, ls, Place{Instance: "a", Addr: "b"})
		cancel()
		heads.Wait()
		ls.wg.Wait()
	})
}

func record() *message { return &message{kind: kindRecord, offset: 7} }

func TestLanesOfDeadServersEnd(t *testing.T) {
	withLanes(t, func(s *sender, ls *lanes, to Place) {
		s.dead = true
		given := &ticket{}
		given.left.Store(1)
		ls.add(to, given, record().append)
		ls.flush(to)
		pause(ls.ctx, giveUpAfter/2)
		if len(ls.places()) != 1 {
			t.Error("a server that was silent for a moment was given up")
		}
		pause(ls.ctx, 5*giveUpAfter)
		if n := len(ls.places()); n != 0 || given.left.Load() != 1 {
			t.Errorf("%d lanes to a dead server, %d holds on what was for it", n, given.left.Load())
		}
		// It lives after all, and must hear that it has missed something before anything else.
		if got := s.live(t); len(got) != 0 {
			t.Errorf("it was sent %v", got)
		}
		ls.add(to, nil, record().append)
		ls.flush(to)
		synctest.Wait()
		if got := s.live(t); len(got) < 2 || got[0] != kindReset || got[1] != kindRecord {
			t.Errorf("it was sent %v, want a reset first", got)
		}
	})
}

func TestLanesThatOnlyHeadsUseEnd(t *testing.T) {
	withLanes(t, func(s *sender, ls *lanes, to Place) {
		for range 3 {
			ls.add(to, nil, record().append)
			ls.flush(to)
			pause(ls.ctx, idleAfter-2*time.Second)
			if len(ls.places()) != 1 {
				t.Error("a lane in use has ended")
			}
		}
		pause(ls.ctx, time.Minute)
		if n := len(ls.places()); n != 0 {
			t.Errorf("%d lanes that nobody uses", n)
		}
		ls.add(to, nil, record().append)
		ls.flush(to)
		synctest.Wait()
		records := 0
		for _, k := range s.live(t) {
			switch k {
			case kindRecord:
				records++
			case kindReset:
				t.Error("nothing was lost, and the server was told so")
			}
		}
		if records != 4 {
			t.Errorf("%d records were sent, want 4", records)
		}
	})
}
