package wsnode

import (
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
)

const (
	// maxProblems bounds what a status says in words: the first ones tell what is wrong.
	maxProblems = 20
	// maxMismatches bounds the misplaced records that are shown.
	maxMismatches = 50
)

func (n *Node) serveStatus(w http.ResponseWriter, r *http.Request) {
	admin.Answer(w, r, http.StatusOK, n.status())
}

// status is the node's own part of what operators see.
func (n *Node) status() *overview.Status {
	now := time.Now().UTC()
	s := &overview.Status{
		Of: overview.OfNode, ID: n.cfg.ID, Instance: n.instance, Version: n.cfg.Version, At: now,
		Problems: []string{}, Routers: []overview.Router{}, Partitions: []overview.Partition{},
		Handovers: []overview.Handover{}, Mismatches: []overview.Mismatch{},
	}
	placed := n.check.Totals()
	self := overview.Node{
		ID: n.cfg.ID, Instance: n.instance, Addr: n.Addr(), Admin: n.advertisedAdmin(), Version: n.cfg.Version, Zone: n.cfg.Zone,
		Started: n.started, Draining: n.draining.Load(), Stage: *n.stage.Load(), Memory: admin.Memory(),
		Mismatched: placed.Mismatched, Keyless: placed.Keyless,
	}
	s.Unready = unready(n.admin.Readiness())
	self.Problem = s.Unready
	if n.up.Load() {
		n.describe(s, &self, now)
	}
	s.Nodes = []overview.Node{self}
	for _, f := range n.check.Findings(maxMismatches) {
		s.Mismatches = append(s.Mismatches, overview.Mismatch{
			Partition: f.Partition, Offset: f.Offset, At: f.At.UTC(), Count: f.Count, LooksLike: f.LooksLike, Node: n.cfg.ID,
		})
	}
	s.Sort()
	return s
}

// describe adds what is known once everything is up.
func (n *Node) describe(s *overview.Status, self *overview.Node, now time.Time) {
	v := n.identity.View()
	s.Topic = &overview.Topic{
		Name: n.cfg.Topic, ID: directory.FormatTopicID(v.ID), Partitions: v.Partitions, Partitioner: n.cfg.Partitioner,
		Group: n.cfg.Group, Incarnation: n.claims.Known(),
	}
	if p := n.picture.Load(); p != nil {
		s.Table = overview.Table{Revision: p.Revision, AgeMS: now.Sub(p.At).Milliseconds()}
		self.Listed = p.Nodes[n.cfg.ID].Instance == n.instance
	}
	if err, since := n.etcd.Health(); err != nil {
		s.Etcd.Error, s.Etcd.Since = err.Error(), since.UTC()
	}
	s.Etcd.Malformed = n.etcd.Stats().MalformedValues
	all, _ := n.runner.Status()
	claimed := n.claims.Published()
	for _, p := range all {
		c, mine := claimed[p.Partition]
		s.Partitions = append(s.Partitions, n.partition(p, c, mine))
		self.Streams += p.Streams + p.Pending
		self.Behind += p.Behind
		self.Ring += p.RingBytes
		if p.Reading {
			self.Lag += max(p.Stable-p.Head, 0)
		}
		if mine {
			self.Routed++
		}
	}
	links, _ := n.links.Status()
	routers := map[string]*overview.Router{}
	for _, l := range links {
		r := routers[l.Router]
		if r == nil {
			r = &overview.Router{ID: l.Router, Version: l.Build, Remote: l.Remote, Since: l.Since.UTC(), Nodes: 1}
			routers[l.Router] = r
		}
		r.Streams += l.Streams
	}
	for _, r := range routers {
		s.Routers = append(s.Routers, *r)
	}
	s.Problems = n.remarks()
	if len(s.Problems) > maxProblems {
		s.Problems = s.Problems[:maxProblems]
	}
	if s.Problems == nil {
		s.Problems = []string{}
	}
}

func (n *Node) partition(p partition.Status, c directory.Claim, mine bool) overview.Partition {
	out := overview.Partition{
		Partition: p.Partition, Node: n.cfg.ID, StandIn: !mine, Streams: p.Streams + p.Pending, Behind: p.Behind,
		Reading: p.Reading, Scanning: p.Scanning,
	}
	if mine {
		out.Generation, out.Since = c.Generation, c.Since.UTC().Truncate(time.Second)
	}
	if p.Reading {
		out.Head, out.Lag, out.Uncommitted = p.Head, max(p.Stable-p.Head, 0), max(p.High-p.Stable, 0)
	}
	if p.Behind > 0 {
		out.Lowest = p.Lowest
	}
	if p.Scanning {
		out.ScanAt = p.ScanAt
	}
	return out
}

func unready(all admin.Readiness) string {
	var reasons []string
	for _, c := range all.Checks {
		if !c.Ready {
			reasons = append(reasons, c.Name+": "+c.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}

// advertisedAdmin is where operators' programs on other machines reach the admin server. One that listens on all
// interfaces is found where routers find the node.
func (n *Node) advertisedAdmin() string {
	addr := n.AdminAddr()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return addr
	}
	own, _, err := net.SplitHostPort(n.Addr())
	if err != nil {
		return addr
	}
	return net.JoinHostPort(own, port)
}
