package scenario

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// refusal is how a broker answers a fetch beyond its end.
type refusal uint8

const (
	silence    refusal = iota // no records, as below the end of a new leader whose high watermark lags
	outOfRange                // as beyond the end of a leader that lacks what was there
)

// lowered makes a kfake say that a partition ends lower than it does.
type lowered struct {
	fake      *kfake.Cluster
	partition int32
	end       int64

	mu      sync.Mutex
	over    bool
	how     refusal
	fetches int           // answered beyond or at the end
	changed chan struct{} // closed and replaced with every such answer
}

// lower begins it; lift ends it. Nothing may be produced to the partition in between.
func (w *world) lower(partition int32, end int64, how refusal) *lowered {
	l := &lowered{fake: stack.Fake(w.Stack), partition: partition, end: end, how: how, changed: make(chan struct{})}
	l.fake.ControlKey(int16(kmsg.ListOffsets), l.listOffsets)
	l.fake.ControlKey(int16(kmsg.Fetch), l.fetch)
	return l
}

func (l *lowered) lift() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

// seen waits until n more fetches were answered.
func (l *lowered) seen(ctx context.Context, n int) error {
	l.mu.Lock()
	until := l.fetches + n
	for l.fetches < until {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for fetches beyond the end: %w", context.Cause(ctx))
		}
		l.mu.Lock()
	}
	l.mu.Unlock()
	return nil
}

func (l *lowered) listOffsets(kreq kmsg.Request) (kmsg.Response, error, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, nil, false
	}
	l.fake.KeepControl()
	req := kreq.(*kmsg.ListOffsetsRequest)
	if len(req.Topics) != 1 || len(req.Topics[0].Partitions) != 1 {
		return nil, nil, false // not the product's: it asks for one at a time
	}
	p := req.Topics[0].Partitions[0]
	if p.Partition != l.partition || p.Timestamp != -1 {
		return nil, nil, false
	}
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	t := kmsg.NewListOffsetsResponseTopic()
	t.Topic = req.Topics[0].Topic
	a := kmsg.NewListOffsetsResponseTopicPartition()
	a.Partition, a.Offset = p.Partition, l.end
	t.Partitions = append(t.Partitions, a)
	resp.Topics = append(resp.Topics, t)
	return resp, nil, true
}

func (l *lowered) fetch(kreq kmsg.Request) (kmsg.Response, error, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, nil, false
	}
	l.fake.KeepControl()
	req := kreq.(*kmsg.FetchRequest)
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			if p.Partition != l.partition || p.FetchOffset < l.end {
				continue
			}
			// The other partitions are left out of the answer, as when a broker throttles.
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			a := kmsg.NewFetchResponseTopicPartition()
			a.Partition, a.HighWatermark, a.LastStableOffset, a.LogStartOffset = p.Partition, l.end, l.end, 0
			if l.how == outOfRange && p.FetchOffset > l.end {
				a.ErrorCode, a.HighWatermark, a.LastStableOffset = kerr.OffsetOutOfRange.Code, -1, -1
			}
			rt.Partitions = append(rt.Partitions, a)
			resp.Topics = append(resp.Topics, rt)
			l.fetches++
			close(l.changed)
			l.changed = make(chan struct{})
			return resp, nil, true
		}
	}
	return nil, nil, false
}

// onFake starts a stack in one process, whose Kafka can be made to answer what a real one does for moments only.
func onFake(t testing.TB, opts stack.Options) *world {
	t.Helper()
	if kindOf(t) != stack.InProcess {
		t.Skip("no real broker can be made to answer this at will; make test runs it")
	}
	return beginOn(t, stack.InProcess, opts)
}

// LaggingHighWatermark lets a new leader say for a while that the log ends lower than clients have come: those that are
// connected and those that come back wait, with their cursors, and nothing is a gap.
func LaggingHighWatermark(t *testing.T) {
	for _, tt := range []struct {
		name string
		how  refusal
	}{{"without records", silence}, {"out of range", outOfRange}} {
		t.Run(tt.name, func(t *testing.T) {
			w := onFake(t, stack.Options{Nodes: 1, Partitions: 2, NodeFlags: []string{"--drain-timeout=1s", "--truncated-after=1h"}})
			stays := w.client(0, load.Options{Key: "alice"})
			back := w.client(0, load.Options{Key: w.sameLane("alice")})
			names := []string{stays.Key(), back.Key()}
			w.must(w.producer.Burst(w.ctx, names, 20, 64))
			truth := w.truth()
			w.must(w.fleet.WaitCaughtUp(w.ctx, truth))
			w.must(back.Disconnect(w.ctx))

			lane := w.partitionOf("alice")
			end := truth.Partitions[lane].End - 7
			comeBack := func(lag *lowered) {
				t.Helper()
				w.must(lag.seen(w.ctx, 3))
				w.must(back.Connect(w.ctx, w.target(0)))
				w.must(back.WaitHello(w.ctx))
				w.must(lag.seen(w.ctx, 3))
			}
			lag := w.lower(lane, end, tt.how)
			comeBack(lag)
			lag.lift()
			w.must(back.Disconnect(w.ctx))

			// Another node, which has seen nothing but the lower end.
			w.must(w.DrainNode(w.ctx, w.Nodes()[0].ID))
			lag = w.lower(lane, end, tt.how)
			_, err := w.AddNode(w.ctx)
			w.must(err)
			comeBack(lag)
			lag.lift()
			w.must(w.producer.Burst(w.ctx, names, 20, 64))
			w.finish()
			h := back.History()
			for i, s := range h.Sessions[1:] {
				if !s.Complete {
					t.Errorf("hello.resumed of connection %d is false", i+2)
				}
			}
		})
	}
}

// TruncatedLog lets the log end lower for good: who is beyond is told of a gap after a while, and goes on from there.
func TruncatedLog(t testing.TB) {
	w := onFake(t, stack.Options{Nodes: 1, Partitions: 2, NodeFlags: []string{"--truncated-after=1s"}})
	stays := w.client(0, load.Options{Key: "alice"})
	back := w.client(0, load.Options{Key: w.sameLane("alice")})
	clients := []*load.Client{stays, back}
	names := []string{stays.Key(), back.Key()}
	w.must(w.producer.Burst(w.ctx, names, 20, 64))
	truth := w.truth()
	w.must(w.fleet.WaitCaughtUp(w.ctx, truth))
	w.judgeLife(truth, 0, gapTruncated)
	w.must(back.Disconnect(w.ctx))

	lane := w.partitionOf("alice")
	end := truth.Partitions[lane].End - 7
	begun := time.Now()
	lost := w.lower(lane, end, outOfRange)
	w.must(back.Connect(w.ctx, w.target(0)))
	for _, c := range clients {
		ctx, cancel := w.within(30 * time.Second)
		err := c.Wait(ctx, func(s *checker.Client) bool { return len(gapsOf(s)) > 0 })
		cancel()
		if err != nil {
			t.Fatalf("key %s is not told that the log was truncated: %v", c.Key(), err)
		}
		h := c.History()
		g := gapsOf(&h)
		if len(g) != 1 || g[0].Reason != gapTruncated || g[0].Next != end || time.Unix(0, g[0].At).Sub(begun) < time.Second {
			t.Errorf("key %s was told of the gaps %+v after %s, want one with reason truncated, to %d, after a second at least",
				c.Key(), g, time.Unix(0, g[0].At).Sub(begun), end)
		}
	}
	// What is written where the lost records were: kfake has kept these, and they come for the first time there.
	lost.lift()
	w.must(w.producer.Burst(w.ctx, names, 20, 64))
	truth = w.truth()
	w.waitLife(clients, truth, 1, gapTruncated)
	w.judgeLife(truth, 1, gapTruncated)
	w.consistent()
}
