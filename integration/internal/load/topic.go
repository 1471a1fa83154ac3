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

// silentAfter ends the reading of a topic whose last offsets are all invisible: an open transaction with aborted
// records in front of it is the only such end.
const silentAfter = 3 * time.Second

// ReadTopic reads a whole topic, committed records only, up to the last stable offset that each partition has now.
// It uses another Kafka client than the product does.
func ReadTopic(ctx context.Context, brokers []string, topic string) (*checker.Truth, error) {
	probe, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, fmt.Errorf("read topic: %w", err)
	}
	defer probe.Close()
	parts, err := bounds(ctx, probe, topic)
	if err != nil {
		return nil, fmt.Errorf("read topic %s: %w", topic, err)
	}
	from := make(map[int32]kgo.Offset)
	for p, b := range parts {
		if b.End > b.Start {
			from[p] = kgo.NewOffset().At(b.Start)
		}
	}
	if len(from) == 0 {
		return checker.NewTruth(parts), nil
	}
	cl, err := kgo.NewClient(
		kgo.AlwaysRetryEOF(),
		kgo.SeedBrokers(brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a log often ends with a marker
		kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return nil, fmt.Errorf("read topic: %w", err)
	}
	defer cl.Close()
	if err := drainTopic(ctx, cl, parts, len(from)); err != nil {
		return nil, fmt.Errorf("read topic %s: %w", topic, err)
	}
	return checker.NewTruth(parts), nil
}

func drainTopic(ctx context.Context, cl *kgo.Client, parts map[int32]*checker.Partition, unread int) error {
	ended := make(map[int32]bool)
	for unread > 0 {
		wait, cancel := context.WithTimeout(ctx, silentAfter)
		fetches := cl.PollFetches(wait)
		silent := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("%d partitions not read to their end: %w", unread, context.Cause(ctx))
		}
		if silent {
			return nil
		}
		for _, e := range fetches.Errors() {
			if !kerr.IsRetriable(e.Err) && !errors.Is(e.Err, context.DeadlineExceeded) {
				return fmt.Errorf("partition %d: %w", e.Partition, e.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			part := parts[r.Partition]
			if r.Offset < part.End && !r.Attrs.IsControl() {
				part.Records = append(part.Records, checker.TopicRecord{
					Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: string(r.Key), Sum: sumRecord(r),
				})
			}
			if r.Offset >= part.End-1 && !ended[r.Partition] {
				ended[r.Partition] = true
				unread--
			}
		})
	}
	return nil
}

func sumRecord(r *kgo.Record) uint32 {
	headers := make([]checker.Header, 0, len(r.Headers))
	for _, h := range r.Headers {
		headers = append(headers, checker.Header{Key: h.Key, Value: h.Value})
	}
	return checker.Sum(r.Value, headers)
}

// bounds asks for the first offset and the last stable offset of every partition.
func bounds(ctx context.Context, cl *kgo.Client, topic string) (map[int32]*checker.Partition, error) {
	meta := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	meta.Topics = append(meta.Topics, t)
	answer, err := meta.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	parts := make(map[int32]*checker.Partition)
	for _, t := range answer.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		for _, p := range t.Partitions {
			parts[p.Partition] = &checker.Partition{}
		}
	}
	for _, which := range []int64{-2, -1} { // the first offset, the last stable one
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		req.IsolationLevel = 1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for p := range parts {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p, which
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		for _, shard := range cl.RequestSharded(ctx, req) {
			if shard.Err != nil {
				return nil, fmt.Errorf("list offsets: %w", shard.Err)
			}
			resp, ok := shard.Resp.(*kmsg.ListOffsetsResponse)
			if !ok {
				return nil, fmt.Errorf("list offsets: answered with %T", shard.Resp)
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						return nil, fmt.Errorf("list offsets of partition %d: %w", p.Partition, err)
					}
					if which == -2 {
						parts[p.Partition].Start = p.Offset
					} else {
						parts[p.Partition].End = p.Offset
					}
				}
			}
		}
	}
	return parts, nil
}

// DeleteRecords removes what is below the given offsets from the log's start.
func DeleteRecords(ctx context.Context, brokers []string, topic string, before map[int32]int64) error {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("delete records: %w", err)
	}
	defer cl.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 10_000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	for p, o := range before {
		rp := kmsg.NewDeleteRecordsRequestTopicPartition()
		rp.Partition, rp.Offset = p, o
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return fmt.Errorf("delete records: %w", shard.Err)
		}
		resp, ok := shard.Resp.(*kmsg.DeleteRecordsResponse)
		if !ok {
			return fmt.Errorf("delete records: answered with %T", shard.Resp)
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("delete records of partition %d: %w", p.Partition, err)
				}
			}
		}
	}
	return nil
}
