// Package metrics names what a router counts. Counters that change with every record are plain atomics, added to
// once per link message; Prometheus reads them when it asks.
package metrics

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/link"
)

const namespace = "pointsman_router"

// Gauges are read from the router when Prometheus asks.
type Gauges struct {
	Sessions      func() float64
	Keys          func() float64
	Waiting       func() float64
	Pending       func() float64
	Queued        func() float64
	Full          func() float64
	Paced         func() float64
	Nodes         func() float64
	LinksUp       func() float64
	Streams       func() float64
	TableRevision func() float64
	TableAge      func() float64
	Partitions    func() float64
	StoodIn       func() float64
	Unserved      func() float64
	Draining      func() float64
	EtcdAway      func() float64
	LinkDials     func() float64
	LinkFailures  func() float64
	AuthKeys      func() float64
	AuthKeysAge   func() float64
	AuthFailures  func() float64
	Malformed     func() float64
}

// Set is all metrics of one router.
type Set struct {
	Records    atomic.Uint64 // handed to clients
	Bytes      atomic.Uint64 // of WebSocket frames with records
	Frames     atomic.Uint64 // record frames received from nodes
	Messages   atomic.Uint64 // link messages received
	LinkBytes  atomic.Uint64 // of those messages
	Duplicates atomic.Uint64 // records dropped because the client has them
	Dropped    atomic.Uint64 // records of streams that their session does not know
	Latency    Latency

	Connects  prometheus.Counter
	Refused   *prometheus.CounterVec   // status
	Closes    *prometheus.CounterVec   // code
	Limits    *prometheus.CounterVec   // limit
	Auth      *prometheus.CounterVec   // at, result
	Handovers *prometheus.CounterVec   // cause
	Gaps      *prometheus.CounterVec   // reason
	LinkDowns *prometheus.CounterVec   // reason
	Pause     *prometheus.HistogramVec // cause
	Moves     prometheus.Histogram
	Tables    prometheus.Counter
	BadTables prometheus.Counter
}

// Info registers the metric that says which router and which topic the others are of.
func Info(r prometheus.Registerer, id, topic string) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "info", Help: "Always 1; the labels tell whose metrics these are.",
		ConstLabels: prometheus.Labels{"id": id, "topic": topic},
	}, func() float64 { return 1 }))
}

// Close counts a client's end by the router's close code; one below 0 is the client's own, whatever it was.
func (s *Set) Close(code int) {
	if code < 0 {
		s.Closes.WithLabelValues(byClient).Inc()
		return
	}
	s.Closes.WithLabelValues(strconv.Itoa(code)).Inc()
}

const byClient = "client"

// New builds the metrics and registers them.
func New(r prometheus.Registerer, g Gauges) *Set {
	s := &Set{
		Connects:  counter("client_connects_total", "Clients whose WebSocket was accepted."),
		Refused:   counters("client_refused_total", "Requests refused before the upgrade, by HTTP status.", "status"),
		Closes:    counters("client_closes_total", "Client sockets that ended, by the close code that the router sent; `client` is a close by the client, 1006 an end without any.", "code"),
		Limits:    counters("limit_hits_total", "Requests, connections, clients and keys turned away by a limit, by which one.", "limit"),
		Auth:      counters("auth_total", "Tokens judged, by where they came (upgrade, message) and result: ok or why not.", "at", "result"),
		Handovers: counters("handovers_total", "Sessions moved to another link, or left without one, by cause: claim (a newer owner, or a drain), link_down, link_up.", "cause"),
		Gaps:      counters("gaps_total", "Gaps told to clients, by reason.", "reason"),
		LinkDowns: counters("link_downs_total", "Links to nodes that ended, by reason.", "reason"),
		Tables:    counter("tables_total", "Tables put in force."),
		BadTables: counter("bad_tables_total", "Pictures of etcd that no table could be built from."),
		Pause: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "handover_pause_seconds",
			Help:    "How long sessions had no serving stream in a handover, by its cause; 0 where the old one served until the new one had everything.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"cause"}),
		Moves: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "route_change_seconds",
			Help:    "How long it took to tell all concerned sessions of a change of the table.",
			Buckets: []float64{.0001, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}),
	}
	r.MustRegister(s.Connects, s.Refused, s.Closes, s.Limits, s.Auth, s.Handovers, s.Gaps, s.LinkDowns, s.Pause, s.Moves, s.Tables, s.BadTables)
	for _, c := range []struct {
		name, help string
		of         *atomic.Uint64
	}{
		{"records_delivered_total", "Records handed to clients' sockets.", &s.Records},
		{"delivered_bytes_total", "Bytes of WebSocket frames that carried records.", &s.Bytes},
		{"link_records_total", "Record frames received from nodes; one may be for many clients.", &s.Frames},
		{"link_messages_total", "Messages received from nodes.", &s.Messages},
		{"link_bytes_total", "Bytes of messages received from nodes.", &s.LinkBytes},
		{"duplicates_dropped_total", "Records from nodes that the client had already, or that its other stream brings.", &s.Duplicates},
		{"records_dropped_total", "Records that came on a stream which its session does not know. Always 0, or a record was lost.", &s.Dropped},
	} {
		r.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: namespace, Name: c.name, Help: c.help},
			func() float64 { return float64(c.of.Load()) }))
	}
	for _, c := range []struct {
		name, help string
		of         func() float64
	}{
		{"link_dials_total", "Attempts to link a node.", g.LinkDials},
		{"link_failures_total", "Attempts to link a node that failed.", g.LinkFailures},
		{"etcd_malformed_values_total", "Values in etcd that could not be read and were ignored; the log names their keys.", g.Malformed},
		{"auth_key_failures_total", "Attempts to load the keys of tokens that failed.", g.AuthFailures},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: c.name, Help: c.help}, c.of))
	}
	for _, c := range []struct {
		name, help string
		of         func() float64
	}{
		{"sessions", "Clients connected.", g.Sessions},
		{"keys", "Client keys that they follow: more than sessions where sockets have several.", g.Keys},
		{"sessions_waiting", "Clients without a serving stream, for one of their keys at least, at the last look (about a second ago).", g.Waiting},
		{"handovers_pending", "Sessions with a handover under way.", g.Pending},
		{"outbox_bytes", "Bytes that wait for clients' sockets, at the last look.", g.Queued},
		{"sessions_window_full", "Clients that are sent no more until their sockets take some of their --client-window, at the last look.", g.Full},
		{"sessions_rate_limited", "Clients that are sent no more at the moment because of --client-catchup-rate, at the last look.", g.Paced},
		{"nodes", "Nodes that etcd lists.", g.Nodes},
		{"links_up", "Nodes linked.", g.LinksUp},
		{"streams", "Streams on all links.", g.Streams},
		{"table_revision", "etcd revision of the table in force.", g.TableRevision},
		{"table_age_seconds", "Time since etcd said what the table in force is built from.", g.TableAge},
		{"partitions", "Partitions of the topic; 0 before etcd has described it.", g.Partitions},
		{"partitions_stood_in", "Partitions served by a node that has not claimed them, because their owner is gone.", g.StoodIn},
		{"partitions_unserved", "Partitions that no node serves; their clients wait.", g.Unserved},
		{"draining", "1 while the router is leaving.", g.Draining},
		{"etcd_away_seconds", "How long etcd has not answered; 0 while it does.", g.EtcdAway},
		{"auth_keys", "Public keys that tokens are checked with.", g.AuthKeys},
		{"auth_keys_age_seconds", "Time since those keys were last loaded; 0 without any.", g.AuthKeysAge},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: c.name, Help: c.help}, c.of))
	}
	r.MustRegister(&s.Latency)
	s.foresee()
	return s
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// foresee makes the series whose labels are known, so that the first event is a rise and not a beginning.
func (s *Set) foresee() {
	for _, cause := range []string{"claim", "link_down", "link_up"} {
		s.Handovers.WithLabelValues(cause)
		s.Pause.WithLabelValues(cause)
	}
	for _, r := range []link.GapReason{
		link.GapRetention, link.GapReplayLimit, link.GapTopic, link.GapTruncated, link.GapTooLarge, link.GapMoved,
	} {
		s.Gaps.WithLabelValues(r.String())
	}
	s.Closes.WithLabelValues(byClient)
	for _, c := range closecode.All() {
		s.Closes.WithLabelValues(strconv.Itoa(c.Code))
	}
	for _, reason := range []string{"silent", "overflow", "stopped", "malformed", "unfit", "closed", "timeout", "broken"} {
		s.LinkDowns.WithLabelValues(reason)
	}
	for _, row := range closecode.Statuses() {
		s.Refused.WithLabelValues(strconv.Itoa(row.Status))
	}
	s.Refused.WithLabelValues("handshake")
}
