package hub

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

const (
	// maxMoves bounds what is remembered: a rolling restart of some dozen nodes.
	maxMoves = 64
	// oneMove is how soon after a change another one of the same cause counts as its continuation: a node's claims
	// come from etcd in several pieces.
	oneMove = time.Second
	// maxNames bounds the nodes that a move names.
	maxNames = 4
)

// move is one change of routes. Its counters outlive the change: sessions report when they are served again.
type move struct {
	at     time.Time
	cause  string
	logged int64 // guarded by Hub.change; the sessions that the log told of

	sessions atomic.Int64
	unserved atomic.Int64
	pause    atomic.Int64 // nanoseconds, the longest

	from, to   []string           // guarded by moves.mu
	partitions map[int32]struct{} // guarded by moves.mu
	took       time.Duration      // guarded by moves.mu
	last       time.Time          // guarded by moves.mu
}

// moves are the last of them.
type moves struct {
	mu   sync.Mutex
	ring []*move // guarded by mu; the oldest first
}

// Move is one change of routes as operators see it.
type Move struct {
	At         time.Time
	Cause      string
	From, To   []string
	Partitions int
	Sessions   int
	Unserved   int
	Pause      time.Duration
	Took       time.Duration
}

// begin notes what differs between two tables; nil if nothing does. The caller holds change.
func (m *moves) begin(now time.Time, cause string, old, next *table.Table) *move {
	moved := table.Moved(old, next)
	if len(moved) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var mv *move
	if n := len(m.ring); n > 0 && m.ring[n-1].cause == cause && now.Sub(m.ring[n-1].last) < oneMove {
		mv = m.ring[n-1]
	} else {
		mv = &move{at: now, cause: cause, partitions: make(map[int32]struct{}, len(moved))}
		if len(m.ring) == maxMoves {
			m.ring = append(m.ring[:0:0], m.ring[1:]...)
		}
		m.ring = append(m.ring, mv)
	}
	mv.last = now
	for _, p := range moved {
		mv.partitions[p] = struct{}{}
		mv.from = addName(mv.from, old, old.Route(p))
		mv.to = addName(mv.to, next, next.Route(p))
	}
	return mv
}

func addName(names []string, t *table.Table, l session.LinkID) []string {
	n, ok := t.ByLink(l)
	if !ok || len(names) == maxNames {
		return names
	}
	for _, known := range names {
		if known == n.ID {
			return names
		}
	}
	return append(names, n.ID)
}

// end notes that all sessions were told. A move of nobody from nowhere is no news: that is how a router starts.
func (m *moves) end(mv *move, took time.Duration) {
	if mv == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mv.took += took
	if n := len(m.ring); len(mv.from) == 0 && mv.sessions.Load() == 0 && m.ring[n-1] == mv {
		m.ring = m.ring[:n-1]
	}
}

// names are the nodes of a move.
func (m *moves) names(mv *move) (from, to []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, mv.from...), append([]string{}, mv.to...)
}

// list is what is remembered, the newest first.
func (m *moves) list() []Move {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Move, 0, len(m.ring))
	for i := len(m.ring) - 1; i >= 0; i-- {
		mv := m.ring[i]
		out = append(out, Move{
			At: mv.at, Cause: mv.cause, From: append([]string{}, mv.from...), To: append([]string{}, mv.to...), Partitions: len(mv.partitions),
			Sessions: int(mv.sessions.Load()), Unserved: int(mv.unserved.Load()),
			Pause: time.Duration(mv.pause.Load()), Took: mv.took,
		})
	}
	return out
}

// Moves are the last changes of routes, the newest first.
func (h *Hub) Moves() []Move { return h.moves.list() }

// count notes a session that is moved, or has lost its stream; each counts once.
func (mv *move) count() {
	if mv != nil {
		mv.sessions.Add(1)
	}
}

// broke notes that a session of the move has no stream.
func (mv *move) broke() {
	if mv != nil {
		mv.unserved.Add(1)
	}
}

// healed notes that such a session has a stream again, or has ended.
func (mv *move) healed(pause time.Duration) {
	if mv == nil {
		return
	}
	mv.unserved.Add(-1)
	for {
		longest := mv.pause.Load()
		if int64(pause) <= longest || mv.pause.CompareAndSwap(longest, int64(pause)) {
			return
		}
	}
}
