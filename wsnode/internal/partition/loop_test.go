package partition

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// world is a log with holes and open transactions, a broker that answers when it likes, and links with
// streams that come, go, run out of credit and of room. It plays the routers' part and checks that every
// stream gets each record of its key once, in order, and that no checkpoint says more than was sent.
type world struct {
	t    *testing.T
	r    *rand.Rand
	now  time.Time
	loop *Loop

	recs   []source.Record // committed records in [start, stable)
	all    []source.Record // and those that retention took: they may be missing only if a gap said so
	start  int64
	stable int64
	high   int64

	readAt   int64 // the live reader's position, -1 if stopped
	paused   bool  // out of range: waits for Read
	scanAt   int64 // -1 if no scan is under way
	scanMax  int32
	bounds   int
	times    []uint64
	timesAt  map[uint64]int64
	links    map[LinkID]*peer
	order    []LinkID
	nextLink LinkID
	readable int
	assigned bool

	delivered, gaps, checkpoints, scans int
	trace                               []string
}

type peer struct {
	room    bool
	refused bool
	streams map[uint64]*client
	next    uint64
	covered int64 // of the last checkpoint
}

type client struct {
	key      string
	start    link.Start
	attached bool
	cursor   int64
	credit   int64
	live     bool
	since    int64 // position when attached
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 2)), now: time.Unix(1000, 0), readAt: -1, scanAt: -1,
		links: map[LinkID]*peer{}, timesAt: map[uint64]int64{},
	}
	cfg := Config{Partition: 3, Ring: int64(1000 + w.r.IntN(20000)), TruncatedAfter: time.Hour, ScanBytes: 1 + int32(w.r.IntN(3000))}
	w.loop = New(cfg, w)
	return w
}

func (w *world) tracef(format string, a ...any) { w.trace = append(w.trace, fmt.Sprintf(format, a...)) }

func (w *world) fail(format string, a ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, a...), strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))
}

// Output.

func (w *world) client(l LinkID, stream uint64) *client {
	p := w.links[l]
	if p == nil {
		w.fail("frame for link %d, which is gone", l)
	}
	c := p.streams[stream]
	if c == nil {
		w.fail("frame for stream %d of link %d, which is gone", stream, l)
	}
	return c
}

func (w *world) Attached(l LinkID, f link.Attached) {
	c := w.client(l, f.Stream)
	w.tracef("attached link=%d %+v", l, f)
	if c.attached {
		w.fail("attached twice")
	}
	c.attached, c.cursor, c.live, c.since = true, f.Next, f.Live, f.Next
	if f.Live {
		w.complete(c, f.Head, "attached live")
	}
	if c.start.Kind == link.StartCursor {
		if f.Gap == link.GapNone && f.Next != c.start.Value {
			w.fail("attached at %d, asked for %d", f.Next, c.start.Value)
		}
		if f.Gap != link.GapNone {
			w.gaps++
			if c.start.Value >= w.start {
				w.fail("gap although the log begins at %d", w.start)
			}
		}
	}
}

// complete fails if the client lacks a record below next.
func (w *world) complete(c *client, next int64, what string) {
	w.t.Helper()
	for i := range w.all {
		if o := w.all[i].Offset; o >= c.cursor && o < next && string(w.all[i].Key) == c.key {
			w.fail("%s %d, but %d was not sent (cursor %d)", what, next, o, c.cursor)
		}
	}
}

func (w *world) Record(l LinkID, f *link.Record) {
	if !w.links[l].room {
		w.fail("record for a link without room")
	}
	for _, id := range f.Streams {
		c := w.client(l, id)
		w.tracef("record link=%d stream=%d offset=%d", l, id, f.Offset)
		switch {
		case !c.attached:
			w.fail("record before attached")
		case c.key != string(f.Key):
			w.fail("record of key %q for %q", f.Key, c.key)
		case f.Offset < c.cursor:
			w.fail("record %d again: cursor %d", f.Offset, c.cursor)
		case c.credit <= 0:
			w.fail("record without credit")
		}
		w.complete(c, f.Offset, "record")
		c.cursor = f.Offset + 1
		c.credit -= f.Cost()
		w.delivered++
	}
	if w.r.IntN(20) == 0 {
		w.links[l].room = false
	}
}

func (w *world) Checkpoint(l LinkID, f *link.Checkpoint) {
	w.checkpoints++
	w.tracef("checkpoint link=%d next=%d except=%v only=%v", l, f.Next, f.Except, f.Only)
	p := w.links[l]
	if len(f.Only) > 0 {
		for _, id := range f.Only {
			w.complete(w.client(l, id), f.Next, "checkpoint")
		}
		return
	}
	p.covered = f.Next
	except := map[uint64]bool{}
	for _, id := range f.Except {
		except[id] = true
	}
	for id, c := range p.streams {
		if c.attached && !except[id] {
			w.complete(c, f.Next, "checkpoint")
			c.live = true
		}
	}
}

func (w *world) Gap(l LinkID, f link.Gap) {
	w.gaps++
	w.tracef("gap link=%d %+v", l, f)
	c := w.client(l, f.Stream)
	if f.To > w.start {
		w.fail("gap to %d although the log begins at %d", f.To, w.start)
	}
	c.cursor = max(c.cursor, f.To)
}

func (w *world) Closed(l LinkID, f link.Closed) {
	w.tracef("closed link=%d %+v", l, f)
	w.client(l, f.Stream)
	delete(w.links[l].streams, f.Stream)
}

func (w *world) Room(l LinkID) bool {
	p := w.links[l]
	if !p.room {
		p.refused = true
	}
	return p.room
}

func (w *world) FindBounds() { w.bounds++ }
func (w *world) FindTime(request uint64, at int64) {
	w.times = append(w.times, request)
	w.timesAt[request] = at
}
func (w *world) Read(from int64) { w.tracef("read from %d", from); w.readAt, w.paused = from, false }
func (w *world) Stop()           { w.tracef("stop"); w.readAt = -1 }
func (w *world) Readable() {
	w.readable++
	if !w.assigned {
		w.fail("readable without a claim")
	}
}
func (w *world) Head(int64) {}
func (w *world) Scan(from int64, n int32) {
	w.tracef("scan from %d", from)
	if w.scanAt >= 0 {
		w.fail("two scans under way")
	}
	w.scans++
	w.scanAt, w.scanMax = from, n
}

// fetch answers like a broker: whole batches from an offset on, as far as some bytes reach.
func (w *world) fetch(from int64, most int) *source.Batch {
	b := &source.Batch{From: from, Next: from, Bounds: w.now_()}
	n := 0
	for i := range w.recs {
		rec := w.recs[i]
		if rec.Offset < from {
			continue
		}
		if n += 50; n > most && len(b.Records) > 0 {
			return b
		}
		b.Records = append(b.Records, rec)
		b.Next = rec.Offset + 1
	}
	b.Next = max(b.Next, w.stable) // the end was reached: markers and aborted records are proven
	return b
}

func (w *world) now_() source.Bounds {
	return source.Bounds{Start: w.start, Stable: w.stable, High: w.high}
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.r.IntN(60)) * time.Millisecond)
	switch n := w.r.IntN(100); {
	case n < 20:
		w.produce(1 + w.r.IntN(6))
	case n < 42:
		w.live()
	case n < 58:
		w.scan()
	case n < 60 && w.bounds > 0:
		w.bounds--
		if w.r.IntN(4) == 0 {
			w.loop.BoundsFailed(w.now)
		} else {
			w.loop.Bounds(w.now, w.now_())
		}
	case n < 62 && len(w.times) > 0:
		req := w.times[0]
		w.times = w.times[1:]
		o := w.start + w.r.Int64N(w.stable-w.start+1)
		w.loop.TimeFound(w.now, req, o, w.r.IntN(3) > 0)
	case n < 64 && len(w.order) < 3:
		w.nextLink++
		w.links[w.nextLink] = &peer{room: true, streams: map[uint64]*client{}}
		w.order = append(w.order, w.nextLink)
	case n < 70 && len(w.order) > 0:
		w.attach(w.order[w.r.IntN(len(w.order))])
	case n < 72 && len(w.order) > 0:
		l := w.order[w.r.IntN(len(w.order))]
		if id, c := w.pick(l); c != nil {
			delete(w.links[l].streams, id)
			w.tracef("detach link=%d stream=%d", l, id)
			w.loop.Detach(w.now, l, id)
		}
	case n < 82 && len(w.order) > 0:
		l := w.order[w.r.IntN(len(w.order))]
		if id, c := w.pick(l); c != nil {
			w.give(l, id, c, 1+w.r.Int64N(500))
		}
	case n < 88 && len(w.order) > 0:
		w.writable(w.order[w.r.IntN(len(w.order))])
	case n < 89 && w.r.IntN(6) == 0 && len(w.order) > 0:
		i := w.r.IntN(len(w.order))
		l := w.order[i]
		w.order = append(w.order[:i], w.order[i+1:]...)
		delete(w.links, l)
		w.tracef("link %d gone", l)
		w.loop.LinkGone(w.now, l)
	case n < 90 && w.r.IntN(4) == 0:
		w.start += w.r.Int64N(w.stable - w.start + 1)
		for len(w.recs) > 0 && w.recs[0].Offset < w.start {
			w.recs = w.recs[1:]
		}
		w.tracef("retention: log begins at %d", w.start)
	case n < 92:
		if w.assigned = !w.assigned; w.assigned {
			w.loop.Assign(w.now, w.start+w.r.Int64N(w.stable-w.start+1))
		} else {
			w.loop.Revoke(w.now)
		}
	case n < 93 && w.r.IntN(8) == 0:
		w.tracef("topic changed")
		w.loop.TopicChanged(w.now)
	default:
		w.loop.Tick(w.now)
	}
}

func (w *world) produce(n int) {
	before := len(w.recs)
	for range n {
		w.high++
		if w.r.IntN(3) > 0 {
			o := w.high - 1
			w.recs = append(w.recs, source.Record{
				Offset: o, HasKey: true, Key: []byte{byte('a' + w.r.IntN(4))}, Value: make([]byte, w.r.IntN(200)),
			})
		}
	}
	w.all = append(w.all, w.recs[before:]...)
	w.stable = w.high
}

func (w *world) live() {
	if w.readAt < 0 || w.paused {
		return
	}
	if w.readAt < w.start || w.readAt > w.high {
		w.paused = true
		w.loop.OutOfRange(w.now, w.now_())
		return
	}
	if w.r.IntN(40) == 0 && w.readAt+2 < w.stable {
		w.readAt += 2 // a reader that went wrong: the loop must not follow it
	}
	b := w.fetch(w.readAt, 50*(1+w.r.IntN(10)))
	w.readAt = b.Next // before the loop hears of it: it may call Read
	w.loop.Batch(w.now, b)
}

func (w *world) scan() {
	if w.scanAt < 0 {
		return
	}
	from := w.scanAt
	w.scanAt = -1
	switch {
	case w.r.IntN(8) == 0:
		w.loop.ScanFailed(w.now)
	case from < w.start || from > w.high:
		w.loop.ScanOutOfRange(w.now, w.now_())
	default:
		w.loop.Scanned(w.now, w.fetch(from, int(w.scanMax)))
	}
}

func (w *world) pick(l LinkID) (uint64, *client) {
	p := w.links[l]
	if p.next == 0 {
		return 0, nil
	}
	id := 1 + w.r.Uint64N(p.next)
	return id, p.streams[id]
}

func (w *world) attach(l LinkID) {
	p := w.links[l]
	p.next++
	a := link.Attach{Stream: p.next, Partition: 3, Key: []byte{byte('a' + w.r.IntN(4))}, Credit: w.r.Int64N(2000)}
	switch w.r.IntN(6) {
	case 0:
		a.Start.Kind = link.StartLatest
	case 1:
		a.Start.Kind = link.StartEarliest
	case 2:
		a.Start = link.Start{Kind: link.StartTime, Value: 1}
	default:
		a.Start = link.Start{Kind: link.StartCursor, Value: w.r.Int64N(w.high + 5)}
	}
	p.streams[p.next] = &client{key: string(a.Key), start: a.Start, credit: a.Credit}
	w.tracef("attach link=%d %+v", l, a)
	w.loop.Attach(w.now, l, &a)
}

func (w *world) give(l LinkID, id uint64, c *client, n int64) {
	c.credit += n
	w.loop.Credit(w.now, l, id, n)
}

func (w *world) writable(l LinkID) {
	p := w.links[l]
	p.room = true
	if p.refused {
		p.refused = false
		w.loop.LinkWritable(w.now, l)
	}
}

// finish gives everybody what they need and checks that nobody lacks anything.
func (w *world) finish() {
	w.t.Helper()
	for range 3000 {
		w.now = w.now.Add(20 * time.Millisecond)
		for w.bounds > 0 {
			w.bounds--
			w.loop.Bounds(w.now, w.now_())
		}
		for _, req := range w.times {
			w.loop.TimeFound(w.now, req, w.start, true)
		}
		w.times = nil
		w.live()
		if w.scanAt >= 0 && w.r.IntN(2) == 0 {
			w.scan()
		}
		for _, l := range w.order {
			w.writable(l)
			for id := uint64(1); id <= w.links[l].next; id++ {
				if c := w.links[l].streams[id]; c != nil && c.credit <= 0 {
					w.give(l, id, c, 20000-c.credit)
				}
			}
		}
		w.loop.Tick(w.now)
	}
	for _, l := range w.order {
		for id, c := range w.links[l].streams {
			if !c.attached {
				w.fail("stream %d of link %d was never attached", id, l)
			}
			w.complete(c, w.stable, "at the end")
			if !c.live {
				w.fail("stream %d of link %d never heard that it is caught up: %+v", id, l, c)
			}
		}
	}
	if s := w.loop.Status(); s.Behind != 0 || s.Pending != 0 {
		w.fail("streams are left behind: %+v", s)
	}
	if w.assigned && !w.loop.readable {
		w.fail("claimed but never readable")
	}
	w.checkIndex()
}

// checkIndex walks the ring: the index must find exactly what is there.
func (w *world) checkIndex() {
	r := &w.loop.ring
	count, bytes := int64(0), int64(0)
	for _, c := range r.index {
		for seq := c.first; seq != none; seq = r.at(seq).next {
			if seq < r.first || seq >= r.end {
				w.fail("the index holds entry %d outside [%d, %d)", seq, r.first, r.end)
			}
			count++
		}
	}
	for s := r.first; s < r.end; s++ {
		bytes += r.at(s).size
	}
	if count != r.end-r.first || bytes != r.bytes || r.bytes > w.loop.cfg.Ring {
		w.fail("ring: index %d of %d entries, %d of %d bytes, bound %d", count, r.end-r.first, r.bytes, bytes, w.loop.cfg.Ring)
	}
}

func TestRandomLivesLoseNothing(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 100
	}
	delivered, gaps, scans := 0, 0, 0
	for seed := range seeds {
		w := newWorld(t, seed)
		w.tracef("seed %d", seed)
		w.produce(w.r.IntN(100))
		for range 600 {
			w.step()
		}
		w.finish()
		delivered, gaps, scans = delivered+w.delivered, gaps+w.gaps, scans+w.scans
	}
	if delivered < int(seeds)*100 || gaps < int(seeds)/10 || scans < int(seeds) {
		t.Fatalf("the simulation tests nothing: %d records, %d gaps, %d scans in %d seeds", delivered, gaps, scans, seeds)
	}
	t.Logf("%d seeds, %d records delivered, %d gaps, %d scans", seeds, delivered, gaps, scans)
}

// What was the end of the log before Kafka fell silent says nothing of a cursor that another node issued since.
func TestCursorBeyondTheEndIsNotTruncatedWithoutFreshBounds(t *testing.T) {
	w := newWorld(t, 1)
	w.loop = New(Config{Partition: 3, Ring: 1 << 20, TruncatedAfter: 10 * time.Second}, w)
	w.high, w.stable = 66, 66
	c := &client{key: "k", start: link.Start{Kind: link.StartCursor, Value: 90}, credit: 1000}
	w.links[1] = &peer{room: true, streams: map[uint64]*client{1: c}}
	w.order = []LinkID{1}
	w.loop.Attach(w.now, 1, &link.Attach{Stream: 1, Partition: 3, Key: []byte("k"), Start: c.start, Credit: c.credit})
	w.loop.Bounds(w.now, w.now_())
	wait := func(d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(100 * time.Millisecond) {
			w.loop.Tick(w.now)
		}
	}
	empty := func() {
		w.loop.Batch(w.now, &source.Batch{From: w.high, Next: w.high, Bounds: w.now_()})
	}
	wait(9 * time.Second)
	w.readAt = -1
	wait(20 * time.Second)
	if w.gaps != 0 || w.readAt != w.high {
		t.Fatalf("%d gaps, reader at %d: want none, and a reader that asks again", w.gaps, w.readAt)
	}
	empty()
	w.start = 66 // what Gap checks against
	wait(time.Second)
	if w.gaps != 1 {
		t.Fatalf("%d gaps after the broker confirmed the end, want 1", w.gaps)
	}
}

// Nothing is that new when the broker answers, and the record that comes before the loop hears of it is.
func TestStartAtATimeThatIsNotReachedYetMissesNothing(t *testing.T) {
	w := newWorld(t, 1)
	w.loop.SetRing(1 << 20)
	c := &client{key: "k", start: link.Start{Kind: link.StartTime, Value: 1}, credit: 1000}
	w.links[1] = &peer{room: true, streams: map[uint64]*client{1: c}}
	w.order = []LinkID{1}
	w.loop.Attach(w.now, 1, &link.Attach{Stream: 1, Partition: 3, Key: []byte("k"), Start: c.start, Credit: c.credit})
	w.loop.Bounds(w.now, w.now_())
	late := source.Record{Offset: w.high, HasKey: true, Key: []byte("k"), Value: []byte("x")}
	w.recs, w.all = append(w.recs, late), append(w.all, late)
	w.high++
	w.stable = w.high
	b := source.Bounds{Start: w.start, Stable: w.stable, High: w.high}
	w.loop.Batch(w.now, &source.Batch{From: late.Offset, Next: w.high, Records: []source.Record{late}, Bounds: b})
	w.loop.TimeFound(w.now, w.times[0], 0, false)
	w.writable(1)
	if c.since != late.Offset || w.delivered != 1 {
		t.Fatalf("began at %d with %d records, want %d and 1", c.since, w.delivered, late.Offset)
	}
}

func TestRecordThatNoLinkCanCarryIsAGap(t *testing.T) {
	w := newWorld(t, 1)
	w.loop.SetRing(1 << 20)
	w.produce(1)
	w.links[1] = &peer{room: true, streams: map[uint64]*client{
		1: {key: "k", start: link.Start{Kind: link.StartLatest}, credit: 1000},
		2: {key: "k", start: link.Start{Kind: link.StartLatest}},
	}}
	w.order = []LinkID{1}
	for id, c := range w.links[1].streams {
		w.loop.Attach(w.now, 1, &link.Attach{Stream: id, Partition: 3, Key: []byte("k"), Start: c.start, Credit: c.credit})
	}
	w.loop.Bounds(w.now, w.now_())
	small := source.Record{Offset: w.high, HasKey: true, Key: []byte("k"), Value: []byte("x")}
	huge := source.Record{Offset: w.high + 1, HasKey: true, Key: []byte("k"), Value: make([]byte, link.MaxMessage)}
	w.recs, w.all = append(w.recs, small), append(w.all, small)
	w.high += 2
	w.stable, w.start = w.high, w.high // what Gap checks against
	b := source.Bounds{Stable: w.high, High: w.high}
	w.loop.Batch(w.now, &source.Batch{From: small.Offset, Next: w.high, Records: []source.Record{small, huge}, Bounds: b})
	w.writable(1)
	w.give(1, 2, w.links[1].streams[2], 1000) // was behind: served from the ring
	if w.delivered != 2 || w.gaps != 2 {
		t.Fatalf("%d records and %d gaps, want 2 and 2", w.delivered, w.gaps)
	}
	if held := w.loop.Status().RingBytes; held > 1000 {
		t.Fatalf("the ring holds %d bytes of a record that it cannot send", held)
	}
}
