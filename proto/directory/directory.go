// Package directory is what nodes publish in etcd and routers read there: the keys and their JSON values.
// An operator reads them with `etcdctl get --prefix /pointsman/`.
package directory

import (
	"slices"
	"time"
)

// Version is the "v" of every value written by this program.
const Version = 1

// Topic is the value of <prefix>/<topic>/topic. It has no lease.
type Topic struct {
	V           int      `json:"v"`
	Group       string   `json:"group"`
	TopicID     string   `json:"topic_id"` // canonical UUID text
	Partitions  int32    `json:"partitions"`
	Partitioner string   `json:"partitioner"`
	Incarnation int64    `json:"incarnation"` // raised when the consumer group's generation goes back
	Growth      []Growth `json:"growth,omitempty"`
}

// Growth is one growth of the partition count: how many partitions there were, and what is known of each of them.
type Growth struct {
	Partitions int32 `json:"partitions"`
	// Ends is where each ended when the growth was noticed: what producers wrote before that and were done with lies
	// below.
	Ends  []int64   `json:"ends"`
	Since time.Time `json:"since"`
	// From is a place in each that was its end when nobody can have heard of the growth yet: keys that move into it
	// have no record below. Absent when nobody looked in time.
	From []int64 `json:"from,omitempty"`
	// Closed is where each ended when no producer could go on with the old count any more. Absent until then.
	Closed []int64 `json:"closed,omitempty"`
}

// MergeGrowth joins two accounts of one topic's growth: what both tell is taken from a, and completed by b.
func MergeGrowth(a, b []Growth) []Growth {
	var out []Growth
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Partitions < b[0].Partitions:
			out, a = append(out, a[0]), a[1:]
		case len(a) == 0 || b[0].Partitions < a[0].Partitions:
			out, b = append(out, b[0]), b[1:]
		default:
			g := a[0]
			if g.From == nil {
				g.From = b[0].From
			}
			if g.Closed == nil {
				g.Closed = b[0].Closed
			}
			out, a, b = append(out, g), a[1:], b[1:]
		}
	}
	return out
}

// SameGrowth reports whether two accounts say the same.
func SameGrowth(a, b []Growth) bool {
	return slices.EqualFunc(a, b, func(x, y Growth) bool {
		return x.Partitions == y.Partitions && slices.Equal(x.Ends, y.Ends) && slices.Equal(x.From, y.From) && slices.Equal(x.Closed, y.Closed)
	})
}

// Node is the value of <prefix>/<topic>/nodes/<node id>, under the node's lease.
type Node struct {
	V        int       `json:"v"`
	Instance string    `json:"instance"` // random per process
	Addr     string    `json:"addr"`     // host:port that routers dial
	Admin    string    `json:"admin,omitempty"`
	Started  time.Time `json:"started"`
	Version  string    `json:"version"` // the program's
	Zone     string    `json:"zone,omitempty"`
	Draining bool      `json:"draining"`
}

// Claim is the value of <prefix>/<topic>/claims/<partition>, under the node's lease.
type Claim struct {
	V           int       `json:"v"`
	Node        string    `json:"node"`
	Instance    string    `json:"instance"`
	Incarnation int64     `json:"incarnation"`
	Generation  int32     `json:"generation"`
	Since       time.Time `json:"since"`
}

// Newer reports whether c replaces o: claims are ordered by (incarnation, generation).
func (c Claim) Newer(o Claim) bool {
	if c.Incarnation != o.Incarnation {
		return c.Incarnation > o.Incarnation
	}
	return c.Generation > o.Generation
}
