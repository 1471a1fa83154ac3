package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// settleEvery is how often an admin request is repeated that Kafka cannot carry out yet.
const settleEvery = 10 * time.Millisecond

// RecreateTopic deletes a topic and creates it again, with nothing between the two but what Kafka needs.
func RecreateTopic(ctx context.Context, brokers []string, topic string, partitions int32) error {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("recreate topic: %w", err)
	}
	defer cl.Close()
	if err := deleteTopic(ctx, cl, topic); err != nil {
		return err
	}
	for {
		add := kmsg.NewPtrCreateTopicsRequest()
		at := kmsg.NewCreateTopicsRequestTopic()
		at.Topic, at.NumPartitions, at.ReplicationFactor = topic, partitions, 1
		add.Topics = append(add.Topics, at)
		add.TimeoutMillis = 10_000
		created, err := add.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(created.Topics[0].ErrorCode)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, kerr.TopicAlreadyExists) && !kerr.IsRetriable(err): // its deletion is under way
			return fmt.Errorf("create topic %s again: %w", topic, err)
		case !pause(ctx, settleEvery):
			return fmt.Errorf("create topic %s again: %w", topic, errors.Join(context.Cause(ctx), err))
		}
	}
}

// DeleteTopic deletes a topic.
func DeleteTopic(ctx context.Context, brokers []string, topic string) error {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("delete topic: %w", err)
	}
	defer cl.Close()
	return deleteTopic(ctx, cl, topic)
}

func deleteTopic(ctx context.Context, cl *kgo.Client, topic string) error {
	del := kmsg.NewPtrDeleteTopicsRequest()
	dt := kmsg.NewDeleteTopicsRequestTopic()
	dt.Topic = kmsg.StringPtr(topic)
	del.Topics, del.TopicNames = append(del.Topics, dt), []string{topic}
	del.TimeoutMillis = 10_000
	deleted, err := del.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(deleted.Topics[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	return nil
}

// AddPartitions makes a topic have so many partitions.
func AddPartitions(ctx context.Context, brokers []string, topic string, partitions int32) error {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("add partitions: %w", err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = topic, partitions
	req.Topics = append(req.Topics, rt)
	req.TimeoutMillis = 10_000
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("add partitions to topic %s: %w", topic, err)
	}
	return nil
}

// Bounds is the first offset and the last stable one of every partition, without records.
func Bounds(ctx context.Context, brokers []string, topic string) (map[int32]*checker.Partition, error) {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, fmt.Errorf("find bounds: %w", err)
	}
	defer cl.Close()
	parts, err := bounds(ctx, cl, topic)
	if err != nil {
		return nil, fmt.Errorf("find bounds of topic %s: %w", topic, err)
	}
	return parts, nil
}

// Flood writes n small records of the keys in turn into one partition, in batches as large as Kafka takes, as fast as
// it goes. The keys are not hashed.
func Flood(ctx context.Context, brokers []string, topic string, partition int32, keys []string, n int) error {
	p, err := NewProducer(brokers, topic,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(20*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.MaxBufferedRecords(200_000),
		kgo.ProducerBatchMaxBytes(900_000),
	)
	if err != nil {
		return err
	}
	defer p.Close()
	raw := make([][]byte, len(keys))
	for i, k := range keys {
		raw[i] = []byte(k)
	}
	value := []byte(`{"n":1}`)
	for i := range n {
		p.send(ctx, &kgo.Record{Partition: partition, Key: raw[i%len(raw)], Value: value})
	}
	return p.flush(ctx)
}
