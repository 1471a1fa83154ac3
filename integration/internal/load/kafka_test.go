package load

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

func fakeKafka(t *testing.T) []string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "records"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

func TestTopicIsReadBackAsProduced(t *testing.T) {
	ctx := testContext(t)
	brokers := fakeKafka(t)
	empty, err := ReadTopic(ctx, brokers, "records")
	if err != nil || empty.Len() != 0 {
		t.Fatalf("empty topic: %d records, %v", empty.Len(), err)
	}
	p, err := NewProducer(brokers, "records")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	keys := []string{"a", "b", "c", "d", "e", "f", "g"}
	if err := p.Burst(ctx, keys, 210, 128); err != nil {
		t.Fatal(err)
	}
	paced, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := p.Run(paced, keys, 1000, 64); err != nil {
		t.Fatal(err)
	}
	// However late a busy machine makes it: not nothing, and not faster than it was told.
	if sent, most := p.Sent()-210, time.Since(began).Milliseconds()+10; sent < 1 || sent > most {
		t.Errorf("sent %d records at 1,000/s in %v", sent, time.Since(began))
	}
	truth, err := ReadTopic(ctx, brokers, "records")
	if err != nil {
		t.Fatal(err)
	}
	if truth.Len() != p.Sent() {
		t.Errorf("read %d records, sent %d", truth.Len(), p.Sent())
	}
	for _, key := range keys {
		of := truth.Of(key)
		if len(of) != 1 {
			t.Errorf("key %s is in %d partitions", key, len(of))
		}
		for _, records := range of {
			if len(records) < 210/len(keys) {
				t.Errorf("key %s has %d records", key, len(records))
			}
		}
	}
	want := Sample("a", 0, 128)
	for _, records := range truth.Of("a") {
		if got := records[0].Sum; got != sumRecord(want) {
			t.Errorf("sum %d, want %d", got, sumRecord(want))
		}
	}
}

func TestAbortedAndOpenTransactionsAreNotInTheTruth(t *testing.T) {
	ctx := testContext(t)
	brokers := fakeKafka(t)
	put := func(t *testing.T, p *Producer, value string) {
		t.Helper()
		if err := p.Produce(ctx, &kgo.Record{Key: []byte("a"), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := Begin(ctx, brokers, "records", "one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	for i, commit := range []bool{true, false, true, false} {
		if i > 0 {
			if err := tx.Again(); err != nil {
				t.Fatal(err)
			}
		}
		put(t, tx.Producer, map[bool]string{true: "yes", false: "no"}[commit])
		if err := tx.End(ctx, commit); err != nil {
			t.Fatal(err)
		}
	}
	hanging, err := Begin(ctx, brokers, "records", "two", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	put(t, hanging.Producer, "open")
	plain, err := NewProducer(brokers, "records")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	put(t, plain, "behind the open transaction")

	truth, err := ReadTopic(ctx, brokers, "records")
	if err != nil {
		t.Fatal(err)
	}
	if n := truth.Len(); n != 2 {
		t.Errorf("read %d records, want the 2 committed ones in front of the open transaction", n)
	}
	if err := hanging.End(ctx, true); err != nil {
		t.Fatal(err)
	}
	if truth, err = ReadTopic(ctx, brokers, "records"); err != nil || truth.Len() != 4 {
		t.Errorf("after the end: %d records, want 4 (%v)", truth.Len(), err)
	}
}

func TestDeleteRecordsMovesTheStart(t *testing.T) {
	ctx := testContext(t)
	brokers := fakeKafka(t)
	p, err := NewProducer(brokers, "records")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Burst(ctx, []string{"a"}, 10, 32); err != nil {
		t.Fatal(err)
	}
	truth, err := ReadTopic(ctx, brokers, "records")
	if err != nil {
		t.Fatal(err)
	}
	partition, last, _ := truth.Last("a")
	if err := DeleteRecords(ctx, brokers, "records", map[int32]int64{partition: last}); err != nil {
		t.Fatal(err)
	}
	if truth, err = ReadTopic(ctx, brokers, "records"); err != nil {
		t.Fatal(err)
	}
	if part := truth.Partitions[partition]; part.Start != last || truth.Len() != 1 {
		t.Errorf("partition %+v", part)
	}
	if r := checker.Check(truth, []checker.Client{{Key: "a"}}, nil); r.Expected != 0 {
		t.Errorf("a client that never connected is owed %d records", r.Expected)
	}
}
