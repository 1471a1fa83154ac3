package metrics

import "github.com/prometheus/client_golang/prometheus"

// LimitGauges are read from what bounds clients when Prometheus asks.
type LimitGauges struct {
	Clients     func() float64
	Silent      func() float64
	Waiting     func() float64
	Addresses   func() float64
	Files       func() float64
	MemoryLimit func() float64
	MemoryUsed  func() float64
	MemoryShort func() float64
}

// RegisterLimits registers the limits and how much of each is used.
func RegisterLimits(r prometheus.Registerer, g LimitGauges) {
	for _, c := range []struct {
		name, help string
		of         func() float64
	}{
		{"clients_limit", "Clients that there may be at a time.", g.Clients},
		{"handshakes_open", "Connections that have not sent a request yet.", g.Silent},
		{"handshakes_waiting", "Handshakes that wait for their turn.", g.Waiting},
		{"client_addresses", "Addresses that clients are connected from; IPv6 by /64.", g.Addresses},
		{"open_files_limit", "The limit of open files in force.", g.Files},
		{"memory_limit_bytes", "Memory that the router keeps within; 0 for no limit.", g.MemoryLimit},
		{"memory_used_bytes", "Memory in use as that limit counts it: without what the garbage collector can give back.", g.MemoryUsed},
		{"memory_short", "1 while clients are refused and given up because memory is short.", g.MemoryShort},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: c.name, Help: c.help}, c.of))
	}
}
