package kafka

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

type counter struct {
	records, bytes atomic.Int64
	want           int64
	done           chan struct{}
}

func (c *counter) Batch(b *source.Batch) {
	c.bytes.Add(int64(b.Bytes))
	n := int64(len(b.Records))
	if after := c.records.Add(n); after >= c.want && after-n < c.want {
		close(c.done)
	}
}
func (c *counter) OutOfRange(source.Bounds) {}
func (c *counter) Failed(error)             {}

// BenchmarkReader reads 128-byte records of eight partitions; the cluster in the same process takes its share.
func BenchmarkReader(b *testing.B) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(8, "orders"),
		kfake.SyntheticFetch(kfake.SyntheticBatch{Records: 128, RecordBytes: 128}))
	if err != nil {
		b.Fatal(err)
	}
	defer cluster.Close()
	c, err := Open(context.Background(), Config{Brokers: cluster.ListenAddrs(), Topic: "orders"})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	sink := &counter{want: int64(b.N), done: make(chan struct{})}
	b.ReportAllocs()
	b.ResetTimer()
	for p := range int32(8) {
		c.Read(p, 0, sink)
	}
	<-sink.done
	b.StopTimer()
	b.SetBytes(sink.bytes.Load() / sink.records.Load())
}
