package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
)

// roster is what the members of a group hold, as their handlers hear it.
type roster struct {
	t *testing.T

	mu        sync.Mutex
	changed   chan struct{}
	owners    map[int32]map[string]int32 // by partition: members and their generations
	committed map[int32]int64            // what the newest Assigned said
	history   map[int32][]int32          // generations in which a partition was assigned
}

func newRoster(t *testing.T) *roster {
	return &roster{
		t: t, changed: make(chan struct{}), owners: make(map[int32]map[string]int32),
		committed: make(map[int32]int64), history: make(map[int32][]int32),
	}
}

type rosterMember struct {
	r    *roster
	name string
}

func (m rosterMember) Assigned(p, generation int32, committed int64) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	if m.r.owners[p] == nil {
		m.r.owners[p] = make(map[string]int32)
	}
	if _, ok := m.r.owners[p][m.name]; ok {
		m.r.t.Errorf("%s was assigned partition %d twice", m.name, p)
	}
	m.r.owners[p][m.name] = generation
	m.r.committed[p] = committed
	m.r.history[p] = append(m.r.history[p], generation)
	close(m.r.changed)
	m.r.changed = make(chan struct{})
}

func (m rosterMember) Revoked(p int32) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	if _, ok := m.r.owners[p][m.name]; !ok {
		m.r.t.Errorf("partition %d was revoked from %s, which did not have it", p, m.name)
	}
	delete(m.r.owners[p], m.name)
	close(m.r.changed)
	m.r.changed = make(chan struct{})
}

// countsLocked says how many partitions each member holds, and whether each of n partitions has one owner.
func (r *roster) countsLocked(n int32) (counts map[string]int, complete bool) {
	counts, complete = make(map[string]int), true
	for p := range n {
		complete = complete && len(r.owners[p]) == 1
		for name := range r.owners[p] {
			counts[name]++
		}
	}
	return counts, complete
}

func (r *roster) wait(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		done, changed := ok(), r.changed
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("waited for %s: owners %v", what, r.owners)
		}
	}
}

// waitShares waits until the n partitions are shared as evenly as they can be by the named members.
func (r *roster) waitShares(n int32, names ...string) {
	r.t.Helper()
	r.wait(fmt.Sprintf("%d partitions to be shared by %v", n, names), func() bool {
		counts, complete := r.countsLocked(n)
		for _, name := range names {
			if counts[name] < int(n)/len(names) {
				return false
			}
		}
		return complete && len(counts) == len(names)
	})
}

// join starts a member; leave ends its membership in order.
func (f *cluster) join(c *Client, h GroupHandler, change ...func(*GroupConfig)) (g *Group, leave func()) {
	f.t.Helper()
	cfg := GroupConfig{Group: f.group, Heartbeat: 50 * time.Millisecond, CommitEvery: 50 * time.Millisecond, Handler: h}
	for _, ch := range change {
		ch(&cfg)
	}
	g, err := c.NewGroup(cfg)
	if err != nil {
		f.t.Fatalf("new group: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	leave = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("membership ended: %v", err)
		}
	})
	f.t.Cleanup(leave)
	return g, leave
}

func TestMembersShareThePartitionsAsTheyComeAndGo(t *testing.T) {
	onEach(t, 12, membersShareThePartitionsAsTheyComeAndGo)
}

func membersShareThePartitionsAsTheyComeAndGo(t *testing.T, f *cluster) {
	const n = 12
	r := newRoster(t)
	_, leaveA := f.join(f.open(), rosterMember{r, "a"})
	r.waitShares(n, "a")
	_, leaveB := f.join(f.open(), rosterMember{r, "b"})
	r.waitShares(n, "a", "b")
	f.join(f.open(), rosterMember{r, "c"})
	r.waitShares(n, "a", "b", "c")
	leaveA()
	r.waitShares(n, "b", "c")
	leaveB()
	r.waitShares(n, "c")
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, gens := range r.history {
		if !slices.IsSorted(gens) || len(slices.Compact(slices.Clone(gens))) != len(gens) {
			t.Errorf("partition %d was assigned in generations %v: later owners must have higher ones", p, gens)
		}
	}
}

func TestDrainedGroupHasNoMembersLeft(t *testing.T) {
	f := newFake(t, 2, kfake.NumBrokers(1))
	r := newRoster(t)
	_, leave := f.join(f.open(), rosterMember{r, "a"})
	r.waitShares(2, "a")
	leave()
	if info := f.GroupInfo(f.group); info == nil || len(info.Members) != 0 {
		t.Errorf("group after the last member left: %+v", info)
	}
	if counts, _ := r.countsLocked(2); len(counts) != 0 {
		t.Errorf("members that left still hold partitions: %v", counts)
	}
}

// committedOffsets asks the cluster, as an admin tool does.
func (f *cluster) committedOffsets() map[int32]int64 {
	f.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = f.group
	req.Group = f.group
	req.Groups = append(req.Groups, rg)
	resp, err := req.RequestWith(context.Background(), f.admin)
	if err != nil {
		f.t.Fatalf("fetch offsets: %v", err)
	}
	got := make(map[int32]int64)
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				got[p.Partition] = p.Offset
			}
		}
	}
	return got
}

func TestMarksAreCommittedAndFoundAgain(t *testing.T) { onEach(t, 2, marksAreCommittedAndFoundAgain) }

func marksAreCommittedAndFoundAgain(t *testing.T, f *cluster) {
	r := newRoster(t)
	a, leaveA := f.join(f.open(), rosterMember{r, "a"})
	r.waitShares(2, "a")
	if r.committed[0] != -1 || r.committed[1] != -1 {
		t.Errorf("committed offsets of a new group: %v", r.committed)
	}
	a.Mark(0, 7)
	a.Mark(1, 0)
	a.Mark(9, 9) // not assigned
	f.waitCommitted(map[int32]int64{0: 7, 1: 0})
	a.Mark(0, 8)
	leaveA() // commits what is marked
	if got := f.committedOffsets(); got[0] != 8 {
		t.Errorf("committed at the end: %v", got)
	}
	a.Mark(0, 99) // revoked: ignored

	b, leaveB := f.join(f.open(), rosterMember{r, "b"})
	r.waitShares(2, "b")
	if r.committed[0] != 8 || r.committed[1] != 0 {
		t.Errorf("committed offsets found: %v", r.committed)
	}
	if b.Generation() <= 0 {
		t.Errorf("generation %d", b.Generation())
	}
	// A committed offset beyond the log, of a topic that lost records, is rewritten downwards.
	b.Mark(0, 3)
	f.waitCommitted(map[int32]int64{0: 3, 1: 0})
	leaveB()
}

func (f *cluster) waitCommitted(want map[int32]int64) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wait backoff
	for !maps.Equal(f.committedOffsets(), want) {
		if !wait.sleep(ctx) {
			f.t.Fatalf("committed %v, want %v", f.committedOffsets(), want)
		}
	}
}

func TestAddedPartitionsAreAssigned(t *testing.T) { onEach(t, 2, addedPartitionsAreAssigned) }

func addedPartitionsAreAssigned(t *testing.T, f *cluster) {
	c := f.open()
	r := newRoster(t)
	f.join(c, rosterMember{r, "a"}, func(cfg *GroupConfig) { cfg.GrowthCheck = 100 * time.Millisecond })
	r.waitShares(2, "a")
	f.addPartitions(5)
	r.waitShares(5, "a")
	if topic, err := c.Topic(context.Background()); err != nil || topic.Partitions != 5 {
		t.Errorf("topic %+v, %v", topic, err)
	}
	s := newTape(t, 0)
	c.Read(4, 0, s)
	f.admin.ForceMetadataRefresh()
	f.produce(f.admin, 4, "new")
	s.waitNext(1)
}

func TestMembershipHealsAfterAnErrorAndAfterTheTopicWasGone(t *testing.T) {
	f := newFake(t, 2, kfake.NumBrokers(1))
	c := f.open()
	r := newRoster(t)
	f.join(c, rosterMember{r, "a"}, func(cfg *GroupConfig) { cfg.GrowthCheck = 100 * time.Millisecond })
	r.waitShares(2, "a")
	f.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownMemberID.Code // as after a session timeout
		return resp, nil, true
	})
	r.wait("the partitions to be assigned again", func() bool {
		_, complete := r.countsLocked(2)
		return complete && len(r.history[0]) == 2 && len(r.history[1]) == 2
	})
	f.deleteTopic()
	r.wait("the partitions of the deleted topic to be revoked", func() bool {
		counts, _ := r.countsLocked(2)
		return len(counts) == 0
	})
	f.createTopic(3)
	r.waitShares(3, "a")
}

func TestGroupConfigurationIsChecked(t *testing.T) {
	f := newFake(t, 1, kfake.NumBrokers(1))
	c := f.open()
	if _, err := c.NewGroup(GroupConfig{}); err == nil {
		t.Error("a group without a name is accepted")
	}
	if _, err := c.NewGroup(GroupConfig{Group: "g", SessionTimeout: time.Nanosecond}); err == nil {
		t.Error("a session timeout below the heartbeat is accepted")
	}
}

func TestSessionTimeoutThatBrokersRefuseNamesTheFlag(t *testing.T) {
	f := newFake(t, 1, kfake.NumBrokers(1))
	f.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
		resp.ErrorCode = kerr.InvalidSessionTimeout.Code
		return resp, nil, true
	})
	refused := make(chan string, 1)
	log := zaptest.NewLogger(t, zaptest.WrapOptions(zap.Hooks(func(e zapcore.Entry) error {
		if e.Level == zap.ErrorLevel {
			select {
			case refused <- e.Message:
			default:
			}
		}
		return nil
	})))
	c := f.open(func(cfg *Config) { cfg.Logger = log })
	f.join(c, rosterMember{newRoster(t), "a"})
	select {
	case said := <-refused:
		if !strings.Contains(said, "--group-session-timeout") || !strings.Contains(said, "group.min.session.timeout.ms") {
			t.Errorf("logged %q, which names no flag or no setting of the brokers", said)
		}
	case <-time.After(patience):
		t.Error("nothing was logged")
	}
}

func TestMemberThatVanishesIsReplacedAfterItsSession(t *testing.T) {
	f := newFake(t, 4, kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "100"}))
	r := newRoster(t)
	short := func(cfg *GroupConfig) { cfg.SessionTimeout = 500 * time.Millisecond }
	vanishing := f.open()
	f.join(vanishing, rosterMember{r, "a"}, short)
	r.waitShares(4, "a")
	f.join(f.open(), rosterMember{r, "b"}, short)
	r.waitShares(4, "a", "b")
	// Its connections break and it makes no new ones: it cannot leave.
	if err := vanishing.Close(); err != nil {
		t.Fatal(err)
	}
	r.wait("b to hold all partitions", func() bool {
		for p := range int32(4) {
			if _, ok := r.owners[p]["b"]; !ok {
				return false
			}
		}
		return true
	})
}

func TestLeavingDoesNotWaitForAClusterThatIsCutOff(t *testing.T) {
	w := &wires{}
	f := newFake(t, 2, kfake.NumBrokers(1), kfake.ListenFn(w.listen))
	c := f.open(func(cfg *Config) { cfg.NetTimeout = 200 * time.Millisecond })
	r := newRoster(t)
	g, leave := f.join(c, rosterMember{r, "a"}, func(cfg *GroupConfig) { cfg.RebalanceTimeout = time.Hour })
	r.waitShares(2, "a")
	g.Mark(0, 1) // something to commit
	w.cut.Store(true)
	defer w.cut.Store(false)
	began := time.Now()
	leave()
	if took := time.Since(began); took > patience/4 {
		t.Errorf("leaving took %v", took)
	}
	if counts, _ := r.countsLocked(2); len(counts) != 0 {
		t.Errorf("partitions are still held: %v", counts)
	}
}

func TestLostMembershipIsSaidOnceAMinute(t *testing.T) {
	var a absence
	said := 0
	start := time.Now()
	for at := time.Duration(0); at < 3*remindEvery; at += 1600 * time.Millisecond {
		if a.lost(start.Add(at)) {
			said++
		}
	}
	if said != 3 {
		t.Errorf("said %d times in 3 minutes, want 3", said)
	}
	if a = (absence{}); !a.lost(start.Add(4 * remindEvery)) {
		t.Error("a new loss is not said")
	}
}
