package placement

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

func checker(t *testing.T) (*Checker, partitioner.Partitioner, *observer.ObservedLogs) {
	t.Helper()
	by, err := partitioner.New(partitioner.Murmur2)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.WarnLevel)
	return New(by, zap.New(core)), by, logs
}

func record(key string, offset int64, at time.Time) source.Record {
	return source.Record{Key: []byte(key), HasKey: true, Offset: offset, Timestamp: at.UnixMilli()}
}

func TestMisplacedRecordsAreCountedAndLoggedOnceAMinute(t *testing.T) {
	c, by, logs := checker(t)
	c.SetLayout(50, nil)
	now := time.Unix(10000, 0)
	right := by.Partition([]byte("foobar"), 50)
	good := []source.Record{record("foobar", 1, now)}
	c.Check(right, good, now)
	bad := []source.Record{record("foobar", 2, now), {Offset: 3}, record("foobar", 4, now)}
	c.Check(right+1, bad, now)
	c.Check(right+1, bad, now.Add(30*time.Second))
	if got, want := c.Totals(), (Totals{Checked: 7, Mismatched: 4, Keyless: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if logs.Len() != 1 {
		t.Fatalf("got %d log lines within a minute, want 1", logs.Len())
	}
	c.Check(right+1, bad, now.Add(61*time.Second))
	if logs.Len() != 2 {
		t.Fatalf("got %d log lines after a minute, want 2", logs.Len())
	}
	if n := logs.All()[1].ContextMap()["records"]; n != uint64(4) {
		t.Errorf("second line counts %v records, want 4: those that the first did not tell", n)
	}
}

func TestRecordsFromBeforeAGrowthBelongWhereTheyLie(t *testing.T) {
	c, by, _ := checker(t)
	since := time.Unix(100000, 0)
	// A key that moves from an old partition to a new one.
	key, old := "", int32(0)
	for i := 0; key == ""; i++ {
		k := string(rune('a'+i%26)) + time.Duration(i).String()
		if o := by.Partition([]byte(k), 2); by.Partition([]byte(k), 3) == 2 {
			key, old = k, o
		}
	}
	ends := []int64{100, 100}
	c.SetLayout(3, []directory.Growth{{Partitions: 2, Ends: ends, Since: since}})
	for _, tc := range []struct {
		name      string
		partition int32
		offset    int64
		at        time.Time
		bad       uint64
	}{
		{"new partition", 2, 5, since.Add(time.Hour), 0},
		{"old partition before the growth", old, 99, since.Add(-time.Hour), 0},
		{"old partition, producer with old metadata", old, 100, since.Add(time.Minute), 0},
		{"old partition long after", old, 100, since.Add(time.Hour), 1},
		{"other old partition", 1 - old, 5, since.Add(-time.Hour), 1},
	} {
		before := c.Totals().Mismatched
		c.Check(tc.partition, []source.Record{record(key, tc.offset, tc.at)}, tc.at)
		if got := c.Totals().Mismatched - before; got != tc.bad {
			t.Errorf("%s: got %d mismatches, want %d", tc.name, got, tc.bad)
		}
	}
}

func TestFindingsNameThePartitionerThatTheProducerUses(t *testing.T) {
	c, by, _ := checker(t)
	crc, err := partitioner.New(partitioner.CRC32)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLayout(50, nil)
	key, at := "foobar", time.Unix(100000, 0)
	p := crc.Partition([]byte(key), 50)
	if by.Partition([]byte(key), 50) == p {
		t.Fatalf("%s lies in partition %d by both", key, p)
	}
	c.Check(p, []source.Record{record(key, 7, at), record(key, 8, at)}, at)
	c.Check(p, []source.Record{record(key, 9, at)}, at.Add(time.Second))
	c.Check(p+1, []source.Record{record("x", 3, at)}, at)
	got := c.Findings(10)
	if want := (Finding{Partition: p, Offset: 9, At: at.Add(time.Second), Count: 3, LooksLike: partitioner.CRC32}); len(got) != 2 || got[0] != want {
		t.Errorf("got %+v, want first %+v", got, want)
	}
	if got := c.Findings(1); len(got) != 1 {
		t.Errorf("got %d findings, want at most 1", len(got))
	}
}

func TestRecordsAreHashedWithTheCountInForceAtTheirOffset(t *testing.T) {
	c, by, _ := checker(t)
	since := time.Unix(100000, 0)
	// A key that moves from one old partition to the other.
	key := ""
	for i := 0; key == ""; i++ {
		if k := time.Duration(i).String(); by.Partition([]byte(k), 2) == 0 && by.Partition([]byte(k), 3) == 1 {
			key = k
		}
	}
	c.SetLayout(3, []directory.Growth{{
		Partitions: 2, Ends: []int64{100, 100}, From: []int64{90, 90}, Closed: []int64{120, 120}, Since: since,
	}})
	for _, tc := range []struct {
		name      string
		partition int32
		offset    int64
		bad       uint64
	}{
		{"there before anybody can have heard of the growth", 1, 89, 1},
		{"there since", 1, 90, 0},
		{"where it was before the growth", 0, 99, 0},
		{"where it was, by a producer that has not heard", 0, 119, 0},
		{"where it was, when all have heard", 0, 120, 1},
	} {
		before := c.Totals().Mismatched
		c.Check(tc.partition, []source.Record{record(key, tc.offset, since)}, since)
		if got := c.Totals().Mismatched - before; got != tc.bad {
			t.Errorf("%s: got %d mismatches, want %d", tc.name, got, tc.bad)
		}
	}
}
