package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// errLegacyFormat refuses what Kafka before 0.11 wrote: it has neither transactions nor batch ends.
var errLegacyFormat = errors.New("record format before Kafka 0.11 (message format v0 or v1) is not supported: rewrite the topic with current producers")

// Fetch version 12 still names topics, which is all that sarama can do; every broker since 2.7 serves it.
const fetchVersion = 12

// soloTrust is how late an empty answer to a solo fetch may come and still be believed. A broker with tiered
// storage also answers empty when reading the remote segment took too long (at least 500 ms by default), and
// that proves nothing.
const soloTrust = 300 * time.Millisecond

// ask is one partition's part of a fetch.
type ask struct {
	partition int32
	from      int64
	maxBytes  int32
	epoch     int32 // the leader epoch we know; a broker with another one refuses
}

func newFetch(topic string, wait time.Duration, total int32, asks ...ask) *sarama.FetchRequest {
	r := &sarama.FetchRequest{
		Version:      fetchVersion,
		MaxWaitTime:  int32(wait / time.Millisecond),
		MinBytes:     1,
		MaxBytes:     total,
		Isolation:    sarama.ReadCommitted,
		SessionEpoch: -1, // no fetch session
	}
	for _, a := range asks {
		r.AddBlock(topic, a.partition, a.from, a.maxBytes, a.epoch)
	}
	return r
}

// answer is what a fetch proved of one partition.
type answer struct {
	batch source.Batch
	// silent: the answer held no batch at all. It then proves nothing, unless the fetch was a solo one.
	silent bool
	// cut: a batch was cut short at batch.Next. It proves nothing of itself.
	cut bool
	// need is the size of the batch that was cut, 0 if unknown.
	need int32
}

// readBlock turns one partition's part of a fetch response into a batch that begins at from. It moves Next only
// past batches that are in the response, whole: data, control, aborted and empty ones alike.
func readBlock(b *sarama.FetchResponseBlock, from int64) (answer, error) {
	a := answer{batch: source.Batch{From: from, Next: from, Bounds: source.Bounds{
		Start: b.LogStartOffset, Stable: b.LastStableOffset, High: b.HighWaterMarkOffset,
	}}}
	keep, err := committed(b)
	if err != nil {
		return a, err
	}
	for _, set := range b.RecordsSet {
		rb := set.RecordBatch
		if rb.PartialTrailingRecord {
			// Batches before it were whole, and between two batches there are no records.
			a.batch.Next = max(a.batch.Next, rb.FirstOffset)
			a.cut = true
			break
		}
		a.batch.Next = max(a.batch.Next, rb.LastOffset()+1)
	}
	a.need = partialSize(b)
	if len(b.RecordsSet) == 0 {
		// sarama drops batches without records, which compaction leaves behind; only the end of the last one
		// is kept, and only its absence says that there was no batch.
		if end, ok := lastBatchEnd(b); ok {
			a.batch.Next = max(a.batch.Next, end)
		} else {
			a.silent = !b.Partial
		}
		a.cut = b.Partial
	}
	copyRecords(&a.batch, keep)
	return a, nil
}

// committed picks the batches whose records were committed, the way Kafka's own consumer does: an aborted
// transaction's producer is shunned from the transaction's first offset until its abort marker.
func committed(b *sarama.FetchResponseBlock) ([]*sarama.RecordBatch, error) {
	aborted := slices.Clone(b.AbortedTransactions)
	slices.SortFunc(aborted, func(x, y *sarama.AbortedTransaction) int {
		switch {
		case x.FirstOffset < y.FirstOffset:
			return -1
		case x.FirstOffset > y.FirstOffset:
			return 1
		}
		return 0
	})
	var shunned map[int64]bool
	keep := make([]*sarama.RecordBatch, 0, len(b.RecordsSet))
	for _, set := range b.RecordsSet {
		rb := set.RecordBatch
		if rb == nil {
			return nil, errLegacyFormat
		}
		if rb.PartialTrailingRecord {
			break
		}
		for len(aborted) > 0 && aborted[0].FirstOffset <= rb.LastOffset() {
			if shunned == nil {
				shunned = make(map[int64]bool)
			}
			shunned[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		switch {
		case rb.Control:
			if isAbortMarker(rb) {
				delete(shunned, rb.ProducerID)
			}
		case rb.IsTransactional && shunned[rb.ProducerID]:
		default:
			keep = append(keep, rb)
		}
	}
	return keep, nil
}

// isAbortMarker reads a control record's key: version and type, both int16; type 0 is abort.
func isAbortMarker(rb *sarama.RecordBatch) bool {
	if len(rb.Records) == 0 {
		return false
	}
	key := rb.Records[0].Key
	return len(key) >= 4 && binary.BigEndian.Uint16(key[2:4]) == 0
}

// chunk is how large a piece of memory records share. Records are copied out of the response, because one that
// is kept would otherwise keep the whole response, other partitions' records included.
const chunk = 64 << 10

func copyRecords(dst *source.Batch, batches []*sarama.RecordBatch) {
	count, size := 0, 0
	for _, rb := range batches {
		for _, r := range rb.Records {
			if rb.FirstOffset+r.OffsetDelta >= dst.From {
				count++
				size += recordSize(r)
			}
		}
	}
	dst.Bytes = size
	if count == 0 {
		return
	}
	dst.Records = make([]source.Record, 0, count)
	var free []byte
	take := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		if len(b) > cap(free)-len(free) {
			free = make([]byte, 0, max(len(b), min(chunk, size)))
		}
		at := len(free)
		free = append(free, b...)
		size -= len(b)
		return free[at:len(free):len(free)]
	}
	for _, rb := range batches {
		for _, r := range rb.Records {
			offset := rb.FirstOffset + r.OffsetDelta
			if offset < dst.From {
				continue
			}
			rec := source.Record{
				Offset:    offset,
				Timestamp: timestamp(rb, r),
				Key:       take(r.Key),
				Value:     take(r.Value),
				HasKey:    r.Key != nil,
			}
			if len(r.Headers) > 0 {
				rec.Headers = make([]source.Header, len(r.Headers))
				for i, h := range r.Headers {
					rec.Headers[i] = source.Header{Key: take(h.Key), Value: take(h.Value)}
				}
			}
			dst.Records = append(dst.Records, rec)
		}
	}
}

func recordSize(r *sarama.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// timestamp is -1 for a record that has none.
func timestamp(rb *sarama.RecordBatch, r *sarama.Record) int64 {
	if rb.LogAppendTime {
		if rb.MaxTimestamp.IsZero() {
			return -1
		}
		return rb.MaxTimestamp.UnixMilli()
	}
	if rb.FirstTimestamp.IsZero() {
		return -1
	}
	return rb.FirstTimestamp.UnixMilli() + r.TimestampDelta.Milliseconds()
}

// lastBatchEnd and partialSize read two fields that sarama computes and does not export. Reading them by
// reflection is safe; a test fails when a new version of sarama renames them, and meanwhile an answer counts as
// one that held a batch, so that heads wait rather than jump.
func lastBatchEnd(b *sarama.FetchResponseBlock) (int64, bool) {
	f := reflect.ValueOf(b).Elem().FieldByName("recordsNextOffset")
	if !f.IsValid() {
		return 0, true
	}
	if f.IsNil() {
		return 0, false
	}
	return f.Elem().Int(), true
}

func partialSize(b *sarama.FetchResponseBlock) int32 {
	f := reflect.ValueOf(b).Elem().FieldByName("partialBatchSize")
	if !f.IsValid() {
		return 0
	}
	return int32(f.Int())
}

// isRetriable tells refusals that pass once the cluster has settled from those that repeating will not change.
func isRetriable(err sarama.KError) bool {
	switch err {
	case sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition,
		sarama.ErrRequestTimedOut, sarama.ErrBrokerNotAvailable, sarama.ErrReplicaNotAvailable,
		sarama.ErrNetworkException, sarama.ErrKafkaStorageError, sarama.ErrFencedLeaderEpoch,
		sarama.ErrUnknownLeaderEpoch, sarama.ErrOffsetNotAvailable, sarama.ErrUnknown:
		return true
	}
	return false
}

func partitionError(partition int32, err error) error {
	return fmt.Errorf("partition %d: %w", partition, err)
}
