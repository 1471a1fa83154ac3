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
	acks  []ack   // guarded by mu; the newest first, one for each moment
}

// ack is how long Kafka took at worst for the records of one moment: what a client waits longer is Pointsman's.
type ack struct {
	At int64 `json:"at"` // when they were made, ms since the epoch, a multiple of moment
	MS int64 `json:"ms"`
}

// moment is how finely ack tells times apart, in ms; the page's timeline uses the same.
const (
	moment    = 200
	shownAcks = 20
)

func newProducer(brokers []string, topic string, keys []string, rate float64) (*producer, error) {
	client, err := kgo.NewClient(
		kgo.AlwaysRetryEOF(), // a broker that stops while it is greeted is not one that wants TLS
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
	at := time.Now().UnixMilli()
	r := &kgo.Record{
		Key:   []byte(p.keys[i]),
		Value: fmt.Appendf(nil, `{"run":%q,"seq":%d,"at":%d}`, p.run, seq, at),
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
		p.noteLocked(at)
	})
}

// noteLocked remembers how long a record made at a time took.
func (p *producer) noteLocked(at int64) {
	took := time.Now().UnixMilli() - at
	at -= at % moment
	for i := range p.acks {
		if p.acks[i].At == at {
			p.acks[i].MS = max(p.acks[i].MS, took)
			return
		}
	}
	p.acks = append([]ack{{At: at, MS: took}}, p.acks...)
	p.acks = p.acks[:min(len(p.acks), shownAcks)]
}

// progress is how far a producer came.
type progress struct {
	Produced int64   `json:"produced"` // records in Kafka
	Acked    []int64 `json:"acked"`    // newest number in Kafka of each key
	Acks     []ack   `json:"acks"`
}

func (p *producer) progress() progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return progress{Produced: p.total, Acked: append([]int64{}, p.acked...), Acks: append([]ack{}, p.acks...)}
}
