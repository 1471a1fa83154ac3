package hub

import "sync"

// bucket is the sessions of one partition.
type bucket struct {
	mu       sync.Mutex
	sessions []*Session // guarded by mu; a session knows its place
	pending  []*Session // guarded by mu; those that want to be polled, likewise
	closed   bool       // guarded by mu; nothing is added any more
	// guests are sessions of other buckets whose keys lived here, or will.
	guests map[*Session]struct{} // guarded by mu
}

// setGuest registers a session of another bucket.
func (b *bucket) setGuest(s *Session, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !on {
		delete(b.guests, s)
		return
	}
	if b.guests == nil {
		b.guests = map[*Session]struct{}{}
	}
	b.guests[s] = struct{}{}
}

// add registers a session; false once the hub is closing.
func (b *bucket) add(s *Session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	s.place = len(b.sessions)
	b.sessions = append(b.sessions, s)
	return true
}

// addAlways registers a session that comes from another bucket.
func (b *bucket) addAlways(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.place = len(b.sessions)
	b.sessions = append(b.sessions, s)
}

func (b *bucket) remove(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.sessions) - 1
	moved := b.sessions[last]
	b.sessions[s.place], moved.place = moved, s.place
	b.sessions[last] = nil
	b.sessions = b.sessions[:last]
}

func (b *bucket) setPending(s *Session, pending bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if pending {
		s.pendingPlace = len(b.pending)
		b.pending = append(b.pending, s)
		return
	}
	last := len(b.pending) - 1
	moved := b.pending[last]
	b.pending[s.pendingPlace], moved.pendingPlace = moved, s.pendingPlace
	b.pending[last] = nil
	b.pending = b.pending[:last]
}

// snapshot copies the sessions into the turn's scratch: they are visited without the bucket's lock.
func (b *bucket) snapshot(t *turn) []*Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.visit = append(t.visit[:0], b.sessions...)
	return t.visit
}

// all is the snapshot with the guests.
func (b *bucket) all(t *turn) []*Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.visit = append(t.visit[:0], b.sessions...)
	for s := range b.guests {
		t.visit = append(t.visit, s)
	}
	return t.visit
}

func (b *bucket) snapshotPending(t *turn) []*Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.visit = append(t.visit[:0], b.pending...)
	return t.visit
}

func (b *bucket) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// grow makes room for n partitions. The caller holds change.
func (h *Hub) grow(n int) {
	old := *h.buckets.Load()
	if n <= len(old) {
		return
	}
	next := make([]*bucket, n)
	copy(next, old)
	for i := len(old); i < n; i++ {
		next[i] = &bucket{closed: h.closing}
	}
	h.buckets.Store(&next)
}

func (h *Hub) bucket(partition int32) *bucket { return (*h.buckets.Load())[partition] }
