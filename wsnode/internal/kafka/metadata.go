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
	failed  map[string]time.Time  // guarded by mu; by address, when it last let somebody wait in vain
	closed  bool                  // guarded by mu

	asks sync.WaitGroup // questions under way
}

func newMetadata(topic string, seeds []string, p *pool) *metadata {
	return &metadata{
		topic: topic, seeds: seeds, pool: p, turn: make(chan struct{}, 1),
		retired: make(map[[16]byte]struct{}), failed: make(map[string]time.Time),
	}
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

	return m.race(ctx, m.candidates())
}

const (
	// hedgeAfter is how long a broker may take before the next one is asked as well: a broker that is frozen
	// must not keep what it would say from whoever waits for it.
	hedgeAfter = 300 * time.Millisecond
	// askLimit bounds one question. It is long enough for the slowest connection to be made.
	askLimit = 10 * time.Second
	// grace is how much longer those are waited for that were late when another broker answered: a connection
	// that was made meanwhile serves the next question, and one that is dead must not delay it.
	grace = time.Second
)

// reply is what one candidate said.
type reply struct {
	from    int // index of the candidate
	top     *topology
	brokers []string
	err     error
}

// race asks the candidates in their order, the next one when one failed or is late, until one answers.
// Whoever was passed over goes to the end of the candidates.
func (m *metadata) race(ctx context.Context, addrs []string) (*topology, error) {
	replies := make(chan reply, len(addrs))
	leave := make([]context.CancelFunc, 0, len(addrs))
	late := time.NewTimer(0)
	defer late.Stop()
	var errs []error
	for {
		select {
		case <-ctx.Done():
			for _, cancel := range leave {
				cancel()
			}
			m.demote(addrs[:len(leave)])
			return nil, context.Cause(ctx)
		case <-late.C:
			if next := len(leave); next < len(addrs) {
				cancel, ok := m.start(next, addrs[next], replies)
				if !ok {
					return nil, ErrClosed
				}
				leave = append(leave, cancel)
				late.Reset(hedgeAfter)
			}
		case r := <-replies:
			addr, err := addrs[r.from], r.err
			if err == nil {
				err = m.accept(r.top, addr, r.brokers)
			}
			if err == nil {
				m.demote(addrs[:r.from])
				for _, cancel := range leave {
					time.AfterFunc(grace, cancel)
				}
				return r.top, nil
			}
			if ctx.Err() != nil {
				continue
			}
			m.demote([]string{addr})
			errs = append(errs, err)
			// Of a missing topic another broker would say the same, or lag behind this one.
			if errors.Is(err, ErrTopicNotFound) || len(errs) == len(addrs) {
				return nil, errors.Join(errs...)
			}
			late.Reset(0)
		}
	}
}

// start asks one broker in a goroutine that wait waits for; false: the client is closed.
func (m *metadata) start(from int, addr string, replies chan<- reply) (context.CancelFunc, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(m.pool.ctx, askLimit)
	m.asks.Go(func() {
		defer cancel()
		t, brokers, err := m.ask(ctx, addr)
		replies <- reply{from: from, top: t, brokers: brokers, err: err}
	})
	return cancel, true
}

// wait refuses new questions and waits for those under way, which the end of the pool's context breaks.
func (m *metadata) wait() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.asks.Wait()
}

// demote puts brokers that did not answer at the end of the candidates until they do.
func (m *metadata) demote(addrs []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addrs {
		m.failed[a] = time.Now()
	}
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
	delete(m.failed, addr)
	for a := range m.failed {
		if !slices.Contains(m.brokers, a) && !slices.Contains(m.seeds, a) {
			delete(m.failed, a)
		}
	}
	return nil
}

// candidates are the brokers to ask, the one that answered last time first, those that failed since they last
// answered at the end, the latest failure last.
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
	slices.SortStableFunc(addrs, func(a, b string) int { return m.failed[a].Compare(m.failed[b]) })
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
