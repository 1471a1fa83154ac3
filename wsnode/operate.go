package wsnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/console"
	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
)

// operate gives the admin server its checks and dumps.
func (n *Node) operate() {
	console.Add(n.admin.Handle)
	n.admin.Ready("started", func() error {
		if stage := *n.stage.Load(); stage != "" {
			return errors.New(stage)
		}
		return nil
	})
	n.admin.Ready("kafka", n.whenUp(func() error {
		err, since := n.identity.Health()
		return sinceWhen(err, since)
	}))
	n.admin.Ready("etcd", n.whenUp(func() error {
		if err, since := n.etcd.Health(); err != nil {
			return sinceWhen(err, since)
		}
		return n.identity.Described()
	}))
	n.admin.Ready("claims", n.whenUp(n.claimsReady))
	// Browsers send such a request for any page that asks them to.
	n.admin.Handle("POST /drain", http.NewCrossOriginProtection().Handler(http.HandlerFunc(n.serveDrain)))
	n.admin.HandleFunc("GET "+overview.Path, n.serveStatus)
	n.admin.Vars("node", n.dumpNode)
	n.admin.Vars("partitions", n.dumpPartitions)
	n.admin.Vars("links", n.dumpLinks)
	n.admin.Vars("etcd", n.dumpEtcd)
	n.admin.Vars("consistency", n.dumpConsistency)
}

func (n *Node) serveDrain(w http.ResponseWriter, _ *http.Request) {
	n.Drain()
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, "draining; the process ends when its routers have moved their streams\n")
}

func (n *Node) whenUp(check func() error) func() error {
	return func() error {
		if !n.up.Load() {
			return errors.New("not asked yet")
		}
		return check()
	}
}

func sinceWhen(err error, since time.Time) error {
	if err == nil || since.IsZero() {
		return err
	}
	return fmt.Errorf("for %s: %w", time.Since(since).Round(time.Second), err)
}

// firstAssignment is how long a node that has no partitions waits for the group to give it some. A cooperative
// rebalance takes two rounds, and in a group with more nodes than partitions some never get any.
const firstAssignment = 3 * time.Second

// claimsReady fails while routers cannot find everything here that the group gave to this node.
func (n *Node) claimsReady() error {
	if n.draining.Load() {
		return nil // it has given its claims away
	}
	if n.group.Generation() == 0 || n.joined.Load() == nil {
		return errors.New("not a member of the consumer group yet")
	}
	all, _ := n.runner.Status()
	if mine := countIf(all, func(s partition.Status) bool { return s.Assigned }); mine == 0 && time.Since(*n.joined.Load()) < firstAssignment {
		return errors.New("the group has not given this node a partition yet")
	}
	if waiting := countIf(all, func(s partition.Status) bool { return s.Assigned && !s.Readable }); waiting > 0 {
		return fmt.Errorf("%d assigned partitions are not readable yet", waiting)
	}
	if late := len(n.unpublished()); late > 0 {
		return fmt.Errorf("%d claims are not in etcd", late)
	}
	return nil
}

// unpublished lists the claims that should stand in etcd and do not, by what the last picture says.
func (n *Node) unpublished() map[int32]directory.Claim {
	late := n.claims.Published()
	for p, c := range n.picture.Load().Claims {
		if want, ok := late[p]; ok && c.Instance == want.Instance && c.Generation == want.Generation && c.Incarnation == want.Incarnation {
			delete(late, p)
		}
	}
	return late
}

func countIf[T any](all []T, is func(T) bool) int {
	count := 0
	for _, v := range all {
		if is(v) {
			count++
		}
	}
	return count
}

func (n *Node) dumpNode() any {
	d := map[string]any{
		"id": n.cfg.ID, "instance": n.instance, "started": n.started, "addr": n.Addr(), "topic": n.cfg.Topic,
		"group": n.cfg.Group, "partitioner": n.cfg.Partitioner, "draining": n.draining.Load(),
		"stage": *n.stage.Load(), "placement": n.check.Totals(),
	}
	if n.up.Load() {
		v := n.identity.View()
		verified, _ := n.identity.Verified()
		d["topic_id"], d["partitions"], d["growth"] = directory.FormatTopicID(v.ID), v.Partitions, v.Growth
		d["topic_verified"], d["generation"], d["claims"] = verified, n.group.Generation(), n.claims.Published()
	}
	return d
}

func (n *Node) dumpPartitions() any {
	if !n.up.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n.runner.Refresh(ctx)
	all, _ := n.runner.Status()
	return all
}

func (n *Node) dumpLinks() any {
	if !n.up.Load() {
		return nil
	}
	all, _ := n.links.Status()
	return all
}

func (n *Node) dumpEtcd() any {
	p := n.picture.Load()
	if p == nil {
		return nil
	}
	return map[string]any{
		"revision": p.Revision, "at": p.At, "topic": p.Topic, "nodes": p.Nodes, "claims": p.Claims, "stats": n.etcd.Stats(),
	}
}

// consistency is what the node's parts say of each other. What is in motion may show for a moment; what stays is a bug.
type consistency struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"`
	Remarks  []string `json:"remarks"` // not this node's fault
}

func (n *Node) dumpConsistency() any {
	c := consistency{Problems: []string{}, Remarks: []string{}}
	if n.up.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n.runner.Refresh(ctx)
		c.Problems = append(c.Problems, n.problems()...)
		c.Remarks = append(c.Remarks, n.remarks()...)
	}
	c.OK = len(c.Problems) == 0
	return c
}

func (n *Node) problems() []string {
	var found []string
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	all, _ := n.runner.Status()
	claimed := n.claims.Published()
	streams := 0
	for _, s := range all {
		streams += s.Streams + s.Pending
		_, published := claimed[s.Partition]
		if s.Readable && !published {
			say("partition %d is readable and assigned, but its claim is not kept", s.Partition)
		}
		if published && !s.Assigned {
			say("partition %d has a claim, but its loop does not know that it is assigned", s.Partition)
		}
	}
	if _, totals := n.links.Status(); totals.Streams != int64(streams) {
		say("links count %d streams, partitions %d", totals.Streams, streams)
	}
	for p, c := range n.unpublished() {
		say("claim of partition %d (generation %d) is not in etcd", p, c.Generation)
	}
	if p := n.picture.Load(); p.Nodes[n.cfg.ID].Instance != n.instance {
		say("etcd does not list this node")
	}
	return found
}

// remarks names what holds records back.
func (n *Node) remarks() []string {
	var found []string
	all, _ := n.runner.Status()
	for _, s := range all {
		if hanging := s.High - s.Stable; s.Reading && hanging > 0 {
			found = append(found, fmt.Sprintf("partition %d: an open transaction holds back %d offsets (last stable offset %d, high watermark %d)",
				s.Partition, hanging, s.Stable, s.High))
		}
	}
	if placed := n.check.Totals(); placed.Mismatched > 0 {
		found = append(found, fmt.Sprintf("%d records lie in other partitions than their keys say: a producer does not use the partitioner %s",
			placed.Mismatched, n.cfg.Partitioner))
	}
	if err, since := n.identity.Health(); err != nil {
		found = append(found, sinceWhen(err, since).Error())
	}
	if err := n.identity.Described(); err != nil {
		found = append(found, err.Error())
	}
	if err, since := n.etcd.Health(); err != nil {
		found = append(found, sinceWhen(err, since).Error())
	}
	return found
}
