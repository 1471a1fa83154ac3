package load

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// tick is how finely a producer keeps its pace unless it is told another one.
const tick = 2 * time.Millisecond

// Producer writes to a topic with another Kafka client than the product's. Its partitioner is the default of
// Java's clients: murmur2 of the key.
type Producer struct {
	// Tick is how finely Run keeps its pace; 0 means 2 ms. Finer is smoother, and more requests for the broker.
	Tick time.Duration

	cl   *kgo.Client
	sent atomic.Int64

	mu  sync.Mutex
	err error
}

// NewProducer makes a producer for one topic.
func NewProducer(brokers []string, topic string, more ...kgo.Opt) (*Producer, error) {
	opts := append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // nil: murmur2 as Kafka's own clients do
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		// A record that must wait for a broker's return is late, not lost.
		kgo.RecordRetries(1 << 30),
		kgo.AlwaysRetryEOF(), // a broker that stops while it is greeted is not one that wants TLS
	}, more...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	return &Producer{cl: cl}, nil
}

// Close ends the producer. What was not flushed is lost.
func (p *Producer) Close() { p.cl.Close() }

// Sent is how many records were handed over so far.
func (p *Producer) Sent() int64 { return p.sent.Load() }

// Produce writes records and returns when the broker has acknowledged them.
func (p *Producer) Produce(ctx context.Context, records ...*kgo.Record) error {
	p.sent.Add(int64(len(records)))
	if err := p.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

// Burst writes n records, as fast as it goes, over the keys in turn.
func (p *Producer) Burst(ctx context.Context, keys []string, n int, size int) error {
	return p.BurstOf(ctx, n, func(i int) *kgo.Record { return Sample(keys[i%len(keys)], int64(i), size) })
}

// Bulk makes a producer write many records a second rather than each of them soon.
func Bulk() []kgo.Opt {
	return []kgo.Opt{kgo.ProducerLinger(20 * time.Millisecond), kgo.MaxBufferedRecords(100_000)}
}

// BurstOf writes n records, as fast as it goes, and returns when the broker has acknowledged them.
func (p *Producer) BurstOf(ctx context.Context, n int, record func(i int) *kgo.Record) error {
	for i := range n {
		p.send(ctx, record(i))
	}
	return p.flush(ctx)
}

// Run writes rate records a second over the keys in turn until ctx ends, then waits for all acknowledgements.
func (p *Producer) Run(ctx context.Context, keys []string, rate float64, size int) error {
	return p.RunOf(ctx, rate, func(n int64) *kgo.Record { return Sample(keys[n%int64(len(keys))], n, size) })
}

// RunOf is Run with records that the caller makes, the n-th of the call.
func (p *Producer) RunOf(ctx context.Context, rate float64, record func(n int64) *kgo.Record) error {
	every := p.Tick
	if every == 0 {
		every = tick
	}
	t := time.NewTicker(every)
	defer t.Stop()
	begin := time.Now()
	all := context.WithoutCancel(ctx) // what is under way when ctx ends is still delivered
	for n := int64(0); ; {
		for due := int64(rate * time.Since(begin).Seconds()); n < due; n++ {
			p.send(all, record(n))
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			wait, cancel := context.WithTimeout(all, time.Minute)
			defer cancel()
			return p.flush(wait)
		}
	}
}

func (p *Producer) send(ctx context.Context, r *kgo.Record) {
	p.sent.Add(1)
	p.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			p.err = errors.Join(p.err, err)
			p.mu.Unlock()
		}
	})
}

func (p *Producer) flush(ctx context.Context) error {
	err := p.cl.Flush(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err = errors.Join(err, p.err); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

// Sample is the n-th record of a run: mostly JSON of the given size, now and then text, bytes, a tombstone,
// headers, and JSON whose spelling must survive.
func Sample(key string, n int64, size int) *kgo.Record {
	r := &kgo.Record{Key: []byte(key)}
	switch n % 97 {
	case 11:
		r.Value = []byte(fmt.Sprintf("not json, record %d \u2014 \"quoted\"\n", n))
	case 23:
		r.Value = []byte{0xff, 0xfe, byte(n), 0x00, 0x80}
	case 37:
		r.Value = nil
	case 41:
		r.Value = []byte{}
	case 53:
		r.Value = []byte(fmt.Sprintf(`{ "n" : %d.0e0 , "n":1, "s":"\u0041\/", "deep":[[[null]]] }`, n))
	case 71:
		r.Value = []byte("null")
	default:
		r.Value = []byte(fmt.Sprintf(`{"n":%d,"key":%q,"pad":"`, n, key))
		if pad := size - len(r.Value) - 2; pad > 0 {
			r.Value = append(r.Value, strings.Repeat("x", pad)...)
		}
		r.Value = append(r.Value, '"', '}')
	}
	if n%13 == 0 {
		r.Headers = []kgo.RecordHeader{{Key: "trace", Value: []byte(fmt.Sprint(n))}, {Key: "trace", Value: []byte{0xfe, 0xff}}, {Key: "", Value: nil}}
	}
	return r
}

// Transaction is an open transaction of a producer of its own.
type Transaction struct {
	*Producer
	topic string
	open  func() (*Producer, error)
}

// Begin opens a transaction. A transaction that is closed without End hangs until its timeout.
func Begin(ctx context.Context, brokers []string, topic, id string, timeout time.Duration, more ...kgo.Opt) (*Transaction, error) {
	t := &Transaction{topic: topic, open: func() (*Producer, error) {
		return NewProducer(brokers, topic, append([]kgo.Opt{kgo.TransactionalID(id), kgo.TransactionTimeout(timeout)}, more...)...)
	}}
	if err := t.begin(); err != nil {
		return nil, err
	}
	return t, ctx.Err()
}

// Again opens the next transaction of the same transactional id, as a program does that was restarted: a broker of
// kfake now and then refuses the next sequence number of a producer that goes on after an end.
func (t *Transaction) Again() error {
	t.Close()
	return t.begin()
}

func (t *Transaction) begin() error {
	p, err := t.open()
	if err != nil {
		return err
	}
	if err := p.cl.BeginTransaction(); err != nil {
		p.Close()
		return fmt.Errorf("begin a transaction: %w", err)
	}
	t.Producer = p
	return nil
}

// End commits or aborts.
func (t *Transaction) End(ctx context.Context, commit bool) error {
	if err := t.flush(ctx); err != nil {
		return err
	}
	// The library, at v1.22.2, writes the first records of a topic before it notes the topic's partitions (the store is
	// deferred in storePartitionsUpdate). An end in between finds no partition that was written to, and makes an abort of a
	// commit. What is not noted within a second was never written to.
	for range 1000 {
		if leader, _, err := t.cl.PartitionLeader(t.topic, 0); err == nil && leader >= 0 || !pause(ctx, time.Millisecond) {
			break
		}
	}
	if err := t.cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		return fmt.Errorf("end a transaction: %w", err)
	}
	return nil
}
