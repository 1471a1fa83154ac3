package kafka

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// soloFrame is the response to a solo fetch that brings the given records.
func soloFrame(records []byte, aborted int) []byte {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = soloVersion
	st := kmsg.NewFetchResponseTopic()
	st.Topic = "orders"
	sp := kmsg.NewFetchResponseTopicPartition()
	sp.RecordBatches = records
	for i := range aborted {
		at := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
		at.ProducerID, at.FirstOffset = int64(i), int64(i)
		sp.AbortedTransactions = append(sp.AbortedTransactions, at)
	}
	st.Partitions = append(st.Partitions, sp)
	resp.Topics = append(resp.Topics, st)
	body := resp.AppendTo(make([]byte, 8))
	binary.BigEndian.PutUint32(body, uint32(len(body)-4))
	return body
}

func TestStretchAddsWhatIsMissingAndNoMore(t *testing.T) {
	plain := wireBatch(0, 1, "a", "b")
	dense := wireBatch(2, 1001, "compressed, say")
	binary.BigEndian.PutUint32(dense[57:], 1000) // more records than bytes
	for name, q := range map[string]struct {
		records []byte
		missing int
	}{
		"null":          {nil, 0},
		"empty":         {[]byte{}, 0},
		"plain":         {plain, 0},
		"dense":         {dense, 1000 - (len(dense) - 61)},
		"dense at end":  {concat(plain, dense), 1000 - (len(dense) - 61)},
		"dense before":  {concat(dense, plain), 1000 - (len(dense) - 61) - len(plain)},
		"cut":           {concat(plain, plain[:70]), 0},
		"cut in header": {concat(plain, plain[:20]), 0},
		"empty batch":   {wireBatch(0, 9), 0},
	} {
		for aborted := range 3 {
			frame := soloFrame(q.records, aborted)
			got := stretch(bytes.Clone(frame))
			if len(got) != len(frame)+q.missing {
				t.Fatalf("%s: %d bytes became %d, want %d more", name, len(frame), len(got), q.missing)
			}
			if size := int(binary.BigEndian.Uint32(got)); size != len(got)-4 {
				t.Errorf("%s: frame of %d bytes says %d", name, len(got)-4, size)
			}
			resp := kmsg.NewPtrFetchResponse()
			resp.Version = soloVersion
			if err := resp.ReadFrom(got[8:]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sp := resp.Topics[0].Partitions[0]
			if sp.RecordBatches == nil || !bytes.HasPrefix(sp.RecordBatches, q.records) || len(sp.RecordBatches) != len(q.records)+q.missing {
				t.Errorf("%s: records changed", name)
			}
			if len(sp.AbortedTransactions) != aborted {
				t.Errorf("%s: %d aborted transactions, want %d", name, len(sp.AbortedTransactions), aborted)
			}
		}
	}
}

func FuzzStretch(f *testing.F) {
	f.Add(soloFrame(wireBatch(0, 1, "a", "b"), 1))
	f.Add(soloFrame(nil, 0))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 4 || len(frame) > 1<<20 {
			return
		}
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		before := bytes.Clone(frame)
		got := stretch(frame)
		if len(got) < len(before) || int(binary.BigEndian.Uint32(got)) != len(got)-4 {
			t.Fatalf("%d bytes became %d, which say %d", len(before), len(got), binary.BigEndian.Uint32(got))
		}
	})
}
