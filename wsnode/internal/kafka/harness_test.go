package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zaptest"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// cluster is a Kafka cluster with a topic for one test.
type cluster struct {
	t       *testing.T
	brokers []string
	topic   string
	group   string
	admin   *kgo.Client
}

// fake is an in-process cluster.
type fake struct {
	*cluster
	*kfake.Cluster
}

func newFake(t *testing.T, partitions int32, opts ...kfake.Opt) *fake {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.SeedTopics(partitions, "orders")}, opts...)...)
	if err != nil {
		t.Fatalf("start kfake: %v", err)
	}
	t.Cleanup(c.Close)
	f := &fake{cluster: &cluster{t: t, brokers: c.ListenAddrs(), topic: "orders", group: "nodes"}, Cluster: c}
	f.admin = f.kgo()
	return f
}

// onEach runs a test on an in-process cluster and, when POINTSMAN_TEST_KAFKA names a broker (host:port), on that
// real one with a topic of its own.
func onEach(t *testing.T, partitions int32, body func(t *testing.T, f *cluster)) {
	t.Run("kfake", func(t *testing.T) {
		big := kfake.BrokerConfigs(map[string]string{"message.max.bytes": "9000000"})
		body(t, newFake(t, partitions, kfake.NumBrokers(2), big).cluster)
	})
	t.Run("kafka", func(t *testing.T) {
		broker := os.Getenv("POINTSMAN_TEST_KAFKA")
		if broker == "" {
			t.Skip("POINTSMAN_TEST_KAFKA names no broker")
		}
		name := fmt.Sprintf("pointsman-test-%08x", rand.Uint32())
		f := &cluster{t: t, brokers: []string{broker}, topic: name, group: name}
		f.admin = f.kgo()
		f.createTopic(partitions)
		t.Cleanup(f.deleteTopic)
		body(t, f)
	})
}

func (f *cluster) kgo(opts ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(f.brokers...),
		kgo.DefaultProduceTopic(f.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		f.t.Fatalf("start producer: %v", err)
	}
	f.t.Cleanup(cl.Close)
	return cl
}

// produce writes one batch of records with the given values and returns the first one's offset.
func (f *cluster) produce(cl *kgo.Client, partition int32, values ...string) int64 {
	f.t.Helper()
	rs := make([]*kgo.Record, len(values))
	for i, v := range values {
		rs[i] = &kgo.Record{Partition: partition, Key: []byte("k"), Value: []byte(v)}
	}
	if err := cl.ProduceSync(context.Background(), rs...).FirstErr(); err != nil {
		f.t.Fatalf("produce: %v", err)
	}
	return rs[0].Offset
}

func (f *cluster) begin(cl *kgo.Client) {
	f.t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		f.t.Fatalf("begin transaction: %v", err)
	}
}

func (f *cluster) end(cl *kgo.Client, how kgo.TransactionEndTry) {
	f.t.Helper()
	if err := cl.EndTransaction(context.Background(), how); err != nil {
		f.t.Fatalf("end transaction: %v", err)
	}
}

// change sends an admin request and waits until every broker error is gone, as while a deletion is under way.
func (f *cluster) change(req kmsg.Request, code func(kmsg.Response) int16) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wait backoff
	for {
		resp, err := f.admin.Request(ctx, req)
		if err == nil {
			if err = kerr.ErrorForCode(code(resp)); err == nil {
				return
			}
		}
		if !wait.sleep(ctx) {
			f.t.Fatalf("%T: %v", req, err)
		}
	}
}

func (f *cluster) deleteTopic() {
	f.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = kmsg.StringPtr(f.topic)
	req.Topics = append(req.Topics, rt)
	req.TopicNames = []string{f.topic}
	f.change(req, func(r kmsg.Response) int16 { return r.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode })
}

func (f *cluster) createTopic(partitions int32, config ...[2]string) {
	f.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = f.topic, partitions, 1
	for _, kv := range append(config, [2]string{"max.message.bytes", "9000000"}) {
		tc := kmsg.NewCreateTopicsRequestTopicConfig()
		tc.Name, tc.Value = kv[0], kmsg.StringPtr(kv[1])
		rt.Configs = append(rt.Configs, tc)
	}
	req.Topics = append(req.Topics, rt)
	f.change(req, func(r kmsg.Response) int16 { return r.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode })
}

func (f *cluster) addPartitions(total int32) {
	f.t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = f.topic, total
	req.Topics = append(req.Topics, rt)
	f.change(req, func(r kmsg.Response) int16 { return r.(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode })
}

func (f *cluster) deleteRecordsBelow(partition int32, offset int64) {
	f.t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Offset = f.topic, partition, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	f.change(req, func(r kmsg.Response) int16 {
		return r.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode
	})
}

func (f *cluster) open(change ...func(*Config)) *Client {
	f.t.Helper()
	cfg := Config{Brokers: f.brokers, Topic: f.topic, FetchPace: time.Millisecond, Logger: zaptest.NewLogger(f.t)}
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
