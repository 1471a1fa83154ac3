package bench

import (
	"fmt"
	"slices"
	"strings"
)

// figure describes one number of a sample.
type figure struct {
	name string
	text string // with its unit
	more bool   // more is better
	told bool   // in the table; the others are in the file
}

// figures lists what is measured, in the order of the table.
func figures() []figure {
	return []figure{
		{name: "max_rate", text: "highest steady rate, records/s", more: true, told: true},
		{name: "burst_rate", text: "delivered in a burst, records/s", more: true, told: true},
		{name: "rate", text: "delivered, records/s", more: true, told: true},
		{name: "kept_up", text: "  of what was written", more: true, told: true},
		{name: "cpu_us", text: "CPU per delivered message, us", told: true},
		{name: "cpu_router_us", text: "  of the routers, us", told: true},
		{name: "cpu_node_us", text: "  of the nodes, us", told: true},
		{name: "cpu_load_us", text: "  (load clients, us)", told: true},
		{name: "cpu_kafka_us", text: "  (Kafka, us)", told: true},
		{name: "p50_ms", text: "delay p50, ms", told: true},
		{name: "p90_ms", text: "delay p90, ms", told: true},
		{name: "p99_ms", text: "delay p99, ms", told: true},
		{name: "p999_ms", text: "delay p99.9, ms", told: true},
		{name: "burst_gain_mb", text: "memory gained in the burst, MB", told: true},
		{name: "burst_peak_mb", text: "memory in the burst, MB"},
		{name: "rss_kb", text: "memory per client, KB", told: true},
		{name: "rss_router_kb", text: "  of the routers, KB", told: true},
		{name: "rss_node_kb", text: "  of the nodes, KB", told: true},
		{name: "rss_total_mb", text: "memory with all clients, MB"},
		{name: "idle_cpu_percent", text: "CPU while idle, % of a core", told: true},
		{name: "accepts_per_s", text: "clients connected per second", more: true, told: true},
		{name: "accept_us", text: "CPU per connect, us", told: true},
		{name: "accept_p99_ms", text: "connect p99, ms", told: true},
		{name: "answered", text: "clients that received their record", more: true, told: true},
		{name: "link_records", text: "link records per record written", told: true},
		{name: "link_messages", text: "link messages per record written", told: true},
		{name: "link_bytes", text: "link bytes per record written", told: true},
		{name: "ingest_kb_s", text: "consumed per node, KB/s", told: true},
		{name: "ingest_most_kb_s", text: "consumed by the busiest node, KB/s", told: true},
		{name: "unheard_us", text: "CPU per record nobody wants, us", told: true},
		{name: "unheard_rate", text: "such records read per second", more: true, told: true},
		{name: "handover_ms", text: "claim in etcd to last move done, ms", told: true},
		{name: "glance_ms", text: "  known to within, ms", told: true},
		{name: "pause_ms", text: "without a stream, mean of those hit, ms", told: true},
		{name: "moved", text: "sessions moved", told: true},
		{name: "move_us", text: "CPU per moved session, us", told: true},
		{name: "p99_moving_ms", text: "delay p99 while they move, ms", told: true},
		{name: "p99_added_ms", text: "  more than before, ms", told: true},
		{name: "worst_moving_ms", text: "longest delay while they move, ms", told: true},
		{name: "worst_added_ms", text: "  more than the longest before, ms", told: true},
		{name: "slow_caught_up_ms", text: "slow clients caught up within, ms", told: true},
		{name: "others_share", text: "machine used by others, share", told: true},
	}
}

// shown is what the table tells of a scenario, beside what belongs to its work alone.
func (s *Scenario) shown(f *figure) bool {
	if !f.told {
		return false
	}
	prefix := func(all ...string) bool {
		return slices.ContainsFunc(all, func(p string) bool { return strings.HasPrefix(f.name, p) })
	}
	connecting, memory := prefix("accept"), prefix("rss_")
	switch {
	case s.Work == idle:
		return connecting || memory && s.Settle > 0 || prefix("idle", "answered", "others")
	case prefix("link_"):
		return s.OneKey
	case prefix("ingest"):
		return strings.HasPrefix(s.Name, "nodes-")
	case connecting || memory || prefix("idle"):
		return false
	}
	return true
}

// number prints a figure with three digits or so.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a == 0:
		return "0"
	}
	return fmt.Sprintf("%.2f", v)
}
