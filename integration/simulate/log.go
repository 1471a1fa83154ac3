package simulate

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	node "github.com/pointsmanhq/pointsman/wsnode/simulated"
)

// kafka is the brokers: the topic as it is now and as it was before it was recreated.
type kafka struct {
	w       *world
	topic   *topic
	topics  map[[16]byte]*topic
	deleted bool // between deletion and creation
	made    int
	values  int
	bytes   []byte // what values are cut from
}

// topic is one life of the topic.
type topic struct {
	id      [16]byte
	parts   []*part
	counts  []int32 // how many partitions there were before
	grownAt int64
}

// homes are the partitions that a key lives in and lived in, the first one first.
func (t *topic) homes(key string) []int32 {
	var out []int32
	for _, n := range append(slices.Clone(t.counts), int32(len(t.parts))) {
		if p := homeOf(key, n); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// returns reports whether a key came back to a partition that it had left.
func (t *topic) returns(key string) bool {
	last := int32(-1)
	moves := 0
	for _, n := range append(slices.Clone(t.counts), int32(len(t.parts))) {
		if p := homeOf(key, n); p != last {
			last = p
			moves++
		}
	}
	return moves > len(t.homes(key))
}

type entryKind uint8

const (
	data   entryKind = iota
	marker           // of a transaction's end
	hole             // batches that compaction emptied
)

// entry is a stretch of a partition's log, one record or what stands in for many.
type entry struct {
	offset, next int64
	kind         entryKind
	key          string
	keyless      bool
	value        []byte
	seq          int   // of all records ever, in the order in which producers made them
	at           int64 // virtual time it was appended at
	txn          *txn  // nil outside transactions
	removed      bool  // by compaction
}

type txn struct {
	first     int64
	open      bool
	committed bool
}

// grow adds partitions.
func (k *kafka) grow(n int32) {
	t := k.topic
	k.w.note(anyone, anywhere, "KAFKA %d partitions become %d", len(t.parts), n)
	t.counts, t.grownAt = append(t.counts, int32(len(t.parts))), k.w.now
	for p := int32(len(t.parts)); p < n; p++ {
		t.parts = append(t.parts, &part{w: k.w, topic: t, id: p, visible: map[string][]int{}})
	}
	k.w.group.grow(n)
}

// part is one partition's log. Its truth is what committed readers may ever see.
type part struct {
	w       *world
	topic   *topic
	id      int32
	entries []entry
	start   int64
	end     int64
	lag     int64 // how far the high watermark is behind the end, after a leader change
	lags    int   // numbers leader changes
	open    []*txn
	until   int64 // no leader until then

	stable  int64            // the highest last stable offset ever
	told    int              // entries below are in visible
	visible map[string][]int // key to indices of entries, in order
	waiting []*reader
}

func (k *kafka) create(partitions int32) {
	k.made++
	t := &topic{}
	binary.BigEndian.PutUint64(t.id[:], uint64(k.made))
	t.id[15] = 0x77
	for p := range partitions {
		// Offsets need not begin at 0: retention has been at work before.
		first := int64(0)
		if k.w.chance(0.3) {
			first = k.w.between(0, 20_000)
		}
		t.parts = append(t.parts, &part{
			w: k.w, topic: t, id: p, start: first, end: first, stable: first, visible: map[string][]int{},
		})
	}
	if k.topics == nil {
		k.topics = map[[16]byte]*topic{}
	}
	k.topics[t.id] = t
	k.topic, k.deleted = t, false
	k.w.note(anyone, anywhere, "KAFKA topic %d created", k.made)
}

// value is a value that no other record near it has.
func (k *kafka) value(size int) []byte {
	const pool = 1 << 16
	if k.bytes == nil {
		k.bytes = make([]byte, pool)
		for i := 0; i < pool; i += 8 {
			binary.LittleEndian.PutUint64(k.bytes[i:], k.w.rng.Uint64())
		}
	}
	k.values++
	at := k.values * 61 % (pool - size - 8)
	return k.bytes[at : at+8+size]
}

// alive is a partition of the topic as asked for by id, if brokers serve it.
func (k *kafka) alive(id [16]byte, p int32) *part {
	if k.deleted || k.topic.id != id || int(p) >= len(k.topic.parts) || k.topic.parts[p].away() {
		return nil
	}
	return k.topic.parts[p]
}

// recreate deletes the topic, and creates it anew after a while.
func (k *kafka) recreate(d int64) {
	old := k.topic
	k.deleted = true
	k.w.note(anyone, anywhere, "KAFKA topic deleted")
	for _, p := range old.parts {
		p.wake()
	}
	k.w.after(d, func() { k.create(int32(len(old.parts))) })
}

func (p *part) away() bool { return p.w.now < p.until }

func (p *part) high() int64 { return max(p.start, p.end-p.lag) }

// lso is the last stable offset as the leader says it now.
func (p *part) lso() int64 {
	n := p.high()
	for _, t := range p.open {
		n = min(n, t.first)
	}
	return n
}

func (p *part) bounds() node.Bounds {
	return node.Bounds{Start: p.start, Stable: max(p.start, p.lso()), High: p.high()}
}

// add appends an entry and gives it its place.
func (p *part) add(e entry, size int64) {
	e.offset, e.next, e.at = p.end, p.end+size, p.w.now
	p.end = e.next
	p.entries = append(p.entries, e)
}

// produce appends one record.
func (p *part) produce(key string, keyless bool, t *txn, size int) {
	v := p.w.kafka.value(size)
	p.add(entry{key: key, keyless: keyless, value: v, txn: t, seq: p.w.kafka.values}, 1)
	if p.w.trace != nil {
		kind := ""
		if t != nil {
			kind = " in a transaction"
		}
		p.w.note(anyone, p.id, "KAFKA p%d %d key %s%s", p.id, p.end-1, key, kind)
		p.w.trace.lines[len(p.w.trace.lines)-1].key = key
	}
}

func (p *part) begin() *txn {
	t := &txn{first: p.end, open: true}
	p.open = append(p.open, t)
	return t
}

func (p *part) finish(t *txn, commit bool) {
	if !t.open {
		return
	}
	t.open, t.committed = false, commit
	p.open = slices.DeleteFunc(p.open, func(o *txn) bool { return o == t })
	p.add(entry{kind: marker}, 1)
	p.w.note(anyone, p.id, "KAFKA p%d transaction from %d ended, committed %t", p.id, t.first, commit)
	p.advance()
}

// advance takes what became stable into the truth and wakes those who wait for it.
func (p *part) advance() {
	if n := p.lso(); n > p.stable {
		p.stable = n
	}
	for p.told < len(p.entries) && p.entries[p.told].offset < p.stable {
		if e := &p.entries[p.told]; e.real() {
			p.visible[e.key] = append(p.visible[e.key], p.told)
		}
		p.told++
	}
	p.wake()
}

// real reports whether committed readers are shown the entry, apart from compaction.
func (e *entry) real() bool { return e.kind == data && !e.keyless && (e.txn == nil || e.txn.committed) }

func (p *part) wake() {
	waiting := p.waiting
	p.waiting = nil
	for _, r := range waiting {
		r.fetchAfter(p.w.delay())
	}
}

// retain drops what lies below an offset.
func (p *part) retain(to int64) {
	if to > p.start {
		p.start = min(to, p.lso())
		p.w.note(anyone, p.id, "KAFKA p%d retention: the log begins at %d", p.id, p.start)
		p.wake()
	}
}

// compact removes records that have a newer one of their key below an offset.
func (p *part) compact(below int64) {
	last := map[string]int{}
	for i := range p.entries {
		if e := &p.entries[i]; e.offset < below && e.real() {
			if j, ok := last[e.key]; ok {
				p.entries[j].removed = true
			}
			last[e.key] = i
		}
	}
	p.w.note(anyone, p.id, "KAFKA p%d compacted below %d", p.id, below)
}

// find is the index of the first entry that ends above an offset.
func (p *part) find(offset int64) int {
	return sort.Search(len(p.entries), func(i int) bool { return p.entries[i].next > offset })
}

// fetch reads up to n entries from an offset inside [start, end].
func (p *part) fetch(from int64, n int) *node.Batch {
	b := &node.Batch{From: from, Next: from, Bounds: p.bounds()}
	stable := b.Bounds.Stable
	for i := p.find(from); i < len(p.entries) && n > 0 && p.entries[i].next <= stable; i++ {
		e := &p.entries[i]
		n--
		b.Next = e.next
		if e.kind == data && (e.txn == nil || e.txn.committed) && !e.removed && e.offset >= from {
			b.Records = append(b.Records, e.record())
			b.Bytes += len(e.value)
		}
	}
	return b
}

func (e *entry) record() node.Record {
	return node.Record{
		Offset: e.offset, Timestamp: millis(e.at), Key: []byte(e.key), Value: e.value, HasKey: !e.keyless,
	}
}

func millis(at int64) int64 { return base.UnixMilli() + at/ms }

// missing is the first record of a key in [from, to) that was there to be read all the time, -1 for none. Records
// that compaction removed are nobody's due.
func (p *part) missing(key string, from, to int64) int64 {
	list := p.visible[key]
	i := sort.Search(len(list), func(i int) bool { return p.entries[list[i]].offset >= from })
	for ; i < len(list) && p.entries[list[i]].offset < to; i++ {
		if e := &p.entries[list[i]]; !e.removed {
			return e.offset
		}
	}
	return -1
}

// genuine reports whether a record is what the log holds for its key.
func (p *part) genuine(key string, offset int64, value []byte) bool {
	i := p.find(offset)
	if i >= len(p.entries) || p.entries[i].offset != offset || i >= p.told {
		return false
	}
	e := &p.entries[i]
	return e.real() && e.key == key && bytes.Equal(e.value, value)
}

// since is the first visible record of a key at or after a time, -1 for none.
func (p *part) since(key string, millisecond int64) int64 {
	for _, i := range p.visible[key] {
		if e := &p.entries[i]; millis(e.at) >= millisecond && !e.removed && e.offset >= p.start {
			return e.offset
		}
	}
	return -1
}

// offsetAt answers like ListOffsets for a time.
func (p *part) offsetAt(millisecond int64) (int64, bool) {
	stable := p.lso()
	for i := p.find(p.start); i < len(p.entries) && p.entries[i].next <= stable; i++ {
		if e := &p.entries[i]; e.kind == data && !e.removed && millis(e.at) >= millisecond {
			return e.offset, true
		}
	}
	return 0, false
}
