package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// bounds are the latency buckets in milliseconds. Kafka's timestamps are milliseconds, so finer ones would lie.
var bounds = [...]int64{1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000, 60000}

// maxStamps bounds what a Sample keeps; a full one is judged at once.
const maxStamps = 256

// Latency is a histogram of the time from a record's timestamp to its write to the client's socket. It is fed with
// whole Samples, so that a record costs no atomic operation.
type Latency struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Uint64 // milliseconds
}

// Sample is what one turn has queued for clients and not yet written.
type Sample struct {
	stamps  []stamp
	buckets [len(bounds) + 1]uint32
	sum     uint64
	used    bool
}

// stamp is how many deliveries in a row have a timestamp.
type stamp struct {
	millis int64
	n      uint32
}

// Note notes a delivery of a record with this timestamp, milliseconds since the epoch.
func (s *Sample) Note(timestamp int64) {
	if n := len(s.stamps); n > 0 && s.stamps[n-1].millis == timestamp {
		s.stamps[n-1].n++
		return
	}
	if len(s.stamps) == maxStamps {
		s.Written(time.Now().UnixMilli())
	}
	s.stamps = append(s.stamps, stamp{timestamp, 1})
}

// Written says when what was noted has been written. A negative latency (clocks differ) counts as none.
func (s *Sample) Written(now int64) {
	for _, st := range s.stamps {
		ms := max(0, now-st.millis)
		i := 0
		for i < len(bounds) && ms > bounds[i] {
			i++
		}
		s.buckets[i] += st.n
		s.sum += uint64(ms) * uint64(st.n)
		s.used = true
	}
	s.stamps = s.stamps[:0]
}

// Waits reports whether something was noted and not written.
func (s *Sample) Waits() bool { return len(s.stamps) > 0 }

// Add adds a sample and empties it.
func (l *Latency) Add(s *Sample) {
	if !s.used {
		return
	}
	for i, n := range s.buckets {
		if n > 0 {
			l.buckets[i].Add(uint64(n))
			s.buckets[i] = 0
		}
	}
	l.sum.Add(s.sum)
	s.sum, s.used = 0, false
}

// Count is how many deliveries were added.
func (l *Latency) Count() (total uint64) {
	for i := range l.buckets {
		total += l.buckets[i].Load()
	}
	return total
}

var latencyDesc = prometheus.NewDesc(namespace+"_delivery_latency_seconds",
	"Time from a record's timestamp to its write to the socket of a client that is caught up; to its outbox where the socket was full or speaks TLS.", nil, nil)

// Describe implements prometheus.Collector.
func (l *Latency) Describe(ch chan<- *prometheus.Desc) { ch <- latencyDesc }

// Collect implements prometheus.Collector.
func (l *Latency) Collect(ch chan<- prometheus.Metric) {
	counts := make(map[float64]uint64, len(bounds))
	var total uint64
	for i, b := range bounds {
		total += l.buckets[i].Load()
		counts[float64(b)/1000] = total
	}
	total += l.buckets[len(bounds)].Load()
	ch <- prometheus.MustNewConstHistogram(latencyDesc, total, float64(l.sum.Load())/1000, counts)
}
