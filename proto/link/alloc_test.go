package link_test

import (
	"fmt"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// counting receives frames without keeping anything.
type counting struct {
	records, checkpoints int
	bytes                int64
}

func (c *counting) Welcome(*link.Welcome) error { return nil }
func (c *counting) Attached(link.Attached) error {
	return nil
}
func (c *counting) Record(r *link.Record) error {
	c.records++
	c.bytes += r.Cost()
	return nil
}
func (c *counting) Checkpoint(*link.Checkpoint) error { c.checkpoints++; return nil }
func (c *counting) Gap(link.Gap) error                { return nil }
func (c *counting) Closed(link.Closed) error          { return nil }
func (c *counting) Draining() error                   { return nil }

func typical() *link.Record {
	return &link.Record{Streams: []uint64{17, 18, 40000}, Partition: 41, Offset: 123456789, Timestamp: 1767323045006,
		Headers: []link.Header{{Key: []byte("trace"), Value: []byte("4bf92f3577b34da6")}, {Key: []byte("null")}},
		Key:     []byte("alice"), Value: make([]byte, 128)}
}

func TestAppendRecordDoesNotAllocate(t *testing.T) {
	r, dst := typical(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() { dst = link.AppendRecord(dst[:0], r) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
	c, dst2 := &link.Checkpoint{Partition: 41, Next: 123456789, Except: []uint64{1, 2, 3}}, make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() { dst2 = link.AppendCheckpoint(dst2[:0], c) }); n != 0 {
		t.Fatalf("%v allocations for a checkpoint", n)
	}
}

func TestDecodingRecordsDoesNotAllocateInSteadyState(t *testing.T) {
	var msg []byte
	for range 16 {
		msg = link.AppendRecord(msg, typical())
		msg = link.AppendCheckpoint(msg, &link.Checkpoint{Partition: 41, Next: 123456790, Except: []uint64{5}, Only: []uint64{6}})
		msg = link.AppendAttached(msg, &link.Attached{Stream: 1, Next: 2})
	}
	d, c := link.NewRouterDecoder(), &counting{}
	if n := testing.AllocsPerRun(200, func() {
		if err := d.Decode(msg, c); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations a message", n)
	}
	if c.records != c.checkpoints || c.records == 0 {
		t.Fatalf("%+v", c)
	}
}

// One record with an unusual list must not hold its memory for the life of the link.
func TestDecoderForgetsUnusuallyLongLists(t *testing.T) {
	long := &link.Record{Streams: make([]uint64, 1<<19), Headers: make([]link.Header, 1<<12), Tombstone: true}
	msg, small := link.AppendRecord(nil, long), link.AppendRecord(nil, typical())
	d := link.NewRouterDecoder()
	var caps []string
	look := &looking{func(r *link.Record) {
		caps = append(caps, fmt.Sprint(cap(r.Streams) >= 1<<19, cap(r.Headers) >= 1<<12))
	}}
	for _, m := range [][]byte{msg, small} {
		if err := d.Decode(m, look); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(caps) != "[true true false false]" {
		t.Fatalf("capacities after the long and the small record: %v", caps)
	}
}

type looking struct{ record func(*link.Record) }

func (l *looking) Welcome(*link.Welcome) error       { return nil }
func (l *looking) Attached(link.Attached) error      { return nil }
func (l *looking) Record(r *link.Record) error       { l.record(r); return nil }
func (l *looking) Checkpoint(*link.Checkpoint) error { return nil }
func (l *looking) Gap(link.Gap) error                { return nil }
func (l *looking) Closed(link.Closed) error          { return nil }
func (l *looking) Draining() error                   { return nil }

func BenchmarkAppendRecord(b *testing.B) {
	r, dst := typical(), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst = link.AppendRecord(dst[:0], r)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	msg := link.AppendRecord(nil, typical())
	d, c := link.NewRouterDecoder(), &counting{}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(msg, c); err != nil {
			b.Fatal(err)
		}
	}
}
