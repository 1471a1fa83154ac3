// Package runner gives partition loops their life: one goroutine each, a mailbox, a clock, a Kafka reader and
// the links that their frames go to.
//
// Nothing here can block for ever. A loop never waits for anything but its mailbox: frames are appended to a
// link's buffer, which takes or refuses them at once, and questions to Kafka are asked by helper goroutines.
// Whoever feeds a loop (a link's reader, the Kafka reader, etcd's and the group's callbacks) may wait for its
// mailbox, because the loop on the other side always comes round to it.
package runner

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// ErrStopped is wrapped by what a Sink's Failed hears when the reader will not go on until it is started anew.
var ErrStopped = errors.New("the reader has stopped")

// Sink receives what a live reader reads. Its methods may wait for the partition's loop.
type Sink interface {
	Batch(b *source.Batch)
	OutOfRange(b source.Bounds)
	Failed(err error)
}

// Log is the part of Kafka that loops need. Questions name the topic id that the asker believes in; about
// another one there is no answer but an error.
type Log interface {
	Bounds(ctx context.Context, topic [16]byte, partition int32) (source.Bounds, error)
	OffsetAt(ctx context.Context, topic [16]byte, partition int32, t int64) (offset int64, ok bool, err error)
	// Scan reads one batch that begins at from. outside is not nil when the log does not hold from.
	Scan(ctx context.Context, topic [16]byte, partition int32, from int64, maxBytes int32) (b *source.Batch, outside *source.Bounds, err error)
	// Read and StopRead return at once. They may be called while a call of an earlier Sink is waiting.
	Read(topic [16]byte, partition int32, from int64, sink Sink)
	StopRead(partition int32)
}

// Identity tells since when the topic is known to be the one that the loops believe in. A topic can be deleted
// and created again under its name, and Kafka's fetches go by name: records are admitted only while a check
// vouches for them.
type Identity interface {
	// Verified is when the last good check began, and a channel that is closed by the next one.
	Verified() (began time.Time, next <-chan struct{})
	// Recheck asks for a check now.
	Recheck()
}

// Link is one router's connection. Frames are appended in call order and never wait. Calls for a link that is
// gone have no effect.
type Link interface {
	ID() partition.LinkID
	Attached(f link.Attached)
	Record(f *link.Record)
	Checkpoint(f *link.Checkpoint)
	Gap(f link.Gap)
	Closed(f link.Closed)
	// Room reports whether records are taken; once it said no to p, the link's server calls
	// Runner.Writable for p when there is room again.
	Room(p int32) bool
	// Flush lets what was appended go out.
	Flush()
}

// Claims hears when a partition's claim may be published.
type Claims interface{ Readable(p int32) }

// Config is a Runner's.
type Config struct {
	// Loop is every loop's configuration but for its partition and ring.
	Loop partition.Config
	// RingBudget is shared by the rings of all active partitions, in bytes.
	RingBudget int64
	// ScanRate bounds catch-up reads of the whole node, in bytes per second; 0 for no bound.
	ScanRate int64
	// TrustFor is how long after a good check of the topic's identity its records are admitted.
	TrustFor time.Duration

	TopicID    [16]byte
	Partitions int32

	Log      Log
	Identity Identity
	// Mark hears the heads of assigned partitions, for the group's commits. It must not wait.
	Mark func(p int32, next int64)
	// Admitted hears each live batch once, before it is delivered; for the partitioner check and counters.
	Admitted func(p int32, b *source.Batch)
	// Gap hears each gap that a stream is told of.
	Gap func(link.GapReason)
	// Output may wrap what a loop's effects go to, for tests; nil does not.
	Output func(partition.Output) partition.Output

	Logger *zap.Logger
}

// The bounds of what is under way, each for the whole node.
const (
	maxAsking   = 8 // questions for bounds and times
	maxScanning = 4 // catch-up reads
)

// Runner owns the loops of all active partitions.
type Runner struct {
	// Static after construction.
	cfg      Config
	log      *zap.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	asking   chan struct{}
	scanning chan struct{}
	limit    *limiter

	wg         sync.WaitGroup // loops and their helpers
	partitions atomic.Int32
	ringShare  atomic.Int64

	mu      sync.Mutex
	closed  bool            // guarded by mu
	topicID [16]byte        // guarded by mu
	loops   map[int32]*loop // guarded by mu
	claims  Claims          // guarded by mu; nil before SetClaims
	totals  Totals          // guarded by mu; of loops that have ended
}

// New returns a runner without loops.
func New(cfg Config) *Runner {
	if cfg.TrustFor <= 0 {
		cfg.TrustFor = 2 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Runner{
		cfg: cfg, log: cfg.Logger, ctx: ctx, cancel: cancel,
		asking: make(chan struct{}, maxAsking), scanning: make(chan struct{}, maxScanning),
		limit:   newLimiter(cfg.ScanRate),
		topicID: cfg.TopicID,
		loops:   map[int32]*loop{},
	}
	r.partitions.Store(cfg.Partitions)
	r.ringShare.Store(cfg.RingBudget)
	return r
}

// SetClaims says who hears that partitions are readable. Call it before the first Assign.
func (r *Runner) SetClaims(c Claims) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims = c
}

// EventKind is what a router asked for.
type EventKind uint8

// The kinds.
const (
	Attach EventKind = iota
	Detach
	Credit
)

// Event is one request of a router about a stream.
type Event struct {
	Kind   EventKind
	Stream uint64
	Bytes  int64        // of Credit
	Attach *link.Attach // of Attach; owned by the event
}

// Deliver hands a link's requests about one partition to its loop, in order. It waits while the loop's mailbox
// is full.
func (r *Runner) Deliver(l Link, p int32, events []Event) {
	attaches := slices.ContainsFunc(events, func(e Event) bool { return e.Kind == Attach })
	if p < 0 || p >= r.partitions.Load() {
		r.refuse(l, events)
		return
	}
	if lp := r.acquire(p, attaches); lp != nil {
		lp.post(message{kind: fromLink, link: l, events: events})
		r.release(lp)
	}
}

func (r *Runner) refuse(l Link, events []Event) {
	for _, e := range events {
		if e.Kind == Attach {
			l.Closed(link.Closed{Stream: e.Stream, Reason: link.ClosedPartition, Detail: "the topic has no such partition"})
		}
	}
	l.Flush()
}

// Writable says that a link that refused records of partition p takes them again.
func (r *Runner) Writable(l Link, p int32) { r.tell(p, message{kind: writable, link: l}) }

// Gone says that a link has ended that had streams on these partitions.
func (r *Runner) Gone(l Link, partitions []int32) {
	for _, p := range partitions {
		r.tell(p, message{kind: linkGone, link: l})
	}
}

// Assign says that the group assigned a partition; committed is -1 if there is no committed offset.
func (r *Runner) Assign(p int32, committed int64) {
	if lp := r.acquire(p, true); lp != nil {
		lp.post(message{kind: assign, offset: committed})
		r.release(lp)
	}
}

// Revoke says that the group took a partition away.
func (r *Runner) Revoke(p int32) { r.tell(p, message{kind: revoke}) }

// Grow says that the topic has more partitions.
func (r *Runner) Grow(partitions int32) { r.partitions.Store(partitions) }

// TopicChanged says that the topic was recreated. When it returns, every loop will hear of it before anything
// that is read later.
func (r *Runner) TopicChanged(id [16]byte, partitions int32) {
	r.mu.Lock()
	r.topicID = id
	r.partitions.Store(partitions)
	loops := r.pinLocked()
	r.mu.Unlock()
	for _, lp := range loops {
		lp.post(message{kind: topicChanged, topicID: id})
		r.release(lp)
	}
}

// Close ends every loop and waits for them and their helpers.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

func (r *Runner) tell(p int32, m message) {
	if lp := r.acquire(p, false); lp != nil {
		lp.post(m)
		r.release(lp)
	}
}

// acquire finds or starts a partition's loop and keeps it from ending until release.
func (r *Runner) acquire(p int32, create bool) *loop {
	r.mu.Lock()
	defer r.mu.Unlock()
	lp := r.loops[p]
	if lp == nil {
		if !create || r.closed {
			return nil
		}
		lp = newLoop(r, p, r.topicID)
		r.loops[p] = lp
		r.shareLocked()
		r.wg.Add(1)
		go lp.run()
	}
	lp.pins++
	return lp
}

func (r *Runner) release(lp *loop) {
	r.mu.Lock()
	lp.pins--
	r.mu.Unlock()
}

// retire ends an idle loop unless somebody is about to give it work.
func (r *Runner) retire(lp *loop) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if lp.pins > 0 || len(lp.inbox) > 0 {
		return false
	}
	// Under the lock, because the partition's next loop must not start its reader before this one stops its own;
	// StopRead does not wait.
	lp.core.Close()
	lp.publish()
	delete(r.loops, lp.partition)
	r.shareLocked()
	st := lp.status.Load()
	r.totals.Deliveries += st.Deliveries
	r.totals.ScanBytes += st.ScanBytes
	r.totals.ScanReads += st.ScanReads
	return true
}

// shareLocked divides the ring budget; loops look at it when they tick.
func (r *Runner) shareLocked() {
	r.ringShare.Store(r.cfg.RingBudget / int64(max(1, len(r.loops))))
}

func (r *Runner) pinLocked() []*loop {
	loops := make([]*loop, 0, len(r.loops))
	for _, lp := range r.loops {
		lp.pins++
		loops = append(loops, lp)
	}
	return loops
}

func (r *Runner) readable(p int32) {
	r.mu.Lock()
	c := r.claims
	r.mu.Unlock()
	if c != nil {
		c.Readable(p)
	}
}

// Totals are sums over all loops that ever ran.
type Totals struct {
	Deliveries uint64
	ScanBytes  uint64
	ScanReads  uint64
	ScanWait   time.Duration // for ScanRate
}

// Refresh makes Status current. It waits for every loop, or until ctx ends.
func (r *Runner) Refresh(ctx context.Context) {
	r.mu.Lock()
	loops := r.pinLocked()
	r.mu.Unlock()
	done := make(chan struct{}, len(loops))
	for _, lp := range loops {
		lp.post(message{kind: refresh, done: done})
		r.release(lp)
	}
	for range loops {
		select {
		case <-done:
		case <-r.ctx.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// Status returns the active partitions' states, at most a second old, in order, and the sums.
func (r *Runner) Status() ([]partition.Status, Totals) {
	r.mu.Lock()
	totals := r.totals
	all := make([]partition.Status, 0, len(r.loops))
	for _, lp := range r.loops {
		all = append(all, *lp.status.Load())
	}
	r.mu.Unlock()
	totals.ScanWait = time.Duration(r.limit.waited.Load())
	for i := range all {
		totals.Deliveries += all[i].Deliveries
		totals.ScanBytes += all[i].ScanBytes
		totals.ScanReads += all[i].ScanReads
	}
	slices.SortFunc(all, func(a, b partition.Status) int { return int(a.Partition - b.Partition) })
	return all, totals
}
