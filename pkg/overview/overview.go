// Package overview is what operators see of a Pointsman: the JSON of GET /api/v1/status on the admin address. A router
// answers with the stack as it sees it, a node with its own part of it in the same shape; the console and `router
// status` show either.
package overview

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
)

// Path is where an admin server answers with a Status.
const Path = "/api/v1/status"

// maxAnswer bounds what is read of an answer; the status of 4,096 partitions and 100 nodes has about 1 MB.
const maxAnswer = 8 << 20

// Of says who speaks in a Status.
type Of string

// Who may.
const (
	OfRouter Of = "router"
	OfNode   Of = "node"
	OfEtcd   Of = "etcd" // a command that found no router to ask
)

// Status is one look at a stack.
type Status struct {
	Of       Of        `json:"of"`
	ID       string    `json:"id,omitempty"`
	Instance string    `json:"instance,omitempty"` // of a node
	Version  string    `json:"version,omitempty"`
	At       time.Time `json:"at"` // when it was put together, by the speaker's clock

	Topic    *Topic   `json:"topic"` // null while it is not known
	Table    Table    `json:"table"`
	Etcd     Etcd     `json:"etcd"`
	Unready  string   `json:"unready,omitempty"` // why clients should rather go elsewhere
	Problems []string `json:"problems"`          // in words, what an operator should look at; empty when all is well

	Routers    []Router    `json:"routers"`
	Nodes      []Node      `json:"nodes"`
	Partitions []Partition `json:"partitions"` // in their order
	Handovers  []Handover  `json:"handovers"`  // the newest first
	Mismatches []Mismatch  `json:"mismatches"` // records in partitions where nobody looks for them; the newest first
}

// Topic is what etcd says of it.
type Topic struct {
	Name        string `json:"name"`
	ID          string `json:"id"`
	Partitions  int32  `json:"partitions"`
	Partitioner string `json:"partitioner"`
	Group       string `json:"group"`
	Incarnation int64  `json:"incarnation,omitempty"`
}

// Table is how old the speaker's picture of etcd is.
type Table struct {
	Revision int64 `json:"revision"`
	AgeMS    int64 `json:"age_ms"` // since etcd said the newest of it; it grows while nothing changes
}

// Etcd is how the speaker gets on with it.
type Etcd struct {
	Error     string    `json:"error,omitempty"` // empty while it answers
	Since     time.Time `json:"since,omitzero"`  // of the error
	Malformed uint64    `json:"malformed,omitempty"`
}

// Router is a router as the nodes it is linked to see it, and the speaker itself.
type Router struct {
	ID       string    `json:"id"`
	Version  string    `json:"version,omitempty"`
	Remote   string    `json:"remote,omitempty"` // where its links come from
	Since    time.Time `json:"since,omitzero"`   // of its oldest link, or of its start
	Nodes    int       `json:"nodes"`            // that it is linked to, of those that were heard
	Streams  int       `json:"streams"`
	Self     bool      `json:"self,omitempty"` // the speaker; what follows is known of it alone
	Sessions int64     `json:"sessions"`
	Waiting  int64     `json:"waiting"`
	Pending  int64     `json:"pending"` // handovers under way
	Queued   int64     `json:"queued_bytes"`
	Memory   uint64    `json:"memory_bytes,omitempty"`
	Draining bool      `json:"draining,omitempty"`
}

// Node is one node: what etcd and the link say of it and, if it was heard, what it says itself.
type Node struct {
	ID        string    `json:"id"`
	Instance  string    `json:"instance"`
	Addr      string    `json:"addr"`
	Admin     string    `json:"admin,omitempty"`
	Version   string    `json:"version,omitempty"`
	Zone      string    `json:"zone,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Listed    bool      `json:"listed"` // etcd shows it
	Draining  bool      `json:"draining"`
	Linked    bool      `json:"linked"` // with the speaking router
	LinkError string    `json:"link_error,omitempty"`
	RTT       float64   `json:"rtt_ms,omitempty"`
	Routed    int       `json:"partitions"` // partitions that it serves, as far as the speaker knows

	Unheard string `json:"unheard,omitempty"` // why it did not say what follows
	Stage   string `json:"stage,omitempty"`   // how far its start, or its end, has come
	Problem string `json:"problem,omitempty"` // why it says that it is not ready
	Streams int    `json:"streams"`           // one for each client and key
	Behind  int    `json:"behind"`            // of them, not at the head
	Lag     int64  `json:"lag"`               // records not read yet, of all its partitions
	Memory  uint64 `json:"memory_bytes,omitempty"`
	Ring    int64  `json:"ring_bytes,omitempty"`
	// Since the node began:
	Mismatched uint64 `json:"mismatched,omitempty"` // records that lie where nobody looks for them
	Keyless    uint64 `json:"keyless,omitempty"`    // records that no client can get
}

// Heard reports whether the node itself spoke.
func (n *Node) Heard() bool { return n.Unheard == "" }

// Partition is who serves one, and how far it has come.
type Partition struct {
	Partition  int32     `json:"partition"`
	Node       string    `json:"node,omitempty"`       // that serves it; empty when nobody does
	StandIn    bool      `json:"stand_in,omitempty"`   // that node has not claimed it
	Claimed    string    `json:"claimed_by,omitempty"` // by another node than the one that serves it
	Remembered bool      `json:"remembered,omitempty"` // the newest claim is not in etcd any more, but its node is linked
	Generation int32     `json:"generation,omitempty"` // of the newest claim
	Since      time.Time `json:"since,omitzero"`       // of the newest claim
	Sessions   int       `json:"sessions,omitempty"`   // of the speaking router
	// What the serving node says; Reading is false when it said nothing.
	Reading     bool  `json:"reading,omitempty"`
	Head        int64 `json:"head,omitempty"`
	Lag         int64 `json:"lag,omitempty"`
	Uncommitted int64 `json:"uncommitted,omitempty"` // offsets held back by open transactions
	Streams     int   `json:"streams,omitempty"`
	Behind      int   `json:"behind,omitempty"`
	Lowest      int64 `json:"lowest,omitempty"` // the furthest-behind stream's next offset, when one is behind
	Scanning    bool  `json:"scanning,omitempty"`
	ScanAt      int64 `json:"scan_at,omitempty"` // where the catch-up read is
}

// Handover is one change of who serves what.
type Handover struct {
	At         time.Time `json:"at"`
	Cause      string    `json:"cause"` // claim, link_down, link_up
	From       []string  `json:"from"`  // nodes, the first few
	To         []string  `json:"to"`
	Partitions int       `json:"partitions"`
	Sessions   int       `json:"sessions"`
	PauseMS    float64   `json:"pause_ms"` // the longest that a session had no stream
	Unserved   int       `json:"unserved"` // sessions that still have none
	TookMS     float64   `json:"took_ms"`  // until all sessions had been told
}

// Mismatch is the newest record of a partition whose key belongs elsewhere.
type Mismatch struct {
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	At        time.Time `json:"at"`
	Count     uint64    `json:"count"`                // in this partition since the node began
	LooksLike string    `json:"looks_like,omitempty"` // the partitioner that puts the key there
	Node      string    `json:"node,omitempty"`
}

// Get asks the admin server on addr.
func Get(ctx context.Context, addr string) (*Status, error) {
	s := new(Status)
	if err := admin.Get(ctx, addr, Path, maxAnswer, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Sort brings everything into the order in which it is shown.
func (s *Status) Sort() {
	slices.SortFunc(s.Partitions, func(a, b Partition) int { return cmp.Compare(a.Partition, b.Partition) })
	slices.SortFunc(s.Nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Instance, b.Instance))
	})
	slices.SortFunc(s.Routers, func(a, b Router) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(s.Handovers, func(a, b Handover) int { return b.At.Compare(a.At) })
	slices.SortStableFunc(s.Mismatches, func(a, b Mismatch) int { return b.At.Compare(a.At) })
}
