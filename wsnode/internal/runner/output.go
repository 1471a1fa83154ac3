package runner

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// output is what a loop's core asks of its shell; it runs in the loop's goroutine.
type output loop

func (o *output) to(id partition.LinkID) Link {
	l := o.links[id]
	if l != nil && !slices.Contains(o.dirty, l) { // few links: a scan is cheaper than a map
		o.dirty = append(o.dirty, l)
	}
	return l
}

func (o *output) Attached(id partition.LinkID, f link.Attached) {
	if f.Gap != link.GapNone {
		o.countGap(f.Gap)
	}
	if l := o.to(id); l != nil {
		l.Attached(f)
	}
}

func (o *output) Record(id partition.LinkID, f *link.Record) {
	if l := o.to(id); l != nil {
		l.Record(f)
	}
}

func (o *output) Checkpoint(id partition.LinkID, f *link.Checkpoint) {
	if l := o.to(id); l != nil {
		l.Checkpoint(f)
	}
}

func (o *output) countGap(reason link.GapReason) {
	if o.r.cfg.Gap != nil {
		o.r.cfg.Gap(reason)
	}
}

func (o *output) Gap(id partition.LinkID, f link.Gap) {
	o.countGap(f.Reason)
	if l := o.to(id); l != nil {
		l.Gap(f)
	}
}

func (o *output) Closed(id partition.LinkID, f link.Closed) {
	if l := o.to(id); l != nil {
		l.Closed(f)
	}
}

func (o *output) Room(id partition.LinkID) bool {
	l := o.links[id]
	return l != nil && l.Room(o.partition)
}

func (o *output) FindBounds() {
	lp := (*loop)(o)
	lp.findings++
	number, topic, ctx := lp.findings, lp.topicID, lp.asks
	lp.help(func() {
		var b source.Bounds
		err := lp.gated(ctx, lp.r.asking, func() (err error) {
			b, err = lp.r.cfg.Log.Bounds(ctx, topic, lp.partition)
			return err
		})
		if err != nil {
			lp.post(message{kind: boundsFailed, number: number, err: err})
			return
		}
		lp.post(message{kind: boundsFound, number: number, bounds: b, arrived: time.Now()})
	})
}

func (o *output) FindTime(request uint64, t int64) {
	lp := (*loop)(o)
	lp.times = append(lp.times, timeQuestion{request, t}) // bounded by the attached streams
	lp.askTime()
}

func (o *output) Read(from int64) {
	lp := (*loop)(o)
	lp.stopReader()
	lp.reads++
	lp.reader = &sink{lp: lp, number: lp.reads, stopped: make(chan struct{})}
	lp.r.cfg.Log.Read(lp.topicID, lp.partition, from, lp.reader)
}

func (o *output) Stop() {
	lp := (*loop)(o)
	lp.stopReader()
	lp.r.cfg.Log.StopRead(lp.partition)
}

func (o *output) Scan(from int64, maxBytes int32) {
	lp := (*loop)(o)
	topic, ctx := lp.topicID, lp.asks
	lp.help(func() {
		lp.r.limit.wait(ctx)
		var b *source.Batch
		var outside *source.Bounds
		err := lp.gated(ctx, lp.r.scanning, func() (err error) {
			b, outside, err = lp.r.cfg.Log.Scan(ctx, topic, lp.partition, from, maxBytes)
			return err
		})
		switch {
		case outside != nil:
			lp.post(message{kind: scanOutside, bounds: *outside, arrived: time.Now()})
		case err != nil:
			lp.post(message{kind: scanFailed, err: err})
		default:
			lp.r.limit.spend(b.Bytes)
			lp.post(message{kind: scanned, batch: b, arrived: time.Now()})
		}
	})
}

func (o *output) Readable() {
	o.statusAt = time.Time{} // somebody may wait for it
	o.r.readable(o.partition)
}

func (o *output) Head(next int64) {
	o.head = next
	if o.assigned && o.r.cfg.Mark != nil {
		o.r.cfg.Mark(o.partition, next)
	}
}
