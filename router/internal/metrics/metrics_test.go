package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLatencyIsAHistogramOfWholeSamples(t *testing.T) {
	var l Latency
	var s Sample
	const now = int64(1_800_000_000_000)
	for _, d := range []time.Duration{-time.Second, 0, time.Millisecond, 4 * time.Millisecond, time.Hour} {
		s.Note(now - d.Milliseconds())
		s.Note(now - d.Milliseconds())
	}
	l.Add(&s) // nothing is written yet
	s.Written(now)
	l.Add(&s)
	l.Add(&s) // it is empty now
	want := `
# HELP pointsman_router_delivery_latency_seconds Time from a record's timestamp to its write to the socket of a client that is caught up; to its outbox where the socket was full or speaks TLS.
# TYPE pointsman_router_delivery_latency_seconds histogram
`
	for _, b := range []struct {
		le    string
		count string
	}{
		{"0.001", "6"}, {"0.002", "6"}, {"0.003", "6"}, {"0.005", "8"}, {"0.007", "8"}, {"0.01", "8"}, {"0.015", "8"},
		{"0.02", "8"}, {"0.03", "8"}, {"0.05", "8"}, {"0.075", "8"}, {"0.1", "8"}, {"0.15", "8"}, {"0.2", "8"}, {"0.3", "8"},
		{"0.5", "8"}, {"0.75", "8"}, {"1", "8"}, {"2", "8"}, {"5", "8"}, {"10", "8"}, {"60", "8"}, {"+Inf", "10"},
	} {
		want += `pointsman_router_delivery_latency_seconds_bucket{le="` + b.le + `"} ` + b.count + "\n"
	}
	want += "pointsman_router_delivery_latency_seconds_sum 7200.01\npointsman_router_delivery_latency_seconds_count 10\n"
	if err := testutil.CollectAndCompare(&l, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestNamesFollowTheRules(t *testing.T) {
	zero := func() float64 { return 0 }
	r := prometheus.NewPedanticRegistry()
	s := New(r, Gauges{
		Sessions: zero, Keys: zero, Waiting: zero, Pending: zero, Queued: zero, Full: zero, Paced: zero, LinksUp: zero, Streams: zero, TableRevision: zero,
		Nodes: zero, Partitions: zero, StoodIn: zero, Unserved: zero, Draining: zero, TableAge: zero, EtcdAway: zero, LinkDials: zero, LinkFailures: zero, Malformed: zero,
		AuthKeys: zero, AuthKeysAge: zero, AuthFailures: zero,
	})
	s.Close(1001)
	s.Close(-1)
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if got := testutil.ToFloat64(s.Closes.WithLabelValues("client")); got != 1 {
		t.Errorf("%v closes by clients, want 1", got)
	}
	if got := testutil.ToFloat64(s.Closes.WithLabelValues("1001")); got != 1 {
		t.Errorf("%v closes counted", got)
	}
}
