package session

import (
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// script is an Output that writes down what it is asked.
type script struct {
	calls   []string
	streams uint64
	starts  []link.Start
	credits []int64
	covered map[LinkID]int64
	gaps    []Gap
	hellos  []Hello
	polling bool
}

func (s *script) Attach(l LinkID, a link.Attach) uint64 {
	s.streams++
	s.calls = append(s.calls, "attach")
	s.starts = append(s.starts, a.Start)
	s.credits = append(s.credits, a.Credit)
	return s.streams
}
func (s *script) Detach(LinkID, uint64)        { s.calls = append(s.calls, "detach") }
func (s *script) Credit(LinkID, uint64, int64) { s.calls = append(s.calls, "credit") }
func (s *script) Covered(l LinkID, _ uint64) (int64, bool) {
	n, ok := s.covered[l]
	return n, ok
}
func (s *script) Hello(h Hello)                      { s.hellos = append(s.hellos, h) }
func (s *script) Record(*link.Record)                { s.calls = append(s.calls, "record") }
func (s *script) Checkpoint(int32, int64)            { s.calls = append(s.calls, "checkpoint") }
func (s *script) Gap(g Gap)                          { s.gaps = append(s.gaps, g) }
func (s *script) Waiting()                           { s.calls = append(s.calls, "waiting") }
func (s *script) GoAway(int32, int64, time.Duration) { s.calls = append(s.calls, "goaway") }
func (s *script) Handover(p bool)                    { s.polling = p }

func (s *script) Follow(int32) LinkID { return 1 }
func (s *script) Leave(int32)         {}

func (s *script) take() []string {
	c := s.calls
	s.calls = nil
	return c
}

func (s *script) want(t *testing.T, calls ...string) {
	t.Helper()
	if got := s.take(); !slices.Equal(got, calls) {
		t.Fatalf("got %v, want %v", got, calls)
	}
}

var now = time.Unix(1000, 0)

// served returns a session at cursor 10, served by link 1.
func served(t *testing.T) (*Core, *script) {
	s := &script{covered: map[LinkID]int64{}}
	c := New(&Config{Window: 1000, Heartbeat: 15 * time.Second}, s, Open{Key: []byte("k"), Start: link.Start{Kind: link.StartLatest}})
	c.Route(now, 1)
	c.Attached(now, 1, link.Attached{Stream: 1, Next: 10, Head: 10, Live: true})
	s.want(t, "attach")
	return c, s
}

func rec(offset int64) *link.Record { return &link.Record{Offset: offset, Value: []byte("v")} }

func TestOldStreamServesUntilTheNewOneHasReachedTheCursor(t *testing.T) {
	c, s := served(t)
	c.Route(now, 2)
	if s.want(t, "attach"); s.starts[1] != (link.Start{Kind: link.StartCursor, Value: 10}) || !s.polling {
		t.Fatalf("second attach at %+v, polling %v", s.starts[1], s.polling)
	}
	c.Record(now, 1, 1, rec(12))
	s.want(t, "record")
	c.Attached(now, 2, link.Attached{Stream: 2, Next: 10, Head: 10, Live: true})
	s.want(t) // the new node is at 10, the client at 13
	s.covered[2] = 12
	c.Poll(now)
	s.want(t)
	s.covered[2] = 13
	c.Poll(now)
	s.want(t, "detach")
	if c.Primary() != 2 || s.polling {
		t.Fatalf("primary %d, polling %v", c.Primary(), s.polling)
	}
	c.Record(now, 1, 1, rec(14)) // under way when the old stream was detached
	c.Record(now, 2, 2, rec(12)) // the client has it
	s.want(t)
	c.Record(now, 2, 2, rec(14))
	s.want(t, "record")
}

func TestGapIsNotBelievedFromTheSecondaryNorWhileTheOtherCovers(t *testing.T) {
	c, s := served(t)
	c.Route(now, 2)
	c.Attached(now, 2, link.Attached{Stream: 2, Next: 50, Head: 50, Live: true, Gap: link.GapRetention})
	c.Gap(now, 2, link.Gap{Stream: 2, From: 50, To: 60, Reason: link.GapRetention})
	c.Record(now, 1, 1, rec(20))
	if len(s.gaps) != 0 {
		t.Fatalf("gaps %v", s.gaps)
	}
	s.want(t, "attach", "record")
	// The old node dies: now the new one is asked again from the cursor, and its word counts.
	c.LinkDown(now, 1)
	s.want(t, "detach", "attach")
	if got := s.starts[2]; got.Value != 21 {
		t.Fatalf("attached again at %+v, want 21", got)
	}
	c.Attached(now, 2, link.Attached{Stream: 3, Next: 60, Head: 60, Live: true, Gap: link.GapRetention})
	if want := (Gap{From: 21, Next: 60, Reason: link.GapRetention}); len(s.gaps) != 1 || s.gaps[0] != want {
		t.Fatalf("gaps %v, want %v", s.gaps, want)
	}
}

// Retention overtakes both streams in the middle of a handover, first the one that is then not believed.
func TestGapThatNeitherStreamCoversIsTold(t *testing.T) {
	for _, first := range []LinkID{1, 2} {
		c, s := served(t)
		c.Route(now, 2)
		c.Attached(now, 2, link.Attached{Stream: 2, Next: 10, Head: 90})
		gap := func(l LinkID, from, to int64) {
			c.Gap(now, l, link.Gap{Stream: uint64(l), From: from, To: to, Reason: link.GapRetention})
		}
		gap(first, 10, 40)
		c.Record(now, 3-first, uint64(3-first), rec(20))
		if len(s.gaps) != 0 {
			t.Fatalf("gaps %v while link %d covers", s.gaps, 3-first)
		}
		gap(3-first, 21, 60)
		if want := (Gap{From: 21, Next: 40, Reason: link.GapRetention}); len(s.gaps) != 1 || s.gaps[0] != want {
			t.Fatalf("gaps %v, want %v: link %d has what follows", s.gaps, want, first)
		}
		s.take()
		c.Record(now, first, uint64(first), rec(41))
		s.want(t, "record")
	}
}

// The route changes again while only the stream of the former target has what comes next.
func TestHoleOfBothStreamsIsAskedForAgain(t *testing.T) {
	c, s := served(t)
	c.Route(now, 2)
	c.Attached(now, 2, link.Attached{Stream: 2, Next: 10, Head: 90})
	c.Gap(now, 1, link.Gap{Stream: 1, From: 10, To: 40, Reason: link.GapRetention}) // link 2 has it
	c.Route(now, 3)
	s.want(t, "attach", "detach", "attach")
	c.Attached(now, 3, link.Attached{Stream: 3, Next: 40, Head: 90, Gap: link.GapRetention})
	s.want(t, "detach", "detach", "attach")
	c.Attached(now, 3, link.Attached{Stream: 4, Next: 40, Head: 90, Gap: link.GapRetention})
	if want := (Gap{From: 10, Next: 40, Reason: link.GapRetention}); len(s.gaps) != 1 || s.gaps[0] != want {
		t.Fatalf("gaps %v, want %v", s.gaps, want)
	}
	if c.Primary() != 3 || s.polling {
		t.Fatalf("primary %d, polling %v", c.Primary(), s.polling)
	}
}

func TestPrimaryGapIsNotBelievedWhileTheNewStreamCovers(t *testing.T) {
	c, s := served(t)
	c.Route(now, 2)
	c.Attached(now, 2, link.Attached{Stream: 2, Next: 10, Head: 9, Live: true})
	c.Gap(now, 1, link.Gap{Stream: 1, From: 10, To: 30, Reason: link.GapRetention})
	c.Record(now, 1, 1, rec(30)) // lacks 10 to 30
	s.want(t, "attach")
	c.Record(now, 2, 2, rec(15))
	s.want(t, "record")
	if len(s.gaps) != 0 {
		t.Fatalf("gaps %v", s.gaps)
	}
}

func TestDeadLinkIsReplacedAndDuplicatesAreGivenBack(t *testing.T) {
	c, s := served(t)
	c.Record(now, 1, 1, rec(11))
	c.LinkDown(now, 1)
	c.Route(now, 2)
	s.want(t, "record", "attach")
	if got := s.starts[1]; got.Kind != link.StartCursor || got.Value != 12 {
		t.Fatalf("attached at %+v, want cursor 12", got)
	}
	c.Attached(now, 2, link.Attached{Stream: 2, Next: 12, Head: 12, Live: true})
	for range 100 { // far more than the window, all duplicates: credit must come back
		c.Record(now, 2, 2, rec(5))
	}
	credits := 0
	for _, call := range s.take() {
		if call == "record" {
			t.Fatal("a duplicate was delivered")
		}
		if call == "credit" {
			credits++
		}
	}
	if credits == 0 || c.Status().Left <= 0 {
		t.Fatalf("%d credits, %d bytes left", credits, c.Status().Left)
	}
}

func TestClientIsToldToWaitAndThatTheWaitIsOver(t *testing.T) {
	c, s := served(t)
	c.LinkDown(now, 1)
	c.Route(now, 0)
	s.want(t, "waiting")
	c.Route(now, 0)
	s.want(t)
	c.Tick(now.Add(13 * time.Second))
	s.want(t, "waiting")
	c.Route(now, 3)
	s.want(t, "attach")
	c.Attached(now, 3, link.Attached{Stream: 2, Next: 10, Head: 10, Live: true})
	s.want(t, "checkpoint")
}

func TestHeartbeatCarriesTheCheckpoint(t *testing.T) {
	c, s := served(t)
	c.Tick(now.Add(11 * time.Second))
	s.want(t)
	s.covered[1] = 99
	c.Tick(now.Add(12 * time.Second))
	s.want(t, "checkpoint")
	if _, next, ok := c.Cursor(); next != 99 || !ok {
		t.Fatalf("cursor %d", next)
	}
	c.Record(now.Add(12*time.Second), 1, 1, rec(100))
	s.want(t, "record")
	c.Tick(now.Add(60 * time.Second))
	s.want(t) // something is queued: the client does not read
}

func TestClosedStreamIsAttachedAgainLater(t *testing.T) {
	c, s := served(t)
	c.Closed(now, 1, link.Closed{Stream: 1, Reason: link.ClosedError})
	if !s.polling {
		t.Fatal("nobody polls")
	}
	c.Poll(now)
	s.want(t)
	c.Poll(now.Add(reattachFirst))
	s.want(t, "attach")
	if s.polling {
		t.Fatal("still polled")
	}
}

func TestRecreatedTopicIsAGapAndStartsOver(t *testing.T) {
	c, s := served(t)
	c.Closed(now, 1, link.Closed{Stream: 1, Reason: link.ClosedTopic})
	c.Recreate(now, [16]byte{1}, 4)
	if got := s.starts[len(s.starts)-1]; got.Kind != link.StartEarliest {
		t.Fatalf("attached at %+v, want earliest", got)
	}
	c.Attached(now, 1, link.Attached{Stream: 2, Next: 0, Head: 0, Live: true})
	if want := (Gap{Partition: 4, Reason: link.GapTopic}); len(s.gaps) != 1 || s.gaps[0] != want {
		t.Fatalf("gaps %v, want %v", s.gaps, want)
	}
	s.take()
	c.Record(now, 1, 2, rec(3))
	s.want(t, "record")
}

func TestCursorThatDoesNotReachTheStartIsAGapAfterHello(t *testing.T) {
	for _, reason := range []link.GapReason{link.GapTopic, link.GapMoved} {
		t.Run(reason.String(), func(t *testing.T) {
			s := &script{covered: map[LinkID]int64{}}
			c := New(&Config{Window: 1000, Heartbeat: 15 * time.Second}, s, Open{
				Key: []byte("k"), Partition: 4, Start: link.Start{Kind: link.StartEarliest}, Gap: reason,
			})
			c.Route(now, 1)
			c.Closed(now, 1, link.Closed{Stream: 1, Reason: link.ClosedError}) // the client was told nothing yet
			c.Poll(now.Add(reattachFirst))
			for _, start := range s.starts {
				if start.Kind != link.StartEarliest {
					t.Errorf("attached at %+v, want earliest", start)
				}
			}
			// Retention has passed the new partition's beginning, too: still one gap, and the reason is the first one.
			c.Attached(now, 1, link.Attached{Stream: 2, Next: 7, Head: 9, Gap: link.GapRetention})
			if want := []Hello{{Partition: 4, Next: 7}}; !slices.Equal(s.hellos, want) {
				t.Errorf("hellos %+v, want %+v", s.hellos, want)
			}
			if want := []Gap{{Partition: 4, From: 7, Next: 7, Reason: reason}}; !slices.Equal(s.gaps, want) {
				t.Errorf("gaps %+v, want %+v", s.gaps, want)
			}
			s.take()
			c.Record(now, 1, 2, rec(7))
			s.want(t, "record")
			// Told once: the next attach is at the cursor.
			c.LinkDown(now, 1)
			c.Route(now, 2)
			if got, want := s.starts[len(s.starts)-1], (link.Start{Kind: link.StartCursor, Value: 8}); got != want {
				t.Errorf("attached at %+v, want %+v", got, want)
			}
			c.Attached(now, 2, link.Attached{Stream: 3, Next: 8, Head: 8, Live: true})
			if len(s.hellos) != 1 || len(s.gaps) != 1 {
				t.Errorf("hellos %+v, gaps %+v", s.hellos, s.gaps)
			}
		})
	}
}

func TestRecordLargerThanTheCreditIsPaidBack(t *testing.T) {
	c, s := served(t)
	big := &link.Record{Offset: 10, Value: make([]byte, 5000)}
	c.Record(now, 1, 1, big)
	s.want(t, "record")
	if c.Status().Left >= 0 {
		t.Fatalf("left %d", c.Status().Left)
	}
	c.Written(now, big.Cost())
	s.want(t, "credit")
	if got := c.Status().Left; got != 500 {
		t.Fatalf("left %d, want half the window", got)
	}
}

func TestLogTruncationMovesTheCursorBack(t *testing.T) {
	c, s := served(t)
	c.Gap(now, 1, link.Gap{Stream: 1, From: 10, To: 4, Reason: link.GapTruncated})
	if len(s.gaps) != 1 || s.gaps[0].Next != 4 {
		t.Fatalf("gaps %v", s.gaps)
	}
	c.Record(now, 1, 1, rec(5))
	s.want(t, "record")
}

// Between two lives of the topic the old position with the new topic's id would be a cursor of nowhere.
func TestGoodbyeBetweenTwoLivesOfTheTopicCarriesNoCursor(t *testing.T) {
	c, s := served(t)
	c.Recreate(now, [16]byte{2}, 0)
	s.want(t, "detach", "attach")
	c.GoAway(now, time.Second)
	s.want(t)
	if _, next, ok := c.Cursor(); ok {
		t.Fatalf("cursor %d of a topic that was not attached yet", next)
	}
	c.Attached(now, 1, link.Attached{Stream: 2, Next: 4, Head: 4, Live: true})
	c.GoAway(now, time.Second)
	s.want(t, "goaway")
}

func TestTopicThatIsBackBeforeTheClientWasToldIsResumed(t *testing.T) {
	c, s := served(t)
	c.Recreate(now, [16]byte{2}, 3) // etcd was restored from a backup
	c.Closed(now, 1, link.Closed{Stream: 2, Reason: link.ClosedTopic})
	c.Recreate(now, [16]byte{}, 0) // and mended
	if got := s.starts[len(s.starts)-1]; got != (link.Start{Kind: link.StartCursor, Value: 10}) {
		t.Fatalf("attached at %+v, want the cursor 10", got)
	}
	c.Attached(now, 1, link.Attached{Stream: 3, Next: 10, Head: 10, Live: true})
	if partition, next, ok := c.Cursor(); partition != 0 || next != 10 || !ok || len(s.gaps) != 0 {
		t.Fatalf("cursor %d:%d %t, gaps %v", partition, next, ok, s.gaps)
	}
}

// A client that reads slowly keeps its outbox full. Its node then gets credit in pieces that are worth a frame, and
// worth reading the log for, and not one record's at a time.
func TestSlowClientsCreditIsNotGivenInCrumbs(t *testing.T) {
	c, s := served(t)
	cost, offset := rec(0).Cost(), int64(10)
	records, credits := 0, 0
	for range 200 {
		for c.Status().Left > 0 { // the node sends whatever it may
			c.Record(now, 1, 1, rec(offset))
			offset++
			records++
		}
		c.Written(now, cost)
		for _, call := range s.take() {
			if call == "credit" {
				credits++
			}
		}
	}
	if records < 200 || credits*3 > records {
		t.Fatalf("%d credits for %d records", credits, records)
	}
}
