// Package link is the protocol between routers and nodes, version 1: the frames, their encoding and the
// rules that both ends rely on. The schema is link.proto; README and wsnode/DESIGN.md tell how it is used.
//
// A link is one WebSocket connection, opened by a router to a node's Path with Subprotocol. Each binary
// message is a sequence of frames (an encoded Batch of link.proto). All frames of one partition on one link
// are in one FIFO order.
package link

// What the two ends agree on before the first frame.
const (
	// Subprotocol is offered by the router and confirmed by the node.
	Subprotocol = "pointsman.link.v1"
	// Path is the node's HTTP path for links.
	Path = "/v1/link"
	// Version is what Hello carries.
	Version = 1
	// MaxMessage bounds one WebSocket message, in bytes. It holds Kafka's largest record that a broker may be
	// configured for in practice (100 MB) plus its envelope; a larger record cannot be carried.
	MaxMessage = 104 << 20
)

// Hello opens a link; router to node, first and once.
type Hello struct {
	Router  string // the router's id, for logs and consoles
	Version uint32
	Token   string // the shared link token, empty when the node needs none
	Build   string // the router's program version
}

// Welcome answers Hello; node to router, first and once.
type Welcome struct {
	Node       string
	Instance   string // random per process; the router checks it against etcd
	Topic      string
	TopicID    [16]byte
	Partitions int32
	Version    uint32
	Build      string
}

// StartKind says how an Attach names its first offset.
type StartKind uint8

// The values are those of link.proto.
const (
	StartInvalid  StartKind = iota
	StartCursor             // Value is an offset that Pointsman issued: never clamped to a lower log end, the node waits
	StartOffset             // Value is an offset that a person chose: beyond the end means the end
	StartTime               // Value is milliseconds since the Unix epoch: the first record at or after it, else the end
	StartLatest             // the end (last stable offset)
	StartEarliest           // the oldest record there is
)

// Start is where a stream begins.
type Start struct {
	Kind  StartKind
	Value int64
}

// Attach subscribes a stream; router to node. Stream numbers are chosen by the router, start at 1 and are
// never reused on a link.
type Attach struct {
	Stream    uint64
	Partition int32
	Key       []byte
	Start     Start
	TopicID   [16]byte // zero means "do not check"; otherwise another topic's node answers Closed(ClosedTopic)
	Epoch     int32    // leader epoch of the cursor; 0 means unknown (reserved)
	Credit    int64    // bytes (see Record.Cost) that the node may send before a Credit arrives
}

// Credit gives a stream more bytes; router to node.
type Credit struct {
	Stream uint64
	Bytes  int64
}

// Detach ends a stream; router to node. Frames already under way may still arrive.
type Detach struct {
	Stream uint64
}

// GapReason says why records cannot be delivered.
type GapReason uint8

// The values are those of link.proto; String gives the word that clients see.
const (
	GapNone        GapReason = iota
	GapRetention             // "retention": the log no longer reaches back so far
	GapReplayLimit           // "replay_limit": the operator's limit
	GapTopic                 // "topic": the topic was recreated
	GapTruncated             // "truncated": the log became shorter (unclean leader election)
	GapTooLarge              // "too_large": a record that no link can carry (see Record.Fits)
	GapMoved                 // "moved": the key lives in another partition since the topic grew
)

// Attached answers Attach; node to router. Next is where the stream begins, Head the next offset the node
// will read. Gap is not GapNone when records between the wanted start and Next are out of reach.
type Attached struct {
	Stream uint64
	Next   int64
	Head   int64
	Gap    GapReason
	Live   bool // the stream is caught up with Head: nothing is behind
}

// Header is a record's header; a nil Value is Kafka's null.
type Header struct {
	Key   []byte
	Value []byte
}

// Record carries one record to every stream of the link that wants it; node to router.
// Decoded slices alias the message and hold only during the call that receives them.
type Record struct {
	Streams   []uint64
	Partition int32
	Offset    int64
	Timestamp int64 // milliseconds since the Unix epoch
	Headers   []Header
	Key       []byte
	Value     []byte // nil only when Tombstone
	Tombstone bool
}

// RecordOverhead is what every record costs in credit beside its bytes.
const RecordOverhead = 64

// Cost is what the record takes from a stream's credit, in bytes; both ends use this one function.
func (r *Record) Cost() int64 {
	n := RecordOverhead + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}

// Checkpoint says that every record below Next was sent to the streams it covers: with Only empty, all
// streams of the partition whose Attached preceded it on this link, less those in Except; else exactly those
// in Only (progress of streams that are behind).
type Checkpoint struct {
	Partition int32
	Next      int64
	Except    []uint64
	Only      []uint64
}

// Gap says that the records of a stream in [From, To) are out of reach; the stream goes on at To.
type Gap struct {
	Stream uint64
	From   int64
	To     int64
	Reason GapReason
}

// ClosedReason says why a node ended a stream.
type ClosedReason uint8

// The values are those of link.proto.
const (
	ClosedUnknown   ClosedReason = iota
	ClosedTopic                  // the node reads another topic id than the Attach named
	ClosedPartition              // the partition does not exist (yet) for this node
	ClosedError                  // the node cannot serve it now; Detail says why; attach again later
)

// Closed ends a stream; node to router.
type Closed struct {
	Stream uint64
	Reason ClosedReason
	Detail string
}

// Draining says that the node wants to stop; node to router. Its streams are served until they have left.
type Draining struct{}
