package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

// GroupConfig is what a Group is built with. Zero durations mean the defaults named there.
type GroupConfig struct {
	Group            string
	SessionTimeout   time.Duration // default 6 s, the least that brokers allow by default
	Heartbeat        time.Duration // default 250 ms: it is also how soon a rebalance is heard of
	RebalanceTimeout time.Duration // default 10 s: how long a join may wait for other members
	RebalanceBackoff time.Duration // default 100 ms
	CommitEvery      time.Duration // default 1 s
	GrowthCheck      time.Duration // default 5 s: how often the group's leader looks for added partitions
	Handler          GroupHandler
}

// GroupHandler hears of assignments. Calls for one partition alternate and never overlap; calls for different
// partitions may come at the same time. Both must return soon.
type GroupHandler interface {
	// Assigned says that the group gave this member the partition in the given generation; committed is the
	// group's committed offset, -1 if there is none.
	Assigned(partition, generation int32, committed int64)
	// Revoked says that the group took the partition away, or that the membership ended.
	Revoked(partition int32)
}

// Group is this node's membership of the consumer group. It fetches nothing: partitions are read by the Client,
// from offsets that their owners choose, so the positions that sarama keeps for the group's claims mean nothing.
type Group struct {
	// Static after construction.
	c   *Client
	cfg GroupConfig
	sc  *sarama.Config
	log *zap.Logger

	session atomic.Pointer[sarama.ConsumerGroupSession]

	mu     sync.Mutex
	claims map[int32]*claim // guarded by mu; what is assigned now
}

// claim is one partition between its Assigned and its Revoked. Guarded by Group.mu.
type claim struct {
	session sarama.ConsumerGroupSession
	marked  int64 // what Mark said, -1 for nothing
	passed  int64 // what sarama was told to commit
}

// NewGroup prepares a membership; Run starts it.
func (c *Client) NewGroup(cfg GroupConfig) (*Group, error) {
	if cfg.Group == "" {
		return nil, errors.New("no consumer group given")
	}
	setDefault(&cfg.SessionTimeout, 6*time.Second)
	setDefault(&cfg.Heartbeat, 250*time.Millisecond)
	setDefault(&cfg.RebalanceTimeout, 10*time.Second)
	setDefault(&cfg.RebalanceBackoff, 100*time.Millisecond)
	setDefault(&cfg.CommitEvery, time.Second)
	setDefault(&cfg.GrowthCheck, 5*time.Second)

	sc := *c.sc
	sc.Metadata.Full = false
	sc.Metadata.RefreshFrequency = cfg.GrowthCheck
	sc.Metadata.Retry.Backoff = 100 * time.Millisecond
	// A join is answered when all members have joined.
	sc.Net.ReadTimeout = cfg.RebalanceTimeout + c.cfg.NetTimeout
	sc.Consumer.Return.Errors = true
	sc.Consumer.Group.Session.Timeout = cfg.SessionTimeout
	sc.Consumer.Group.Heartbeat.Interval = cfg.Heartbeat
	sc.Consumer.Group.Rebalance.Timeout = cfg.RebalanceTimeout
	sc.Consumer.Group.Rebalance.Retry.Backoff = cfg.RebalanceBackoff
	sc.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	// Mark's numbers wait at most half the time here and half the time in sarama.
	sc.Consumer.Offsets.AutoCommit.Interval = cfg.CommitEvery / 2
	sc.Consumer.Offsets.Initial = noOffset
	// Harmless here: it would move a position that nothing reads from.
	sc.Consumer.Group.ResetInvalidOffsets = true
	if err := sc.Validate(); err != nil {
		return nil, fmt.Errorf("configure consumer group: %w", err)
	}
	return &Group{c: c, cfg: cfg, sc: &sc, log: c.log.Named("group"), claims: make(map[int32]*claim)}, nil
}

// noOffset is what a claim's initial offset is when the group has committed none.
const noOffset = sarama.OffsetNewest

func setDefault(d *time.Duration, def time.Duration) {
	if *d <= 0 {
		*d = def
	}
}

// Run is a member of the group until ctx ends, then commits, leaves the group and returns nil. Errors are
// logged and retried for ever. It may be called once.
func (g *Group) Run(ctx context.Context) error {
	// When the membership should end and Kafka does not answer, the connections break after a while.
	conns, breakConns := context.WithCancel(g.c.ctx)
	defer breakConns()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(g.c.cfg.NetTimeout, breakConns) })()
	client, err := newGroupClient(conns, g.c.cfg.Brokers, g.sc)
	if err != nil {
		return fmt.Errorf("start consumer group %s: %w", g.cfg.Group, err)
	}
	defer client.close()
	member, err := sarama.NewConsumerGroupFromClient(g.cfg.Group, client)
	if err != nil {
		return fmt.Errorf("start consumer group %s: %w", g.cfg.Group, err)
	}

	var wg sync.WaitGroup
	wg.Go(func() { g.logErrors(member) })
	passing, stopPassing := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { g.passMarks(passing) })

	var wait backoff
	var out absence
	for ctx.Err() == nil {
		began := time.Now()
		m := &membership{g: g, member: member, out: &out}
		err := member.Consume(ctx, []string{g.c.cfg.Topic}, m)
		if ctx.Err() != nil {
			break
		}
		if err == nil && m.session != nil {
			err = context.Cause(m.session.Context())
		}
		if time.Since(began) > g.cfg.SessionTimeout {
			wait = backoff{}
		}
		now := time.Now()
		switch say := out.lost(now); {
		case say && errors.Is(err, sarama.ErrInvalidSessionTimeout):
			g.log.Error("the brokers refuse --group-session-timeout: it is outside of their group.min.session.timeout.ms (6 s by default) to group.max.session.timeout.ms",
				zap.String("group", g.cfg.Group), zap.Duration("session_timeout", g.cfg.SessionTimeout), zap.Error(err))
		case say:
			g.log.Warn("lost the membership of the consumer group, joining again", zap.String("group", g.cfg.Group),
				zap.Duration("for", now.Sub(out.since)), zap.Error(err))
		}
		wait.sleep(ctx)
	}
	stopPassing()
	if err := member.Close(); err != nil {
		// The session will time out.
		g.log.Warn("could not leave the consumer group", zap.String("group", g.cfg.Group), zap.Error(err))
	}
	wg.Wait()
	return nil
}

// remindEvery is how often the log repeats that the membership is lost.
const remindEvery = time.Minute

// absence is a time without membership. It is owned by Run's goroutine, which also calls Setup.
type absence struct {
	since, said time.Time // zero: a member, or not joined yet
}

// lost notes a failed attempt and reports whether the log should say so.
func (a *absence) lost(now time.Time) bool {
	if a.since.IsZero() {
		a.since = now
	} else if now.Sub(a.said) < remindEvery {
		return false
	}
	a.said = now
	return true
}

// logErrors logs what sarama reports, but not the same trouble once for every partition and commit.
func (g *Group) logErrors(member sarama.ConsumerGroup) {
	var said time.Time
	unsaid := 0
	for err := range member.Errors() {
		if time.Since(said) < 5*time.Second {
			unsaid++
			g.log.Debug("consumer group error", zap.Error(err))
			continue
		}
		g.log.Warn("consumer group error", zap.Error(err), zap.Int("others_before", unsaid))
		said, unsaid = time.Now(), 0
	}
}

// Mark says that everything below next was read. It is committed in the background, at a revoke and at the end;
// for a partition that is not assigned it is ignored. It never blocks. A number lower than before is committed
// too: that is how a committed offset that the log no longer reaches is rewritten.
func (g *Group) Mark(partition int32, next int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cl := g.claims[partition]; cl != nil {
		cl.marked = next
	}
}

// Generation is the group's generation as this member knows it, 0 before the first join.
func (g *Group) Generation() int32 {
	if s := g.session.Load(); s != nil {
		return (*s).GenerationID()
	}
	return 0
}

// passMarks hands the marks to sarama, which commits them in its own goroutine.
func (g *Group) passMarks(ctx context.Context) {
	t := time.NewTicker(g.cfg.CommitEvery / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		g.mu.Lock()
		due := make(map[int32]*claim, len(g.claims))
		for p, cl := range g.claims {
			due[p] = cl
		}
		g.mu.Unlock()
		for p, cl := range due {
			g.pass(p, cl)
		}
	}
}

// pass gives one claim's mark to sarama. sarama locks inside, so it must not be called under g.mu.
func (g *Group) pass(partition int32, cl *claim) {
	g.mu.Lock()
	before, next := cl.passed, cl.marked
	if g.claims[partition] != cl || next < 0 || next == before {
		g.mu.Unlock()
		return
	}
	cl.passed = next
	g.mu.Unlock()
	if next > before {
		cl.session.MarkOffset(g.c.cfg.Topic, partition, next, "")
	} else {
		cl.session.ResetOffset(g.c.cfg.Topic, partition, next, "")
	}
}

// membership is sarama's handler for one session. Under a cooperative strategy a session outlives rebalances,
// so ownership is what ConsumeClaim's start and end say.
type membership struct {
	g       *Group
	member  sarama.ConsumerGroup
	out     *absence
	session sarama.ConsumerGroupSession // set by Setup, read after Consume
}

func (m *membership) Setup(s sarama.ConsumerGroupSession) error {
	m.session = s
	m.g.session.Store(&s)
	fields := []zap.Field{zap.String("group", m.g.cfg.Group), zap.Int32("generation", s.GenerationID())}
	if !m.out.since.IsZero() {
		fields = append(fields, zap.Duration("lost_for", time.Since(m.out.since)))
		*m.out = absence{}
	}
	m.g.log.Info("joined the consumer group", fields...)
	return nil
}

func (m *membership) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *membership) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	// Read before anything else: the generation changes before a revoke has finished.
	generation := s.GenerationID()
	g, p := m.g, c.Partition()
	// A new claim starts unpaused, and sarama's first fetch for it is at least 100 ms away.
	m.member.Pause(map[string][]int32{c.Topic(): {p}})

	committed := c.InitialOffset()
	cl := &claim{session: s, marked: -1, passed: committed}
	g.mu.Lock()
	g.claims[p] = cl
	g.mu.Unlock()
	g.cfg.Handler.Assigned(p, generation, committed)

	for open := true; open; {
		select {
		case _, open = <-c.Messages():
		case <-s.Context().Done():
			open = false
		}
	}

	g.pass(p, cl) // sarama commits it when ConsumeClaim has returned
	g.mu.Lock()
	delete(g.claims, p)
	g.mu.Unlock()
	g.cfg.Handler.Revoked(p)
	return nil
}

// groupClient is what sarama's consumer group works with. Requests to the coordinator have a client of their
// own, because a join holds its broker's lock until all members have joined. Everything by which sarama would
// find and fetch records is answered here, without a broker: claims then start at once, even of partitions that
// have no leader, and the fetch that a claim might begin before it is paused goes to a broker that was never
// opened.
type groupClient struct {
	sarama.Client // metadata
	coordinator   sarama.Client
	nowhere       *sarama.Broker
}

func newGroupClient(ctx context.Context, brokers []string, conf *sarama.Config) (*groupClient, error) {
	separate := func() (sarama.Client, error) {
		own, _ := ownDialer(ctx, conf)
		return sarama.NewClient(brokers, own)
	}
	meta, err := separate()
	if err != nil {
		return nil, err
	}
	coordinator, err := separate()
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return &groupClient{Client: meta, coordinator: coordinator, nowhere: sarama.NewBroker("nowhere:0")}, nil
}

func (c *groupClient) close() {
	_ = c.coordinator.Close() // only says that it was closed before
	_ = c.Client.Close()
}

func (c *groupClient) Coordinator(group string) (*sarama.Broker, error) {
	return c.coordinator.Coordinator(group)
}

func (c *groupClient) RefreshCoordinator(group string) error {
	return c.coordinator.RefreshCoordinator(group)
}

func (c *groupClient) RefreshMetadata(topics ...string) error {
	// The coordinator's client learns of brokers only this way.
	_ = c.coordinator.RefreshMetadata(topics...)
	return c.Client.RefreshMetadata(topics...)
}

func (c *groupClient) GetOffset(_ string, _ int32, at int64) (int64, error) {
	if at == sarama.OffsetOldest {
		return 0, nil
	}
	return math.MaxInt64, nil
}

func (c *groupClient) Leader(string, int32) (*sarama.Broker, error) { return c.nowhere, nil }

func (c *groupClient) LeaderAndEpoch(string, int32) (*sarama.Broker, int32, error) {
	return c.nowhere, -1, nil
}

func (c *groupClient) PartitionNotReadable(string, int32) bool { return false }
