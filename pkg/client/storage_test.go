package client_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// shelf is a storage in memory.
type shelf struct {
	mu    sync.Mutex
	start string
	fail  error    // guarded by mu
	saved []string // guarded by mu
}

func (s *shelf) Load(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start, s.fail
}

func (s *shelf) Save(_ context.Context, cursor string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		s.saved = append(s.saved, cursor)
	}
	return s.fail
}

func (s *shelf) fails(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *shelf) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.saved, want) {
		t.Errorf("saved %q, want %q", s.saved, want)
	}
}

func TestStoredCursorIsTheStartAndMovesBehindWhatTheProgramIsDoneWith(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		store := &shelf{start: "c0"}
		got := rt.start(client.Config{Storage: store})
		req := rt.next()
		if asked := req.query("cursor"); asked != "c0" {
			t.Errorf("asked for %q, want the stored cursor", asked)
		}
		s, c := req.accept(), <-got
		s.hello("c0", true)
		for i := range 4 {
			s.send(clientmsg.AppendRecord(nil, []string{"c1", "c2", "c3", "c4"}[i], 1, int64(i), 0, nil, []byte("1"), false, nil))
		}
		want[*client.Hello](t, c)
		want[*client.Record](t, c)
		want[*client.Record](t, c)
		wait(t, time.Second/2) // saves are due at full seconds, and looked for between them
		store.expect(t)
		wait(t, time.Second)
		store.expect(t, "c1") // c2 is still with the program
		wait(t, 5*time.Second)
		store.expect(t, "c1")
		store.fails(errors.New("full"))
		want[*client.Record](t, c)
		wait(t, time.Second)
		store.fails(nil)
		wait(t, time.Second)
		store.expect(t, "c1", "c2")
		if got := c.Stats().SaveErrors; got != 1 {
			t.Errorf("%d errors, want 1", got)
		}
		c.Commit()
		mustClose(t, c)
		store.expect(t, "c1", "c2", "c3")
	})
}

func TestStorageThatCannotBeReadStopsConnect(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		_, err := client.Connect(t.Context(), client.Config{URLs: []string{"ws://one"}, HTTPClient: rt.http, Storage: &shelf{fail: errors.New("no disk")}})
		if err == nil || err.Error() != "connect: load the cursor: no disk" {
			t.Errorf("got %v", err)
		}
	})
}

func TestRecordsStopAtAGapThatNobodyHearsOf(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{})
		defer mustClose(t, c)
		rec := func(cursor string, offset int64) {
			s.send(clientmsg.AppendRecord(nil, cursor, 1, offset, 0, nil, []byte("1"), false, nil))
		}
		s.hello("c0", true)
		rec("c1", 1)
		s.send(gap("c9", 1, 2, 9, link.GapRetention))
		s.send(clientmsg.AppendCheckpoint(nil, "c9"))
		rec("c10", 9)
		rec("c11", 10)
		var offsets []int64
		var last error
		for r, err := range c.Records(t.Context()) {
			if err != nil {
				last = err
				break
			}
			offsets = append(offsets, r.Offset)
		}
		var gone *client.GapError
		if !errors.As(last, &gone) || gone.Gap.To != 9 || gone.Error() != "records 2 to 8 of partition 1 can no longer be delivered: retention" {
			t.Fatalf("ended with %v", last)
		}
		for r, err := range c.Records(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if offsets = append(offsets, r.Offset); r.Offset == 10 {
				break
			}
		}
		if !slices.Equal(offsets, []int64{1, 9, 10}) {
			t.Errorf("offsets %v", offsets)
		}
	})
}

func TestRecordsTellsOfGapsInTheirPlace(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		enough := errors.New("enough gaps")
		var gaps []string
		c, s := rt.connect(client.Config{OnGap: func(g client.Gap) error {
			if gaps = append(gaps, g.Reason); len(gaps) == 2 {
				return enough
			}
			return nil
		}})
		defer mustClose(t, c)
		s.hello("c0", true)
		s.send(gap("c9", 1, 2, 9, link.GapRetention))
		s.send(clientmsg.AppendRecord(nil, "c10", 1, 9, 0, nil, []byte("1"), false, nil))
		s.send(gap("c19", 1, -1, 19, link.GapReplayLimit))
		for r, err := range c.Records(t.Context()) {
			switch {
			case err != nil && !errors.Is(err, enough):
				t.Errorf("ended with %v", err)
			case err == nil && (r.Offset != 9 || len(gaps) != 1):
				t.Errorf("offset %d after gaps %v", r.Offset, gaps)
			}
		}
		if len(gaps) != 2 {
			t.Errorf("gaps %v", gaps)
		}
	})
}
