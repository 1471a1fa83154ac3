package hub

import "testing"

// TestRecordOfUnknownStreamIsCounted: a record on a stream that the link knows and its session does not is lost unless
// somebody looks; the metric says so. One of a stream that was given back in the meantime is not.
func TestRecordOfUnknownStreamIsCounted(t *testing.T) {
	b := newBench(t, 1, func(int) string { return "k" })
	s, ok := b.lane.streams.Owner(1)
	if !ok {
		t.Fatal("the client has no stream")
	}
	b.record(sample(1))
	m := b.hub.cfg.Metrics
	if got := m.Dropped.Load(); got != 0 {
		t.Fatalf("%d records dropped of a stream that is known", got)
	}
	stray, ok := b.lane.streams.Add(s, 0)
	if !ok {
		t.Fatal("no second stream")
	}
	r := sample(stray)
	r.Offset = 1
	b.record(r)
	if got := m.Dropped.Load(); got != 1 {
		t.Errorf("%d records dropped, want 1", got)
	}
	b.lane.streams.Remove(stray)
	b.record(r)
	if got := m.Dropped.Load(); got != 1 {
		t.Errorf("%d records dropped after the stream was given back, want 1", got)
	}
}
