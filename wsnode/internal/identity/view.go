// Package identity watches what the topic is: its id, which changes when it is deleted and created again, and
// its partitions, which may grow. Kafka's fetches go by name and would not notice; loops admit records only
// while this package vouches for the topic. It also keeps etcd's description of the topic true.
package identity

import (
	"fmt"
	"slices"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// View is what is known of the topic. It is immutable.
type View struct {
	ID         [16]byte
	Partitions int32
	Growth     []directory.Growth
}

// same reports whether two descriptions say the same.
func same(a, b directory.Topic) bool {
	return a.TopicID == b.TopicID && a.Partitions == b.Partitions && a.Incarnation == b.Incarnation &&
		directory.SameGrowth(a.Growth, b.Growth)
}

// describe turns a view into the value for etcd.
func (v View) describe(group, partitioner string, incarnation int64) directory.Topic {
	return directory.Topic{
		V: directory.Version, Group: group, TopicID: directory.FormatTopicID(v.ID), Partitions: v.Partitions,
		Partitioner: partitioner, Incarnation: incarnation, Growth: v.Growth,
	}
}

// Refusal says why this node cannot be part of what etcd describes; it tells what to do.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return r.Text }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// settings checks what never changes while a stack runs.
func settings(key string, cur directory.Topic, group, partitioner string) error {
	if cur.Group != group {
		return refuse("etcd (%s) says that this stack's consumer group is %q, and this node was given %q: "+
			"start it with --group=%s, or give it another --etcd-prefix to run beside the stack, or stop all nodes and delete the key",
			key, cur.Group, group, cur.Group)
	}
	if cur.Partitioner != partitioner {
		return refuse("etcd (%s) says that this stack's partitioner is %q, and this node was given %q: "+
			"start it with --partitioner=%s, or stop all nodes and delete the key",
			key, cur.Partitioner, partitioner, cur.Partitioner)
	}
	return nil
}

// mend returns what etcd should say, given what it says and what a running node knows from Kafka. past holds
// the ids that the topic had before.
func (v View) mend(cur directory.Topic, incarnation int64) (directory.Topic, bool) {
	next := cur
	next.Incarnation = max(cur.Incarnation, incarnation)
	if id := directory.FormatTopicID(v.ID); cur.TopicID != id {
		next.TopicID, next.Partitions, next.Growth = id, v.Partitions, slices.Clone(v.Growth)
	} else {
		next.Partitions = max(cur.Partitions, v.Partitions)
		next.Growth = directory.MergeGrowth(cur.Growth, v.Growth)
	}
	return next, !same(cur, next)
}

// with is the view with what etcd tells of the same topic's growth, as far as Kafka has told this node of so many
// partitions: another node may have been faster.
func (v View) with(seen *directory.Topic, partitions int32) View {
	if seen == nil || seen.TopicID != directory.FormatTopicID(v.ID) {
		return v
	}
	knows := slices.ContainsFunc(seen.Growth, func(g directory.Growth) bool { return g.Partitions == v.Partitions })
	if seen.Partitions == v.Partitions || seen.Partitions > v.Partitions && seen.Partitions <= partitions && knows {
		v.Partitions, v.Growth = seen.Partitions, directory.MergeGrowth(seen.Growth, v.Growth)
	}
	return v
}

// grown is the view after a growth.
func (v View) grown(partitions int32, g directory.Growth) View {
	return View{ID: v.ID, Partitions: partitions, Growth: append(slices.Clone(v.Growth), g)}
}
