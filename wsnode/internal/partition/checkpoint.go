package partition

import "github.com/pointsmanhq/pointsman/proto/link"

// checkpoint tells every link how far its streams are covered, if that changed since the last time.
func (l *Loop) checkpoint() {
	if l.phase != reading {
		return
	}
	for _, at := range l.links {
		if len(at.streams) == 0 || l.head <= at.checkpointed && !at.dirty {
			continue
		}
		except := l.ids[:0]
		for _, s := range at.behind {
			except = append(except, s.id)
		}
		l.ids = except
		l.out.Checkpoint(at.id, &link.Checkpoint{Partition: l.cfg.Partition, Next: l.head, Except: except})
		at.checkpointed, at.dirty = l.head, false
	}
	l.checkpointScan()
}

// checkpointScan tells the streams of the pass how far it has come, so that a pass that is cut short need
// not be read again.
func (l *Loop) checkpointScan() {
	c := &l.scan
	if !c.active || len(c.members) == 0 || c.pos == c.told {
		return
	}
	c.told = c.pos
	for _, at := range l.links {
		only := l.ids[:0]
		for _, s := range at.behind {
			if s.inPass && s.next == c.pos {
				only = append(only, s.id)
			}
		}
		l.ids = only
		if len(only) > 0 {
			l.out.Checkpoint(at.id, &link.Checkpoint{Partition: l.cfg.Partition, Next: c.pos, Only: only})
		}
	}
}

// Status is a partition's state in numbers, for metrics and consoles.
type Status struct {
	Partition  int32  `json:"partition"`
	Assigned   bool   `json:"assigned"`
	Reading    bool   `json:"reading"`
	Readable   bool   `json:"readable"`
	Head       int64  `json:"head"`
	Start      int64  `json:"start"`
	Stable     int64  `json:"stable"`
	High       int64  `json:"high"`
	Streams    int    `json:"streams"`
	Pending    int    `json:"pending"`
	Behind     int    `json:"behind"`
	Lowest     int64  `json:"lowest"` // the furthest-behind stream's next offset; Head if none is behind
	RingBytes  int64  `json:"ring_bytes"`
	RingLow    int64  `json:"ring_low"`
	RingCount  int64  `json:"ring_records"`
	Scanning   bool   `json:"scanning"`
	ScanAt     int64  `json:"scan_at"`
	ScanBytes  uint64 `json:"scan_bytes"`
	ScanReads  uint64 `json:"scan_reads"` // answers of Kafka
	Deliveries uint64 `json:"deliveries"` // records times streams since the loop began
}

// Status costs a pass over the streams that are behind.
func (l *Loop) Status() Status {
	s := Status{
		Partition: l.cfg.Partition, Assigned: l.assigned, Reading: l.phase == reading, Readable: l.readable,
		Head: l.head, Start: l.bounds.Start, Stable: l.bounds.Stable, High: l.bounds.High,
		Streams: l.attached, Pending: l.pending, Behind: l.behind, Lowest: l.head,
		RingBytes: l.ring.bytes, RingLow: l.ring.low, RingCount: l.ring.end - l.ring.first,
		Scanning: l.scan.active, ScanAt: l.scan.pos, ScanBytes: l.scan.bytes, ScanReads: l.scan.reads, Deliveries: l.sent,
	}
	for _, at := range l.links {
		for _, b := range at.behind {
			s.Lowest = min(s.Lowest, b.next)
		}
	}
	return s
}
