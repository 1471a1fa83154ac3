package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

const (
	gapRetention = "retention"
	gapTopic     = "topic"
	gapTruncated = "truncated"
)

// RetentionOvertakesSlowClient deletes what a connected client has not read yet: it is told of one gap, goes on with
// the oldest record there is and misses nothing else; who reads its records feels nothing.
func RetentionOvertakesSlowClient(t testing.TB) {
	const (
		records = 700
		bytes   = 8 << 10
		oldest  = 550 // of the slow client's records: above what the window, the sockets and a scan under way hold
	)
	w := begin(t, stack.Options{Nodes: 1, NodeFlags: []string{fmt.Sprintf("--ring=%d", 1<<20)}})
	slow := w.client(0, load.Options{Key: "slow", ReadBuffer: 64 << 10})
	other := w.client(0, load.Options{Key: w.sameLane("slow")})
	lane := w.partitionOf("slow")
	slow.StopReading()
	w.must(w.producer.Burst(w.ctx, []string{slow.Key()}, records, bytes))
	w.must(w.producer.Burst(w.ctx, []string{other.Key()}, 10, 64))
	full := w.truth()
	w.must(other.Wait(w.ctx, func(s *checker.Client) bool { return len(recordsOf(s)) == 10 }))
	first := full.Of(slow.Key())[lane][oldest].Offset
	w.eventually(30*time.Second, "the slow client's stream waits below what will be deleted, and out of the ring's reach", func() error {
		v, err := w.vars(w.Nodes()[0].Admin)
		if err != nil {
			return err
		}
		for _, p := range v.Partitions {
			if p.Partition == lane && p.Behind == 1 && p.Lowest < first && p.RingLow > first {
				return nil
			}
		}
		return fmt.Errorf("want below %d: %+v", first, v.Partitions)
	})
	w.must(load.DeleteRecords(w.ctx, w.Kafka(), w.Topic(), map[int32]int64{lane: first}))
	slow.ReadAgain()
	w.finish(checker.Gaps)
	w.skipped(slow, full, gapRetention, first)
	if h := other.History(); len(gapsOf(&h)) != 0 || len(recordsOf(&h)) != 10 {
		t.Errorf("the client beside it was told of %d gaps and got %d records, want none and 10", len(gapsOf(&h)), len(recordsOf(&h)))
	}
}

// RetentionOvertakesFrozenNode deletes what a frozen node has not read yet.
func RetentionOvertakesFrozenNode(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1})
	if !w.real() {
		t.Skip("in one process only a node's links can be held still, not its reading")
	}
	names := keys("client", 20)
	clients := w.connect(names, load.Options{})
	w.must(w.producer.Burst(w.ctx, names, 5*len(names), 64))
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truth()))
	id := w.Nodes()[0].ID
	w.must(w.FreezeNode(w.ctx, id))
	w.must(w.producer.Burst(w.ctx, names, 200*len(names), 64))
	full := w.truth()
	before := make(map[int32]int64)
	for p, part := range full.Partitions {
		if part.End > 200 {
			before[p] = part.End - 20
		}
	}
	w.must(load.DeleteRecords(w.ctx, w.Kafka(), w.Topic(), before))
	w.must(w.ThawNode(w.ctx, id))
	w.put(names[0], `"last"`)
	w.finish(checker.Gaps)
	for _, c := range clients[1:] {
		w.skipped(c, full, gapRetention, before[w.partitionOf(c.Key())])
	}
}

// TopicRecreated deletes the topic and creates it again, three times on the same sockets: the new one shorter than the
// old one, at once longer, and at once longer while every node is frozen; with more partitions, and with fewer. Clients are told of a gap and get the new
// topic from its start, those that were away with hello.resumed false. Nodes and routers go on by themselves.
func TopicRecreated(t testing.TB) {
	const perRound = 8 // clients that are away in each round
	w := begin(t, stack.Options{Routers: 2, Nodes: 2, Partitions: 4})
	names := keys("client", size(w, 32, 64))
	clients := w.connect(names, load.Options{})
	records := 10 * len(names)
	w.must(w.producer.Burst(w.ctx, names, records, 128))
	truth := w.truth()
	w.waitLife(clients, truth, 0, gapTopic)
	rounds := []struct {
		name       string
		records    int
		partitions int32
		frozen     bool
	}{
		{"shorter than the old one, with more partitions", len(names), 6, false},
		{"longer than the old one, with fewer partitions", 20 * len(names), 3, false},
		{"longer, while all nodes are frozen", 40 * len(names), 3, true},
	}
	for i, round := range rounds {
		away := clients[i*perRound : (i+1)*perRound]
		w.must(load.Each(away, func(_ int, c *load.Client) error { return c.Disconnect(w.ctx) }))
		old, frozen := truth, time.Now()
		if round.frozen {
			w.must(w.onNodes(w.FreezeNode))
		}
		begun := time.Now()
		w.must(load.RecreateTopic(w.ctx, w.Kafka(), w.Topic(), round.partitions))
		w.anew()
		w.must(w.producer.Burst(w.ctx, names, round.records, 128))
		full := time.Since(begun)
		truth = w.truth()
		if !round.frozen {
			// Who comes back before anybody has noticed may be told of the gap after hello; these come later.
			w.waitLife(slices.Concat(clients[:i*perRound], clients[(i+1)*perRound:]), truth, i+1, gapTopic)
		}
		w.must(load.Each(away, func(j int, c *load.Client) error { return c.Connect(w.ctx, w.target(i+j)) }))
		if round.frozen {
			// So long that routers give the links up, and nodes know that they slept.
			w.at(frozen, size(w, time.Second, 4*time.Second))
			w.must(w.onNodes(w.ThawNode))
		}
		w.waitLife(clients, truth, i+1, gapTopic)
		t.Logf("topic recreated, %s: %d records in it after %s, all clients have them after %s",
			round.name, round.records, full.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
		w.judgeLife(old, i, gapTopic) // up to the gap, nothing of the new topic
		w.comeBack(away, i+1)
		// What comes later comes, too.
		w.must(w.producer.Burst(w.ctx, names, len(names), 128))
		truth = w.truth()
		w.waitLife(clients, truth, i+1, gapTopic)
	}
	last := len(rounds)
	w.judgeLife(truth, last, gapTopic)
	for i, c := range clients {
		h := c.History()
		_, gaps := lives(&h, gapTopic)
		sessions := 1
		if i < last*perRound {
			sessions = 2
		}
		if len(gaps) != last || len(gapsOf(&h)) != last || len(h.Sessions) != sessions {
			t.Errorf("key %s has %d sockets and was told of %d gaps, %d of them with reason topic; want %d, %d and %d; it saw %s",
				c.Key(), len(h.Sessions), len(gapsOf(&h)), len(gaps), sessions, last, last, told(c))
		}
		for _, g := range gaps {
			if g.Next != 0 {
				t.Errorf("key %s goes on at offset %d of a new topic", c.Key(), g.Next)
			}
		}
	}
	if err := w.fleet.Faults(); err != nil {
		t.Errorf("against the protocol: %v", err)
	}
	for _, n := range w.Nodes() {
		w.eventually(30*time.Second, n.ID+" is ready", func() error {
			if status, body := w.get(n.Admin + "/readyz"); status != 200 {
				return errors.New(body)
			}
			return nil
		})
	}
	w.consistent()
}

// onNodes does something with every node.
func (w *world) onNodes(do func(ctx context.Context, id string) error) error {
	var errs []error
	for _, n := range w.Nodes() {
		errs = append(errs, do(w.ctx, n.ID))
	}
	return errors.Join(errs...)
}

// comeBack asserts what clients were told that came back after the topic was recreated.
func (w *world) comeBack(clients []*load.Client, life int) {
	w.t.Helper()
	for _, c := range clients {
		h := c.History()
		s := &h.Sessions[len(h.Sessions)-1]
		if !s.Resumed || s.Complete || len(s.Events) == 0 || s.Events[0].Kind != checker.Gap || s.Events[0].Reason != gapTopic {
			w.t.Errorf("key %s came back in life %d with a cursor %v: hello.resumed %v, then %d events, want false and first the gap", c.Key(), life, s.Resumed, s.Complete, len(s.Events))
		}
	}
}

// anew replaces the producer: the one there is knows the topic that is gone.
func (w *world) anew() {
	w.t.Helper()
	// Quick to find the new topic's leaders, so that it is filled before anybody knows of it.
	p, err := load.NewProducer(w.Kafka(), w.Topic(), kgo.MetadataMinAge(10*time.Millisecond), kgo.UnknownTopicRetries(-1),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }))
	w.must(err)
	w.t.Cleanup(p.Close)
	w.producer.Close()
	w.producer = p
}
