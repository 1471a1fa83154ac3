package continuity

import (
	"context"
	"fmt"
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

	mu   sync.Mutex
	seen []arrival // guarded by mu; in order of at
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
	p := &probe{cl: cl, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			a := arrival{at: time.Now().UnixMicro(), late: -1}
			fetches.EachRecord(func(r *kgo.Record) { a.late = max(a.late, a.at-r.Timestamp.UnixMicro()) })
			if a.late >= 0 {
				p.mu.Lock()
				p.seen = append(p.seen, a)
				p.mu.Unlock()
			}
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
