package playground

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// maxNodes bounds how many nodes run at once: each is a process, and the page has as many colours.
const maxNodes = 8

// shownAfter is how long a node that has gone stays on the page.
const shownAfter = 20 * time.Second

// state is what a node, a router or etcd is doing, as the page shows it.
type state string

const (
	starting state = "starting"
	live     state = "live"
	draining state = "draining" // an orderly stop is under way
	frozen   state = "frozen"
	dead     state = "dead" // killed, or ended by itself
	gone     state = "gone" // after an orderly stop
	stopped  state = "stopped"
	waiting  state = "waiting" // a router that knows no topic yet, because etcd is away
	// foreign is somebody else's: it cannot be stopped here.
	foreign state = "foreign"
)

// node is one node on the page, running or not.
type node struct {
	ID    string `json:"id"`
	State state  `json:"state"`
	Slot  int    `json:"slot"` // its colour: the lowest number that no other node on the page has
	PID   int    `json:"pid"`
	Addr  string `json:"addr"`
	Until int64  `json:"until,omitempty"` // when it thaws, ms since the epoch

	ended time.Time
}

// router is one router on the page.
type router struct {
	Name     string `json:"name"`
	State    state  `json:"state"`
	URL      string `json:"url"`
	Admin    string `json:"admin"`
	PID      int    `json:"pid"`
	Sessions int    `json:"sessions"`
}

// partition is who serves one partition.
type partition struct {
	Node    string `json:"node,omitempty"` // empty: nobody
	StandIn bool   `json:"stand_in,omitempty"`
	Claimed string `json:"claimed_by,omitempty"`
}

// action is one press of a button.
type action struct {
	ID     int    `json:"id"`
	Kind   kind   `json:"kind"`
	Target string `json:"target,omitempty"`
	At     int64  `json:"at"`             // ms since the epoch
	Done   int64  `json:"done,omitempty"` // ms since the epoch; 0 while it is under way
	Error  string `json:"error,omitempty"`
}

// shownActions is how many actions a page learns when it connects; newer ones reach it as they happen.
const shownActions = 20

// world is what the page shows of the stack. Its methods may be called from several goroutines.
type world struct {
	stack stack.Stack

	mu         sync.Mutex
	changed    chan struct{} // guarded by mu; closed and replaced at every change
	nodes      []*node       // guarded by mu; by age
	routers    []*router     // guarded by mu
	etcd       state         // guarded by mu
	partitions []partition   // guarded by mu
	actions    []action      // guarded by mu; the newest ones
	count      int           // guarded by mu; actions so far
}

func newWorld(s stack.Stack) *world {
	w := &world{stack: s, changed: make(chan struct{}), etcd: live}
	if s.Kind() == stack.External {
		w.etcd = foreign
	}
	for _, n := range s.Nodes() {
		w.addLocked(n, live)
	}
	for _, r := range s.Routers() {
		w.routers = append(w.routers, &router{Name: r.Name, State: live, URL: r.URL, Admin: r.Admin, PID: r.PID})
	}
	return w
}

// snapshot is what the page gets.
type snapshot struct {
	Nodes      []node      `json:"nodes"`
	Routers    []router    `json:"routers"`
	Etcd       state       `json:"etcd"`
	Partitions []partition `json:"partitions"`
	Actions    []action    `json:"actions"`
}

// look is the present, and a channel that is closed when it is over.
func (w *world) look() (snapshot, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := snapshot{
		// Never null in JSON.
		Nodes: []node{}, Routers: []router{}, Etcd: w.etcd,
		Partitions: append([]partition{}, w.partitions...), Actions: append([]action{}, w.actions...),
	}
	for _, n := range w.nodes {
		s.Nodes = append(s.Nodes, *n)
	}
	for _, r := range w.routers {
		s.Routers = append(s.Routers, *r)
	}
	return s, w.changed
}

// change applies f and tells everybody who looks.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// addLocked shows a node.
func (w *world) addLocked(n stack.Node, s state) *node {
	for _, old := range w.nodes {
		if old.ID == n.ID {
			return old
		}
	}
	slot := 0
	for slices.ContainsFunc(w.nodes, func(n *node) bool { return n.Slot == slot }) {
		slot++
	}
	added := &node{ID: n.ID, State: s, Slot: slot, PID: n.PID, Addr: n.Addr}
	w.nodes = append(w.nodes, added)
	return added
}

// nodeLocked is the node with an id, nil when the page does not show it.
func (w *world) nodeLocked(id string) *node {
	for _, n := range w.nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// setNode gives a node a state.
func (w *world) setNode(id string, s state) {
	w.change(func() {
		if n := w.nodeLocked(id); n != nil {
			n.State, n.Until = s, 0
			if s == dead || s == gone {
				n.ended = time.Now()
			}
		}
	})
}

// runningLocked counts the nodes that have not gone.
func (w *world) runningLocked() int {
	count := 0
	for _, n := range w.nodes {
		if n.ended.IsZero() {
			count++
		}
	}
	return count
}

// begin writes an action down.
func (w *world) begin(k kind, target string) int {
	var id int
	w.change(func() {
		w.count++
		id = w.count
		w.actions = append(w.actions, action{ID: id, Kind: k, Target: target, At: time.Now().UnixMilli()})
		w.actions = w.actions[max(0, len(w.actions)-shownActions):]
	})
	return id
}

// finish writes down how it ended; target may be known only now.
func (w *world) finish(id int, target string, err error) {
	w.change(func() {
		for i := range w.actions {
			if a := &w.actions[i]; a.ID == id {
				a.Done, a.Target = time.Now().UnixMilli(), target
				if err != nil { // the rest of it is the end of a log, which the terminal shows
					a.Error, _, _ = strings.Cut(err.Error(), "\n")
				}
			}
		}
	})
}
