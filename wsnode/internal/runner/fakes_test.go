package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

var topicA, topicB = [16]byte{0xa}, [16]byte{0xb}

// fakeLog is a Kafka whose readers read what the test feeds them.
type fakeLog struct {
	mu       sync.Mutex
	bounds   map[int32]source.Bounds
	sinks    map[int32]Sink
	from     map[int32]int64
	reads    []string
	failing  bool
	scanning chan struct{} // if not nil, scans wait for it
	records  []source.Record
}

func newFakeLog() *fakeLog {
	return &fakeLog{bounds: map[int32]source.Bounds{}, sinks: map[int32]Sink{}, from: map[int32]int64{}}
}

var errFake = errors.New("no leader")

func (f *fakeLog) Bounds(_ context.Context, _ [16]byte, p int32) (source.Bounds, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		return source.Bounds{}, errFake
	}
	return f.bounds[p], nil
}

func (f *fakeLog) OffsetAt(_ context.Context, _ [16]byte, _ int32, t int64) (int64, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		return 0, false, errFake
	}
	for _, r := range f.records {
		if r.Timestamp >= t {
			return r.Offset, true, nil
		}
	}
	return 0, false, nil
}

func (f *fakeLog) Scan(ctx context.Context, _ [16]byte, p int32, from int64, _ int32) (*source.Batch, *source.Bounds, error) {
	f.mu.Lock()
	wait := f.scanning
	f.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.bounds[p]
	if from < b.Start {
		return nil, &b, nil
	}
	batch := &source.Batch{From: from, Next: b.Stable, Bounds: b}
	for _, r := range f.records {
		if r.Offset >= from && r.Offset < b.Stable {
			batch.Records = append(batch.Records, r)
			batch.Bytes += len(r.Value)
		}
	}
	return batch, nil, nil
}

func (f *fakeLog) Read(_ [16]byte, p int32, from int64, s Sink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sinks[p], f.from[p] = s, from
	f.reads = append(f.reads, fmt.Sprintf("read %d from %d", p, from))
}

func (f *fakeLog) StopRead(p int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sinks, p)
	f.reads = append(f.reads, fmt.Sprintf("stop %d", p))
}

func (f *fakeLog) sink(p int32) Sink {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sinks[p]
}

// batch covers [from, from+n) with records of the key, one each.
func batch(from int64, key string, n int) *source.Batch {
	b := &source.Batch{From: from, Next: from + int64(n)}
	for i := range n {
		b.Records = append(b.Records, source.Record{
			Offset: from + int64(i), Key: []byte(key), HasKey: true, Value: fmt.Appendf(nil, "v%d", from+int64(i)),
		})
	}
	b.Bounds = source.Bounds{Stable: b.Next, High: b.Next}
	return b
}

// fakeIdentity vouches when the test says so.
type fakeIdentity struct {
	mu     sync.Mutex
	began  time.Time
	next   chan struct{}
	asked  int
	always bool // vouches for every moment
}

func newFakeIdentity(always bool) *fakeIdentity {
	return &fakeIdentity{next: make(chan struct{}), always: always}
}

func (f *fakeIdentity) Verified() (time.Time, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.always {
		return time.Now().Add(1), f.next
	}
	return f.began, f.next
}

func (f *fakeIdentity) Recheck() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
}

func (f *fakeIdentity) rechecks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *fakeIdentity) verify() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.began = time.Now()
	close(f.next)
	f.next = make(chan struct{})
}

// fakeLink writes down what it is sent.
type fakeLink struct {
	id partition.LinkID

	mu      sync.Mutex
	frames  []string
	full    bool
	refused []int32
	flushes int
	offsets []int64
}

func (l *fakeLink) ID() partition.LinkID { return l.id }

func (l *fakeLink) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = append(l.frames, fmt.Sprintf(format, args...))
}

func (l *fakeLink) Attached(f link.Attached) { l.note("attached %d at %d", f.Stream, f.Next) }
func (l *fakeLink) Record(f *link.Record) {
	l.note("record %d to %v", f.Offset, f.Streams)
	l.mu.Lock()
	l.offsets = append(l.offsets, f.Offset)
	l.mu.Unlock()
}
func (l *fakeLink) Checkpoint(*link.Checkpoint) {} // their cadence is the core's affair
func (l *fakeLink) Gap(f link.Gap)              { l.note("gap %d to %d", f.Stream, f.To) }
func (l *fakeLink) Closed(f link.Closed)        { l.note("closed %d %v", f.Stream, f.Reason) }

func (l *fakeLink) Room(p int32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		l.refused = append(l.refused, p)
	}
	return !l.full
}

func (l *fakeLink) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushes++
}

func (l *fakeLink) got() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.frames
	l.frames = nil
	return got
}

// bench is a runner over fakes, inside a bubble.
type bench struct {
	t   *testing.T
	log *fakeLog
	id  *fakeIdentity
	r   *Runner
}

// inBubble runs a test in virtual time; the runner is closed at its end.
func inBubble(t *testing.T, always bool, f func(b *bench), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, log: newFakeLog(), id: newFakeIdentity(always)}
		cfg := Config{
			Loop: partition.Config{Linger: 2 * time.Second}, RingBudget: 1 << 20, Partitions: 8, TopicID: topicA,
			Log: b.log, Identity: b.id,
		}
		for _, c := range change {
			c(&cfg)
		}
		b.r = New(cfg)
		defer b.r.Close()
		f(b)
	})
}

func (b *bench) attach(l *fakeLink, p int32, stream uint64, key string, start link.Start) {
	b.r.Deliver(l, p, []Event{attachEvent(p, stream, key, start)})
}

func attachEvent(p int32, stream uint64, key string, start link.Start) Event {
	return Event{Kind: Attach, Stream: stream, Attach: &link.Attach{
		Stream: stream, Partition: p, Key: []byte(key), Start: start, TopicID: topicA, Credit: 1 << 20,
	}}
}

var latest = link.Start{Kind: link.StartLatest}

func (b *bench) expect(l *fakeLink, want ...string) {
	b.t.Helper()
	synctest.Wait()
	if got := l.got(); !slices.Equal(got, want) {
		b.t.Fatalf("link got %q\nwant %q", got, want)
	}
}

func (b *bench) reads() []string {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	got := b.log.reads
	b.log.reads = nil
	return got
}
