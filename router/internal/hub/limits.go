package hub

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
)

// allowance is how many bytes a client may still be sent in this second. It is kept in what is given back as credit:
// beyond it credit comes back with the next look at the session, so that a client that is far behind, with a fast
// line, leaves its node time for others. No timer is needed, and a client below its rate never notices.
type allowance struct {
	left int64 // may be given back at once
	owed int64 // waits
	at   int64 // Unix nanoseconds of the last refill
}

// pass takes bytes that have left and returns those that may be given back now.
func (a *allowance) pass(now time.Time, rate, bytes int64) int64 {
	if rate <= 0 {
		return bytes
	}
	a.refill(now, rate)
	a.owed += bytes
	give := min(a.owed, max(0, a.left))
	a.left -= give
	a.owed -= give
	return give
}

func (a *allowance) refill(now time.Time, rate int64) {
	n := now.UnixNano()
	if gone := n - a.at; gone >= int64(time.Second) {
		a.left, a.at = rate, n
	} else if more := rate / 1000 * (gone / int64(time.Millisecond)); more > 0 {
		a.left, a.at = min(rate, a.left+more), n
	}
}

// written tells the core what has left, as far as the client's rate allows. The caller holds mu, within a visit.
func (s *Session) written(t *turn, bytes int64) {
	if give := s.allow.pass(t.now, s.h.cfg.CatchUpRate, bytes); give > 0 {
		s.core.Written(t.now, give)
	}
}

// clientCost is what a client costs beside what is queued for it: its goroutine, its session, its buffers.
const clientCost = 8 << 10

// idlePart is how many of the clients for whom nothing is queued may be given up at a time: one in so many.
const idlePart = 20

// Shed gives up the clients that cost the most memory, until about so many bytes are free; also some for
// whom nothing is queued if idleToo. Their cursors hold: they may come back, to another router.
func (h *Hub) Shed(bytes int64, idleToo bool) (clients int, freed int64) {
	type cost struct {
		c     interface{ shed() (freed int64) }
		bytes int64
	}
	var all []cost
	for _, c := range h.clients() {
		all = append(all, cost{c, int64(c.Conn().Held())})
	}
	h.strayMu.Lock()
	for c := range h.strays {
		if n := c.Held(); n > 0 {
			all = append(all, cost{stray{c}, int64(n)})
		}
	}
	h.strayMu.Unlock()
	slices.SortFunc(all, func(a, b cost) int { return int(b.bytes - a.bytes) })
	idle := len(all)/idlePart + 1
	for _, c := range all {
		if freed >= bytes {
			break
		}
		if c.bytes == 0 {
			if idle--; idle < 0 || !idleToo {
				break
			}
		}
		freed += c.c.shed() + clientCost
		clients++
	}
	return clients, freed
}

const shedReason = "the router is short of memory; connect again"

// stray is a connection that is no session yet.
type stray struct{ conn *clientconn.Conn }

func (s stray) shed() (freed int64) { return int64(s.conn.Shed(closecode.Shed, shedReason)) }

func (s *Session) shed() (freed int64) {
	t := s.h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	freed = int64(s.conn.Shed(closecode.Shed, shedReason))
	if s.enter(t) {
		s.finish = true
		s.leave(t)
	}
	return freed
}

func (k *Socket) shed() (freed int64) {
	t := k.h.turn()
	defer t.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	freed = int64(k.conn.Shed(closecode.Shed, shedReason))
	k.finish(t)
	return freed
}

// written tells the core what has left, as far as the client's rate allows. The caller holds mu.
func (k *Socket) written(now time.Time, bytes int64) {
	if give := k.allow.pass(now, k.h.cfg.CatchUpRate, bytes); give > 0 {
		k.core.Written(give)
	}
}
