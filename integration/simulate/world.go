package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Virtual time is nanoseconds since the run began.
const (
	us  = int64(time.Microsecond)
	ms  = int64(time.Millisecond)
	sec = int64(time.Second)
)

// mostEvents ends a run that never comes to rest by itself.
const mostEvents = 3_000_000

// event is something that happens at a time; events of one time happen in the order they were scheduled in.
type event struct {
	at  int64
	seq uint64
	fn  func()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// world is one run.
type world struct {
	seed  uint64
	rng   *rand.Rand
	now   int64
	seq   uint64
	queue []event // a binary heap
	set   settings

	net      network
	kafka    kafka
	etcd     etcd
	group    group
	machines []*machine
	routers  []*routerProc
	clients  []*client // one for each key of those with several, too
	several  []*several
	faults   faults

	forgotten bool // etcd was emptied while no node knew how the topic grew

	over      bool // the run has come to rest
	violation *Violation
	stats     Stats
	trace     *trace // nil unless a timeline is wanted
	lines     int    // how long it may be
}

// settings are what a seed chooses once.
type settings struct {
	partitions  int32
	keys        int
	nodes       int
	routers     int
	clients     int
	several     int   // clients with several keys
	chaos       int64 // how long faults happen
	window      int64 // of a session, bytes
	heartbeat   int64
	ring        int64
	scanBytes   int32
	replayLimit int64
	linger      int64
	linkBuffer  int64
	socket      int64 // what a client's socket holds, bytes
	leaseTTL    int64
	produce     int64 // mean time between appends
	valueMost   int
	latency     int64 // usual delay of a message
	quiet       bool  // producers wait until all of them have heard of added partitions
	stale       int64 // how long they may go on otherwise
}

func newWorld(o Options) *world {
	w := &world{seed: o.Seed, rng: rand.New(rand.NewPCG(o.Seed, 0x706f696e74736d61))}
	w.stats.Faults = map[string]int{}
	if o.Timeline {
		w.trace, w.lines = &trace{}, o.Lines
		if o.Lines <= 0 {
			w.lines = mostLines
		}
	}
	return w
}

// base is when every run begins; cores take a zero time for none.
var base = time.Unix(1_700_000_000, 0).UTC()

func (w *world) time() time.Time { return base.Add(time.Duration(w.now)) }

// at schedules fn.
func (w *world) at(when int64, fn func()) {
	w.seq++
	e := event{at: max(when, w.now), seq: w.seq, fn: fn}
	q := append(w.queue, e)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = e
	w.queue = q
}

func (w *world) after(d int64, fn func()) { w.at(w.now+d, fn) }

func (w *world) pop() event {
	q := w.queue
	top := q[0]
	last := q[len(q)-1]
	q[len(q)-1] = event{}
	q = q[:len(q)-1]
	w.queue = q
	if len(q) == 0 {
		return top
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= len(q) {
			break
		}
		if c+1 < len(q) && q[c+1].before(&q[c]) {
			c++
		}
		if !q[c].before(&last) {
			break
		}
		q[i] = q[c]
		i = c
	}
	q[i] = last
	return top
}

// run lets events happen until the run is over.
func (w *world) run() {
	for !w.over && len(w.queue) > 0 {
		if w.stats.Events++; w.stats.Events > mostEvents {
			w.fail(-1, "the run does not come to rest: %d events", mostEvents)
		}
		e := w.pop()
		w.now = e.at
		e.fn()
	}
}

// every calls fn again and again while it returns true.
func (w *world) every(d int64, fn func() bool) {
	w.after(d, func() {
		if fn() {
			w.every(d, fn)
		}
	})
}

// Choices.

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// between is a duration from lo to hi.
func (w *world) between(lo, hi int64) int64 {
	if hi <= lo {
		return lo
	}
	return lo + w.rng.Int64N(hi-lo+1)
}

// rare is a duration from lo to hi, mostly near lo.
func (w *world) rare(lo, hi int64) int64 {
	f := w.rng.Float64()
	return lo + int64(float64(hi-lo)*f*f*f)
}

// delay is how long a message or an answer takes.
func (w *world) delay() int64 { return w.rare(w.set.latency/4, w.set.latency*4) }

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

// proc is a process. What it does is scheduled through it: nothing happens in one that is dead, and what is due in
// a frozen one happens when it goes on.
type proc struct {
	w       *world
	name    string
	dead    bool
	frozen  bool
	backlog []func()
	thawed  int64 // when it last went on after a freeze
}

// do happens now, unless the process is frozen (then when it goes on) or dead.
func (p *proc) do(fn func()) {
	switch {
	case p.dead:
	case p.frozen:
		p.backlog = append(p.backlog, fn)
	default:
		fn()
	}
}

func (p *proc) after(d int64, fn func()) {
	if !p.dead {
		p.w.after(d, func() { p.do(fn) })
	}
}

// every calls fn until it returns false or the process dies. Ticks that a frozen process missed are one tick.
func (p *proc) every(d int64, fn func() bool) {
	p.after(d, func() {
		if fn() {
			p.every(d, fn)
		}
	})
}

func (p *proc) freeze() { p.frozen = true }

func (p *proc) thaw() {
	if p.dead || !p.frozen {
		return
	}
	p.frozen, p.thawed = false, p.w.now
	for len(p.backlog) > 0 && !p.frozen && !p.dead {
		fn := p.backlog[0]
		p.backlog = p.backlog[1:]
		fn()
	}
	if !p.frozen {
		p.backlog = nil
	}
}

// trace keeps what happened.
type trace struct{ lines []line }

type line struct {
	at        int64
	client    int    // -1 for all
	partition int32  // -1 for all
	key       string // "" for all
	text      string
}

const (
	anyone   = -1
	anywhere = int32(-1)
)

// note writes a line of the timeline: of a client, of whoever has to do with a partition, or of all. Callers check
// w.trace first where the arguments cost something.
func (w *world) note(client int, partition int32, format string, args ...any) {
	if w.trace != nil {
		w.trace.lines = append(w.trace.lines, line{w.now, client, partition, "", fmt.Sprintf(format, args...)})
	}
}

// mostLines is how long a timeline is unless more is asked for: the end counts.
const mostLines = 400

// tell is the timeline of one client.
func (w *world) tell(client int) []string {
	if w.trace == nil {
		return nil
	}
	var homes []int32
	key := ""
	if client >= 0 {
		key = w.clients[client].key
		homes = w.kafka.topic.homes(key)
	}
	var out []string
	for _, l := range w.trace.lines {
		if l.client != anyone && l.client != client || l.partition != anywhere && !slices.Contains(homes, l.partition) && l.client != client {
			continue
		}
		if key != "" && l.key != "" && l.key != key {
			continue
		}
		out = append(out, fmt.Sprintf("%10.3fms %s", float64(l.at)/1e6, l.text))
	}
	return out[max(0, len(out)-w.lines):]
}
