package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

func TestRecordsArriveWithAllTheirParts(t *testing.T) { onEach(t, 1, recordsArriveWithAllTheirParts) }

func recordsArriveWithAllTheirParts(t *testing.T, f *cluster) {
	c := f.open()
	s := newTape(t, 0)
	c.Read(0, 0, s)

	records := []*kgo.Record{
		{Key: []byte("alice"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}}},
		{Key: nil, Value: []byte("no key")},
		{Key: []byte{}, Value: []byte("empty key")},
		{Key: []byte("alice"), Value: nil},
		{Key: []byte("alice"), Value: []byte{}},
	}
	if err := f.admin.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.waitNext(5)
	got := s.records
	for i, want := range records {
		r := got[i]
		if r.Offset != int64(i) || string(r.Key) != string(want.Key) || string(r.Value) != string(want.Value) {
			t.Errorf("record %d is %+v, want %+v", i, r, want)
		}
		if r.Timestamp != want.Timestamp.UnixMilli() {
			t.Errorf("record %d has timestamp %d, want %d", i, r.Timestamp, want.Timestamp.UnixMilli())
		}
		if r.HasKey != (want.Key != nil) || (r.Value == nil) != (want.Value == nil) {
			t.Errorf("record %d: null and empty are mixed up: %+v", i, r)
		}
	}
	if h := got[0].Headers; len(h) != 2 || string(h[0].Key) != "a" || string(h[0].Value) != "1" || h[1].Value != nil {
		t.Errorf("headers are %+v", h)
	}
	if got[1].Headers != nil {
		t.Errorf("headers of a record without any are %+v", got[1].Headers)
	}
}

func TestHeadStopsAtAnOpenTransactionAndMovesPastMarkers(t *testing.T) {
	onEach(t, 1, headStopsAtAnOpenTransactionAndMovesPastMarkers)
}

func headStopsAtAnOpenTransactionAndMovesPastMarkers(t *testing.T, f *cluster) {
	c := f.open()
	s := newTape(t, 0)
	c.Read(0, 0, s)
	txn := f.kgo(kgo.TransactionalID(f.topic + "-t"))

	f.begin(txn)
	f.produce(txn, 0, "aborted 0", "aborted 1")
	f.produce(f.admin, 0, "plain 2") // readable only when the transaction before it has ended
	s.wait("the high watermark to show the open transaction", func() bool {
		return s.bounds == source.Bounds{Start: 0, Stable: 0, High: 3}
	})
	if s.next != 0 || len(s.values) != 0 {
		t.Fatalf("head %d, values %v while the transaction is open", s.next, s.values)
	}
	f.end(txn, kgo.TryAbort) // marker at 3
	s.waitNext(4)
	s.wantValues("plain 2")

	f.begin(txn)
	f.produce(txn, 0, "committed 4")
	f.end(txn, kgo.TryCommit) // marker at 5
	s.waitNext(6)
	s.wantValues("plain 2", "committed 4")
	if b, err := c.Bounds(context.Background(), 0); err != nil || b != (source.Bounds{Start: 0, Stable: 6, High: 6}) {
		t.Errorf("bounds %+v, %v", b, err)
	}

	// The same from the middle, and by scan.
	b, err := c.Scan(context.Background(), 0, 3, 1<<20)
	if err != nil || b.From != 3 || b.Next != 6 || len(b.Records) != 1 || b.Records[0].Offset != 4 {
		t.Errorf("scan from the marker: %+v, %v", b, err)
	}
	b, err = c.Scan(context.Background(), 0, 6, 1<<20)
	if err != nil || b.Next != 6 || len(b.Records) != 0 {
		t.Errorf("scan at the end: %+v, %v", b, err)
	}
	b, err = c.Scan(context.Background(), 0, 0, 1<<20)
	if err != nil || b.Next != 6 || len(b.Records) != 2 {
		t.Errorf("scan of all: %+v, %v", b, err)
	}
}

func TestInterleavedTransactionsAreSortedOut(t *testing.T) {
	onEach(t, 1, interleavedTransactionsAreSortedOut)
}

func interleavedTransactionsAreSortedOut(t *testing.T, f *cluster) {
	a, b := f.kgo(kgo.TransactionalID(f.topic+"-a")), f.kgo(kgo.TransactionalID(f.topic+"-b"))
	var committed []int64
	f.begin(a)
	f.begin(b)
	f.produce(a, 0, "a aborted")
	committed = append(committed, f.produce(b, 0, "b"))
	f.produce(a, 0, "a aborted")
	f.end(a, kgo.TryAbort)
	f.begin(a)
	committed = append(committed, f.produce(a, 0, "a"))
	f.end(b, kgo.TryCommit)
	committed = append(committed, f.produce(a, 0, "a"))
	f.end(a, kgo.TryCommit)
	f.begin(b)
	f.produce(b, 0, "b aborted")
	f.end(b, kgo.TryAbort)
	committed = append(committed, f.produce(f.admin, 0, "plain"))

	const end = 11 // seven records and four markers
	c := f.open()
	for from := int64(0); from <= end; from++ {
		var want []int64
		for _, o := range committed {
			if o >= from {
				want = append(want, o)
			}
		}
		s := newTape(t, from)
		c.Read(0, from, s)
		s.wait("the end", func() bool { return s.next == end && s.bounds.High == end })
		if fmt.Sprint(s.offsets) != fmt.Sprint(want) {
			t.Errorf("from %d: offsets %v, want %v", from, s.offsets, want)
		}
	}
}

func TestManyPartitionsOverManyBrokers(t *testing.T) {
	const partitions, each = 24, 50
	f := newFake(t, partitions, kfake.NumBrokers(3))
	c := f.open(func(cfg *Config) { cfg.FetchTotal = 4 << 10 }) // most answers leave most partitions out
	var tapes [partitions]*tape
	for p := range tapes {
		tapes[p] = newTape(t, 0)
		c.Read(int32(p), 0, tapes[p])
	}
	for i := range each {
		for p := range tapes {
			f.produce(f.admin, int32(p), fmt.Sprintf("%d", i))
		}
	}
	for p, s := range tapes {
		s.waitNext(each)
		for i, v := range s.values {
			if v != fmt.Sprint(i) {
				t.Fatalf("partition %d: value %d is %s", p, i, v)
			}
		}
	}
}

func TestBatchLargerThanEveryLimitIsRead(t *testing.T) { onEach(t, 2, batchLargerThanEveryLimitIsRead) }

func batchLargerThanEveryLimitIsRead(t *testing.T, f *cluster) {
	big := f.kgo(kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := make([]byte, 3<<20)
	for _, v := range [][]byte{[]byte("before"), value, value, []byte("after")} {
		if err := big.ProduceSync(context.Background(), &kgo.Record{Partition: 1, Value: v}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	c := f.open(func(cfg *Config) { cfg.FetchMaxBytes, cfg.FetchTotal = 1<<10, 2<<10 })
	s, other := newTape(t, 0), newTape(t, 0)
	c.Read(0, 0, other)
	c.Read(1, 0, s)
	for i := range 100 {
		f.produce(f.admin, 0, fmt.Sprint(i))
	}
	s.waitNext(4)
	other.waitNext(100)
	if len(s.values) != 4 || len(s.values[1]) != len(value) || s.values[3] != "after" {
		t.Errorf("got %d values", len(s.values))
	}
	b, err := c.Scan(context.Background(), 1, 1, 1<<10)
	if err != nil || len(b.Records) == 0 || len(b.Records[0].Value) != len(value) {
		t.Errorf("scan: %v", err)
	}
}

func TestOutOfRangeTellsTheBoundsAndPauses(t *testing.T) {
	onEach(t, 1, outOfRangeTellsTheBoundsAndPauses)
}

func outOfRangeTellsTheBoundsAndPauses(t *testing.T, f *cluster) {
	c := f.open()
	for i := range 10 {
		f.produce(f.admin, 0, fmt.Sprint(i))
	}
	f.deleteRecordsBelow(0, 4)
	want := source.Bounds{Start: 4, Stable: 10, High: 10}
	for _, from := range []int64{0, 11} {
		s := newTape(t, from)
		c.Read(0, from, s)
		s.wait("out of range", func() bool { return len(s.outside) == 1 })
		if s.outside[0] != want {
			t.Errorf("from %d: bounds %+v, want %+v", from, s.outside[0], want)
		}
		var out *OutOfRangeError
		if _, err := c.Scan(context.Background(), 0, from, 1<<20); !errors.As(err, &out) || out.Bounds != want || out.Offset != from {
			t.Errorf("scan from %d: %v", from, err)
		}
	}
	// The reader of an offset in range, at its edges.
	for _, from := range []int64{4, 10} {
		s := newTape(t, from)
		c.Read(0, from, s)
		s.wait("bounds", func() bool { return s.next == 10 && s.bounds == want })
	}
	if b, err := c.Bounds(context.Background(), 0); err != nil || b != want {
		t.Errorf("bounds %+v, %v; want %+v", b, err, want)
	}
}

func TestReadReplacesAndStopReadEnds(t *testing.T) { onEach(t, 2, readReplacesAndStopReadEnds) }

func readReplacesAndStopReadEnds(t *testing.T, f *cluster) {
	c := f.open()
	for i := range 5 {
		f.produce(f.admin, 0, fmt.Sprint(i))
	}
	first := newTape(t, 0)
	c.Read(0, 0, first)
	first.waitNext(5)
	second := newTape(t, 2)
	c.Read(0, 2, second)
	second.waitNext(5)
	f.produce(f.admin, 0, "5")
	second.waitNext(6)
	c.StopRead(0)
	f.produce(f.admin, 0, "6")
	// Another partition of the same broker shows that a whole round has passed twice.
	witness := newTape(t, 0)
	c.Read(1, 0, witness)
	for i := range 2 {
		f.produce(f.admin, 1, "w")
		witness.waitNext(int64(i) + 1)
	}
	first.mu.Lock()
	defer first.mu.Unlock()
	second.mu.Lock()
	defer second.mu.Unlock()
	if first.next != 5 || second.next != 6 {
		t.Errorf("a replaced reader went on to %d, a stopped one to %d", first.next, second.next)
	}
}

func TestLeaderMovesAndTheReaderFollows(t *testing.T) {
	f := newFake(t, 1, kfake.NumBrokers(3))
	c := f.open()
	s := newTape(t, 0)
	c.Read(0, 0, s)
	for round := range 6 {
		f.produce(f.admin, 0, fmt.Sprint(round))
		s.waitNext(int64(round) + 1)
		to := (f.LeaderFor(f.topic, 0) + 1) % 3
		if err := f.MoveTopicPartition(f.topic, 0, to); err != nil {
			t.Fatal(err)
		}
		if b, err := c.Bounds(context.Background(), 0); err != nil || b.High != int64(round)+1 {
			t.Fatalf("bounds after move %d: %+v, %v", round, b, err)
		}
		if b, err := c.Scan(context.Background(), 0, 0, 1<<20); err != nil || b.Next != int64(round)+1 {
			t.Fatalf("scan after move %d: %+v, %v", round, b, err)
		}
	}
	s.wait("news of a leader change", func() bool { return len(s.failures) > 0 })
	f.produce(f.admin, 0, "6")
	s.waitNext(7)
	s.wantValues("0", "1", "2", "3", "4", "5", "6")
}

func TestBrokerGoesAwayAndComesBack(t *testing.T) {
	f := newFake(t, 4, kfake.NumBrokers(2))
	c := f.open()
	var tapes [4]*tape
	for p := range tapes {
		tapes[p] = newTape(t, 0)
		c.Read(int32(p), 0, tapes[p])
		f.produce(f.admin, int32(p), "before")
		tapes[p].waitNext(1)
	}
	if err := f.RemoveNode(0); err != nil {
		t.Fatal(err)
	}
	for p := range tapes {
		f.produce(f.admin, int32(p), "between")
		tapes[p].waitNext(2)
	}
	if _, _, err := f.AddNode(0, 0); err != nil {
		t.Fatal(err)
	}
	for p := range tapes {
		if err := f.MoveTopicPartition(f.topic, int32(p), 0); err != nil {
			t.Fatal(err)
		}
		f.produce(f.admin, int32(p), "after")
		tapes[p].waitNext(3)
		tapes[p].wantValues("before", "between", "after")
	}
}

func TestCompressedBatchesAreRead(t *testing.T) { onEach(t, 1, compressedBatchesAreRead) }

func compressedBatchesAreRead(t *testing.T, f *cluster) {
	c := f.open()
	s := newTape(t, 0)
	c.Read(0, 0, s)
	next := int64(0)
	for _, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		cl := f.kgo(kgo.ProducerBatchCompression(codec))
		// Many alike records: fewer bytes on the wire than there are records.
		values := make([]string, 3000)
		f.produce(cl, 0, values...)
		next += int64(len(values))
		s.waitNext(next)
		b, err := c.Scan(context.Background(), 0, next-1, 1<<10)
		if err != nil || b.Next != next {
			t.Fatalf("scan: %+v, %v", b, err)
		}
	}
}

func TestCompactedTopicIsReadOverItsHoles(t *testing.T) {
	f := newFake(t, 1, kfake.NumBrokers(1))
	f.topic = "compacted" // not the seeded topic created anew: a producer may still write to the one before
	f.createTopic(1, [2]string{"cleanup.policy", "compact"})
	f.admin = f.kgo()
	const total = 40
	first := &kgo.Record{Key: []byte("kept"), Value: []byte("first")}
	if err := f.admin.ProduceSync(context.Background(), first).FirstErr(); err != nil || first.Offset != 0 {
		t.Fatalf("first record at %d: %v", first.Offset, err)
	}
	for i := 1; i < total; i++ {
		f.produce(f.admin, 0, fmt.Sprint(i)) // one key: only the last is kept
	}
	f.Compact()
	c := f.open()
	for from := int64(0); from <= total; from++ {
		s := newTape(t, from)
		c.Read(0, from, s)
		s.waitNext(total)
		if from == 0 && len(s.values) > total/2 {
			t.Fatalf("nothing was compacted: %v", s.values)
		}
		if from < total && s.values[len(s.values)-1] != fmt.Sprint(total-1) {
			t.Errorf("from %d: values %v", from, s.values)
		}
		for at := from; at < total; {
			b, err := c.Scan(context.Background(), 0, at, 1)
			if err != nil || b.Next <= at {
				t.Fatalf("scan at %d: %+v, %v", at, b, err)
			}
			at = b.Next
		}
	}
}
