package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zaptest"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

const testTopic = "orders"

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// fake is an in-process cluster with the test topic on it.
type fake struct {
	t *testing.T
	*kfake.Cluster
	admin *kgo.Client
}

func newFake(t *testing.T, partitions int32, opts ...kfake.Opt) *fake {
	t.Helper()
	opts = append([]kfake.Opt{kfake.SeedTopics(partitions, testTopic)}, opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatalf("start kfake: %v", err)
	}
	t.Cleanup(c.Close)
	f := &fake{t: t, Cluster: c}
	f.admin = f.kgo()
	return f
}

func (f *fake) kgo(opts ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(f.ListenAddrs()...),
		kgo.DefaultProduceTopic(testTopic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		f.t.Fatalf("start producer: %v", err)
	}
	f.t.Cleanup(cl.Close)
	return cl
}

// produce writes one batch of records with the given values.
func (f *fake) produce(cl *kgo.Client, partition int32, values ...string) {
	f.t.Helper()
	rs := make([]*kgo.Record, len(values))
	for i, v := range values {
		rs[i] = &kgo.Record{Partition: partition, Key: []byte("k"), Value: []byte(v)}
	}
	if err := cl.ProduceSync(context.Background(), rs...).FirstErr(); err != nil {
		f.t.Fatalf("produce: %v", err)
	}
}

func (f *fake) begin(cl *kgo.Client) {
	f.t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		f.t.Fatalf("begin transaction: %v", err)
	}
}

func (f *fake) end(cl *kgo.Client, how kgo.TransactionEndTry) {
	f.t.Helper()
	if err := cl.EndTransaction(context.Background(), how); err != nil {
		f.t.Fatalf("end transaction: %v", err)
	}
}

func (f *fake) deleteTopic() {
	f.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = kmsg.StringPtr(testTopic)
	req.Topics = append(req.Topics, rt)
	req.TopicNames = []string{testTopic}
	if _, err := req.RequestWith(context.Background(), f.admin); err != nil {
		f.t.Fatalf("delete topic: %v", err)
	}
}

func (f *fake) createTopic(partitions int32) {
	f.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = testTopic, partitions, 1
	req.Topics = append(req.Topics, rt)
	if _, err := req.RequestWith(context.Background(), f.admin); err != nil {
		f.t.Fatalf("create topic: %v", err)
	}
}

func (f *fake) addPartitions(total int32) {
	f.t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = testTopic, total
	req.Topics = append(req.Topics, rt)
	if _, err := req.RequestWith(context.Background(), f.admin); err != nil {
		f.t.Fatalf("add partitions: %v", err)
	}
}

func (f *fake) deleteRecordsBelow(partition int32, offset int64) {
	f.t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Offset = testTopic, partition, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	if _, err := f.admin.Request(context.Background(), req); err != nil {
		f.t.Fatalf("delete records: %v", err)
	}
}

func (f *fake) open(change ...func(*Config)) *Client {
	f.t.Helper()
	cfg := Config{Brokers: f.ListenAddrs(), Topic: testTopic, Logger: zaptest.NewLogger(f.t)}
	for _, ch := range change {
		ch(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := Open(ctx, cfg)
	if err != nil {
		f.t.Fatalf("open: %v", err)
	}
	f.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.t.Errorf("close: %v", err)
		}
	})
	return c
}

// tape is a Sink that keeps what it hears and checks that batches join.
type tape struct {
	t    *testing.T
	from int64

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	next     int64
	values   []string
	offsets  []int64
	records  []source.Record
	bounds   source.Bounds
	batches  int
	failures []error
	outside  []source.Bounds
}

func newTape(t *testing.T, from int64) *tape {
	return &tape{t: t, from: from, next: from, changed: make(chan struct{})}
}

func (s *tape) Batch(b *source.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.touchLocked()
	if b.From != s.next || b.Next < b.From {
		s.t.Errorf("batch covers [%d,%d), the one before ended at %d", b.From, b.Next, s.next)
	}
	for _, r := range b.Records {
		if r.Offset < b.From || r.Offset >= b.Next {
			s.t.Errorf("record %d is outside its batch [%d,%d)", r.Offset, b.From, b.Next)
		}
		s.values = append(s.values, string(r.Value))
		s.offsets = append(s.offsets, r.Offset)
		s.records = append(s.records, r)
	}
	s.next, s.bounds = b.Next, b.Bounds
	s.batches++
}

func (s *tape) OutOfRange(b source.Bounds) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outside = append(s.outside, b)
	s.touchLocked()
}

func (s *tape) Failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, err)
	s.touchLocked()
}

func (s *tape) touchLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait waits until ok says so; it is asked with the tape's lock held.
func (s *tape) wait(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("waited for %s: next %d, bounds %+v, %d values, failures %v, outside %v",
				what, s.next, s.bounds, len(s.values), s.failures, s.outside)
		}
	}
}

func (s *tape) waitNext(next int64) {
	s.t.Helper()
	s.wait(fmt.Sprintf("next %d", next), func() bool { return s.next >= next })
}

func (s *tape) waitFailure(want error) {
	s.t.Helper()
	s.wait(fmt.Sprintf("failure %v", want), func() bool {
		for _, err := range s.failures {
			if errors.Is(err, want) {
				return true
			}
		}
		return false
	})
}

func (s *tape) wantValues(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if fmt.Sprint(s.values) != fmt.Sprint(want) {
		s.t.Errorf("values %v, want %v", s.values, want)
	}
}
