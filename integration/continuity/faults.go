package continuity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// Fault is one fault as it happened.
type Fault struct {
	Draw
	Victim  string           `json:"victim,omitempty"`
	Began   time.Time        `json:"began"`
	Ended   time.Time        `json:"ended"`           // what was stopped ran again
	Healed  time.Time        `json:"healed,omitzero"` // all clients receive, and all partitions are owned
	Probe   time.Time        `json:"probe,omitzero"`  // the independent consumer received again
	Worst   int64            `json:"worst_us"`        // longest delay of a client, as seen at the healing
	Error   string           `json:"error,omitempty"` // what went wrong with the fault itself
	Load    float64          `json:"others_busy"`     // share of the machine that others used meanwhile
	owned   map[int32]string // which node each partition had
	nodes   []string         // met: their clients are the affected ones; nil for all
	router  string           // met
	stopped time.Time        // the broker had gone
}

// end is the last that is known of a fault.
func (f *Fault) end() time.Time {
	switch {
	case !f.Healed.IsZero():
		return f.Healed
	case !f.Ended.IsZero():
		return f.Ended
	}
	return f.Began
}

// act carries out one fault and returns when it is over, not when it has healed.
func (r *Run) act(ctx context.Context, f *Fault) error {
	again := func(err error) error {
		if err == nil {
			err = r.addNode(ctx)
		}
		return err
	}
	both := func(do, undo func() error) error {
		if err := do(); err != nil {
			return err
		}
		pause(ctx, f.Lasts)
		return undo() // also when the run is being stopped: nothing is left frozen
	}
	after := context.WithoutCancel(ctx)
	switch f.Kind {
	case Quiet:
		pause(ctx, f.Lasts)
		return nil
	case Kill:
		return again(r.stack.KillNode(ctx, f.Victim))
	case Crash:
		return r.stack.RestartNode(ctx, f.Victim, false)
	case Drain:
		return again(r.stack.DrainNode(ctx, f.Victim))
	case Rolling:
		return r.roll(ctx, f)
	case Freeze:
		return stack.Freeze(ctx, r.stack, f.Victim, f.Lasts)
	case Join:
		return again(nil)
	case Leave:
		return r.stack.DrainNode(ctx, f.Victim)
	case Cut:
		return both(func() error { return r.stack.CutNode(f.Victim) }, func() error { return r.stack.MendNode(f.Victim) })
	case Hole:
		return both(func() error { return r.stack.HoldNode(f.Victim, true) }, func() error { return r.stack.HoldNode(f.Victim, false) })
	case EtcdKill, EtcdOutage:
		return both(func() error { return r.stack.KillEtcd(ctx) }, func() error { return r.stack.StartEtcd(after) })
	case EtcdFreeze:
		return both(func() error { return r.stack.FreezeEtcd(ctx) }, func() error { return r.stack.ThawEtcd(after) })
	case EtcdWipe:
		return r.stack.WipeEtcd(ctx)
	case Kafka:
		if err := r.stack.StopKafka(after); err != nil {
			return err
		}
		f.stopped = time.Now()
		return r.stack.StartKafka(after)
	case GroupEmpty:
		return r.disband(ctx, false)
	case GroupDelete:
		return r.disband(ctx, true)
	case RouterTerm, RouterKill:
		return r.endRouter(ctx, f)
	}
	return fmt.Errorf("there is no kind of fault %q", f.Kind)
}

// roll restarts one node after the other.
func (r *Run) roll(ctx context.Context, f *Fault) error {
	for _, id := range f.nodes {
		for !r.busy.take(id) { // another fault has it, when faults overlap
			if !pause(ctx, 50*time.Millisecond) {
				return context.Cause(ctx)
			}
		}
		err := errGone
		if r.there(id) {
			err = r.stack.RestartNode(ctx, id, true)
		}
		r.busy.give(id)
		if err != nil && !errors.Is(err, errGone) {
			return err
		}
	}
	return nil
}

var errGone = errors.New("the node has gone")

// addNode starts a node. When faults overlap it may be long before it can be ready.
func (r *Run) addNode(ctx context.Context) error {
	n, err := r.stack.AddNode(ctx)
	if err == nil || !r.opts.Overlap || n.ID == "" {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within 2 minutes more"))
	defer cancel()
	return procs.Poll(ctx, 100*time.Millisecond, func() error {
		if !r.there(n.ID) {
			return nil // another fault ended it before it was ready
		}
		return procs.CheckHTTP(ctx, n.Admin+"/readyz")
	})
}

// there reports whether a node runs, frozen or not.
func (r *Run) there(id string) bool {
	return slices.ContainsFunc(r.stack.Nodes(), func(n stack.Node) bool { return n.ID == id })
}

func (r *Run) endRouter(ctx context.Context, f *Fault) error {
	i := slices.IndexFunc(r.stack.Routers(), func(x stack.Router) bool { return x.Name == f.router })
	r.crowd.fleet.ExpectEnds(f.router, true)
	end := r.stack.StopRouter
	if f.Kind == RouterKill {
		end = r.stack.KillRouter
	}
	err := end(ctx, i)
	// From here on a connection to this address is one to the next process: its end is not excused.
	r.crowd.fleet.ExpectEnds(f.router, false)
	if err != nil {
		return err
	}
	if err := r.stack.StartRouter(ctx, i); err != nil {
		return err
	}
	return r.crowd.goHome(ctx, i)
}

// disband has all members of the group leave it, and deletes it when it is told to.
func (r *Run) disband(ctx context.Context, remove bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("not within 20s"))
	defer cancel()
	group := "pointsman-" + r.stack.Topic()
	for {
		members, err := r.leaveAll(ctx, group)
		if err != nil {
			return fmt.Errorf("empty the group: %w", err)
		}
		if !remove && members > 0 {
			return nil
		}
		if remove {
			err = r.deleteGroup(ctx, group)
			if err == nil {
				return nil
			}
			// Members come back within a moment; whoever deletes the group must be quicker.
			if !errors.Is(err, kerr.NonEmptyGroup) {
				return fmt.Errorf("delete the group: %w", err)
			}
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("disband the group: %w", context.Cause(ctx))
		}
	}
}

func (r *Run) leaveAll(ctx context.Context, group string) (int, error) {
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	found, err := describe.RequestWith(ctx, r.admin)
	if err != nil {
		return 0, err
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	for _, g := range found.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return 0, err
		}
		for _, m := range g.Members {
			one := kmsg.NewLeaveGroupRequestMember()
			one.MemberID = m.MemberID
			leave.Members = append(leave.Members, one)
		}
	}
	if len(leave.Members) == 0 {
		return 0, nil
	}
	resp, err := leave.RequestWith(ctx, r.admin)
	if err != nil {
		return 0, err
	}
	return len(leave.Members), kerr.ErrorForCode(resp.ErrorCode)
}

func (r *Run) deleteGroup(ctx context.Context, group string) error {
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{group}
	resp, err := req.RequestWith(ctx, r.admin)
	if err != nil {
		return err
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

// owners reads who owns what, as etcd has it: every partition must be claimed by the instance of a node that is there.
func (r *Run) owners(ctx context.Context) (map[int32]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cl, err := clientv3.New(clientv3.Config{Endpoints: r.stack.Etcd(), DialTimeout: 2 * time.Second, Logger: r.nop})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	keys := directory.Keys{Prefix: r.stack.EtcdPrefix(), Topic: r.stack.Topic()}
	resp, err := cl.Get(ctx, keys.Base(), clientv3.WithPrefix())
	if err := errors.Join(err, cl.Close()); err != nil {
		return nil, fmt.Errorf("read etcd: %w", err)
	}
	nodes, claims := make(map[string]string), make(map[int32]directory.Claim)
	for _, kv := range resp.Kvs {
		if id, ok := keys.NodeID(string(kv.Key)); ok {
			n, err := directory.ParseNode(kv.Value)
			if err != nil {
				return nil, err
			}
			nodes[id] = n.Instance
		} else if p, ok := keys.ClaimPartition(string(kv.Key)); ok {
			c, err := directory.ParseClaim(kv.Value)
			if err != nil {
				return nil, err
			}
			claims[p] = c
		}
	}
	out := make(map[int32]string)
	var wrong []string
	for p := range r.stack.Partitions() {
		c, ok := claims[p]
		switch {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("partition %d is not claimed", p))
		case nodes[c.Node] != c.Instance:
			wrong = append(wrong, fmt.Sprintf("partition %d is claimed by %s, which is not there", p, c.Node))
		default:
			out[p] = c.Node
		}
	}
	if len(wrong) > 0 {
		return out, errors.New(strings.Join(wrong, "; "))
	}
	return out, nil
}

// owned waits until all partitions are owned by nodes that run.
func (r *Run) owned(ctx context.Context) (map[int32]string, error) {
	for {
		owners, err := r.owners(ctx)
		if err == nil {
			running := make(map[string]bool)
			for _, n := range r.stack.Nodes() {
				running[n.ID] = n.Ended == ""
			}
			for p, id := range owners {
				if !running[id] {
					err = fmt.Errorf("partition %d is claimed by %s, which does not run", p, id)
				}
			}
		}
		if err == nil {
			return owners, nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return nil, fmt.Errorf("wait for owners: %w: %w", context.Cause(ctx), err)
		}
	}
}

func newAdmin(brokers []string) (*kgo.Client, error) {
	return kgo.NewClient(append(eager(), kgo.SeedBrokers(brokers...))...)
}
