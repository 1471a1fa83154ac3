package topic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

// Owner hears what the consumer group assigns.
type Owner interface {
	// Own holds the partition until ctx ends, which it does when the group takes it away. Committed is -1 where the group
	// has no offset; what commit is told first is then committed before it returns. What it was told last is committed
	// when Own has returned.
	Own(ctx context.Context, partition, generation int32, committed int64, commit func(next int64))
}

// GroupConfig is a membership.
type GroupConfig struct {
	Name    string
	Session time.Duration // default 6 s, the least that brokers allow by default
	Owner   Owner
	Logger  *zap.Logger
}

// JoinGroup is a member of the consumer group until ctx ends, and leaves it then. The group only says who reads what:
// its members read by themselves, so that a rebalance stops nobody who keeps a partition.
func (t *Topic) JoinGroup(ctx context.Context, cfg GroupConfig) error {
	if cfg.Session <= 0 {
		cfg.Session = 6 * time.Second
	}
	sc := Sarama(t.cfg.ClientID + "-group")
	sc.Consumer.Return.Errors = true
	sc.Consumer.Group.Session.Timeout = cfg.Session
	sc.Consumer.Group.Heartbeat.Interval = 250 * time.Millisecond
	sc.Consumer.Group.Rebalance.Timeout = 10 * time.Second
	sc.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	sc.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	sc.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	sc.Consumer.Offsets.Initial = sarama.OffsetNewest
	sc.Net.ReadTimeout = 15 * time.Second // a join is answered when all members have joined

	client, err := newGroupClient(t.cfg.Brokers, sc)
	if err != nil {
		return fmt.Errorf("join group %s: %w", cfg.Name, err)
	}
	defer client.close()
	member, err := sarama.NewConsumerGroupFromClient(cfg.Name, client)
	if err != nil {
		return fmt.Errorf("join group %s: %w", cfg.Name, err)
	}
	var errs sync.WaitGroup
	errs.Go(func() {
		for err := range member.Errors() {
			cfg.Logger.Debug("consumer group error", zap.Error(err))
		}
	})
	for ctx.Err() == nil {
		err := member.Consume(ctx, []string{t.cfg.Topic}, &membership{cfg: cfg, member: member})
		if err != nil && ctx.Err() == nil {
			cfg.Logger.Warn("lost the membership of the consumer group, joining again", zap.Error(err))
			wait(ctx, 100*time.Millisecond)
		}
	}
	err = member.Close()
	errs.Wait()
	if err != nil {
		cfg.Logger.Warn("could not leave the consumer group", zap.Error(err))
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

type membership struct {
	cfg    GroupConfig
	member sarama.ConsumerGroup
}

func (m *membership) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (m *membership) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *membership) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	generation := s.GenerationID() // changes before a revoke has finished
	m.member.Pause(map[string][]int32{c.Topic(): {c.Partition()}})
	committed := c.InitialOffset()
	if committed < 0 || committed == math.MaxInt64 {
		committed = -1
	}
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	atOnce := sync.OnceFunc(func() {
		if committed < 0 {
			s.Commit()
		}
	})
	commit := func(next int64) {
		s.MarkOffset(c.Topic(), c.Partition(), next, "")
		atOnce()
	}
	var owning sync.WaitGroup
	owning.Go(func() { m.cfg.Owner.Own(ctx, c.Partition(), generation, committed, commit) })
	// A revoked claim's channel closes; the records themselves are read elsewhere.
	for open := true; open; {
		select {
		case _, open = <-c.Messages():
		case <-ctx.Done():
			open = false
		}
	}
	cancel()
	owning.Wait()
	return nil
}

// groupClient keeps the group's requests apart from everything else: a join holds its broker's lock until all members
// have joined. What sarama would fetch for a claim is answered here, without a broker.
type groupClient struct {
	sarama.Client
	coordinator sarama.Client
	nowhere     *sarama.Broker
}

func newGroupClient(brokers []string, sc *sarama.Config) (*groupClient, error) {
	meta, err := sarama.NewClient(brokers, sc)
	if err != nil {
		return nil, err
	}
	coordinator, err := sarama.NewClient(brokers, sc)
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
	_ = c.coordinator.RefreshMetadata(topics...) // learns of brokers only this way
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
