// Package partition is the node's core: the state machine of one partition. It owns the partition's recent
// records and the streams attached to it, and decides what every link is sent. It has no goroutine, clock,
// lock or I/O: a shell feeds it events one at a time, with the time they happen at, and carries out what it
// asks of its Output.
package partition

import (
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// LinkID names one link (one connection) of this node; never reused within a process.
type LinkID uint64

// Config is what a Loop is built with.
type Config struct {
	Partition int32
	// Ring bounds the recent records kept in memory, in bytes.
	Ring int64
	// ReplayLimit is how many offsets behind the head a stream may start or fall, 0 for no limit.
	ReplayLimit int64
	// CheckpointEvery is how often a checkpoint is due when the head moved.
	CheckpointEvery time.Duration
	// TruncatedAfter is how long a cursor may lie beyond the end of the log before the log counts as truncated.
	TruncatedAfter time.Duration
	// ScanBytes is how much one scan read asks for.
	ScanBytes int32
	// Linger is how long a partition without claim and streams goes on being read.
	Linger time.Duration
}

// Output is what a Loop asks of its shell. No call may call back into the Loop.
type Output interface {
	// The frames of a link, in order. Slices are only valid during the call.
	Attached(l LinkID, f link.Attached)
	Record(l LinkID, f *link.Record)
	Checkpoint(l LinkID, f *link.Checkpoint)
	Gap(l LinkID, f link.Gap)
	Closed(l LinkID, f link.Closed)
	// Room reports whether the link takes more records now. Once it said no, the shell calls
	// Loop.LinkWritable when there is room again. Other frames are small and always taken.
	Room(l LinkID) bool

	// FindBounds asks for the partition's bounds; answered by Loop.Bounds or Loop.BoundsFailed.
	FindBounds()
	// FindTime asks for the first offset at or after t (milliseconds since the epoch); answered by
	// Loop.TimeFound with the same request number.
	FindTime(request uint64, t int64)
	// Read starts the live reader at from; batches come to Loop.Batch until Stop. A Read while reading
	// moves the reader.
	Read(from int64)
	// Stop ends the live reader.
	Stop()
	// Scan asks for one batch that begins at from; answered by Loop.Scanned or Loop.ScanFailed. At most one
	// is under way.
	Scan(from int64, maxBytes int32)

	// Readable says that a claimed partition is being read: its claim may be published.
	Readable()
	// Head says that the head moved; for commits and metrics.
	Head(next int64)
}
