package checker

import (
	"hash/crc32"
	"slices"
	"time"
)

// Client is everything that one client saw, over all its connections.
type Client struct {
	Name     string
	Key      string
	Sessions []Session
	// Lagging says that the test made this client slow or sent it to read old records on purpose: its delays
	// say nothing about the product and are left out.
	Lagging bool
}

// Session is one connection of a client, in the order it happened.
type Session struct {
	Router   string
	Resumed  bool      // the client sent a cursor
	HelloAt  time.Time // zero when no hello came
	Complete bool      // hello.resumed
	Start    []Position
	Events   []Event
	Ended    *Close // nil while the connection is open

	Waiting int // how many "waiting" messages came
	GoAways int
}

// Position is a place in a partition: everything below Next is behind the client.
type Position struct {
	Partition int32
	Next      int64
}

// EventKind says what a client was told.
type EventKind uint8

// The kinds of events.
const (
	Record     EventKind = iota + 1
	Checkpoint           // the cursor moved forward without a record
	Gap                  // records up to Next will not come
)

// Event is one message of the server that moves the cursor.
type Event struct {
	Kind      EventKind
	Partition int32
	Offset    int64 // of a Record
	Next      int64 // where the message's cursor points; 0 when it could not be read
	Timestamp int64 // of a Record, milliseconds since the Unix epoch
	At        int64 // when it was received, nanoseconds since the Unix epoch
	Sum       uint32
	Backlog   bool // a Record older than the client's readiness to receive it: no measure of delay
	Reason    string
}

// Close says how a connection ended.
type Close struct {
	At     time.Time
	Code   int // 0 when the connection ended without a close frame
	Reason string
	// Expected says that the test asked for it: it closed the connection itself, or it stopped the router.
	Expected bool
}

// Header is a record's header as the checker compares it; null and empty values are the same in JSON.
type Header struct {
	Key   string
	Value []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the fingerprint by which what was received is compared with what is in the topic. A nil value is a
// tombstone, which differs from an empty value.
func Sum(value []byte, headers []Header) uint32 {
	state := []byte{1}
	if value == nil {
		state[0] = 2
	}
	sum := crc32.Update(0, castagnoli, state)
	sum = crc32.Update(sum, castagnoli, value)
	for _, h := range headers {
		sum = crc32.Update(sum, castagnoli, []byte{0})
		sum = crc32.Update(sum, castagnoli, []byte(h.Key))
		sum = crc32.Update(sum, castagnoli, []byte{0})
		sum = crc32.Update(sum, castagnoli, h.Value)
	}
	return sum
}

// Truth is the topic as an independent reader found it after the run: committed records only.
type Truth struct {
	Partitions map[int32]*Partition
	byKey      map[string][]ref
}

// Partition is one partition of a Truth.
type Partition struct {
	Start   int64 // the log's first offset: what is below cannot be judged
	End     int64 // the last stable offset
	Records []TopicRecord
}

// TopicRecord is one record of the topic.
type TopicRecord struct {
	Offset    int64
	Timestamp int64 // milliseconds since the Unix epoch
	Key       string
	Sum       uint32
}

type ref struct {
	partition int32
	index     int32
}

// NewTruth puts the records in order and indexes them by key.
func NewTruth(partitions map[int32]*Partition) *Truth {
	t := &Truth{Partitions: partitions, byKey: make(map[string][]ref)}
	ids := make([]int32, 0, len(partitions))
	for p, part := range partitions {
		ids = append(ids, p)
		slices.SortFunc(part.Records, func(a, b TopicRecord) int { return compare(a.Offset, b.Offset) })
	}
	slices.Sort(ids)
	for _, p := range ids {
		for i := range partitions[p].Records {
			key := partitions[p].Records[i].Key
			t.byKey[key] = append(t.byKey[key], ref{partition: p, index: int32(i)}) //nolint:gosec // a test's partition holds far less than 2^31 records
		}
	}
	return t
}

// Len is how many records the topic holds.
func (t *Truth) Len() int64 {
	var n int64
	for _, p := range t.Partitions {
		n += int64(len(p.Records))
	}
	return n
}

// Last is the last record of a key, ok=false when it has none.
func (t *Truth) Last(key string) (partition int32, offset int64, ok bool) {
	newest := int64(-1)
	for _, r := range t.byKey[key] {
		rec := &t.Partitions[r.partition].Records[r.index]
		if rec.Timestamp >= newest {
			newest, partition, offset, ok = rec.Timestamp, r.partition, rec.Offset, true
		}
	}
	return partition, offset, ok
}

// Lasts is the last record of a key in each partition that has one.
func (t *Truth) Lasts(key string) map[int32]*TopicRecord {
	out := make(map[int32]*TopicRecord)
	for _, r := range t.byKey[key] {
		out[r.partition] = &t.Partitions[r.partition].Records[r.index] // in order of their offsets
	}
	return out
}

// Of lists the records of a key by partition, each in offset order.
func (t *Truth) Of(key string) map[int32][]TopicRecord {
	out := make(map[int32][]TopicRecord)
	for _, r := range t.byKey[key] {
		out[r.partition] = append(out[r.partition], t.Partitions[r.partition].Records[r.index])
	}
	return out
}

// at finds the record at an offset.
func (p *Partition) at(offset int64) (*TopicRecord, bool) {
	i, ok := slices.BinarySearchFunc(p.Records, offset, func(r TopicRecord, o int64) int { return compare(r.Offset, o) })
	if !ok {
		return nil, false
	}
	return &p.Records[i], true
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
