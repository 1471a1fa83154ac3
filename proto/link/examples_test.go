package link_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// appendFrame appends any frame, by the type of f.
func appendFrame(dst []byte, f any) []byte {
	switch f := f.(type) {
	case *link.Hello:
		return link.AppendHello(dst, f)
	case *link.Attach:
		return link.AppendAttach(dst, f)
	case *link.Credit:
		return link.AppendCredit(dst, f)
	case *link.Detach:
		return link.AppendDetach(dst, f)
	case *link.Welcome:
		return link.AppendWelcome(dst, f)
	case *link.Attached:
		return link.AppendAttached(dst, f)
	case *link.Record:
		return link.AppendRecord(dst, f)
	case *link.Checkpoint:
		return link.AppendCheckpoint(dst, f)
	case *link.Gap:
		return link.AppendGap(dst, f)
	case *link.Closed:
		return link.AppendClosed(dst, f)
	case *link.Draining:
		return link.AppendDraining(dst)
	}
	panic(fmt.Sprintf("no frame: %T", f))
}

// toNode reports which end receives the frame.
func toNode(f any) bool {
	switch f.(type) {
	case *link.Hello, *link.Attach, *link.Credit, *link.Detach:
		return true
	}
	return false
}

// received keeps a copy of every frame, as pointers like appendFrame takes them.
type received struct {
	frames []any
	fail   error // returned by every call
}

func (r *received) add(f any) error {
	r.frames = append(r.frames, f)
	return r.fail
}

func (r *received) Hello(f *link.Hello) error { c := *f; return r.add(&c) }
func (r *received) Attach(f *link.Attach) error {
	c := *f
	c.Key = bytes.Clone(f.Key)
	return r.add(&c)
}
func (r *received) Credit(f link.Credit) error     { return r.add(&f) }
func (r *received) Detach(f link.Detach) error     { return r.add(&f) }
func (r *received) Welcome(f *link.Welcome) error  { c := *f; return r.add(&c) }
func (r *received) Attached(f link.Attached) error { return r.add(&f) }
func (r *received) Record(f *link.Record) error {
	c := *f
	c.Streams, c.Key, c.Value = list(f.Streams), bytes.Clone(f.Key), bytes.Clone(f.Value)
	c.Headers = nil
	for _, h := range f.Headers {
		c.Headers = append(c.Headers, link.Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
	}
	return r.add(&c)
}
func (r *received) Checkpoint(f *link.Checkpoint) error {
	c := *f
	c.Except, c.Only = list(f.Except), list(f.Only)
	return r.add(&c)
}
func (r *received) Gap(f link.Gap) error       { return r.add(&f) }
func (r *received) Closed(f link.Closed) error { return r.add(&f) }
func (r *received) Draining() error            { return r.add(&link.Draining{}) }

// list is a copy with nil for an empty one, so that frames compare.
func list(s []uint64) []uint64 {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

// decode decodes with the decoder of the frame's direction.
func decode(msg []byte, node bool) ([]any, error) {
	var got received
	var err error
	if node {
		err = link.DecodeToNode(msg, &got)
	} else {
		err = link.DecodeToRouter(msg, &got)
	}
	return got.frames, err
}

// random makes frames that are legal: what the decoders accept.
type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, 1))} }

func (r random) eachFrame() []any {
	return []any{
		&link.Hello{Router: r.text(), Version: r.Uint32(), Token: string(r.bytes()), Build: r.text()},
		&link.Attach{Stream: r.stream(), Partition: r.partition(), Key: r.bytes(),
			Start: link.Start{Kind: link.StartKind(r.IntN(6)), Value: r.anyInt()}, TopicID: r.topicID(), Epoch: int32(r.anyInt()), Credit: r.anyInt()},
		&link.Credit{Stream: r.stream(), Bytes: r.anyInt()},
		&link.Detach{Stream: r.stream()},
		&link.Welcome{Node: r.text(), Instance: r.text(), Topic: r.text(), TopicID: r.topicID(), Partitions: r.partition(), Version: r.Uint32(), Build: r.text()},
		&link.Attached{Stream: r.stream(), Next: r.offset(), Head: r.anyInt(), Gap: link.GapReason(r.IntN(7)), Live: r.IntN(2) == 0},
		r.record(),
		&link.Checkpoint{Partition: r.partition(), Next: r.offset(), Except: r.streams(), Only: r.streams()},
		&link.Gap{Stream: r.stream(), From: r.offset(), To: r.offset(), Reason: link.GapReason(r.IntN(7))},
		&link.Closed{Stream: r.stream(), Reason: link.ClosedReason(r.IntN(4)), Detail: r.text()},
		&link.Draining{},
	}
}

func (r random) record() *link.Record {
	f := &link.Record{Streams: r.streams(), Partition: r.partition(), Offset: r.offset(), Timestamp: r.anyInt(), Key: r.bytes()}
	for range r.IntN(4) {
		h := link.Header{Key: r.bytes()}
		if r.IntN(3) > 0 {
			h.Value = r.bytes()
		}
		f.Headers = append(f.Headers, h)
	}
	if f.Tombstone = r.IntN(4) == 0; !f.Tombstone {
		f.Value = r.bytes()
	}
	return f
}

// anyInt is small, of any size, or at an end of the range.
func (r random) anyInt() int64 {
	switch r.IntN(5) {
	case 0:
		return 0
	case 1:
		return int64(r.IntN(300))
	case 2:
		return []int64{math.MinInt64, -1, math.MaxInt32, math.MaxInt64}[r.IntN(4)]
	}
	return int64(r.Uint64()) >> r.IntN(64)
}

func (r random) offset() int64     { return r.anyInt() & math.MaxInt64 }
func (r random) partition() int32  { return int32(r.anyInt() & math.MaxInt32) }
func (r random) stream() uint64    { return max(1, uint64(r.anyInt())) }
func (r random) streams() []uint64 { return r.list(r.IntN(6)) }

func (r random) list(n int) []uint64 {
	var s []uint64
	for range n {
		s = append(s, r.stream())
	}
	return s
}

func (r random) bytes() []byte {
	b := make([]byte, r.IntN(20)*r.IntN(20))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r random) text() string {
	words := []string{"", "a", "node-1", "bücher", "\u2028", "pointsman", "\x00"}
	return words[r.IntN(len(words))] + words[r.IntN(len(words))]
}

func (r random) topicID() (id [16]byte) {
	if r.IntN(3) > 0 {
		for i := range id {
			id[i] = byte(r.Uint32())
		}
	}
	return id
}

// check fails the test when got is not want, frame by frame.
func check(t *testing.T, got, want []any) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			t.Fatalf("got %d frames, want %d", len(got), len(want))
		}
		if g, w := fmt.Sprintf("%#v", got[i]), fmt.Sprintf("%#v", want[i]); g != w {
			t.Fatalf("frame %d\n got %s\nwant %s", i, g, w)
		}
	}
}
