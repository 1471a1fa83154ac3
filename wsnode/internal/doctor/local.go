package doctor

import (
	"fmt"
	"net"
	"time"
)

// settings tells of settings that a node refuses, and of an address that others cannot dial.
func (d *doctor) settings() {
	const check = "settings"
	switch {
	case d.cfg.Refused != nil:
		d.wrong(check, "a node does not start with these settings", d.cfg.Refused.Error())
	case d.onlyHere():
		d.warn(check, fmt.Sprintf("routers on other machines cannot dial this node: it would publish %s", first(d.cfg.Advertise, d.cfg.Listen)),
			"give --advertise an address that routers reach (etcd is on another machine, so they may be, too)")
	default:
		d.ok(check, "a node starts with them")
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// onlyHere reports whether the node would publish a loopback address in an etcd that is elsewhere.
func (d *doctor) onlyHere() bool {
	host, _, err := net.SplitHostPort(first(d.cfg.Advertise, d.cfg.Listen))
	if err != nil || !loopback(host) {
		return false
	}
	for _, endpoint := range d.cfg.Etcd.Endpoints {
		if host, _, err := net.SplitHostPort(endpoint); err == nil && !loopback(host) {
			return true
		}
	}
	return false
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// timings tells of times and sizes that do not go together. What Kafka thinks of the session timeout is asked there.
func (d *doctor) timings() {
	const check = "timings"
	well := true
	warn := func(text, remedy string) {
		well = false
		d.warn(check, text, remedy)
	}
	if lease := d.cfg.EtcdLease; d.etcdTook > 0 && lease > 0 && lease < 10*d.etcdTook {
		well = false
		d.wrong(check, fmt.Sprintf("the lease in etcd (%s) is shorter than ten of etcd's writes (%s each): a healthy node may lose it", lease, d.etcdTook.Round(time.Millisecond)),
			"make --etcd-lease longer, or etcd faster")
	}
	if d.cfg.EtcdLease > time.Minute {
		warn(fmt.Sprintf("a lost node stays in etcd for %s, and a new one under its --id waits that long", d.cfg.EtcdLease), "make --etcd-lease shorter; 5s is the default")
	}
	if d.cfg.GroupSessionTimeout > time.Minute {
		warn(fmt.Sprintf("the group notices a lost node after %s; until then stand-ins serve its partitions, and no lag is committed for them", d.cfg.GroupSessionTimeout),
			"make --group-session-timeout shorter; 6s is the default")
	}
	if d.cfg.LinkStall > 0 && d.cfg.LinkStall < 3*time.Second {
		warn(fmt.Sprintf("links are cut after %s without progress, which a busy router may need", d.cfg.LinkStall), "make --link-stall-timeout 3s or longer; 30s is the default")
	}
	if d.cfg.DrainTimeout > 0 && d.cfg.DrainTimeout < 5*time.Second {
		warn(fmt.Sprintf("a drain is cut off after %s, before routers have surely moved", d.cfg.DrainTimeout), "make --drain-timeout 5s or longer, and what supervises the node (terminationGracePeriodSeconds, TimeoutStopSec) longer than it")
	}
	if d.state != nil && d.state.Topic.Partitions > 0 {
		nodes := 1
		if d.picture != nil {
			nodes = max(1, len(d.picture.Nodes))
		}
		each := d.cfg.Ring * int64(nodes) / int64(d.state.Topic.Partitions)
		if each < d.cfg.FetchMaxBytes/4 {
			warn(fmt.Sprintf("each partition's share of the recent records is %d KiB: a client that is a moment behind is read for again at Kafka", each>>10), "make --ring larger, or start more nodes")
		}
	}
	if well {
		d.ok(check, "lease %s, session %s, drain %s go together", d.cfg.EtcdLease, d.cfg.GroupSessionTimeout, d.cfg.DrainTimeout)
	}
}

// files compares the limit of open files with what a node needs.
func (d *doctor) files() {
	const check = "files"
	limit, err := fileLimit()
	if err != nil {
		d.skip(check, "the limit of open files cannot be read: %v", err)
		return
	}
	brokers := 3
	if d.state != nil {
		brokers = len(d.state.Brokers)
	}
	// Per broker: live reads, scans, questions, and the group's two clients; the rest is links and the process itself.
	d.limited(check, limit, uint64(8*brokers+128))
}

func (d *doctor) limited(check string, limit, need uint64) {
	const roomy = 4096
	const remedy = "raise it: ulimit -n, LimitNOFILE= of the unit, or --ulimit nofile= of the container; a router needs one for every client"
	switch {
	case limit < need:
		d.wrong(check, fmt.Sprintf("%d files may be open, a node needs about %d", limit, need), remedy)
	case limit < roomy:
		d.warn(check, fmt.Sprintf("%d files may be open: enough for this node (about %d), not for many routers", limit, need), remedy)
	default:
		d.ok(check, "%d may be open, a node needs about %d", limit, need)
	}
}
