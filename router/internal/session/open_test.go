package session

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// stage is a node that answers every stream, and what its router has asked of it.
type stage struct {
	script
	t     *testing.T
	open  map[uint64]link.Attach
	fresh []uint64 // not answered yet
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, script: script{covered: map[LinkID]int64{}}, open: map[uint64]link.Attach{}}
}

func (s *stage) Attach(l LinkID, a link.Attach) uint64 {
	id := s.script.Attach(l, a)
	s.open[id] = a
	s.fresh = append(s.fresh, id)
	return id
}

func (s *stage) Detach(_ LinkID, id uint64) { delete(s.open, id) }

func (s *stage) Covered(LinkID, uint64) (int64, bool) { return 0, false }

func (s *stage) Route(int32) LinkID { return 1 }

// answer says of every new stream that it begins where it was asked to.
func (s *stage) answer(f *Feed) {
	for len(s.fresh) > 0 {
		id := s.fresh[0]
		s.fresh = s.fresh[1:]
		if a, ok := s.open[id]; ok {
			f.Attached(now, 1, link.Attached{Stream: id, Next: a.Start.Value, Head: a.Start.Value, Live: true})
		}
	}
}

// deliver sends one record at an offset on every stream.
func (s *stage) deliver(f *Feed, offset int64) {
	for _, id := range slices.Sorted(maps.Keys(s.open)) {
		f.Record(now, 1, id, rec(offset))
		s.answer(f)
	}
}

func (s *stage) reads(partition int32) bool {
	for _, a := range s.open {
		if a.Partition == partition {
			return true
		}
	}
	return false
}

// sound checks what holds of every session at any time.
func (s *stage) sound(f *Feed, most int) {
	s.t.Helper()
	if f.trail != nil && len(f.trail.lanes) == 0 {
		s.t.Fatal("a trail without a lane")
	}
	if len(s.open) > most {
		s.t.Fatalf("%d streams, more than %d", len(s.open), most)
	}
	seen := map[int32]bool{}
	real := 0
	for _, p := range f.Positions(nil) {
		if seen[p.Partition] {
			s.t.Fatalf("the cursor lists partition %d twice: %v", p.Partition, f.Positions(nil))
		}
		seen[p.Partition] = true
		if p.Next != Done {
			real++
		}
	}
	if len(seen) > 0 && real == 0 {
		s.t.Fatalf("the cursor names no place: %v", f.Positions(nil))
	}
}

// live opens a session at a cursor and lets it live: it is greeted, gets records and heartbeats, and the topic grows.
func (s *stage) live(path []Stage, last int32, at []Position, next []Stage) {
	s.t.Helper()
	o := Open{Key: []byte("k"), Partition: last}
	o.At(slices.Clone(path), at)
	f := NewFeed(&Config{Window: 1000, Heartbeat: 15 * time.Second}, s, o)
	most := 2 * (maxStrange + len(path) + len(next) + 1)
	beat := func(at time.Duration) {
		f.Tick(now.Add(at))
		s.answer(f)
		s.sound(f, most)
		f.Status()
		f.Cursor()
	}
	beat(20 * time.Second) // before any stream
	f.Route(now, s)
	s.sound(f, most)
	beat(40 * time.Second)
	for i, offset := range []int64{3, 200, 500} {
		s.deliver(f, offset)
		beat(time.Duration(i+3) * 20 * time.Second)
	}
	if next != nil {
		last = next[len(next)-1].Partition
		f.Grow(now, next)
		f.Route(now, s)
		s.answer(f)
		beat(120 * time.Second)
	}
	// Every partition comes to its end, which may begin the next one.
	for i := range 2 * (len(path) + len(next) + 1) {
		s.deliver(f, int64(1000+i))
		beat(time.Duration(i+7) * 20 * time.Second)
	}
	if !s.reads(last) {
		s.t.Fatalf("partition %d, where the key lives, is not read: path %+v, then %+v, cursor %v, now %v",
			last, path, next, at, f.Positions(nil))
	}
	f.GoAway(now, 0)
	f.Close()
	if len(s.open) > 0 {
		s.t.Fatalf("%d streams are left", len(s.open))
	}
}

func TestMadeUpCursorsLeaveALaneToRead(t *testing.T) {
	moved := []Stage{{Partition: 3, Until: 100, Closed: -1}, home(11, 0)}
	over := []Stage{{Partition: 3, Until: 100, Closed: 120}, home(11, 0)}
	for _, at := range [][]Position{
		{{3, 90}, {11, Done}}, {{3, Done}}, {{11, Done}}, {{3, Done}, {11, Done}}, {{3, Done}, {11, 5}},
		{{7, Done}}, {{7, Done}, {8, Done}}, {{7, 5}, {11, Done}}, {{7, 5}, {3, 120}}, {{11, Done - 1}}, nil,
	} {
		newStage(t).live(nil, 11, at, nil)
		newStage(t).live(moved, 11, at, nil)
		newStage(t).live(over, 11, at, nil)
		newStage(t).live(moved, 11, at, over)
		newStage(t).live(nil, 3, at, over)
	}
}

func TestTopicThatIsBackIsGoneOnWithAtAnyPosition(t *testing.T) {
	path := []Stage{{Partition: 3, Until: 100, Closed: 120}, home(11, 0)}
	for _, at := range [][]Position{{{7, Done}}, {{3, 90}, {11, Done}}, {{7, 5}, {11, Done}}, {{3, Done}}} {
		s := newStage(t)
		f := NewFeed(&Config{Window: 1000, Heartbeat: 15 * time.Second}, s, Open{Start: cursorAt(5)})
		f.Route(now, s)
		s.answer(f)
		f.settleOn(now, [16]byte{1}, path, 11, at)
		f.Route(now, s)
		s.answer(f)
		for i := range 4 {
			s.deliver(f, int64(1000+i))
			f.Tick(now.Add(time.Duration(i+1) * 20 * time.Second))
			s.answer(f)
			s.sound(f, 8)
		}
		if !s.reads(11) {
			t.Errorf("from %v: partition 11 is not read", at)
		}
	}
}

// FuzzOpenAt opens sessions at cursors that anybody may have made, on paths that keys may have.
func FuzzOpenAt(f *testing.F) {
	f.Add([]byte{}, []byte{7, 255}, byte(0))
	f.Add([]byte{3, 1, 11, 0}, []byte{3, 90, 11, 255}, byte(0))
	f.Add([]byte{3, 0, 11, 0}, []byte{3, 90, 11, 5}, byte(1))
	f.Add([]byte{0, 1, 8, 1, 0, 0}, []byte{0, 110, 8, 255}, byte(2))
	f.Add([]byte{0, 1, 8, 1, 0, 1, 8, 0}, []byte{0, 160, 8, 255, 9, 3}, byte(3))
	f.Fuzz(func(t *testing.T, stages, listed []byte, grown byte) {
		var full []Stage
		for i := 0; i+1 < len(stages) && len(full) < 8; i += 2 {
			p, kind := int32(stages[i]%16), stages[i+1]
			if n := len(full); n > 0 && full[n-1].Partition == p {
				continue
			}
			s := Stage{Partition: p, From: int64(kind >> 4), Until: int64(kind) * 2, Closed: -1}
			if kind%2 == 1 {
				s.Closed = s.Until + int64(kind%8) - 2
			}
			full = append(full, s)
		}
		if len(full) == 0 {
			full = []Stage{home(1, 0)}
		}
		end := func(path []Stage) []Stage {
			path = slices.Clone(path)
			path[len(path)-1].Until, path[len(path)-1].Closed = Done, -1
			return path
		}
		var at []Position
		for i := 0; i+1 < len(listed); i += 2 {
			next := int64(listed[i+1])
			switch listed[i+1] {
			case 255:
				next = Done
			case 254:
				next = Done - 1
			}
			p := int32(listed[i] % 64)
			if !slices.ContainsFunc(at, func(o Position) bool { return o.Partition == p }) {
				at = append(at, Position{p, next})
			}
		}
		first := end(full[:1+int(grown)%len(full)])
		last := first[len(first)-1].Partition
		if len(first) < 2 {
			first = nil
		}
		var next []Stage
		if len(full) > max(1, len(first)) {
			next = end(full)
		}
		newStage(t).live(first, last, at, next)
	})
}
