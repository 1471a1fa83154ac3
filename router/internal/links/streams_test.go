package links

import (
	"math/rand/v2"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/link"
)

func add(t *testing.T, s *Streams[string], owner string, partition int32) uint64 {
	t.Helper()
	n, ok := s.Add(owner, partition)
	if !ok {
		t.Fatal("not added")
	}
	return n
}

func wantCovered(t *testing.T, s *Streams[string], stream uint64, want int64) {
	t.Helper()
	got, ok := s.Covered(stream)
	if !ok {
		got = -1
	}
	if got != want {
		t.Errorf("stream %d is covered up to %d, want %d", stream, got, want)
	}
}

func TestCheckpointCoversStreamsAttachedBeforeIt(t *testing.T) {
	s := NewStreams[string]()
	early, late := add(t, s, "early", 3), add(t, s, "late", 3)
	never, other := add(t, s, "never", 3), add(t, s, "other", 4)
	s.Attached(early, true)
	s.Attached(other, true)
	s.Checkpoint(&link.Checkpoint{Partition: 3, Next: 10})
	s.Attached(late, true)
	wantCovered(t, s, early, 10)
	wantCovered(t, s, late, -1)
	wantCovered(t, s, never, -1)
	wantCovered(t, s, other, -1)
	s.Checkpoint(&link.Checkpoint{Partition: 3, Next: 20})
	wantCovered(t, s, early, 20)
	wantCovered(t, s, late, 20)
	wantCovered(t, s, never, -1)
}

func TestCheckpointKeepsWhatItSaidBeforeLeavingAStreamOut(t *testing.T) {
	s := NewStreams[string]()
	a, b := add(t, s, "a", 0), add(t, s, "b", 0)
	s.Attached(a, true)
	s.Attached(b, true)
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 10})
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 20, Except: []uint64{b}})
	wantCovered(t, s, a, 20)
	wantCovered(t, s, b, 10)
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 30, Except: []uint64{b}})
	wantCovered(t, s, b, 10)
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 15, Only: []uint64{b}})
	wantCovered(t, s, b, 15)
	wantCovered(t, s, a, 30)
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 40})
	wantCovered(t, s, b, 40)
}

func TestStreamNumbersAreNeverReusedAndUnknownOnesIgnored(t *testing.T) {
	s := NewStreams[string]()
	a := add(t, s, "a", 0)
	if !s.Remove(a) || s.Remove(a) {
		t.Error("remove does not tell whether the stream was there")
	}
	if b := add(t, s, "b", 0); b == a {
		t.Errorf("stream number %d was given twice", b)
	}
	s.Attached(a, true)
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 9, Except: []uint64{a, 77}, Only: nil})
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 9, Only: []uint64{a, 77}})
	if _, ok := s.Covered(a); ok {
		t.Error("a removed stream is covered")
	}
	if _, ok := s.Owner(a); ok {
		t.Error("a removed stream has an owner")
	}
}

func TestDownAnswersForItsStreamsAndTakesNoMore(t *testing.T) {
	s := NewStreams[string]()
	a := add(t, s, "a", 0)
	s.Attached(a, true)
	s.Checkpoint(&link.Checkpoint{Partition: 0, Next: 9})
	if all := s.Down(); len(all) != 1 || all[0].Owner != "a" {
		t.Errorf("streams of the link that went down: %v", all)
	}
	if _, ok := s.Add("b", 0); ok {
		t.Error("a stream was added to a link that is down")
	}
	wantCovered(t, s, a, 9)
}

// TestLazyJoinEqualsALoopOverStreams compares the registry with the plain reading of the protocol: every checkpoint
// written into every stream that it covers.
func TestLazyJoinEqualsALoopOverStreams(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := NewStreams[string]()
		type plain struct {
			partition int32
			attached  bool
			covered   int64
		}
		model := map[uint64]*plain{}
		var next [2]int64
		for range 300 {
			switch op := rng.IntN(10); {
			case op < 3:
				p := rng.Int32N(2)
				model[add(t, s, "", p)] = &plain{partition: p, covered: -1}
			case op < 6:
				for n, m := range model {
					if !m.attached && rng.IntN(2) == 0 {
						m.attached = true
						s.Attached(n, true)
					}
				}
			case op < 7:
				for n := range model {
					if rng.IntN(4) == 0 {
						delete(model, n)
						s.Remove(n)
					}
				}
			default:
				p := rng.Int32N(2)
				next[p] += rng.Int64N(5)
				c := &link.Checkpoint{Partition: p, Next: next[p]}
				for n, m := range model {
					if m.partition == p && rng.IntN(3) == 0 {
						c.Except = append(c.Except, n)
					}
				}
				if op == 9 {
					c.Only, c.Except = c.Except, nil
				}
				s.Checkpoint(c)
				for n, m := range model {
					listed := false
					for _, l := range append(c.Only, c.Except...) {
						listed = listed || l == n
					}
					// Only names those that are covered, Except those that are not.
					if m.partition == p && m.attached && listed == (len(c.Only) > 0) {
						m.covered = max(m.covered, c.Next)
					}
				}
			}
			for n, m := range model {
				got, ok := s.Covered(n)
				if !ok {
					got = -1
				}
				if got != m.covered {
					t.Fatalf("seed %d: stream %d (%+v) is covered up to %d", seed, n, *m, got)
				}
			}
		}
	}
}
