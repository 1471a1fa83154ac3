package scenario

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// HangingTransaction leaves a transaction open that ends by a commit, by an abort, and by the broker's timeout: its
// node says so, clients of its partition wait, others do not, and everything goes on when it ends.
func HangingTransaction(t testing.TB) {
	w := begin(t, stack.Options{Partitions: 4})
	alice := w.client(0, load.Options{Key: "alice"})
	lane := w.partitionOf("alice")
	bob := w.client(0, load.Options{Key: w.otherLane("alice")})
	want, others := 0, 0
	for _, tt := range []struct {
		how     string
		timeout time.Duration
		end     func(tx *load.Transaction) error
		records int // of the transaction that count
	}{
		{"commit", time.Minute, func(tx *load.Transaction) error { return tx.End(w.ctx, true) }, 3},
		{"abort", time.Minute, func(tx *load.Transaction) error { return tx.End(w.ctx, false) }, 0},
		{"timeout", 3 * time.Second, func(*load.Transaction) error { return nil }, 0},
	} {
		tx, err := load.Begin(w.ctx, w.Kafka(), w.Topic(), "hanging-"+tt.how, tt.timeout)
		w.must(err)
		t.Cleanup(tx.Close)
		begun := time.Now()
		for i := range 3 {
			w.must(tx.Produce(w.ctx, &kgo.Record{Key: []byte("alice"), Value: fmt.Appendf(nil, `{"in":%q,"n":%d}`, tt.how, i)}))
		}
		w.put("alice", `"behind it"`)
		w.hangs(lane, true)
		slowest := time.Duration(0)
		for range 20 {
			sent := time.Now()
			w.put(bob.Key(), `"beside it"`)
			others++
			w.must(bob.Wait(w.ctx, func(s *checker.Client) bool { return len(recordsOf(s)) == others }))
			slowest = max(slowest, time.Since(sent))
		}
		if tt.how == "commit" { // nor does it hold up a rolling deploy
			old := w.Nodes()[0].ID
			_, err := w.AddNode(w.ctx)
			w.must(err)
			w.must(w.DrainNode(w.ctx, old))
			w.hangs(lane, true)
		}
		// The timeout may come at any time from here on.
		if h := alice.History(); tt.how != "timeout" && len(recordsOf(&h)) != want {
			t.Errorf("%s: alice has %d records while the transaction is open, want %d", tt.how, len(recordsOf(&h)), want)
		}
		w.must(tt.end(tx))
		want += tt.records + 1
		ctx, cancel := w.within(30 * time.Second)
		err = alice.Wait(ctx, func(s *checker.Client) bool { return len(recordsOf(s)) == want })
		cancel()
		if err != nil {
			h := alice.History()
			t.Fatalf("%s: the partition does not go on: %v; alice has %d records, want %d", tt.how, err, len(recordsOf(&h)), want)
		}
		t.Logf("%s: held back for %s; records of another partition took %s at most",
			tt.how, time.Since(begun).Round(time.Millisecond), slowest.Round(time.Millisecond))
		w.hangs(lane, false)
	}
	if r := w.finish(); r.Received != int64(want+others) {
		t.Errorf("received %d records, want %d", r.Received, want+others)
	}
}

// hangs waits until the nodes that read a partition say, or do not say, that a transaction holds it back: the metric,
// and the diagnostics that name the partition.
func (w *world) hangs(lane int32, want bool) {
	w.t.Helper()
	metric := fmt.Sprintf(`pointsman_wsnode_uncommitted{partition="%d"}`, lane)
	remark := fmt.Sprintf("partition %d: an open transaction holds back", lane)
	w.eventually(20*time.Second, fmt.Sprintf("nodes tell of the open transaction: %v", want), func() error {
		reading := 0
		for _, n := range w.Nodes() {
			status, body := w.get(n.Admin + "/metrics")
			if status != http.StatusOK {
				return fmt.Errorf("%s: HTTP %d %.200s", n.ID, status, body)
			}
			if !strings.Contains(body, metric) {
				continue
			}
			reading++
			held, err := w.metric(n.Admin, metric)
			if err != nil {
				return err
			}
			v, err := w.vars(n.Admin)
			if err != nil {
				return err
			}
			named := strings.Contains(strings.Join(v.Consistency.Remarks, "\n"), remark)
			if (held > 0) != want || named != want {
				return fmt.Errorf("%s: %s %v, remarks %q", n.ID, metric, held, v.Consistency.Remarks)
			}
		}
		if reading == 0 {
			return fmt.Errorf("no node reads partition %d", lane)
		}
		return nil
	})
}

// otherLane makes a key that lives in another partition than the given one.
func (w *world) otherLane(key string) string {
	for i := 0; ; i++ {
		other := fmt.Sprintf("apart-%d", i)
		if w.partitionOf(other) != w.partitionOf(key) {
			return other
		}
	}
}

// CompactedRange lets clients come back with cursors in a range that was compacted meanwhile: nothing of what is
// missing there is a gap, and what is left arrives.
func CompactedRange(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1, Partitions: 1, TopicConfig: map[string]string{
		"cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "min.compaction.lag.ms": "0",
	}})
	if fake := stack.Fake(w.Stack); fake == nil && !w.real() {
		t.Skipf("nobody can say when a stack of kind %s compacts", w.Kind())
	}
	names := keys("client", 5)
	w.put("kept", `"first"`) // or kfake would move the log's start, which Kafka's compaction does not
	clients := w.connect(names, load.Options{})
	w.must(w.producer.Burst(w.ctx, names, 20*len(names), 64))
	before := w.truth()
	w.must(w.fleet.WaitCaughtUp(w.ctx, before))
	w.must(load.Each(clients, func(_ int, c *load.Client) error { return c.Disconnect(w.ctx) }))
	left := before.Partitions[0].End
	// What they miss, of which compaction leaves the newest record of each key, and others' records around them.
	all := append(keys("filler", 20), names...)
	const missed = 1000
	w.must(w.producer.Burst(w.ctx, all, missed, 64))
	w.compact(left, missed)

	// Nothing of it is in memory.
	old := w.Nodes()[0].ID
	_, err := w.AddNode(w.ctx)
	w.must(err)
	w.must(w.DrainNode(w.ctx, old))
	w.must(w.fleet.Connect(w.ctx, clients, w.target))
	w.must(w.producer.Burst(w.ctx, names, len(names), 64))
	after := w.truth()
	w.must(w.fleet.WaitCaughtUp(w.ctx, after))
	for _, c := range clients {
		h := c.History()
		if s := &h.Sessions[1]; !s.Complete || len(gapsOf(&h)) != 0 || len(s.Start) != 1 || s.Start[0].Next > left {
			t.Errorf("key %s came back at %+v, hello.resumed %v, and was told of %d gaps; want at most %d, true and none",
				c.Key(), s.Start, s.Complete, len(gapsOf(&h)), left)
		}
	}
	// The first connections received what compaction removed later.
	w.judgeSessions(before, func(i int) bool { return i == 0 })
	w.judgeSessions(after, func(i int) bool { return i > 0 })
	w.consistent()
}

// judgeSessions holds some of every client's sessions against the topic, the first of them as a fresh start.
func (w *world) judgeSessions(truth *checker.Truth, which func(i int) bool) {
	w.t.Helper()
	var clients []checker.Client
	for _, h := range w.fleet.Histories() {
		some := checker.Client{Name: h.Name, Key: h.Key, Lagging: h.Lagging}
		for i, s := range h.Sessions {
			if which(i) {
				s.Resumed = s.Resumed && len(some.Sessions) > 0
				some.Sessions = append(some.Sessions, s)
			}
		}
		clients = append(clients, some)
	}
	r := checker.Check(truth, clients, nil)
	w.t.Logf("%s\n%s", w.t.Name(), r)
	if err := r.Err(); err != nil {
		w.t.Error(err)
	}
}

// compact waits until most of the records from the given offset on are gone.
func (w *world) compact(from int64, records int) {
	w.t.Helper()
	w.eventually(60*time.Second, "the topic is compacted", func() error {
		// Only segments that are not written to any more are compacted; a record makes Kafka begin the next one.
		w.put("filler-0000", `{"roll":true}`)
		if fake := stack.Fake(w.Stack); fake != nil {
			fake.Compact()
		}
		left := 0
		for _, r := range w.truth().Partitions[0].Records {
			if r.Offset >= from {
				left++
			}
		}
		if left > records/2 {
			return fmt.Errorf("%d of %d records are left", left, records)
		}
		w.t.Logf("%d of %d records are left after compaction", left, records)
		return nil
	})
}
