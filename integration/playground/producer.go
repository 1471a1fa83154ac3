package playground

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// tick is how finely the producer keeps its pace.
const tick = 5 * time.Millisecond

// producer writes records for every key in turn. Each key has consecutive numbers of its own, so that a client can
// tell by itself whether one is missing, twice there or out of order.
type producer struct {
	// Static after construction.
	client *kgo.Client
	keys   []string
	run    string // tells our records from those of other playgrounds and from those made by hand
	rate   float64

	mu    sync.Mutex
	acked []int64 // guarded by mu; newest number that is in Kafka, by key
	total int64   // guarded by mu; records that are in Kafka
}

func newProducer(brokers []string, topic string, keys []string, rate float64) (*producer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // nil: murmur2, as Kafka's own clients do
		kgo.RecordRetries(1<<30),                             // a record that must wait for a broker is late, not lost
	)
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	return &producer{
		client: client, keys: keys, rate: rate,
		run:   strings.ToLower(rand.Text()[:8]),
		acked: make([]int64, len(keys)),
	}, nil
}

func (p *producer) close() { p.client.Close() }

// produce keeps the pace until ctx ends, or a record is refused for good.
func (p *producer) produce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	next := make([]int64, len(p.keys))
	perSecond := p.rate * float64(len(p.keys))
	begin := time.Now()
	for n := int64(0); ; {
		due := int64(perSecond * time.Since(begin).Seconds())
		if late := due - n; late > int64(perSecond) { // the machine slept; nobody wants a flood
			begin = begin.Add(time.Duration(float64(late) / perSecond * float64(time.Second)))
			due = n
		}
		for ; n < due; n++ {
			i := int(n % int64(len(p.keys)))
			next[i]++
			p.send(ctx, cancel, i, next[i])
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

func (p *producer) send(ctx context.Context, fail context.CancelCauseFunc, i int, seq int64) {
	r := &kgo.Record{
		Key:   []byte(p.keys[i]),
		Value: fmt.Appendf(nil, `{"run":%q,"seq":%d,"at":%d}`, p.run, seq, time.Now().UnixMilli()),
	}
	p.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			if ctx.Err() == nil {
				fail(fmt.Errorf("produce: %w", err))
			}
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.acked[i] = max(p.acked[i], seq)
		p.total++
	})
}

// progress is how far it came: the newest number of each key, and how many records in all.
func (p *producer) progress() (acked []int64, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]int64(nil), p.acked...), p.total
}
