package partition

import (
	"bytes"
	"hash/maphash"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// none is the sequence number of no entry.
const none = int64(-1)

// entryOverhead is what an entry takes beside its record's bytes, in bytes: the entry itself and its share of
// the index.
const entryOverhead = 200

// entry is one recent record. Entries whose keys have the same hash form a chain in offset order.
type entry struct {
	rec  source.Record
	hash uint64
	next int64 // sequence number of the chain's next entry, or none
	size int64
	big  bool // no link can carry it; only its place is kept
}

// chain is the index of one key hash: the first and last entry of its chain.
type chain struct{ first, last int64 }

// ring keeps a partition's recent records, oldest evicted first, bounded by bytes. It covers every committed
// record in [low, the loop's head).
type ring struct {
	seed    maphash.Seed
	entries []entry // a power of two long; the entry with sequence number s is at s & (len-1)
	first   int64   // sequence number of the oldest entry
	end     int64   // sequence number after the newest entry
	low     int64   // offset from which on the ring is complete
	bytes   int64
	index   map[uint64]chain
}

func newRing() ring {
	return ring{seed: maphash.MakeSeed(), index: make(map[uint64]chain)}
}

func (r *ring) hash(key []byte) uint64 { return maphash.Bytes(r.seed, key) }

func (r *ring) at(seq int64) *entry { return &r.entries[seq&int64(len(r.entries)-1)] }

// reset forgets everything; the ring is complete from low on.
func (r *ring) reset(low int64) {
	r.entries, r.bytes, r.first, r.low = nil, 0, r.end, low
	clear(r.index)
}

// add appends a record; its offset lies above all others.
func (r *ring) add(rec source.Record, big bool) {
	if int(r.end-r.first) == len(r.entries) {
		r.grow()
	}
	if big {
		rec.Value, rec.Headers = nil, nil
	}
	e := entry{rec: rec, next: none, size: size(&rec), big: big}
	if rec.HasKey {
		e.hash = r.hash(rec.Key)
		if c, ok := r.index[e.hash]; ok {
			r.at(c.last).next = r.end
			r.index[e.hash] = chain{c.first, r.end}
		} else {
			r.index[e.hash] = chain{r.end, r.end}
		}
	}
	*r.at(r.end) = e
	r.end++
	r.bytes += e.size
}

// trim evicts the oldest records until at most limit bytes are left.
func (r *ring) trim(limit int64) {
	for r.bytes > limit && r.first < r.end {
		e := r.at(r.first)
		if e.rec.HasKey {
			if e.next == none {
				delete(r.index, e.hash)
			} else {
				r.index[e.hash] = chain{e.next, r.index[e.hash].last}
			}
		}
		r.bytes -= e.size
		r.low = e.rec.Offset + 1
		*e = entry{} // lets go of the record's memory
		r.first++
	}
}

// find returns the first entry at or after offset whose key is key, or none. hint is an entry of the same
// chain, at or before the one wanted, from an earlier search (none if there is none).
func (r *ring) find(key []byte, hash uint64, offset, hint int64) int64 {
	seq := hint
	if seq < r.first {
		c, ok := r.index[hash]
		if !ok {
			return none
		}
		seq = c.first
	}
	for seq != none {
		e := r.at(seq)
		if e.rec.Offset >= offset && bytes.Equal(e.rec.Key, key) {
			return seq
		}
		seq = e.next
	}
	return none
}

func (r *ring) grow() {
	n := max(64, 2*len(r.entries))
	grown := make([]entry, n)
	for s := r.first; s < r.end; s++ {
		grown[s&int64(n-1)] = *r.at(s)
	}
	r.entries = grown
}

func size(rec *source.Record) int64 {
	n := entryOverhead + len(rec.Key) + len(rec.Value)
	for i := range rec.Headers {
		n += len(rec.Headers[i].Key) + len(rec.Headers[i].Value) + 48
	}
	return int64(n)
}
