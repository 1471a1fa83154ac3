package scenario

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// warmRecords is the most that a node reads of a partition that it begins with, for streams that move there.
const warmRecords = 4096

// idleRecords is how many records pass an idle client; POINTSMAN_IDLE_RECORDS says another number.
func (w *world) idleRecords() int {
	text := os.Getenv("POINTSMAN_IDLE_RECORDS")
	if text == "" {
		return size(w, 50_000, 10_000_000)
	}
	n, err := strconv.Atoi(text)
	w.must(err)
	return n
}

// IdleClient receives nothing while its partition gets very many records, ending with an aborted transaction and its
// marker. Its checkpoints have moved its cursor past all of them: when it comes back, to a node that has nothing in
// memory, nothing is read again.
func IdleClient(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1, Partitions: 2, RouterFlags: []string{"--heartbeat=1s"}})
	const key = "idle"
	idle := w.client(0, load.Options{Key: key})
	lane := w.partitionOf(key)
	n := w.idleRecords()
	begun := time.Now()
	w.must(load.Flood(w.ctx, w.Kafka(), w.Topic(), lane, w.lanemates(key, 500), n))
	flooded := time.Since(begun)

	tx, err := load.Begin(w.ctx, w.Kafka(), w.Topic(), "idle", time.Minute)
	w.must(err)
	t.Cleanup(tx.Close)
	const aborted = 100
	for range aborted {
		w.must(tx.Produce(w.ctx, &kgo.Record{Key: []byte(key), Value: []byte(`"aborted"`)}))
	}
	w.must(tx.End(w.ctx, false))
	end := int64(n + aborted + 1)
	w.eventually(30*time.Second, "the log ends with the marker", func() error {
		bounds, err := load.Bounds(w.ctx, w.Kafka(), w.Topic())
		if err == nil && bounds[lane].End != end {
			err = fmt.Errorf("partition %d ends at %d, not %d", lane, bounds[lane].End, end)
		}
		return err
	})
	w.must(idle.Wait(w.ctx, func(s *checker.Client) bool {
		events := s.Sessions[0].Events
		return len(events) > 0 && events[len(events)-1].Kind == checker.Checkpoint && events[len(events)-1].Next >= end
	}))
	t.Logf("%d records were written in %s and end at %d; the idle client's checkpoint has reached that after %s",
		n, flooded.Round(time.Millisecond), end, time.Since(begun).Round(time.Millisecond))
	w.must(idle.Disconnect(w.ctx))

	// A node that remembers the records need not read them.
	w.must(w.KillNode(w.ctx, w.Nodes()[0].ID))
	node, err := w.AddNode(w.ctx)
	w.must(err)
	back := time.Now()
	w.must(idle.Connect(w.ctx, w.target(0)))
	w.must(idle.WaitHello(w.ctx))
	hello := time.Since(back)
	w.put(key, `"at last"`)
	w.must(idle.Wait(w.ctx, func(s *checker.Client) bool { return len(recordsOf(s)) > 0 }))

	read, err := w.metric(node.Admin, "pointsman_wsnode_records_read_total")
	w.must(err)
	scanned, err := w.metric(node.Admin, "pointsman_wsnode_scan_bytes_total")
	w.must(err)
	t.Logf("hello %s after it came back; the node has read %.0f records from the end and %.0f bytes for who was behind",
		hello.Round(time.Millisecond), read, scanned)
	if scanned != 0 || read > 2*warmRecords {
		t.Errorf("for a client that was idle the node read %.0f bytes again, and %.0f records, want none and %d at most", scanned, read, 2*warmRecords)
	}
	h := idle.History()
	s := &h.Sessions[1]
	records := recordsOf(&h)
	if !s.Complete || len(gapsOf(&h)) != 0 || len(records) != 1 || records[0].Offset != end {
		t.Errorf("hello.resumed %v, %d gaps, records %+v; want true, none, and the one at %d", s.Complete, len(gapsOf(&h)), records, end)
	}
	if err := w.fleet.Faults(); err != nil {
		t.Errorf("against the protocol: %v", err)
	}
	w.consistent()
}

// lanemates makes n other keys that live in the key's partition.
func (w *world) lanemates(key string, n int) []string {
	var out []string
	for i := 0; len(out) < n; i++ {
		if other := fmt.Sprintf("b%d", i); w.partitionOf(other) == w.partitionOf(key) {
			out = append(out, other)
		}
	}
	return out
}
