package lean

import (
	"math"
	"math/bits"
	"time"
)

// fine is how many buckets there are from one power of two to the next: a value is known to 1.6 %.
const (
	fineBits = 6
	fine     = 1 << fineBits
	buckets  = fine * 34 // microseconds up to some hours
)

// Histogram counts durations. The zero value is empty.
type Histogram struct {
	Counts []uint64 // by bucket; nil while it is empty
	Total  uint64
	Worst  time.Duration
}

// Add counts one duration; one below zero, which only two clocks can make, counts as zero.
func (h *Histogram) Add(d time.Duration) {
	if h.Counts == nil {
		h.Counts = make([]uint64, buckets)
	}
	h.Counts[bucket(d)]++
	h.Total++
	h.Worst = max(h.Worst, d)
}

// Join adds what another one counted.
func (h *Histogram) Join(o *Histogram) {
	if o.Total == 0 {
		return
	}
	if h.Counts == nil {
		h.Counts = make([]uint64, buckets)
	}
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	h.Total += o.Total
	h.Worst = max(h.Worst, o.Worst)
}

// Quantile is the duration that a share q of all does not exceed; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.Total == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(q*float64(h.Total))))
	var seen uint64
	for i, n := range h.Counts {
		if seen += n; seen >= rank {
			return min(upper(i), h.Worst)
		}
	}
	return h.Worst
}

func bucket(d time.Duration) int {
	us := uint64(max(0, d.Microseconds())) //nolint:gosec // not negative
	if us < fine {
		return int(us) //nolint:gosec // small
	}
	shift := bits.Len64(us) - fineBits - 1
	return min(fine*(shift+1)+int(us>>shift)-fine, buckets-1) //nolint:gosec // below 2*fine
}

// upper is the largest duration of a bucket, to the microsecond.
func upper(i int) time.Duration {
	if i < fine {
		return time.Duration(i+1)*time.Microsecond - 1
	}
	shift := i/fine - 1
	us := (int64(i%fine) + fine + 1) << shift
	return time.Duration(us)*time.Microsecond - 1
}
