package links

import (
	"sync"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// Streams are the streams of one link: who owns each, and how far each is covered by the node's checkpoints. A
// checkpoint is one number per partition; it is joined with a stream only when somebody asks.
//
// The checkpoint of a partition covers the streams whose Attached came before it. So each partition counts its
// checkpoints, each stream remembers the count at its Attached, and a checkpoint that leaves a stream out leaves its
// own number in that stream.
type Streams[S any] struct {
	mu       sync.Mutex
	last     uint64                      // guarded by mu; numbers are never reused
	byNumber map[uint64]*stream[S]       // guarded by mu
	covered  map[int32]*partitionCovered // guarded by mu
	gone     bool                        // guarded by mu; the link is down
}

type stream[S any] struct {
	owner     S
	partition int32
	attached  bool
	live      bool   // it was caught up when it was attached
	since     uint64 // the partition's count at Attached
	except    uint64 // the count of the last checkpoint that left this stream out
	own       int64  // what is covered apart from the partition's number, -1 for nothing
}

type partitionCovered struct {
	count uint64 // checkpoints so far
	next  int64  // of the newest
}

// NewStreams returns an empty registry for one link.
func NewStreams[S any]() *Streams[S] {
	return &Streams[S]{byNumber: map[uint64]*stream[S]{}, covered: map[int32]*partitionCovered{}}
}

// Add registers a stream and returns its number; ok is false once the link is down.
func (s *Streams[S]) Add(owner S, partition int32) (number uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, false
	}
	s.last++
	s.byNumber[s.last] = &stream[S]{owner: owner, partition: partition, own: -1}
	return s.last, true
}

// Remove forgets a stream and reports whether it was there.
func (s *Streams[S]) Remove(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.byNumber[number]
	delete(s.byNumber, number)
	return ok
}

// Owner is whose stream it is; ok is false for a stream that was detached in the meantime.
func (s *Streams[S]) Owner(number uint64) (owner S, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.byNumber[number]
	if !ok {
		return owner, false
	}
	return st.owner, true
}

// Target is a stream and its owner.
type Target[S any] struct {
	Number uint64
	Owner  S
	Live   bool // the stream is caught up, as far as the node has said
}

// Owners appends the owners of those streams that are still there.
func (s *Streams[S]) Owners(dst []Target[S], numbers []uint64) []Target[S] {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range numbers {
		if st, ok := s.byNumber[n]; ok {
			dst = append(dst, Target[S]{Number: n, Owner: st.owner, Live: s.liveLocked(st)})
		}
	}
	return dst
}

// liveLocked reports whether a stream is caught up: the newest checkpoint says so, or its Attached before there is one.
func (s *Streams[S]) liveLocked(st *stream[S]) bool {
	if pc := s.covered[st.partition]; pc != nil && pc.count > st.since {
		return st.attached && pc.count != st.except
	}
	return st.live
}

// Attached notes that the node answered: checkpoints from now on cover the stream. live says that it is caught up.
func (s *Streams[S]) Attached(number uint64, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.byNumber[number]
	if !ok || st.attached {
		return
	}
	st.attached, st.live = true, live
	if pc := s.covered[st.partition]; pc != nil {
		st.since = pc.count
	}
}

// Checkpoint notes what the node says is covered. Frames about unknown streams are ignored.
func (s *Streams[S]) Checkpoint(c *link.Checkpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(c.Only) > 0 {
		for _, n := range c.Only {
			if st, ok := s.byNumber[n]; ok && st.attached && st.partition == c.Partition {
				st.own = max(st.own, c.Next)
			}
		}
		return
	}
	pc := s.covered[c.Partition]
	if pc == nil {
		pc = &partitionCovered{}
		s.covered[c.Partition] = pc
	}
	for _, n := range c.Except {
		st, ok := s.byNumber[n]
		if !ok || !st.attached || st.partition != c.Partition {
			continue
		}
		if next, ok := pc.of(st.since, st.except); ok {
			st.own = max(st.own, next) // what held for it so far still holds
		}
		st.except = pc.count + 1
	}
	pc.count++
	pc.next = c.Next
}

// of is the partition's number if it covers a stream.
func (p *partitionCovered) of(since, except uint64) (int64, bool) {
	if p.count <= since || p.count == except {
		return 0, false
	}
	return p.next, true
}

// Covered is the newest checkpoint that covers a stream.
func (s *Streams[S]) Covered(number uint64) (next int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, found := s.byNumber[number]
	if !found || !st.attached {
		return 0, false
	}
	next = st.own
	if pc := s.covered[st.partition]; pc != nil {
		if n, ok := pc.of(st.since, st.except); ok {
			next = max(next, n)
		}
	}
	return next, next >= 0
}

// Down ends the registry: nothing can be added any more. It returns all streams; they can still be asked about, so
// that their owners can join their last checkpoints.
func (s *Streams[S]) Down() []Target[S] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	all := make([]Target[S], 0, len(s.byNumber))
	for n, st := range s.byNumber {
		all = append(all, Target[S]{Number: n, Owner: st.owner})
	}
	return all
}

// Len is how many streams there are.
func (s *Streams[S]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byNumber)
}
