package scenario

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// ResumeOnOtherRouter disconnects clients, produces, and has them come back to the other router with their cursors:
// they get exactly what they missed, also those that had received nothing before.
func ResumeOnOtherRouter(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2})
	names := keys("client", size(w, 60, 200))
	clients := w.connect(names, load.Options{})
	w.must(w.producer.Burst(w.ctx, names[:len(names)/2], 5*len(names)/2, 128))
	before := w.truth()
	w.must(w.fleet.WaitCaughtUp(w.ctx, before))
	w.must(load.Each(clients, func(i int, c *load.Client) error {
		c.Lagging()
		if i%2 == 0 {
			c.Sever()
			return nil
		}
		return c.Disconnect(w.ctx)
	}))
	missed := size(w, 2000, 10_000)
	w.must(w.producer.Burst(w.ctx, names, missed, 128))
	w.must(w.fleet.Connect(w.ctx, clients, func(i int) load.Target { return w.target(i + 1) }))
	r := w.finish()
	if want := before.Len() + int64(missed); r.Received != want || r.Sessions != 2*len(names) {
		t.Errorf("received %d in %d sessions, want exactly %d in %d", r.Received, r.Sessions, want, 2*len(names))
	}
	for _, c := range w.fleet.Histories() {
		if s := c.Sessions[1]; !s.Resumed || !s.Complete || s.Router == c.Sessions[0].Router {
			t.Errorf("client %s: second session on %s after %s, with a cursor %v, hello.resumed %v", c.Name, s.Router, c.Sessions[0].Router, s.Resumed, s.Complete)
		}
	}
}

// CursorOlderThanLogStart: what retention took is announced once, and the rest delivered.
func CursorOlderThanLogStart(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1})
	c := w.client(0, load.Options{Key: "alice"})
	other := w.client(0, load.Options{Key: w.sameLane("alice")})
	w.must(w.producer.Burst(w.ctx, []string{"alice", other.Key()}, 20, 64))
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truth()))
	w.must(c.Disconnect(w.ctx))
	w.must(w.producer.Burst(w.ctx, []string{"alice", other.Key()}, 40, 64))
	full := w.truth()
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truthOf(full, other.Key())))
	records := full.Of("alice")[w.partitionOf("alice")]
	oldest := records[20].Offset // 10 received, 10 to be deleted, 10 to stay
	w.must(load.DeleteRecords(w.ctx, w.Kafka(), w.Topic(), map[int32]int64{w.partitionOf("alice"): oldest}))
	// A node that remembers the records would rightly deliver them.
	old := w.Nodes()[0].ID
	_, err := w.AddNode(w.ctx)
	w.must(err)
	w.must(w.DrainNode(w.ctx, old))

	w.must(c.Connect(w.ctx, w.target(0)))
	w.must(c.WaitHello(w.ctx))
	w.finish(checker.Gaps)
	s := c.History().Sessions[1]
	gaps, first := 0, int64(-1)
	for _, e := range s.Events {
		switch e.Kind {
		case checker.Gap:
			gaps++
			if e.Reason != "retention" {
				t.Errorf("gap with reason %q, want retention", e.Reason)
			}
		case checker.Record:
			if first < 0 {
				first = e.Offset
			}
		}
	}
	if s.Complete || gaps != 1 || first != oldest {
		t.Errorf("hello.resumed %v, %d gaps, first record at %d; want false, 1 and %d", s.Complete, gaps, first, oldest)
	}
	if h := other.History(); len(h.Sessions) != 1 || len(h.Sessions[0].Events) < 30 {
		t.Errorf("the client that stayed has %d sessions, %d events", len(h.Sessions), len(h.Sessions[0].Events))
	}
}

// truthOf is what concerns one key.
func (w *world) truthOf(full *checker.Truth, key string) *checker.Truth {
	parts := make(map[int32]*checker.Partition)
	for p, part := range full.Partitions {
		parts[p] = &checker.Partition{Start: part.Start, End: part.End}
	}
	for p, records := range full.Of(key) {
		parts[p].Records = records
	}
	return checker.NewTruth(parts)
}

// ForeignCursorRefused: a cursor opens nothing but its own key.
func ForeignCursorRefused(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1})
	alice := w.client(0, load.Options{Key: "alice"})
	w.put("alice", "1")
	w.must(w.fleet.WaitCaughtUp(w.ctx, w.truth()))
	w.must(alice.Disconnect(w.ctx))
	refusals := []struct{ name, key, cursor string }{
		{"another key's", "bob", alice.Cursor()},
		{"damaged", "alice", "A" + alice.Cursor()},
		{"cut short", "alice", alice.Cursor()[:len(alice.Cursor())-4]},
		{"nonsense", "alice", "nonsense!"},
	}
	for _, tt := range refusals {
		c := load.NewClient(load.Options{Name: tt.name, Key: tt.key})
		c.SetCursor(tt.cursor)
		err := c.Connect(w.ctx, w.target(0))
		var refused *load.HandshakeError
		if !errors.As(err, &refused) || refused.Status < 400 || refused.Status >= 500 || len(refused.Body) < 5 {
			t.Errorf("%s cursor: got %v, want HTTP 4xx with a reason", tt.name, err)
		} else {
			t.Logf("%s cursor: %v", tt.name, err)
		}
		c.Close()
	}
	w.must(alice.Connect(w.ctx, w.target(0)))
	w.must(alice.WaitHello(w.ctx))
	w.put("alice", "2")
	w.finish()
}

// CommittedReads: an open transaction, an aborted one and the markers of both: nothing skipped after from=latest,
// nothing aborted delivered, and idle cursors move past the markers.
func CommittedReads(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 1, RouterFlags: []string{"--heartbeat=1s"}})
	early := w.client(0, load.Options{Key: "alice"})
	idle := w.client(0, load.Options{Key: w.sameLane("alice")})
	tx, err := load.Begin(w.ctx, w.Kafka(), w.Topic(), "committed-reads", time.Minute)
	w.must(err)
	t.Cleanup(tx.Close)
	write := func(value string) {
		t.Helper()
		w.must(tx.Produce(w.ctx, &kgo.Record{Key: []byte("alice"), Value: []byte(value)}))
	}

	write(`"in the transaction"`)
	w.put("alice", `"behind the open transaction"`)
	late := w.client(0, load.Options{Key: "alice", From: "latest"})
	committing := time.Now()
	w.must(tx.End(w.ctx, true))
	for _, c := range []*load.Client{early, late} {
		w.must(c.Wait(w.ctx, func(s *checker.Client) bool { return len(recordsOf(s)) == 2 }))
		h := c.History()
		for _, e := range recordsOf(&h) {
			if e.At < committing.UnixNano() {
				t.Errorf("client %s has offset %d before the transaction ended", c.Key(), e.Offset)
			}
		}
	}

	w.must(tx.Again())
	write(`"aborted"`)
	w.put("alice", `"behind the aborted transaction"`)
	w.must(tx.End(w.ctx, false))
	w.must(early.Wait(w.ctx, func(s *checker.Client) bool { return len(recordsOf(s)) == 3 }))

	// The log ends with aborted records and a marker.
	w.must(tx.Again())
	write(`"aborted at the end"`)
	w.must(tx.End(w.ctx, false))
	partition := w.partitionOf("alice")
	end := w.truth().Partitions[partition].End
	for _, c := range []*load.Client{idle, early} {
		ctx, cancel := w.within(20 * time.Second)
		err := c.Wait(ctx, func(s *checker.Client) bool {
			events := s.Sessions[0].Events
			return len(events) > 0 && events[len(events)-1].Kind == checker.Checkpoint && events[len(events)-1].Next >= end
		})
		cancel()
		if err != nil {
			t.Errorf("the cursor does not move past the markers to %d: %v", end, err)
		}
	}
	// From there a resume has nothing to read again.
	w.must(idle.Disconnect(w.ctx))
	w.must(idle.Connect(w.ctx, w.target(0)))
	w.must(idle.WaitHello(w.ctx))
	w.put(idle.Key(), "1")
	r := w.finish()
	if want := int64(3 + 3 + 1); r.Received != want {
		t.Errorf("received %d records, want %d", r.Received, want)
	}
}

func recordsOf(c *checker.Client) []checker.Event {
	var out []checker.Event
	for i := range c.Sessions {
		for _, e := range c.Sessions[i].Events {
			if e.Kind == checker.Record {
				out = append(out, e)
			}
		}
	}
	return out
}

// RouterRestartResumes: clients of a router that stops are told to go, come back to another one with their cursors
// and miss nothing; a killed router is the same without a word.
func RouterRestartResumes(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2})
	names := keys("client", size(w, 60, 200))
	clients := make([]*load.Client, 0, len(names))
	for i, key := range names {
		home := i
		clients = append(clients, w.fleet.New(load.Options{Key: key, Reconnect: func(checker.Close) (load.Target, bool) {
			home++
			return w.target(home), true
		}}))
	}
	w.must(w.fleet.Connect(w.ctx, clients, w.target))
	w.produce(names, size(w, 200.0, 500.0), 128)
	w.must(w.settled(30 * time.Second))

	for i, name := range []string{"router stopped (SIGTERM)", "router killed (SIGKILL)"} {
		end := []func() error{
			func() error { return w.StopRouter(w.ctx, 0) },
			func() error { return w.KillRouter(w.ctx, 1) },
		}[i]
		w.fleet.ExpectEnds(w.target(i).Name, true)
		w.fault(name, end)
		w.must(w.StartRouter(w.ctx, i))
		w.fleet.ExpectEnds(w.target(i).Name, false)
	}
	w.finish()
	for _, c := range w.fleet.Histories() {
		if first := c.Sessions[0]; first.Router == w.target(0).Name && (first.GoAways != 1 || !retryable(first.Ended)) {
			t.Errorf("client %s of the stopped router: %d goaways, ended with %+v", c.Name, first.GoAways, first.Ended)
			break
		}
	}
}

func retryable(end *checker.Close) bool {
	if end == nil {
		return false
	}
	code, ok := closecode.Lookup(end.Code)
	return ok && code.Retry
}
