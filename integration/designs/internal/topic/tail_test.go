package topic_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

const partitions = 4

type world struct {
	fake     *kfake.Cluster
	producer *kgo.Client
	topic    *topic.Topic
	fetches  atomic.Int64
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{}
	var err error
	if w.fake, err = kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(partitions, "records")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.fake.Close)
	w.fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.fake.KeepControl()
		w.fetches.Add(1)
		return nil, nil, false
	})
	if w.producer, err = kgo.NewClient(kgo.SeedBrokers(w.fake.ListenAddrs()...), kgo.DefaultProduceTopic("records"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.producer.Close)
	if w.topic, err = topic.Open(topic.Config{Brokers: w.fake.ListenAddrs(), Topic: "records", ClientID: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.topic.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// tail reads a partition for as long as the test runs.
func (w *world) tail(t *testing.T, partition int32) <-chan []*feed.Record {
	t.Helper()
	out, ended := make(chan []*feed.Record, 4), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- w.topic.Tail(ctx, partition, 0, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return out
}

func (w *world) produce(t *testing.T, partition int32, i int) {
	t.Helper()
	r := &kgo.Record{Partition: partition, Key: fmt.Append(nil, "key-", i), Value: fmt.Append(nil, i), Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, i)}}}
	if i%7 == 0 {
		r.Value = nil
	}
	if err := w.producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// expect takes records in order, as produce made them, until there are so many.
func expect(t *testing.T, from <-chan []*feed.Record, partition int32, have, want int) {
	t.Helper()
	for have < want {
		select {
		case batch := <-from:
			for _, r := range batch {
				if r.Partition != partition || r.Offset != int64(have) || string(r.Key) != fmt.Sprint("key-", have) || (r.Value == nil) != (have%7 == 0) || len(r.Headers) != 1 || string(r.Headers[0].Value) != fmt.Sprint(have) {
					t.Fatalf("record %d of partition %d is %+v", have, partition, r)
				}
				if age := time.Since(time.UnixMilli(r.Timestamp)); age < -time.Minute || age > time.Hour {
					t.Fatalf("record %d is from %s ago", have, age)
				}
				have++
			}
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// TestTailSharesFetchesWhenRecordsComeByTheFew counts fetches: one reader sends at most one in a millisecond.
func TestTailSharesFetchesWhenRecordsComeByTheFew(t *testing.T) {
	w := open(t)
	if err := w.fake.MoveTopicPartition("records", 0, 0); err != nil {
		t.Fatal(err)
	}
	out := w.tail(t, 0)
	w.produce(t, 0, 0)
	expect(t, out, 0, 0, 1)
	const records = 400
	began, before := time.Now(), w.fetches.Load()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for n := 1; n < records; {
			n += len(<-out)
		}
	}()
	for i := 1; i < records; i++ {
		w.produce(t, 0, i)
	}
	<-read
	took, fetches := time.Since(began), w.fetches.Load()-before
	t.Logf("%d records in %s by %d fetches", records, took, fetches)
	// Two at the edges: one that was waiting, and one that has not been answered.
	if most := took.Milliseconds() + 2; fetches > most {
		t.Errorf("%d fetches in %s, want at most %d", fetches, took, most)
	}
}

// TestTailFollowsItsPartitionsLeader moves partitions between brokers while they are read, one of them by somebody who
// does not keep up.
func TestTailFollowsItsPartitionsLeader(t *testing.T) {
	w := open(t)
	var outs []<-chan []*feed.Record
	for p := range int32(partitions) {
		outs = append(outs, w.tail(t, p))
	}
	const rounds, each = 3, 20
	for round := range rounds {
		for p := range int32(partitions) {
			if err := w.fake.MoveTopicPartition("records", p, (p+int32(round))%3); err != nil {
				t.Fatal(err)
			}
			for i := range each {
				w.produce(t, p, round*each+i)
			}
			if p != 3 { // the last one's reader sleeps, and holds up nobody
				expect(t, outs[p], p, round*each, (round+1)*each)
			}
		}
	}
	expect(t, outs[3], 3, 0, rounds*each)
}
