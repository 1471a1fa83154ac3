package session

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// world is a log, nodes that serve it at their own pace over links with FIFO delays, and one session. It
// checks that the client gets each record of its key once and in order, whatever happens.
type world struct {
	t     *testing.T
	r     *rand.Rand
	now   time.Time
	cfg   Config
	core  *Core
	log   []int64 // offsets of the client's records, ascending
	end   int64   // end of the log
	start int64   // oldest offset there is
	links map[LinkID]*modelLink
	next  LinkID

	hello   *Hello
	cursor  int64 // what the client has been told: everything below it
	got     []int64
	gaps    []Gap
	queued  []int64 // costs of records in the outbox
	polling bool
	waits   int
	checks  int
	trace   []string
}

type modelLink struct {
	id      LinkID
	streams map[uint64]*modelStream
	head    int64 // the node's head
	fifo    []func()
	stream  uint64

	ckpt    int64
	ckptSeq int
	except  map[uint64]bool
	up      bool
}

type modelStream struct {
	attach   link.Attach
	credit   int64
	next     int64
	attached bool // at the node
	seen     int  // ckptSeq when Attached arrived at the router
	arrived  bool
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0), links: map[LinkID]*modelLink{},
		cfg: Config{Window: 1000, Heartbeat: 15 * time.Second},
	}
}

func (w *world) tracef(format string, a ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, a...))
}

func (w *world) fail(format string, a ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, a...), strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))
}

func (w *world) addLink(head int64) *modelLink {
	w.next++
	l := &modelLink{id: w.next, streams: map[uint64]*modelStream{}, head: head, except: map[uint64]bool{}, up: true}
	w.links[l.id] = l
	return l
}

// Output of the core.

func (w *world) Attach(id LinkID, a link.Attach) uint64 {
	l := w.links[id]
	if l == nil || !l.up {
		w.fail("attach on link %d, which is not up", id)
	}
	l.stream++
	s := &modelStream{attach: a, credit: a.Credit}
	l.streams[l.stream] = s
	w.tracef("attach link=%d stream=%d %+v credit=%d", id, l.stream, a.Start, a.Credit)
	return l.stream
}

func (w *world) Detach(id LinkID, stream uint64) {
	w.tracef("detach link=%d stream=%d", id, stream)
	if l := w.links[id]; l != nil {
		delete(l.streams, stream)
	}
}

func (w *world) Credit(id LinkID, stream uint64, n int64) {
	if n <= 0 {
		w.fail("credit of %d", n)
	}
	if s := w.links[id].streams[stream]; s != nil {
		s.credit += n
	}
}

func (w *world) Covered(id LinkID, stream uint64) (int64, bool) {
	l := w.links[id]
	s := l.streams[stream]
	if s == nil || !s.arrived || s.seen == l.ckptSeq || l.except[stream] {
		return 0, false
	}
	return l.ckpt, true
}

func (w *world) Hello(h Hello) {
	if w.hello != nil {
		w.fail("second hello")
	}
	w.tracef("hello %+v", h)
	w.hello, w.cursor = &h, h.Next
}

func (w *world) Record(f *link.Record) {
	w.tracef("record %d", f.Offset)
	if w.hello == nil {
		w.fail("record before hello")
	}
	for _, o := range w.log {
		if o >= w.cursor && o < f.Offset {
			w.fail("record %d delivered while %d is missing", f.Offset, o)
		}
	}
	if f.Offset < w.cursor {
		w.fail("record %d delivered below the cursor %d", f.Offset, w.cursor)
	}
	w.got, w.cursor = append(w.got, f.Offset), f.Offset+1
	w.queued = append(w.queued, f.Cost())
}

func (w *world) Checkpoint(_ int32, next int64) {
	w.checks++
	for _, o := range w.log {
		if o >= w.cursor && o < next {
			w.fail("checkpoint %d covers %d, which was not delivered", next, o)
		}
	}
	if next < w.cursor {
		w.fail("checkpoint %d goes back behind %d", next, w.cursor)
	}
	w.cursor = next
}

func (w *world) Gap(g Gap) {
	w.tracef("gap %+v", g)
	w.gaps = append(w.gaps, g)
	if g.Next > w.start {
		w.fail("gap to %d although the log begins at %d", g.Next, w.start)
	}
	w.cursor = max(w.cursor, g.Next)
}

func (w *world) Waiting()                           { w.waits++; w.tracef("waiting") }
func (w *world) GoAway(int32, int64, time.Duration) {}
func (w *world) Handover(p bool)                    { w.polling = p; w.tracef("pending=%v", p) }
func (w *world) Follow(int32) LinkID                { return 0 }
func (w *world) Leave(int32)                        {}
func (w *world) newRecord(offset int64, n int) *link.Record {
	return &link.Record{Offset: offset, Value: make([]byte, n)}
}

// nodeStep lets a node do something: read on, answer an attach, send a record or a checkpoint.
func (w *world) nodeStep(l *modelLink) {
	l.head = max(l.head, w.start)
	if w.r.IntN(2) == 0 && l.head < w.end {
		l.head += 1 + w.r.Int64N(w.end-l.head)
	}
	for id := uint64(1); id <= l.stream; id++ {
		s := l.streams[id]
		if s == nil {
			continue
		}
		if !s.attached {
			s.attached = true
			a := link.Attached{Stream: id, Head: l.head}
			switch s.attach.Start.Kind {
			case link.StartLatest:
				s.next = l.head
			case link.StartEarliest:
				s.next = w.start
			default:
				s.next = s.attach.Start.Value
				if s.next < w.start {
					s.next, a.Gap = w.start, link.GapRetention
				}
			}
			a.Next, a.Live = s.next, s.next >= l.head
			l.fifo = append(l.fifo, func() {
				if s := l.streams[id]; s != nil {
					s.arrived, s.seen = true, l.ckptSeq
				}
				w.tracef("-> attached link=%d %+v", l.id, a)
				w.core.Attached(w.now, l.id, a)
			})
		}
		if s.next < w.start {
			g := link.Gap{Stream: id, From: s.next, To: w.start, Reason: link.GapRetention}
			s.next = w.start
			l.fifo = append(l.fifo, func() { w.core.Gap(w.now, l.id, g) })
		}
		for _, o := range w.log {
			if o < s.next || o >= l.head {
				continue
			}
			if s.credit <= 0 {
				break
			}
			rec := w.newRecord(o, w.r.IntN(300))
			s.credit -= rec.Cost()
			s.next = o + 1
			l.fifo = append(l.fifo, func() {
				w.tracef("-> record link=%d stream=%d %d", l.id, id, o)
				w.core.Record(w.now, l.id, id, rec)
			})
		}
	}
	if w.r.IntN(3) == 0 {
		next, except := l.head, map[uint64]bool{}
		for id, s := range l.streams {
			for _, o := range w.log {
				if o >= s.next && o < next {
					except[id] = true
				}
			}
		}
		l.fifo = append(l.fifo, func() {
			l.ckpt, l.except = next, except
			l.ckptSeq++
			w.tracef("-> checkpoint link=%d %d except %v", l.id, next, except)
		})
	}
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.r.IntN(300)) * time.Millisecond)
	up := w.up()
	switch n := w.r.IntN(100); {
	case n < 15:
		w.end += 1 + w.r.Int64N(5)
		if w.r.IntN(2) == 0 {
			w.log = append(w.log, w.end-1)
		}
	case n < 55 && len(up) > 0:
		w.nodeStep(up[w.r.IntN(len(up))])
	case n < 80 && len(up) > 0:
		l := up[w.r.IntN(len(up))]
		for k := w.r.IntN(4); k >= 0 && len(l.fifo) > 0; k-- {
			f := l.fifo[0]
			l.fifo = l.fifo[1:]
			f()
		}
	case n < 84:
		w.addLink(w.r.Int64N(w.end + 1))
	case n < 87 && len(up) > 0:
		w.kill(up[w.r.IntN(len(up))])
	case n < 92:
		w.route()
	case n < 97:
		w.drain(w.r.IntN(len(w.queued) + 1))
	case n < 98 && w.r.IntN(4) == 0:
		// Retention: records disappear that perhaps nobody has read.
		w.start += w.r.Int64N(w.end - w.start + 1)
	default:
		w.core.Tick(w.now)
	}
	if w.polling {
		w.core.Poll(w.now)
	}
	w.balance()
}

func (w *world) up() []*modelLink {
	var up []*modelLink
	for id := LinkID(1); id <= w.next; id++ {
		if l := w.links[id]; l.up {
			up = append(up, l)
		}
	}
	return up
}

func (w *world) kill(l *modelLink) {
	w.tracef("link %d down", l.id)
	l.up, l.fifo = false, nil
	w.core.LinkDown(w.now, l.id)
	w.route()
}

func (w *world) route() {
	up := w.up()
	if len(up) == 0 {
		w.core.Route(w.now, 0)
		return
	}
	to := up[w.r.IntN(len(up))].id
	w.tracef("route to %d", to)
	w.core.Route(w.now, to)
}

func (w *world) drain(n int) {
	cost := int64(0)
	for _, c := range w.queued[:n] {
		cost += c
	}
	w.queued = w.queued[n:]
	w.core.Written(w.now, cost)
}

// balance checks the ledger: what nodes may send and what waits fits the window, large records aside.
func (w *world) balance() {
	largest := int64(300 + link.RecordOverhead)
	st := w.core.Status()
	p, s := w.core.primary, w.core.secondary
	sum := int64(0)
	for _, c := range w.queued {
		sum += c
	}
	if st.Queued != sum {
		w.fail("ledger says %d bytes are queued, %d are", st.Queued, sum)
	}
	if total := sum + max(0, p.left) + max(0, s.left); total > w.cfg.Window+2*largest {
		w.fail("%d bytes queued or under way, window %d", total, w.cfg.Window)
	}
}

func TestRandomLivesLoseNothing(t *testing.T) {
	seeds := uint64(1000)
	if testing.Short() {
		seeds = 300
	}
	delivered, gaps := 0, 0
	for seed := range seeds {
		w := newWorld(t, seed)
		w.tracef("seed %d", seed)
		w.addLink(0)
		kinds := []link.StartKind{link.StartLatest, link.StartEarliest, link.StartCursor}
		o := Open{Key: []byte("k"), Start: link.Start{Kind: kinds[seed%3]}, Resumed: seed%3 == 2}
		w.core = New(&w.cfg, w, o)
		w.route()
		for range 400 {
			w.step()
		}
		w.finish()
		delivered += len(w.got)
		gaps += len(w.gaps)
	}
	if delivered < int(seeds)*10 || gaps < int(seeds)/20 {
		t.Fatalf("the simulation tests nothing: %d records and %d gaps in %d seeds", delivered, gaps, seeds)
	}
	t.Logf("%d seeds, %d records delivered, %d gaps", seeds, delivered, gaps)
}

// finish lets everything come to rest on one fresh node and checks that nothing is missing.
func (w *world) finish() {
	w.t.Helper()
	for _, l := range w.up() {
		w.kill(l)
	}
	l := w.addLink(w.end)
	w.core.Route(w.now, l.id)
	for range 200 {
		w.now = w.now.Add(time.Second)
		w.nodeStep(l)
		for len(l.fifo) > 0 {
			f := l.fifo[0]
			l.fifo = l.fifo[1:]
			f()
		}
		w.drain(len(w.queued))
		w.core.Tick(w.now)
		w.balance()
	}
	if w.hello == nil {
		w.fail("no hello")
	}
	if len(w.log) > 0 && w.log[len(w.log)-1] >= w.cursor {
		w.fail("cursor %d, but the log has %d", w.cursor, w.log[len(w.log)-1])
	}
	if w.polling || w.core.secondary.link != 0 {
		w.fail("a handover never ended")
	}
	if left := w.core.primary.left; left < w.core.ledger.share()/2 {
		w.fail("credit leaked: %d left of %d", left, w.core.ledger.share())
	}
	for id, l := range w.links {
		if want := 1; l.up && len(l.streams) != want {
			w.fail("link %d holds %d streams, want %d", id, len(l.streams), want)
		}
	}
}
