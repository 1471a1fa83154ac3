package continuity

import (
	"context"
	"fmt"
	"math"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// probe is a plain consumer of the topic, in this process and with another Kafka client than the product's. What
// delays it too is Kafka or the machine.
type probe struct {
	cl   *kgo.Client
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	seen   []arrival        // guarded by mu; in order of at
	tracks map[int32]*track // guarded by mu; of each partition
}

// track is how late each record of a partition was.
type track struct {
	first int64   // offset
	late  []int32 // microseconds, from first on; 0 for offsets without a record
}

// note remembers how late a record was.
func (t *track) note(offset, late int64) {
	if len(t.late) == 0 {
		t.first = offset
	}
	if offset < t.first+int64(len(t.late)) {
		return // read again after a broker's restart: the first arrival counts
	}
	t.late = append(t.late, make([]int32, offset-t.first-int64(len(t.late))+1)...)
	t.late[offset-t.first] = int32(min(max(late, 0), math.MaxInt32)) //nolint:gosec // bounded
}

// arrival is one answer of the broker: when, and how old its oldest record was.
type arrival struct{ at, late int64 } // microseconds since the Unix epoch; microseconds

func startProbe(brokers []string, topic string) (*probe, error) {
	cl, err := kgo.NewClient(append(eager(), kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd()), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("start a probe: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &probe{cl: cl, stop: cancel, done: make(chan struct{}), tracks: make(map[int32]*track)}
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			a := arrival{at: time.Now().UnixMicro(), late: -1}
			p.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				late := a.at - r.Timestamp.UnixMicro()
				a.late = max(a.late, late)
				t := p.tracks[r.Partition]
				if t == nil {
					t = &track{}
					p.tracks[r.Partition] = t
				}
				t.note(r.Offset, late)
			})
			if a.late >= 0 {
				p.seen = append(p.seen, a)
			}
			p.mu.Unlock()
		}
	}()
	return p, nil
}

// eager has a client look for a broker that is away as often as it may: by default it waits for seconds, in which the
// product would seem to be quick.
func eager() []kgo.Opt {
	const often = 50 * time.Millisecond
	return []kgo.Opt{
		kgo.AlwaysRetryEOF(), kgo.MetadataMinAge(often), kgo.RetryBackoffFn(func(int) time.Duration { return often }), kgo.DialTimeout(time.Second),
	}
}

func (p *probe) close() {
	p.stop()
	<-p.done
	p.cl.Close()
}

// felt is how late a record reached the probe, in microseconds; 0 for one that did not.
func (p *probe) felt(partition int32, offset int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tracks[partition]
	if t == nil || offset < t.first || offset >= t.first+int64(len(t.late)) {
		return 0
	}
	return int64(t.late[offset-t.first])
}

// after is when the probe received for the first time after t; zero when it has not.
func (p *probe) after(t time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.indexLocked(t)
	if i == len(p.seen) {
		return time.Time{}
	}
	return time.UnixMicro(p.seen[i].at)
}

// longest is the longest delay of a record that the probe received in [from, until).
func (p *probe) longest(from, until time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var worst int64
	for i := p.indexLocked(from); i < len(p.seen) && p.seen[i].at < until.UnixMicro(); i++ {
		worst = max(worst, p.seen[i].late)
	}
	return micro(worst)
}

func (p *probe) indexLocked(t time.Time) int {
	us := t.UnixMicro()
	return sort.Search(len(p.seen), func(i int) bool { return p.seen[i].at >= us })
}
