package wsnode

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// namespace begins the name of every metric.
const namespace = "pointsman_wsnode"

// metrics reads the node's numbers when they are asked for.
type metrics struct {
	n *Node

	links, streams, behind, generation, claims, draining, etcdUp, topicUp             *prometheus.Desc
	malformed, etcdAway, mapAge, linksOpened, scanReads, scanWait, scanning, ringMost *prometheus.Desc
	records, bytes, sent, scanned, mismatches, keyless, ring, linkBytes               *prometheus.Desc
	info                                                                              *prometheus.Desc
	head, lag, hanging, distance                                                      *prometheus.Desc
	gaps                                                                              *prometheus.CounterVec
}

func newMetrics(n *Node) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	// Constant labels, because neither changes while the node lives.
	info := prometheus.NewDesc(namespace+"_info", "Always 1; the labels tell whose metrics these are.", nil,
		prometheus.Labels{"id": n.cfg.ID, "topic": n.cfg.Topic, "group": n.cfg.Group, "zone": n.cfg.Zone})
	m := &metrics{
		info:        info,
		n:           n,
		links:       desc("links", "Routers that are connected."),
		streams:     desc("streams", "Subscriptions of routers, one for each client and key."),
		behind:      desc("streams_behind", "Streams that have not been sent everything up to the head."),
		generation:  desc("group_generation", "Generation of the consumer group."),
		claims:      desc("claims", "Partitions that the group assigned to this node and that are readable."),
		draining:    desc("draining", "1 while the node is leaving."),
		etcdUp:      desc("etcd_up", "1 while etcd answers."),
		malformed:   desc("etcd_malformed_values_total", "Values in etcd that could not be read and were ignored; the log names their keys."),
		etcdAway:    desc("etcd_away_seconds", "How long etcd has not answered; 0 while it does."),
		mapAge:      desc("map_age_seconds", "Time since etcd said the newest that this node knows of it; it grows while nothing changes."),
		topicUp:     desc("topic_verified", "1 while Kafka confirms the topic's identity; records wait while it is 0."),
		records:     desc("records_read_total", "Committed records read from Kafka's end."),
		bytes:       desc("read_bytes_total", "Bytes of records read from Kafka's end."),
		sent:        desc("records_sent_total", "Records sent to streams; one that several streams of a link want counts for each."),
		scanned:     desc("scan_bytes_total", "Bytes of records read again for streams that were behind."),
		scanReads:   desc("scan_reads_total", "Reads of Kafka for streams that were behind."),
		scanWait:    desc("scan_wait_seconds_total", "Time that such reads waited because of --scan-rate."),
		scanning:    desc("scans", "Partitions that are read again for streams that are behind."),
		mismatches:  desc("partitioner_mismatch_records_total", "Records that lie in another partition than their key says."),
		keyless:     desc("records_without_key_total", "Records without a key; no client can get them."),
		ring:        desc("ring_bytes", "Bytes of recent records in memory."),
		ringMost:    desc("ring_limit_bytes", "The most that those may take."),
		linksOpened: desc("links_opened_total", "Links that routers opened."),
		linkBytes:   desc("link_queued_bytes", "Bytes that wait for routers."),
		head:        desc("head", "Next offset to read.", "partition"),
		lag:         desc("lag", "Committed offsets that were not read yet (last stable offset less head).", "partition"),
		distance:    desc("behind_offsets", "How far the stream that is furthest behind is from the head; 0 when none is.", "partition"),
		hanging:     desc("uncommitted", "Offsets held back by open transactions (high watermark less last stable offset).", "partition"),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "gaps_total", Help: "Streams that were told that records are out of reach.",
		}, []string{"reason"}),
	}
	// From the start, so that the first gap is a rise and not a beginning.
	for _, r := range []link.GapReason{
		link.GapRetention, link.GapReplayLimit, link.GapTopic, link.GapTruncated, link.GapTooLarge, link.GapMoved,
	} {
		m.gaps.WithLabelValues(r.String())
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.info,
		m.links, m.streams, m.behind, m.generation, m.claims, m.draining, m.etcdUp, m.topicUp, m.malformed,
		m.records, m.bytes, m.sent, m.scanned, m.mismatches, m.keyless, m.ring, m.linkBytes, m.head, m.lag, m.hanging,
		m.etcdAway, m.mapAge, m.linksOpened, m.scanReads, m.scanWait, m.scanning, m.ringMost, m.distance,
	} {
		ch <- d
	}
	m.gaps.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	n := m.n
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(m.info, 1)
	placed := n.check.Totals()
	counter(m.records, n.records.Load())
	counter(m.bytes, n.bytes.Load())
	counter(m.mismatches, placed.Mismatched)
	counter(m.keyless, placed.Keyless)
	gauge(m.draining, truth(n.draining.Load()))
	m.gaps.Collect(ch)
	if !n.up.Load() {
		return
	}
	all, totals := n.runner.Status()
	counter(m.sent, totals.Deliveries)
	counter(m.malformed, n.etcd.Stats().MalformedValues)
	counter(m.scanned, totals.ScanBytes)
	counter(m.scanReads, totals.ScanReads)
	ch <- prometheus.MustNewConstMetric(m.scanWait, prometheus.CounterValue, totals.ScanWait.Seconds())
	var behind, claimed, scanning int
	var ring int64
	for _, s := range all {
		behind += s.Behind
		ring += s.RingBytes
		if s.Assigned && s.Readable {
			claimed++
		}
		if s.Scanning {
			scanning++
		}
		if !s.Reading {
			continue
		}
		p := strconv.Itoa(int(s.Partition))
		gauge(m.head, float64(s.Head), p)
		gauge(m.lag, float64(max(s.Stable-s.Head, 0)), p)
		gauge(m.distance, float64(max(s.Head-s.Lowest, 0)), p)
		gauge(m.hanging, float64(max(s.High-s.Stable, 0)), p)
	}
	links, sums := n.links.Status()
	var queued int64
	for _, l := range links {
		queued += l.Queued
	}
	topicErr, _ := n.identity.Health()
	etcdErr, since := n.etcd.Health()
	away := 0.0
	if etcdErr != nil && !since.IsZero() {
		away = time.Since(since).Seconds()
	}
	gauge(m.etcdAway, away)
	if p := n.picture.Load(); p != nil && !p.At.IsZero() {
		gauge(m.mapAge, time.Since(p.At).Seconds())
	}
	gauge(m.links, float64(sums.Links))
	gauge(m.streams, float64(sums.Streams))
	gauge(m.linkBytes, float64(queued))
	gauge(m.behind, float64(behind))
	gauge(m.ring, float64(ring))
	gauge(m.ringMost, float64(n.cfg.Ring))
	gauge(m.scanning, float64(scanning))
	counter(m.linksOpened, sums.Opened)
	gauge(m.claims, float64(claimed))
	gauge(m.generation, float64(n.group.Generation()))
	gauge(m.topicUp, truth(topicErr == nil))
	gauge(m.etcdUp, truth(etcdErr == nil))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
