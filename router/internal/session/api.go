// Package session is the router's core: the state machine of one client. It owns the client's cursor, the
// streams that serve it, the handover between them and the credit they may use. It has no goroutine, clock,
// lock or I/O: a shell feeds it events one at a time and carries out what it asks of its Output.
package session

import (
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// LinkID names one link of this router: one connection to one node instance, never reused. 0 is none.
type LinkID uint64

// Config is shared by all sessions of a router.
type Config struct {
	// Window bounds what a session may hold and have under way, in bytes of link.Record.Cost.
	Window int64
	// Heartbeat is how long a client may hear nothing.
	Heartbeat time.Duration
}

// Open is a new client's wish.
type Open struct {
	Key       []byte
	Partition int32
	Start     link.Start
	TopicID   [16]byte // of the table in force
	Resumed   bool     // Start comes from a cursor of this topic
	// Gap is why Start is not where the client's cursor says, GapNone if it is or there was none. GapTopic: the
	// cursor is of another topic id; GapMoved: it does not know the partition. Start is the partition's oldest
	// record then, and hello is followed by this gap.
	Gap link.GapReason
	// Path is where the key lived and lives, nil if it never moved; then Partition and Start say where to begin, and
	// the Plan if it did.
	Path []Stage
	Plan Plan
	// Since is when the client was last sent something, zero if the first heartbeat counts from the first Route.
	Since time.Time
}

// Hello is what the client is told first.
type Hello struct {
	Partition int32
	Next      int64
	Resumed   bool
}

// Gap tells the client that records are out of reach; it goes on at Next.
type Gap struct {
	Partition int32
	From      int64
	Next      int64
	Reason    link.GapReason
}

// Output is what a Core asks of its shell. No call may call back into the Core.
type Output interface {
	// Attach opens a stream on a link that is up and returns its number. The shell fills in f.Stream.
	Attach(l LinkID, f link.Attach) uint64
	Detach(l LinkID, stream uint64)
	Credit(l LinkID, stream uint64, bytes int64)
	// Covered is the newest checkpoint of the link that covers the stream, ok=false when none does yet. It
	// must still answer for a link that is just being reported as down.
	Covered(l LinkID, stream uint64) (next int64, ok bool)

	// Messages to the client, in order.
	Hello(Hello)
	Record(f *link.Record)
	Checkpoint(partition int32, next int64)
	Gap(Gap)
	Waiting()
	GoAway(partition int32, next int64, retryAfter time.Duration)

	// Handover says that a move began (pending=true) or ended, or that a stream has to be attached again in a
	// moment; the shell calls Core.Poll of pending sessions.
	Handover(pending bool)

	// Follow says that the session has to do with a partition beside its key's last one from now on, and returns its
	// route; Leave that it has not any more.
	Follow(partition int32) LinkID
	Leave(partition int32)
}
