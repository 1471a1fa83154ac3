package overview

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxProblems bounds what is said in words: the first ones tell what is wrong.
	maxProblems = 30
	// farBehind is a lag that is not the coming and going of a moment.
	farBehind = 10_000
	// maxRanges bounds a list of partitions in words.
	maxRanges = 8
)

// Diagnose says in words what an operator should look at. What is in Problems already stays first.
func (s *Status) Diagnose() {
	if s.Problems == nil {
		s.Problems = []string{}
	}
	say := func(format string, args ...any) {
		if len(s.Problems) < maxProblems {
			s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
		}
	}
	if s.Etcd.Error != "" {
		say("etcd does not answer (%s); what was known stays in force, clients are served on. Look at etcd", s.Etcd.Error)
	}
	if s.Topic == nil {
		say("the topic is not described in etcd; a node does that when it starts. Start one, or compare --etcd-prefix and --topic with its own")
		return
	}
	s.diagnoseNodes(say)
	s.diagnosePartitions(say)
	if len(s.Mismatches) > 0 {
		m := &s.Mismatches[0]
		looks := "none that is known"
		if m.LooksLike != "" {
			looks = m.LooksLike
		}
		count := "1 record"
		if m.Count != 1 {
			count = fmt.Sprintf("%d records", m.Count)
		}
		say("a producer does not use the partitioner %s: %s in partition %d (the newest at offset %d; %s puts it there) cannot reach the clients. Set its partitioner",
			s.Topic.Partitioner, count, m.Partition, m.Offset, looks)
	}
	if more := len(s.Mismatches); more > 1 {
		say("%d partitions in all hold such records", more)
	}
	if s.Etcd.Malformed > 0 {
		say("%d values in etcd under this topic cannot be read and are ignored; the log names their keys", s.Etcd.Malformed)
	}
}

func (s *Status) diagnoseNodes(say func(string, ...any)) {
	stays := func(n Node) bool { return !n.Draining }
	switch {
	case len(s.Nodes) == 0:
		say("no node lives; clients wait. Start one: wsnode --topic=%s", s.Topic.Name)
	case s.Of != OfNode && !slices.ContainsFunc(s.Nodes, stays):
		say("all nodes are draining: nobody can take over from them, and clients wait when they have gone. Start another: wsnode --topic=%s", s.Topic.Name)
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch {
		case s.Of == OfRouter && !n.Linked && n.Listed:
			say("%s is in etcd, but %s cannot link it: %s. Look at its log, and whether %s can be reached from here", n.ID, s.ID, orNoReason(n.LinkError), n.Addr)
		case s.Of == OfRouter && !n.Listed:
			say("%s is not in etcd any more and serves on; it is wedged, or etcd was wiped and it has not written itself again", n.ID)
		case !n.Heard():
			say("%s did not say how far it is: %s", n.ID, n.Unheard)
		case n.Problem != "" && !n.Draining:
			say("%s is not ready: %s", n.ID, n.Problem)
		}
	}
}

// orNoReason keeps the end of a chain of errors, which says what happened.
func orNoReason(text string) string {
	if text == "" {
		return "it has not been tried yet"
	}
	if i := strings.LastIndex(text, "dial tcp"); i >= 0 {
		return text[i:]
	}
	return text
}

func (s *Status) diagnosePartitions(say func(string, ...any)) {
	var nobody, standIn, older, far []int32
	var lag int64
	for i := range s.Partitions {
		p := &s.Partitions[i]
		switch {
		case p.Node == "":
			nobody = append(nobody, p.Partition)
		case p.StandIn && s.Of != OfNode:
			standIn = append(standIn, p.Partition)
		case p.Claimed != "" || p.Remembered:
			older = append(older, p.Partition)
		}
		if p.Lag >= farBehind {
			far = append(far, p.Partition)
			lag += p.Lag
		}
	}
	if len(nobody) > 0 && len(s.Nodes) > 0 {
		say("nobody serves %s; their clients wait", partitions(nobody))
	}
	if len(standIn) > 0 {
		say("%s: stand-ins serve, because the owners are gone; the consumer group gives them away within its session timeout", partitions(standIn))
	}
	if len(older) > 0 {
		say("%s: an earlier owner serves on, because the newest is not linked, or its claim is gone from etcd", partitions(older))
	}
	if len(far) > 0 {
		say("%s: %d records not read yet; the node reads slower than producers write, or its broker is slow", partitions(far), lag)
	}
}

func partitions(list []int32) string {
	if len(list) == 1 {
		return "partition " + Ranges(list)
	}
	return fmt.Sprintf("%d partitions (%s)", len(list), Ranges(list))
}

// Ranges spells ascending numbers as 0-3, 7, the first few of them.
func Ranges(list []int32) string {
	var b strings.Builder
	count := 0
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if count++; count > maxRanges {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(int(list[i])))
		if j > i {
			b.WriteString("-" + strconv.Itoa(int(list[j])))
		}
		i = j + 1
	}
	return b.String()
}

// Why says why a partition is served by whom it is.
func (s *Status) Why(p *Partition) string {
	if p.Node == "" {
		if p.Claimed != "" {
			return fmt.Sprintf("%s has the newest claim%s, but no node is linked: its clients wait", p.Claimed, claimed(p))
		}
		return "no node lives: its clients wait"
	}
	switch {
	case s.Of == OfEtcd && p.StandIn:
		return fmt.Sprintf("%s has the newest claim%s, but is not in etcd any more; which node stands in, a router knows", p.Node, claimed(p))
	case s.Of == OfEtcd:
		return fmt.Sprintf("the consumer group gave it to %s%s, and its lease in etcd lives", p.Node, claimed(p))
	case p.StandIn && p.Claimed == "":
		return p.Node + " stands in: no node has claimed the partition yet. Every router chooses the same stand-in (rendezvous hash over the linked nodes)"
	case p.StandIn:
		return fmt.Sprintf("%s stands in: %s has the newest claim%s, but is not linked. The consumer group gives the partition away within its session timeout", p.Node, p.Claimed, claimed(p))
	case p.Remembered:
		return fmt.Sprintf("%s owned it before%s and serves on: etcd holds no claim for it any more", p.Node, claimed(p))
	case p.Claimed != "":
		return fmt.Sprintf("%s owned it before and serves on, because %s, which has the newest claim%s, is not linked", p.Node, p.Claimed, claimed(p))
	}
	return fmt.Sprintf("the consumer group gave it to %s%s, and its link is up", p.Node, claimed(p))
}

func claimed(p *Partition) string {
	if p.Since.IsZero() {
		return ""
	}
	return fmt.Sprintf(" (generation %d, since %s)", p.Generation, p.Since.UTC().Format(time.RFC3339))
}
