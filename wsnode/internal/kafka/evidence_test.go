package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// wireBatch is a record batch of format v2 that covers [first, last]; its records have the offsets first, first+1, ...
func wireBatch(first, last int64, values ...string) []byte {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Key: []byte("k"), Value: []byte(v)}
		body := r.AppendTo(nil)[1:] // without the length, 0 in one byte
		records = binary.AppendVarint(records, int64(len(body)))
		records = append(records, body...)
	}
	b := kmsg.RecordBatch{
		FirstOffset: first, Length: int32(49 + len(records)), Magic: 2, LastOffsetDelta: int32(last - first),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(values)), Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func concat(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// scripted answers the fetches of a cluster from a script: what a partition holds at an offset, and up to where it
// is stable.
func scripted(t *testing.T, partitions int32, script func(partition int32, from int64, solo bool) (records []byte, stable int64)) *fake {
	f := newFake(t, partitions, kfake.NumBrokers(1))
	f.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		for _, rt := range req.Topics {
			st := kmsg.NewFetchResponseTopic()
			st.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				sp := kmsg.NewFetchResponseTopicPartition()
				sp.Partition = rp.Partition
				sp.RecordBatches, sp.LastStableOffset = script(rp.Partition, rp.FetchOffset, len(rt.Partitions) == 1)
				sp.HighWatermark = sp.LastStableOffset
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	return f
}

func TestBatchesWithoutRecordsMoveTheHead(t *testing.T) {
	f := scripted(t, 1, func(_ int32, from int64, _ bool) ([]byte, int64) {
		switch {
		case from < 10: // all that the first segment has left
			return concat(wireBatch(0, 4), wireBatch(5, 9)), 22
		case from < 20:
			return concat(wireBatch(10, 14), wireBatch(15, 19, "15")), 22
		case from == 20:
			return wireBatch(20, 21), 22
		}
		return nil, 22
	})
	c := f.open()
	s := newTape(t, 0)
	c.Read(0, 0, s)
	s.waitNext(22)
	s.wantValues("15")
	// A scan sees only the first segment: its silence is not the end of the log.
	for _, step := range []struct{ from, next int64 }{{0, 10}, {3, 10}, {10, 20}, {20, 22}, {22, 22}} {
		b, err := c.Scan(context.Background(), 0, step.from, 1<<20)
		if err != nil || b.From != step.from || b.Next != step.next {
			t.Errorf("scan from %d: %+v, %v; want next %d", step.from, b, err, step.next)
		}
	}
}

func TestSilenceAmongOthersProvesNothing(t *testing.T) {
	f := scripted(t, 2, func(p int32, from int64, solo bool) ([]byte, int64) {
		switch {
		case p == 1 || from >= 3:
			return nil, 3 * int64(1-p)
		case solo: // as when the batch is larger than what the others left over
			return wireBatch(0, 2, "0", "1", "2"), 3
		}
		return nil, 3
	})
	c := f.open()
	s, other := newTape(t, 0), newTape(t, 0)
	c.Read(1, 0, other)
	c.Read(0, 0, s)
	s.waitNext(3)
	s.wantValues("0", "1", "2")
}

func TestSilenceOfASoloFetchProvesAHole(t *testing.T) {
	f := scripted(t, 2, func(p int32, from int64, _ bool) ([]byte, int64) {
		if p == 0 && from >= 10 {
			return nil, 10
		}
		return nil, 10 * int64(1-p)
	})
	c := f.open()
	s, other := newTape(t, 4), newTape(t, 0)
	c.Read(1, 0, other)
	c.Read(0, 4, s)
	s.waitNext(10)
	s.wantValues()
}

func TestCutBatchIsReadAgain(t *testing.T) {
	second := wireBatch(5, 9, "5", "6", "7", "8", "9")
	f := scripted(t, 1, func(_ int32, from int64, _ bool) ([]byte, int64) {
		switch {
		case from < 2:
			return concat(wireBatch(0, 1, "0", "1"), wireBatch(2, 4), second[:len(second)-3]), 10
		case from < 5: // a cut batch after one without records
			return concat(wireBatch(2, 4), second[:40]), 10
		case from < 10:
			return second, 10
		}
		return nil, 10
	})
	c := f.open()
	s := newTape(t, 0)
	c.Read(0, 0, s)
	s.waitNext(10)
	s.wantValues("0", "1", "5", "6", "7", "8", "9")
}

func TestUnreadablePartitionHoldsUpNobody(t *testing.T) {
	rot := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	legacy := append(make([]byte, 8), 0, 0, 0, 14+8, 0, 0, 0, 0, 1, 0) // offset, size, crc, magic 1, attributes
	legacy = append(legacy, make([]byte, 16)...)
	binary.BigEndian.PutUint32(legacy[12:], crc32.ChecksumIEEE(legacy[16:]))
	for name, bad := range map[string][]byte{"crc": rot(wireBatch(0, 0, "0")), "legacy": legacy} {
		t.Run(name, func(t *testing.T) {
			var mended, grown = make(chan struct{}), make(chan struct{})
			f := scripted(t, 2, func(p int32, from int64, _ bool) ([]byte, int64) {
				switch {
				case p == 1 && from < 1, p == 1 && from == 1 && isClosed(grown):
					return wireBatch(from, from, "fine"), from + 1
				case p == 0 && from == 0 && isClosed(mended):
					return wireBatch(0, 0, "0"), 1
				case p == 0 && from == 0:
					return bad, 1
				}
				return nil, from
			})
			c := f.open()
			s, other := newTape(t, 0), newTape(t, 0)
			c.Read(0, 0, s)
			c.Read(1, 0, other)
			s.wait("failure", func() bool { return len(s.failures) == 1 })
			if got := errors.Is(s.failures[0], errLegacyFormat); got != (name == "legacy") {
				t.Errorf("failed with %v", s.failures[0])
			}
			close(grown)
			other.waitNext(2)
			if len(other.failures) != 0 {
				t.Errorf("the readable partition failed: %v", other.failures)
			}
			if _, err := c.Scan(context.Background(), 0, 0, 1<<20); err == nil {
				t.Error("scan of the unreadable batch succeeds")
			}
			close(mended)
			s.waitNext(1)
			s.wantValues("0")
		})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// The fields that sarama does not export must be where they are looked for.
func TestSaramaStillComputesWhatIsReadByReflection(t *testing.T) {
	block := &sarama.FetchResponseBlock{}
	if end, ok := lastBatchEnd(block); ok {
		t.Errorf("end %d of no batch: recordsNextOffset was renamed", end)
	}
	if got := partialSize(block); got != 0 {
		t.Errorf("partial size %d", got)
	}
	a, err := readBlock(&sarama.FetchResponseBlock{LastStableOffset: 7}, 3)
	want := source.Batch{From: 3, Next: 3, Bounds: source.Bounds{Stable: 7}}
	if err != nil || !a.silent || a.batch.Next != want.Next || a.batch.Bounds != want.Bounds {
		t.Errorf("an answer without batches: %+v, %v", a, err)
	}
}
