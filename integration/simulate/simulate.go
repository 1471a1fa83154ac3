// Package simulate runs the state machines of routers and nodes, the real ones, in one thread over a modelled
// network, clock, Kafka and etcd, with faults of every kind, and checks what every client receives. A seed decides
// everything that happens, so that a run can be had again: a violation is found at full speed and then told as the
// timeline of the client that suffered it.
//
// What is real: a client's session, the table, a link's stream registry (router); partition loops and claims (node).
// What is modelled, as simply as its contract allows: sockets (FIFO per direction, delayed, cut, half-open, full),
// Kafka (log, transactions, compaction, retention, leader changes, recreation, consumer group), etcd (leases, watches,
// outages, wipes, restores), and the shells between them. The Kafka library and the etcd client stay outside.
package simulate

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// Options choose one run.
type Options struct {
	Seed uint64
	// Timeline keeps what happened, which costs time; a violation then comes with its client's timeline.
	Timeline bool
	// Lines is how long the timeline may be, 0 for a few hundred lines.
	Lines int
}

// Violation is a broken promise.
type Violation struct {
	Seed     uint64
	At       time.Duration // since the run began
	Client   int           // -1 if it concerns no client
	Text     string
	Timeline []string
}

// Error makes a violation an error.
func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, at %s", v.Seed, v.At)
	if v.Client >= 0 {
		fmt.Fprintf(&b, ", client %d", v.Client)
	}
	fmt.Fprintf(&b, ": %s", v.Text)
	for _, line := range v.Timeline {
		b.WriteString("\n  ")
		b.WriteString(line)
	}
	return b.String()
}

// Stats say what a run consisted of, so that one that proves nothing is noticed.
type Stats struct {
	Schedules   int
	Events      int
	Simulated   time.Duration
	Records     int // delivered to clients
	Duplicates  uint64
	Handovers   int
	Gaps        int
	Connects    int
	Checkpoints int
	Scans       int
	Forgotten   int // schedules in which the history of growth was lost, and with it what judges order and gap moved
	Faults      map[string]int
}

// Add adds another run's numbers.
func (s *Stats) Add(o *Stats) {
	s.Schedules += o.Schedules
	s.Events += o.Events
	s.Simulated += o.Simulated
	s.Records += o.Records
	s.Duplicates += o.Duplicates
	s.Handovers += o.Handovers
	s.Gaps += o.Gaps
	s.Connects += o.Connects
	s.Checkpoints += o.Checkpoints
	s.Scans += o.Scans
	s.Forgotten += o.Forgotten
	if s.Faults == nil {
		s.Faults = map[string]int{}
	}
	for k, n := range o.Faults {
		s.Faults[k] += n
	}
}

// Run plays one schedule. A violation is nil when every promise was kept.
func Run(o Options) (*Stats, *Violation) {
	w := newWorld(o)
	w.play()
	w.stats.Schedules = 1
	w.stats.Simulated = time.Duration(w.now)
	if w.forgotten {
		w.stats.Forgotten = 1
	}
	return &w.stats, w.violation
}

// Explain plays a seed again with its timeline of up to so many lines.
func Explain(seed uint64, lines int) *Violation {
	_, v := Run(Options{Seed: seed, Timeline: true, Lines: lines})
	return v
}

// broken ends a run: it is thrown by fail and caught by play.
type broken struct{}

// fail ends the run with a violation; client is -1 if it concerns none.
func (w *world) fail(client int, format string, args ...any) {
	if w.violation == nil {
		w.violation = &Violation{
			Seed: w.seed, At: time.Duration(w.now), Client: client, Text: fmt.Sprintf(format, args...),
			Timeline: w.tell(client),
		}
	}
	panic(broken{})
}

// play runs the schedule to its end. A panic of a core is a violation like any other.
func (w *world) play() {
	defer func() {
		switch p := recover().(type) {
		case nil, broken:
		default:
			w.violation = &Violation{
				Seed: w.seed, At: time.Duration(w.now), Client: -1, Text: fmt.Sprintf("panic: %v\n%s", p, debug.Stack()),
				Timeline: w.tell(-1),
			}
		}
	}()
	w.begin()
	w.run()
}
