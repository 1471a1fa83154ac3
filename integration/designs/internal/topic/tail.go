package topic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
)

const (
	// fetchVersion is the last that names topics, as the product's.
	fetchVersion = 12
	fetchWait    = 50 * time.Millisecond
	fetchEach    = 1 << 20
	fetchAll     = 16 << 20
	// pace is the least time from one fetch to the next while records come by the few: the cost of a fetch, here and at
	// the broker, is then shared by those of a millisecond. A record that comes after a pause finds a fetch waiting.
	pace = time.Millisecond
	// paced is the size of an answer from which on the next fetch is not put off.
	paced = 64 << 10
)

// tails reads partitions as records come: one goroutine and one connection for each broker, as the product does.
type tails struct {
	// Static after construction.
	topic *Topic
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	readers map[string]*reader // guarded by mu; by broker address
}

func newTails(t *Topic) *tails {
	x := &tails{topic: t, readers: make(map[string]*reader)}
	x.ctx, x.stop = context.WithCancel(context.Background())
	return x
}

// close ends all readers.
func (x *tails) close() {
	x.mu.Lock()
	x.stop()
	x.mu.Unlock()
	x.wg.Wait()
}

// tail is one Tail of a partition. Its reader owns it until it gives it back.
type tail struct {
	ctx       context.Context
	partition int32
	next      int64
	out       chan<- []*feed.Record
	back      chan error // capacity 1: why the reader has given it up
}

// Tail implements feed.Source.
func (t *Topic) Tail(ctx context.Context, partition int32, from int64, out chan<- []*feed.Record) error {
	p := &tail{ctx: ctx, partition: partition, next: from, out: out, back: make(chan error, 1)}
	for failed := 0; ; {
		at := p.next
		err := t.follow(p)
		if err == nil {
			return nil // p may still be its reader's
		}
		if failed++; p.next > at {
			failed = 1
		}
		switch {
		case errors.Is(err, sarama.ErrOffsetOutOfRange), errors.Is(err, errClosed), failed > tries:
			return fmt.Errorf("read partition %d from %d: %w", partition, p.next, err)
		}
		wait(ctx, tryPause)
		_ = t.live.RefreshMetadata(t.cfg.Topic) // the next try tells
	}
}

// follow has the partition read by its leader. It returns nil when its context ends, else why the leader does not read it.
func (t *Topic) follow(p *tail) error {
	broker, err := t.live.Leader(t.cfg.Topic, p.partition)
	if err != nil {
		return err
	}
	if err := t.tails.give(broker.Addr(), p); err != nil {
		return err
	}
	select {
	case err := <-p.back:
		return err
	case <-p.ctx.Done():
		return nil
	}
}

// give hands a partition to the reader of its leader.
func (x *tails) give(addr string, p *tail) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ctx.Err() != nil {
		return errClosed
	}
	r := x.readers[addr]
	if r == nil {
		r = &reader{tails: x, addr: addr, wake: make(chan struct{}, 1)}
		x.readers[addr] = r
		x.wg.Go(r.run)
	}
	r.incoming = append(r.incoming, p)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

var errClosed = errors.New("the topic is closed")

// reader reads the partitions of one broker.
type reader struct {
	// Static after construction.
	tails *tails
	addr  string
	wake  chan struct{} // capacity 1: incoming has something

	incoming []*tail // guarded by tails.mu

	// Owned by run.
	broker *sarama.Broker // nil while there is no connection
	held   []*tail
	asked  time.Time // when the last fetch was sent
	few    bool      // its answer had records, but few
}

func (r *reader) run() {
	ctx := r.tails.ctx
	defer r.hangUp()
	for ctx.Err() == nil {
		r.tails.mu.Lock()
		r.held = append(r.held, r.incoming...)
		r.incoming = nil
		r.tails.mu.Unlock()
		r.held = slices.DeleteFunc(r.held, func(p *tail) bool { return p.ctx.Err() != nil })
		if len(r.held) == 0 {
			select {
			case <-r.wake:
			case <-ctx.Done():
			}
			continue
		}
		r.keepPace()
		if err := r.fetch(); err != nil {
			r.hangUp()
			for _, p := range r.held {
				p.back <- err
			}
			r.held = nil
		}
	}
}

// keepPace waits until the next fetch is due.
func (r *reader) keepPace() {
	if rest := pace - time.Since(r.asked); r.few && rest > 0 {
		wait(r.tails.ctx, rest)
	}
	r.asked, r.few = time.Now(), false
}

func (r *reader) hangUp() {
	if r.broker != nil {
		_ = r.broker.Close() // nothing is under way
		r.broker = nil
	}
}

// fetch asks once for all partitions whose readers keep up.
func (r *reader) fetch() error {
	t := r.tails.topic
	if r.broker == nil {
		b := sarama.NewBroker(r.addr)
		if err := b.Open(t.live.Config()); err != nil {
			return fmt.Errorf("connect to %s: %w", r.addr, err)
		}
		r.broker = b
	}
	req := &sarama.FetchRequest{
		Version: fetchVersion, MaxWaitTime: int32(fetchWait / time.Millisecond), MinBytes: 1, MaxBytes: fetchAll,
		Isolation: sarama.ReadCommitted, SessionEpoch: -1, // no fetch session
	}
	var asked []*tail
	for _, p := range r.held {
		if len(p.out) < cap(p.out) { // nobody else sends there, so there will be room
			req.AddBlock(t.cfg.Topic, p.partition, p.next, fetchEach, -1)
			asked = append(asked, p)
		}
	}
	if len(asked) == 0 {
		wait(r.tails.ctx, pace)
		return nil
	}
	resp, err := r.broker.Fetch(req)
	switch {
	case err != nil:
		return fmt.Errorf("fetch from %s: %w", r.addr, err)
	case resp.ErrorCode != 0:
		return fmt.Errorf("fetch from %s: %w", r.addr, sarama.KError(resp.ErrorCode))
	}
	size := 0
	for _, p := range asked {
		block := resp.GetBlock(t.cfg.Topic, p.partition)
		if block == nil { // a throttled broker answers without partitions
			continue
		}
		if err := block.Err; err != sarama.ErrNoError {
			p.back <- err
			r.held = slices.DeleteFunc(r.held, func(o *tail) bool { return o == p })
			continue
		}
		size += t.deliver(p, block)
	}
	r.few = size > 0 && size < paced
	return nil
}

// deliver hands on what one fetch brought of a partition, as one batch: whoever it is for is written to once.
func (t *Topic) deliver(p *tail, block *sarama.FetchResponseBlock) (size int) {
	var batch []*feed.Record
	next := p.next
	for _, set := range block.RecordsSet {
		rb := set.RecordBatch
		if rb == nil || rb.PartialTrailingRecord {
			break
		}
		next = max(next, rb.LastOffset()+1)
		if rb.Control {
			continue
		}
		if batch == nil {
			batch = make([]*feed.Record, 0, len(rb.Records))
		}
		for _, m := range rb.Records {
			if rb.FirstOffset+m.OffsetDelta < p.next {
				continue
			}
			r := record(p.partition, rb, m)
			size += r.Size()
			batch = append(batch, r)
		}
	}
	p.next = next
	if len(batch) > 0 {
		t.Records.Add(int64(len(batch)))
		t.Bytes.Add(int64(size))
		p.out <- batch
	}
	return size
}

func record(partition int32, rb *sarama.RecordBatch, m *sarama.Record) *feed.Record {
	at := rb.FirstTimestamp.Add(m.TimestampDelta)
	if rb.LogAppendTime {
		at = rb.MaxTimestamp
	}
	return &feed.Record{Partition: partition, Offset: rb.FirstOffset + m.OffsetDelta, Timestamp: at.UnixMilli(), Key: m.Key, Value: m.Value, Headers: headers(m.Headers)}
}
