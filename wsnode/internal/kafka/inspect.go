package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

// Inspector asks single brokers what an operator wants to know before a node relies on them. Unlike a Client it waits
// for nothing that is not there.
type Inspector struct {
	cfg    Config
	cancel context.CancelFunc
	pool   *pool
}

// Inspect prepares an Inspector; nothing is connected yet.
func Inspect(cfg Config) (*Inspector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	sc, err := cfg.base()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Inspector{cfg: cfg, cancel: cancel, pool: newPool(ctx, sc, 1)}, nil
}

// Close ends the connections.
func (i *Inspector) Close() {
	i.cancel()
	i.pool.close()
}

// Broker is where a broker says that it can be reached.
type Broker struct {
	ID   int32
	Addr string
}

// PartitionState is what a broker knows of one partition.
type PartitionState struct {
	Leader   string // address, empty without one
	Replicas int
	InSync   int
}

// State is one broker's word on the cluster.
type State struct {
	Brokers    []Broker
	Topic      Topic
	Partitions []PartitionState
	TopicErr   error // why there is no topic
}

// Ask asks one broker.
func (i *Inspector) Ask(ctx context.Context, addr string) (*State, error) {
	var resp *sarama.MetadataResponse
	err := i.pool.do(ctx, addr, func(c *conn) (err error) {
		resp, err = c.broker.GetMetadata(&sarama.MetadataRequest{Version: 10, Topics: []string{i.cfg.Topic}})
		return err
	})
	if err != nil {
		return nil, err
	}
	s := &State{TopicErr: ErrTopicNotFound}
	addrs := map[int32]string{}
	for _, b := range resp.Brokers {
		s.Brokers = append(s.Brokers, Broker{ID: b.ID(), Addr: b.Addr()})
		addrs[b.ID()] = b.Addr()
	}
	for _, t := range resp.Topics {
		if t.Name == i.cfg.Topic {
			s.TopicErr = s.describe(t, addrs)
		}
	}
	return s, nil
}

func (s *State) describe(t *sarama.TopicMetadata, addrs map[int32]string) error {
	top, err := newTopology(t, addrs, time.Now())
	if err != nil {
		return err
	}
	s.Topic = Topic{ID: top.id, Partitions: int32(len(top.leaders))}
	s.Partitions = make([]PartitionState, len(top.leaders))
	for _, p := range t.Partitions {
		s.Partitions[p.ID] = PartitionState{Leader: top.leaders[p.ID].addr, Replicas: len(p.Replicas), InSync: len(p.Isr)}
	}
	return nil
}

// TopicSettings asks a broker for settings of the topic. What the broker does not know is missing.
func (i *Inspector) TopicSettings(ctx context.Context, addr string, names ...string) (map[string]string, error) {
	return i.settings(ctx, addr, sarama.TopicResource, i.cfg.Topic, names)
}

// BrokerSettings asks a broker for its own settings.
func (i *Inspector) BrokerSettings(ctx context.Context, b Broker, names ...string) (map[string]string, error) {
	return i.settings(ctx, b.Addr, sarama.BrokerResource, strconv.Itoa(int(b.ID)), names)
}

func (i *Inspector) settings(ctx context.Context, addr string, kind sarama.ConfigResourceType, name string, names []string) (map[string]string, error) {
	var resp *sarama.DescribeConfigsResponse
	err := i.pool.do(ctx, addr, func(c *conn) (err error) {
		resp, err = c.broker.DescribeConfigs(&sarama.DescribeConfigsRequest{
			Version: 2, Resources: []*sarama.ConfigResource{{Type: kind, Name: name, ConfigNames: names}},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, r := range resp.Resources {
		if r.ErrorCode != 0 {
			return nil, fmt.Errorf("settings of %s: %w", name, sarama.KError(r.ErrorCode))
		}
		for _, e := range r.Configs {
			out[e.Name] = e.Value
		}
	}
	return out, nil
}

// ErrSessionTimeout says that the brokers refuse a session timeout.
var ErrSessionTimeout = errors.New("the brokers refuse the session timeout")

// TrySession asks the group's coordinator whether it would take a member with a session timeout. No member is made:
// the question stops where the coordinator gives out a member id.
func (i *Inspector) TrySession(ctx context.Context, addr, group string, timeout time.Duration) error {
	return patiently(ctx, func() error { return i.trySession(ctx, addr, group, timeout) })
}

func (i *Inspector) trySession(ctx context.Context, addr, group string, timeout time.Duration) error {
	coordinator, err := i.coordinator(ctx, addr, group)
	if err != nil {
		return err
	}
	r := &sarama.JoinGroupRequest{
		Version: 5, GroupId: group, SessionTimeout: int32(timeout.Milliseconds()), RebalanceTimeout: int32(timeout.Milliseconds()),
		ProtocolType: "consumer",
	}
	if err := r.AddGroupProtocolMetadata("cooperative-sticky", &sarama.ConsumerGroupMemberMetadata{Topics: []string{i.cfg.Topic}}); err != nil {
		return err
	}
	var said sarama.KError
	err = i.pool.do(ctx, coordinator, func(c *conn) error {
		resp, err := c.broker.JoinGroup(r)
		if err == nil {
			said = resp.Err
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case said == sarama.ErrInvalidSessionTimeout:
		return ErrSessionTimeout
	case said == sarama.ErrNoError, said == sarama.ErrMemberIdRequired:
		return nil
	}
	return said
}

// ErrNoCoordinator says that no broker looks after consumer groups, and that waiting did not help.
var ErrNoCoordinator = errors.New("no broker coordinates consumer groups")

// patiently repeats a question while the coordinator is only being made or moved, as on a cluster that is new.
func patiently(ctx context.Context, question func() error) error {
	var wait backoff
	for {
		err := question()
		switch {
		case errors.Is(err, sarama.ErrConsumerCoordinatorNotAvailable), errors.Is(err, sarama.ErrNotCoordinatorForConsumer),
			errors.Is(err, sarama.ErrOffsetsLoadInProgress):
			if !wait.sleep(ctx) {
				return fmt.Errorf("%w: %w", ErrNoCoordinator, err)
			}
		default:
			return err
		}
	}
}

func (i *Inspector) coordinator(ctx context.Context, addr, group string) (string, error) {
	var resp *sarama.FindCoordinatorResponse
	err := i.pool.do(ctx, addr, func(c *conn) (err error) {
		resp, err = c.broker.FindCoordinator(&sarama.FindCoordinatorRequest{
			Version: 2, CoordinatorKey: group, CoordinatorType: sarama.CoordinatorGroup,
		})
		return err
	})
	switch {
	case err != nil:
		return "", err
	case resp.Err != sarama.ErrNoError:
		return "", resp.Err
	}
	return resp.Coordinator.Addr(), nil
}

// Member is a member of a consumer group.
type Member struct{ Client, Host string }

// GroupState is a consumer group as its coordinator sees it.
type GroupState struct {
	State    string // Stable, Empty, ...
	Protocol string // empty while there is none
	Members  []Member
}

// GroupState asks for a consumer group.
func (i *Inspector) GroupState(ctx context.Context, addr, group string) (s *GroupState, err error) {
	err = patiently(ctx, func() error {
		s, err = i.groupState(ctx, addr, group)
		return err
	})
	return s, err
}

func (i *Inspector) groupState(ctx context.Context, addr, group string) (*GroupState, error) {
	coordinator, err := i.coordinator(ctx, addr, group)
	if err != nil {
		return nil, err
	}
	var resp *sarama.DescribeGroupsResponse
	err = i.pool.do(ctx, coordinator, func(c *conn) (err error) {
		resp, err = c.broker.DescribeGroups(&sarama.DescribeGroupsRequest{Version: 2, Groups: []string{group}})
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, g := range resp.Groups {
		if g.GroupId != group {
			continue
		}
		if g.Err != sarama.ErrNoError {
			return nil, g.Err
		}
		s := &GroupState{State: g.State, Protocol: g.Protocol}
		for _, m := range g.Members {
			s.Members = append(s.Members, Member{Client: m.ClientId, Host: m.ClientHost})
		}
		return s, nil
	}
	return nil, sarama.ErrIncompleteResponse
}

// Transaction is one that is open in a partition.
type Transaction struct {
	Partition int32
	Producer  int64
	Start     int64     // offset of its first record
	LastWrite time.Time // of the newest record, by its timestamp; zero if the broker does not say
}

// Transactions asks a partition's leader for its open transactions.
func (i *Inspector) Transactions(ctx context.Context, leader string, partition int32) ([]Transaction, error) {
	var resp *sarama.DescribeProducersResponse
	err := i.pool.do(ctx, leader, func(c *conn) (err error) {
		resp, err = c.broker.DescribeProducers(&sarama.DescribeProducersRequest{
			Topics: []sarama.DescribeProducersRequestTopic{{Name: i.cfg.Topic, PartitionIndexes: []int32{partition}}},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	var open []Transaction
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != sarama.ErrNoError {
				return nil, p.ErrorCode
			}
			for _, s := range p.ActiveProducers {
				if s.CurrentTxnStartOffset < 0 {
					continue
				}
				tx := Transaction{Partition: p.PartitionIndex, Producer: s.ProducerID, Start: s.CurrentTxnStartOffset}
				if s.LastTimestamp > 0 {
					tx.LastWrite = time.UnixMilli(s.LastTimestamp)
				}
				open = append(open, tx)
			}
		}
	}
	return open, nil
}
