// Package source is what a partition loop reads from, free of any Kafka library's types, so that loops run
// the same over a real broker, an in-process one and a simulated log.
package source

// Header is a record's header; a nil Value is Kafka's null.
type Header struct {
	Key   []byte
	Value []byte
}

// Record is one committed data record. Its slices are immutable and may be kept.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since the Unix epoch
	Key       []byte
	Value     []byte // nil is a tombstone
	HasKey    bool   // false for Kafka's null key (an empty key is a key)
	Headers   []Header
}

// Batch says what it covers: every committed record with an offset in [From, Next) is in Records, in offset
// order. Holes are legal (markers, aborted and compacted records).
type Batch struct {
	From    int64
	Next    int64
	Records []Record
	Bounds  Bounds
	Bytes   int // size of the records as fetched, for rate limits and metrics
}

// Bounds is what a broker says of a partition: records exist in [Start, High), committed reads end at Stable
// (the last stable offset), which is also what "latest" means.
type Bounds struct {
	Start  int64
	Stable int64
	High   int64
}
