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

// piece is how much of a partition is fetched at once.
const piece = 8 << 20

// ReadTopic reads a whole topic, committed records only, up to the last stable offset that each partition has now.
// It uses another Kafka client than the product does, and believes nothing but the log: it ends where each partition's
// batches end, however long that takes.
func ReadTopic(ctx context.Context, brokers []string, topic string) (*checker.Truth, error) {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...), kgo.MaxDecompressBatchBytes(1<<30))
	if err != nil {
		return nil, fmt.Errorf("read topic: %w", err)
	}
	defer cl.Close()
	parts, err := bounds(ctx, cl, topic)
	if err != nil {
		return nil, fmt.Errorf("read topic %s: %w", topic, err)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("read topic %s: it has no partitions", topic)
	}
	for id, part := range parts {
		if err := readPartition(ctx, cl, topic, id, part); err != nil {
			return nil, fmt.Errorf("read topic %s: partition %d: %w", topic, id, err)
		}
	}
	return checker.NewTruth(parts), nil
}

// Ends asks for the last stable offset of every partition.
func Ends(ctx context.Context, brokers []string, topic string) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, fmt.Errorf("find the ends of topic %s: %w", topic, err)
	}
	defer cl.Close()
	parts, err := bounds(ctx, cl, topic)
	if err != nil {
		return nil, fmt.Errorf("find the ends of topic %s: %w", topic, err)
	}
	ends := make(map[int32]int64)
	for p, b := range parts {
		ends[p] = b.End
	}
	return ends, nil
}

// readPartition fills in the records between a partition's start and end.
func readPartition(ctx context.Context, cl *kgo.Client, topic string, id int32, part *checker.Partition) error {
	decompress := kgo.DefaultDecompressor()
	for next, failures := part.Start, 0; next < part.End; {
		got, err := fetchPiece(ctx, cl, topic, id, next)
		if err == nil {
			err = kerr.ErrorForCode(got.ErrorCode)
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("read up to %d of %d: %w", next, part.End, context.Cause(ctx))
		case err != nil && failures < 100 && (kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err)):
			failures++ // a leader that moves or restarts
			pause(ctx, 50*time.Millisecond)
			continue
		case err != nil:
			return fmt.Errorf("read up to %d of %d: %w", next, part.End, err)
		}
		fetched, after := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: next, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: id,
		}, got, decompress, nil)
		if fetched.Err != nil {
			return fmt.Errorf("at %d: %w", next, fetched.Err)
		}
		for _, r := range fetched.Records {
			if r.Offset < part.End {
				part.Records = append(part.Records, checker.TopicRecord{
					Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: string(r.Key), Sum: sumRecord(r),
				})
			}
		}
		next = after
	}
	return nil
}

// fetchPiece asks the leader of a partition for what it holds from an offset on.
func fetchPiece(ctx context.Context, cl *kgo.Client, topic string, id int32, from int64) (*kmsg.FetchResponseTopicPartition, error) {
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = kmsg.StringPtr(topic)
	meta.Topics = append(meta.Topics, mt)
	where, err := meta.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	leader, topicID := int32(-1), [16]byte{}
	for _, t := range where.Topics {
		topicID = t.TopicID
		for _, p := range t.Partitions {
			if p.Partition == id {
				leader = p.Leader
			}
		}
	}
	if leader < 0 {
		return nil, kerr.LeaderNotAvailable
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = 500, 1, piece, 1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, topicID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = id, from, piece, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	answer, ok := resp.(*kmsg.FetchResponse)
	if !ok {
		return nil, fmt.Errorf("fetch: answered with %T", resp)
	}
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	for _, t := range answer.Topics {
		for i := range t.Partitions {
			if t.Partitions[i].Partition == id {
				return &t.Partitions[i], nil
			}
		}
	}
	return nil, errors.New("fetch: the answer lacks the partition")
}

func sumRecord(r *kgo.Record) uint32 {
	headers := make([]checker.Header, 0, len(r.Headers))
	for _, h := range r.Headers {
		headers = append(headers, checker.Header{Key: h.Key, Value: h.Value})
	}
	return checker.Sum(r.Value, headers)
}

// bounds asks for the first offset and the last stable offset of every partition, again where a leader is missing for
// a moment.
func bounds(ctx context.Context, cl *kgo.Client, topic string) (map[int32]*checker.Partition, error) {
	for failures := 0; ; failures++ {
		parts, err := askBounds(ctx, cl, topic)
		if err == nil || failures == 100 || ctx.Err() != nil || !kerr.IsRetriable(err) {
			return parts, err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func askBounds(ctx context.Context, cl *kgo.Client, topic string) (map[int32]*checker.Partition, error) {
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
