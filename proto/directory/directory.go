// Package directory is what nodes publish in etcd and routers read there: the keys and their JSON values.
// An operator reads them with `etcdctl get --prefix /pointsman/`.
package directory

import "time"

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

// Growth is one growth of the partition count: how many there were, and where each ended.
type Growth struct {
	Partitions int32     `json:"partitions"`
	Ends       []int64   `json:"ends"`
	Since      time.Time `json:"since"`
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
