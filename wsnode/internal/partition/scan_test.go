package partition

import (
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// newBacklog is a world in which four streams on each link have a log to catch up with that the ring does not hold.
func newBacklog(t *testing.T, records int64, links ...LinkID) *world {
	w := newWorld(t, 1)
	w.loop = New(Config{Partition: 3, Ring: 1000, ScanBytes: 1000}, w) // a scan brings 20 records
	for o := range records {
		w.recs = append(w.recs, source.Record{Offset: o, HasKey: true, Key: []byte{byte('a' + o%4)}, Value: make([]byte, 10)})
	}
	w.all, w.high, w.stable, w.assigned = slices.Clone(w.recs), records, records, true
	w.loop.Assign(w.now, records)
	w.loop.Bounds(w.now, w.now_())
	for _, l := range links {
		p := &peer{room: true, streams: map[uint64]*client{}}
		w.links[l], w.order = p, append(w.order, l)
		for id := uint64(1); id <= 4; id++ {
			c := &client{key: string([]byte{byte('a' + id - 1)}), start: link.Start{Kind: link.StartCursor}, credit: 1 << 30}
			p.streams[id] = c
			w.loop.Attach(w.now, l, &link.Attach{Stream: id, Partition: 3, Key: []byte(c.key), Start: c.start, Credit: c.credit})
		}
	}
	return w
}

// pass lets a millisecond go by, in which one link gets room.
func (w *world) pass(l LinkID) {
	w.now = w.now.Add(time.Millisecond)
	if from := w.scanAt; from >= 0 {
		w.scanAt = -1
		w.loop.Scanned(w.now, w.fetch(from, int(w.scanMax)))
	}
	w.writable(l)
	w.loop.Tick(w.now)
}

// Links that take a few records at a time hold the pass up for a moment each time; their streams would otherwise drop
// out, one after the other, and each make the node read the log again.
func TestFullLinksDoNotMakeThePassReadAgain(t *testing.T) {
	const records = 2000
	w := newBacklog(t, records, 1, 2, 3)
	for step := 0; w.delivered < 3*records && step < 20*records; step++ {
		w.pass(w.order[step%len(w.order)])
	}
	if w.delivered != 3*records {
		t.Fatalf("%d records delivered, want %d", w.delivered, 3*records)
	}
	if most := records/20 + 10; w.scans > most {
		t.Fatalf("%d scans of 20 records each for %d records, want at most %d", w.scans, records, most)
	}
}

// A link that takes nothing at all holds others up only once.
func TestStuckLinkDoesNotHoldUpThePass(t *testing.T) {
	const records = 400
	w := newBacklog(t, records, 1, 2)
	w.links[2].room = false
	began := w.now
	for w.delivered < records && w.now.Sub(began) < time.Second {
		w.pass(1)
	}
	if took := w.now.Sub(began); took > 4*passHold {
		t.Fatalf("%d of %d records after %s, want all within %s", w.delivered, records, took, 4*passHold)
	}
}
