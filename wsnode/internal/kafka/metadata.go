package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// topology is what one metadata reply said of the topic. It is immutable.
type topology struct {
	id      [16]byte
	leaders []leader // by partition
	at      time.Time
}

// leader is who serves a partition; addr is empty when nobody does.
type leader struct {
	broker int32
	addr   string
	epoch  int32
	err    sarama.KError
}

func (t *topology) leader(partition int32) (leader, error) {
	if partition < 0 || int(partition) >= len(t.leaders) {
		return leader{}, fmt.Errorf("partition %d: topic has %d partitions", partition, len(t.leaders))
	}
	l := t.leaders[partition]
	if l.addr == "" {
		err := l.err
		if err == sarama.ErrNoError {
			err = sarama.ErrLeaderNotAvailable
		}
		return leader{}, fmt.Errorf("partition %d: %w", partition, err)
	}
	return l, nil
}

// metadata asks brokers for the topology and keeps the newest answer.
type metadata struct {
	topic string
	seeds []string
	pool  *pool

	turn chan struct{} // holds one: whoever asks

	mu      sync.Mutex
	cur     *topology             // guarded by mu
	retired map[[16]byte]struct{} // guarded by mu; ids the topic had before: a broker that tells one lags behind
	brokers []string              // guarded by mu; addresses of the newest reply, the one that answered first
}

func newMetadata(topic string, seeds []string, p *pool) *metadata {
	return &metadata{topic: topic, seeds: seeds, pool: p, turn: make(chan struct{}, 1), retired: make(map[[16]byte]struct{})}
}

// current is the newest topology, nil before the first refresh.
func (m *metadata) current() *topology {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cur
}

// refresh returns a topology that a broker was asked for after since. Callers at the same time share one
// question.
func (m *metadata) refresh(ctx context.Context, since time.Time) (*topology, error) {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-m.turn }()
	if t := m.current(); t != nil && !t.at.Before(since) {
		return t, nil
	}

	var errs []error
	for _, addr := range m.candidates() {
		t, brokers, err := m.ask(ctx, addr)
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		if err == nil {
			err = m.accept(t, addr, brokers)
		}
		if err == nil {
			return t, nil
		}
		errs = append(errs, err)
		if errors.Is(err, ErrTopicNotFound) {
			// Another broker would say the same, or lag behind this one.
			break
		}
	}
	return nil, errors.Join(errs...)
}

// accept makes an answer the newest one, unless it is of a topic that was deleted since.
func (m *metadata) accept(t *topology, addr string, brokers []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, old := m.retired[t.id]; old {
		return fmt.Errorf("broker %s has not heard yet that the topic was recreated", addr)
	}
	if m.cur != nil && m.cur.id != t.id {
		m.retired[m.cur.id] = struct{}{}
	}
	m.cur = t
	m.brokers = append([]string{addr}, slices.DeleteFunc(brokers, func(b string) bool { return b == addr })...)
	return nil
}

// candidates are the brokers to ask, the one that answered last time first.
func (m *metadata) candidates() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	addrs := slices.Clone(m.brokers)
	if len(addrs) > 1 {
		rand.Shuffle(len(addrs)-1, func(i, j int) { addrs[i+1], addrs[j+1] = addrs[j+1], addrs[i+1] })
	}
	for _, s := range m.seeds {
		if !slices.Contains(addrs, s) {
			addrs = append(addrs, s)
		}
	}
	return addrs
}

// rotate puts the broker that answered last at the end, for when its answer was of no help.
func (m *metadata) rotate() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.brokers) > 1 {
		m.brokers = append(slices.Clone(m.brokers[1:]), m.brokers[0])
	}
}

func (m *metadata) ask(ctx context.Context, addr string) (*topology, []string, error) {
	at := time.Now()
	var resp *sarama.MetadataResponse
	err := m.pool.do(ctx, addr, func(c *conn) (err error) {
		resp, err = c.broker.GetMetadata(&sarama.MetadataRequest{Version: 10, Topics: []string{m.topic}})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("ask broker %s for metadata: %w", addr, err)
	}
	addrs := make(map[int32]string, len(resp.Brokers))
	list := make([]string, 0, len(resp.Brokers))
	for _, b := range resp.Brokers {
		addrs[b.ID()] = b.Addr()
		list = append(list, b.Addr())
	}
	for _, t := range resp.Topics {
		if t.Name != m.topic {
			continue
		}
		top, err := newTopology(t, addrs, at)
		if err != nil {
			return nil, nil, fmt.Errorf("topic %s at broker %s: %w", m.topic, addr, err)
		}
		return top, list, nil
	}
	return nil, nil, fmt.Errorf("topic %s at broker %s: %w", m.topic, addr, sarama.ErrIncompleteResponse)
}

func newTopology(t *sarama.TopicMetadata, addrs map[int32]string, at time.Time) (*topology, error) {
	switch t.Err {
	case sarama.ErrNoError:
	case sarama.ErrUnknownTopicOrPartition:
		return nil, ErrTopicNotFound
	default:
		return nil, t.Err
	}
	top := &topology{id: t.Uuid, leaders: make([]leader, len(t.Partitions)), at: at}
	for _, p := range t.Partitions {
		if p.ID < 0 || int(p.ID) >= len(top.leaders) {
			return nil, fmt.Errorf("partition %d among %d: %w", p.ID, len(top.leaders), sarama.ErrIncompleteResponse)
		}
		top.leaders[p.ID] = leader{broker: p.Leader, addr: addrs[p.Leader], epoch: p.LeaderEpoch, err: p.Err}
	}
	if len(top.leaders) == 0 {
		return nil, sarama.ErrLeaderNotAvailable
	}
	return top, nil
}
