package simulate

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	node "github.com/pointsmanhq/pointsman/wsnode/simulated"
)

// nodeLink is the node's end of a link, as its link server is: frames go out in order, records only while there is
// room, and what each stream was promised is kept account of.
type nodeLink struct {
	n       *nodeProc
	id      node.LinkID
	peer    *lane
	out     *pipe
	streams []*served
	past    []*served // that were closed: what they were sent may still be under way
	parts   []int32   // that ever had a stream here
	refused []int32
	heard   int64
	ended   bool
}

// served is a stream as seen from the node's side: the check of what this node promised.
type served struct {
	id       uint64
	lp       *loop
	client   int
	key      string
	credit   int64
	attached bool
	pos      int64 // everything below was sent
}

func (l *nodeLink) find(id uint64) *served {
	for _, t := range l.streams {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (l *nodeLink) forget(t *served) {
	l.past = append(l.past, t)
	l.streams = slices.DeleteFunc(l.streams, func(o *served) bool { return o == t })
}

// What routers send.

func (l *nodeLink) onAttach(f *link.Attach, client int) {
	if f.Partition < 0 || f.Partition >= l.n.partitions {
		l.closed(link.Closed{Stream: f.Stream, Reason: link.ClosedPartition})
		return
	}
	if l.find(f.Stream) != nil {
		l.n.w.fail(client, "stream %d used again on a link", f.Stream)
	}
	lp := l.n.loop(f.Partition, true)
	l.streams = append(l.streams, &served{id: f.Stream, lp: lp, client: client, key: string(f.Key), credit: f.Credit})
	if !slices.Contains(l.parts, f.Partition) {
		l.parts = append(l.parts, f.Partition)
	}
	lp.attach(l, f)
}

func (l *nodeLink) onCredit(f link.Credit) {
	if t := l.find(f.Stream); t != nil {
		t.credit += f.Bytes
		t.lp.visit(func(now time.Time) { t.lp.core.Credit(now, l.id, f.Stream, f.Bytes) })
	}
}

func (l *nodeLink) onDetach(f link.Detach) {
	if t := l.find(f.Stream); t != nil {
		l.forget(t)
		t.lp.visit(func(now time.Time) { t.lp.core.Detach(now, l.id, f.Stream) })
		l.n.drained()
	}
}

// What loops send.

func (l *nodeLink) send(size int64, fn func(ln *lane)) {
	if !l.ended {
		peer := l.peer
		l.out.send(size, func() { peer.receive(fn) })
	}
}

const controlSize = 16

func (l *nodeLink) attached(lp *loop, f link.Attached) {
	w := l.n.w
	t := l.find(f.Stream)
	if t == nil || t.attached {
		w.fail(anyone, "%s attached an unknown stream, or twice", l.n.name)
	}
	t.attached, t.pos = true, f.Next
	if w.trace != nil {
		w.note(t.client, lp.id, "%s attached stream %d at %d, head %d, gap %s, live %t", l.n.name, f.Stream, f.Next, f.Head, f.Gap, f.Live)
	}
	if f.Live {
		l.covered(t, f.Head, "said to be caught up with")
	}
	l.send(controlSize, func(ln *lane) { ln.attached(f) })
}

// covered checks that everything below next was sent.
func (l *nodeLink) covered(t *served, next int64, what string) {
	w, p := l.n.w, t.lp.part()
	if o := p.missing(t.key, t.pos, next); o >= 0 {
		w.fail(t.client, "%s: stream %d %s %d, but %d was not sent", l.n.name, t.id, what, next, o)
	}
	t.pos = max(t.pos, next)
}

func (l *nodeLink) record(lp *loop, f *link.Record) {
	w, p := l.n.w, lp.part()
	for _, id := range f.Streams {
		t := l.find(id)
		switch {
		case t == nil || !t.attached || t.lp != lp:
			w.fail(anyone, "%s: record %d for stream %d, which is not attached", l.n.name, f.Offset, id)
		case t.credit <= 0:
			w.fail(t.client, "%s: record %d without credit", l.n.name, f.Offset)
		case f.Offset < t.pos:
			w.fail(t.client, "%s: record %d again, everything below %d was sent", l.n.name, f.Offset, t.pos)
		case !p.genuine(t.key, f.Offset, f.Value):
			w.fail(t.client, "%s: record %d is not what the log holds for key %s", l.n.name, f.Offset, t.key)
		}
		l.covered(t, f.Offset, "was sent")
		t.pos = f.Offset + 1
		t.credit -= f.Cost()
		if w.trace != nil {
			w.note(t.client, lp.id, "%s sent %d on stream %d, credit %d left", l.n.name, f.Offset, id, t.credit)
		}
	}
	c := *f
	c.Streams = slices.Clone(f.Streams)
	l.send(f.Cost(), func(ln *lane) { ln.record(&c) })
}

func (l *nodeLink) checkpoint(lp *loop, f *link.Checkpoint) {
	w, p := l.n.w, lp.part()
	w.stats.Checkpoints++
	if f.Next > p.stable {
		w.fail(anyone, "%s: checkpoint of partition %d at %d lies above the last stable offset %d", l.n.name, lp.id, f.Next, p.stable)
	}
	for _, t := range l.streams {
		if t.lp != lp || !t.attached {
			continue
		}
		if len(f.Only) > 0 && !slices.Contains(f.Only, t.id) || len(f.Only) == 0 && slices.Contains(f.Except, t.id) {
			continue
		}
		l.covered(t, f.Next, "covered by a checkpoint at")
	}
	if w.trace != nil {
		w.note(anyone, lp.id, "%s p%d checkpoint %d except %v only %v to %s", l.n.name, lp.id, f.Next, f.Except, f.Only, l.peer.r.name)
	}
	c := link.Checkpoint{Partition: f.Partition, Next: f.Next, Except: slices.Clone(f.Except), Only: slices.Clone(f.Only)}
	l.send(controlSize, func(ln *lane) { ln.checkpoint(&c) })
}

func (l *nodeLink) gap(lp *loop, f link.Gap) {
	w := l.n.w
	t := l.find(f.Stream)
	if t == nil || !t.attached {
		w.fail(anyone, "%s: gap for a stream that is not attached", l.n.name)
	}
	if w.trace != nil {
		w.note(t.client, lp.id, "%s gap on stream %d from %d to %d: %s", l.n.name, f.Stream, f.From, f.To, f.Reason)
	}
	w.checkGap(t.client, lp.part(), t.key, t.pos, f.To, f.Reason)
	t.pos = f.To
	l.send(controlSize, func(ln *lane) { ln.gap(f) })
}

func (l *nodeLink) closed(f link.Closed) {
	if t := l.find(f.Stream); t != nil {
		l.forget(t)
		l.n.w.note(t.client, t.lp.id, "%s closed stream %d, reason %d", l.n.name, f.Stream, f.Reason)
	}
	l.send(controlSize, func(ln *lane) { ln.closed(f) })
	l.n.drained()
}

func (l *nodeLink) room(p int32) bool {
	if l.ended {
		return false
	}
	if l.out.bytes < l.n.w.set.linkBuffer/2 {
		return true
	}
	if !slices.Contains(l.refused, p) {
		l.refused = append(l.refused, p)
	}
	return false
}

// writable is called when something has left the link's buffer.
func (l *nodeLink) writable() {
	if l.ended || len(l.refused) == 0 || l.out.bytes >= l.n.w.set.linkBuffer/2 {
		return
	}
	l.n.proc.after(0, func() {
		refused := l.refused
		l.refused = nil
		for _, p := range refused {
			if lp := l.n.loop(p, false); lp != nil {
				lp.visit(func(now time.Time) { lp.core.LinkWritable(now, l.id) })
			}
		}
	})
}

// end is the end of the link at the node. tell says that the router's end should hear of it.
func (l *nodeLink) end(tell bool) {
	if l.ended {
		return
	}
	if tell {
		peer := l.peer
		l.out.send(0, func() { peer.down("closed by the node") })
	}
	l.ended = true
	l.peer.toNode.closed = true
	l.n.links = slices.DeleteFunc(l.n.links, func(o *nodeLink) bool { return o == l })
	l.streams, l.past = nil, append(l.past, l.streams...)
	for _, p := range l.parts {
		if lp := l.n.loop(p, false); lp != nil {
			lp.gone(l)
		}
	}
	l.n.drained()
}

// linkTimeout is how long the node lets a silent router be.
const linkTimeout = 8 * sec

func (l *nodeLink) watch() {
	l.n.proc.every(sec, func() bool {
		if !l.ended && l.n.w.now-max(l.heard, l.n.proc.thawed) > linkTimeout {
			l.end(true)
		}
		return !l.ended
	})
}
