// Package placement checks that producers put records where clients look for them: each key is hashed with the
// partition count in force at the record's offset. A producer with another partitioner would silently starve
// clients.
package placement

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// stale is how long after a growth producers may go on with the old partition count: twice the default age of
// a producer's metadata (metadata.max.age.ms, 5 minutes).
const stale = 10 * time.Minute

// logEvery is how often misplaced records are logged.
const logEvery = time.Minute

// layout is how many partitions there were when. It is immutable.
type layout struct {
	partitions int32
	growth     []directory.Growth // oldest first
}

// Checker counts. It is safe for concurrent use.
type Checker struct {
	by     partitioner.Partitioner
	log    *zap.Logger
	layout atomic.Pointer[layout]

	mismatched, keyless, checked atomic.Uint64
	logged                       atomic.Int64 // when, in Unix nanoseconds
	unlogged                     atomic.Uint64

	mu    sync.Mutex
	found map[int32]Finding // guarded by mu; by partition, so it is bounded
}

// Finding is the newest misplaced record of a partition.
type Finding struct {
	Partition int32
	Offset    int64
	At        time.Time // when it was read
	Count     uint64    // misplaced records of this partition so far
	LooksLike string    // the partitioner that puts its key there, "" for none that is known
}

// New returns a checker; SetLayout must be called before Check.
func New(by partitioner.Partitioner, log *zap.Logger) *Checker {
	return &Checker{by: by, log: log, found: map[int32]Finding{}}
}

// SetLayout says how many partitions there are, and were.
func (c *Checker) SetLayout(partitions int32, growth []directory.Growth) {
	c.layout.Store(&layout{partitions, growth})
}

// Check looks at records of partition p.
func (c *Checker) Check(p int32, records []source.Record, now time.Time) {
	at := c.layout.Load()
	var keyless, mismatched uint64
	var example *source.Record
	for i := range records {
		r := &records[i]
		if !r.HasKey {
			keyless++
		} else if !c.belongs(at, p, r) {
			mismatched++
			example = r
		}
	}
	c.checked.Add(uint64(len(records)))
	if keyless > 0 {
		c.keyless.Add(keyless)
	}
	if mismatched > 0 {
		c.mismatched.Add(mismatched)
		c.unlogged.Add(mismatched)
		c.note(p, example, at.partitions, mismatched, now)
		c.report(p, example.Offset, at.partitions, now)
	}
}

// belongs reports whether a record lies where its key says, by a partition count that was in force at its offset.
func (c *Checker) belongs(at *layout, p int32, r *source.Record) bool {
	last := len(at.growth)
	if c.by.Partition(r.Key, at.partitions) == p && !(last > 0 && before(at.growth[last-1].From, p, r.Offset)) {
		return true
	}
	for i := last - 1; i >= 0; i-- {
		g := &at.growth[i]
		if p >= g.Partitions {
			return false // the partition is younger than that
		}
		if !before(g.Ends, p, r.Offset) {
			if len(g.Closed) > 0 && !before(g.Closed, p, r.Offset) || time.UnixMilli(r.Timestamp).After(g.Since.Add(stale)) {
				return false
			}
		}
		if c.by.Partition(r.Key, g.Partitions) == p && !(i > 0 && before(at.growth[i-1].From, p, r.Offset)) {
			return true
		}
	}
	return false
}

// before reports whether an offset is known to lie below that of its partition.
func before(offsets []int64, p int32, offset int64) bool {
	return int(p) < len(offsets) && offset < offsets[p]
}

func (c *Checker) report(p int32, offset int64, partitions int32, now time.Time) {
	last := c.logged.Load()
	if now.UnixNano()-last < int64(logEvery) || !c.logged.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	c.log.Warn("records lie in other partitions than their keys say: a producer uses another partitioner, and clients miss its records",
		zap.Uint64("records", c.unlogged.Swap(0)), zap.String("partitioner", c.by.Name()), zap.Int32("partitions", partitions),
		zap.Int32("partition", p), zap.Int64("offset", offset))
}

// Totals are sums since the start.
type Totals struct {
	Checked    uint64 `json:"checked"`
	Mismatched uint64 `json:"mismatched"`
	Keyless    uint64 `json:"keyless"`
}

// Totals returns the sums.
func (c *Checker) Totals() Totals {
	return Totals{Checked: c.checked.Load(), Mismatched: c.mismatched.Load(), Keyless: c.keyless.Load()}
}

func (c *Checker) note(p int32, r *source.Record, partitions int32, count uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found[p] = Finding{
		Partition: p, Offset: r.Offset, At: now, Count: c.found[p].Count + count, LooksLike: LooksLike(r.Key, p, partitions),
	}
}

// LooksLike names the partitioner that puts a key into partition p, "" if none that is known does. With few partitions
// it may be a coincidence; over several records it is not.
func LooksLike(key []byte, p, partitions int32) string {
	for _, name := range partitioner.Names() {
		by, err := partitioner.New(name)
		if err == nil && by.Partition(key, partitions) == p {
			return name
		}
	}
	return ""
}

// Findings lists the newest misplaced record of each of up to most partitions, the newest first.
func (c *Checker) Findings(most int) []Finding {
	c.mu.Lock()
	all := make([]Finding, 0, len(c.found))
	for _, f := range c.found {
		all = append(all, f)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Finding) int { return b.At.Compare(a.At) })
	return all[:min(len(all), most)]
}
