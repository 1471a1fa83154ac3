package link_test

import (
	"encoding/hex"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/internal/golden"
	"github.com/pointsmanhq/pointsman/proto/link"
)

func examples() (names []string, frames []any) {
	id := [16]byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
	add := func(name string, f any) { names, frames = append(names, name), append(frames, f) }
	add("hello", &link.Hello{Router: "router-1", Version: 1, Token: "secret", Build: "v1.0.0"})
	add("hello-empty", &link.Hello{})
	add("attach-cursor", &link.Attach{Stream: 1, Partition: 3, Key: []byte("alice"), Start: link.Start{Kind: link.StartCursor, Value: 4711}, TopicID: id, Epoch: 2, Credit: 262144})
	add("attach-offset", &link.Attach{Stream: 2, Key: []byte("alice"), Start: link.Start{Kind: link.StartOffset, Value: 300}, Credit: 1})
	add("attach-time", &link.Attach{Stream: 3, Key: []byte{0xff}, Start: link.Start{Kind: link.StartTime, Value: 1767323045006}})
	add("attach-latest", &link.Attach{Stream: 4, Key: []byte{}, Start: link.Start{Kind: link.StartLatest}})
	add("attach-earliest", &link.Attach{Stream: 300, Key: []byte{}, Start: link.Start{Kind: link.StartEarliest}})
	add("credit", &link.Credit{Stream: 1, Bytes: 65536})
	add("detach", &link.Detach{Stream: 1})
	add("welcome", &link.Welcome{Node: "node-1", Instance: "5f3a", Topic: "orders", TopicID: id, Partitions: 64, Version: 1, Build: "v1.0.0"})
	add("attached", &link.Attached{Stream: 1, Next: 4711, Head: 4800})
	add("attached-live", &link.Attached{Stream: 1, Next: 4800, Head: 4800, Live: true})
	add("attached-gap", &link.Attached{Stream: 1, Next: 100, Head: 4800, Gap: link.GapRetention})
	add("record", &link.Record{Streams: []uint64{1, 2, 300}, Partition: 3, Offset: 4711, Timestamp: 1767323045006,
		Headers: []link.Header{{Key: []byte("trace"), Value: []byte("4bf9")}, {Key: []byte("empty"), Value: []byte{}}, {Key: []byte("null")}},
		Key:     []byte("alice"), Value: []byte(`{"any":"json"}`)})
	add("record-empty-value", &link.Record{Streams: []uint64{1}, Offset: 1, Timestamp: -1, Key: []byte("k"), Value: []byte{}})
	add("record-tombstone", &link.Record{Streams: []uint64{1}, Offset: 2, Timestamp: 1, Key: []byte("k"), Tombstone: true})
	add("checkpoint", &link.Checkpoint{Partition: 3, Next: 4712, Except: []uint64{5, 6}})
	add("checkpoint-only", &link.Checkpoint{Partition: 3, Next: 4712, Only: []uint64{300}})
	add("gap-retention", &link.Gap{Stream: 1, From: 10, To: 20, Reason: link.GapRetention})
	add("gap-replay-limit", &link.Gap{Stream: 1, From: 10, To: 20, Reason: link.GapReplayLimit})
	add("gap-topic", &link.Gap{Stream: 1, To: 20, Reason: link.GapTopic})
	add("gap-truncated", &link.Gap{Stream: 1, From: 20, To: 10, Reason: link.GapTruncated})
	add("gap-too-large", &link.Gap{Stream: 1, From: 10, To: 11, Reason: link.GapTooLarge})
	add("gap-moved", &link.Gap{Stream: 1, To: 20, Reason: link.GapMoved})
	add("closed-topic", &link.Closed{Stream: 1, Reason: link.ClosedTopic})
	add("closed-partition", &link.Closed{Stream: 1, Reason: link.ClosedPartition})
	add("closed-error", &link.Closed{Stream: 1, Reason: link.ClosedError, Detail: "no leader"})
	add("draining", &link.Draining{})
	return names, frames
}

func TestFramesAreFrozen(t *testing.T) {
	names, frames := examples()
	var got []golden.Line
	for i, f := range frames {
		got = append(got, golden.Line{Name: names[i], Text: hex.EncodeToString(appendFrame(nil, f))})
	}
	golden.Check(t, "testdata/link.golden", got)
}

func TestFrozenFramesAreRead(t *testing.T) {
	names, frames := examples()
	for i, line := range golden.Read(t, "testdata/link.golden") {
		msg, err := hex.DecodeString(line.Text)
		if err != nil {
			t.Fatal(err)
		}
		if line.Name != names[i] {
			t.Fatalf("line %d is %s, want %s", i, line.Name, names[i])
		}
		got, err := decode(msg, toNode(frames[i]))
		if err != nil {
			t.Fatalf("%s: %v", line.Name, err)
		}
		check(t, got, frames[i:i+1])
	}
}
