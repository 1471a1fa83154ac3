package redistributor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

const (
	// aliveEvery is how often a server says that it lives, on each partition, and deadAfter how long its entries count
	// without that. Both go by the backchannel's own time: while Kafka stands still nobody dies.
	aliveEvery = 2 * time.Second
	deadAfter  = 10 * time.Second
	alivePlace = "alive|"
	// silent is how long nothing comes before what has come is taken for the whole backchannel.
	silent = 2 * time.Second
)

// backchannelTopic is the compacted topic of connects and disconnects. It has as many partitions as the data, and a
// key's entries lie in the partition of the key's data: an owner reads only what it needs.
func backchannelTopic(topic string) string { return topic + "-where" }

// backchannelEvent is a value; the key is the place and the client's key, so that compaction keeps the newest.
type backchannelEvent struct {
	Place string `json:"place"`
	Key   []byte `json:"key,omitempty"` // absent: the place lives
	ID    uint64 `json:"id,omitempty"`
	From  int64  `json:"from,omitempty"`
}

// ensureTopic creates a topic unless it is there.
func ensureTopic(k topic.Config, name string, partitions int32, config map[string]string) error {
	admin, err := sarama.NewClusterAdmin(k.Brokers, topic.Sarama(k.ClientID+"-admin"))
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	defer admin.Close()
	entries := make(map[string]*string, len(config))
	for n, v := range config {
		entries[n] = &v
	}
	err = admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}, false)
	if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// backchannelPresence is a server's side.
type backchannelPresence struct {
	topic      string
	partitions int32
	place      Place
	producer   sarama.AsyncProducer
	sent       func(bytes int)
	log        *zap.Logger
}

// NewBackchannelPresence publishes the clients of a place on the backchannel. Sent hears of its traffic.
func NewBackchannelPresence(k topic.Config, partitions int32, place Place, log *zap.Logger, sent func(bytes int)) (Presence, error) {
	name := backchannelTopic(k.Topic)
	err := ensureTopic(k, name, partitions, map[string]string{"cleanup.policy": "compact"})
	if err != nil {
		return nil, err
	}
	sc := topic.Sarama(k.ClientID + "-backchannel")
	sc.Producer.Partitioner = sarama.NewManualPartitioner
	sc.Producer.RequiredAcks = sarama.WaitForLocal
	sc.Producer.Flush.Frequency = 2 * time.Millisecond
	sc.Producer.Return.Errors = true
	sc.Net.MaxOpenRequests = 1 // a leave must not overtake a join
	p, err := sarama.NewAsyncProducer(k.Brokers, sc)
	if err != nil {
		return nil, fmt.Errorf("open the backchannel: %w", err)
	}
	return &backchannelPresence{topic: name, partitions: partitions, place: place, producer: p, sent: sent, log: log}, nil
}

func (b *backchannelPresence) say(p int32, key string, e *backchannelEvent) {
	m := &sarama.ProducerMessage{Topic: b.topic, Partition: p, Key: sarama.StringEncoder(key)}
	n := len(key)
	if e != nil {
		value, err := json.Marshal(e)
		if err != nil {
			return // numbers and bytes always marshal
		}
		m.Value = sarama.ByteEncoder(value)
		n += len(value)
	}
	b.sent(n)
	b.producer.Input() <- m
}

func (b *backchannelPresence) entry(key []byte) string { return b.place.String() + "|" + string(key) }

func (b *backchannelPresence) Join(p int32, j Join) {
	b.say(p, b.entry(j.Key), &backchannelEvent{Place: b.place.String(), Key: j.Key, ID: j.ID, From: j.From})
}

func (b *backchannelPresence) Leave(p int32, key []byte) { b.say(p, b.entry(key), nil) }

func (b *backchannelPresence) alive() {
	for p := range b.partitions {
		b.say(p, alivePlace+b.place.String(), &backchannelEvent{Place: b.place.String()})
	}
}

func (b *backchannelPresence) Run(ctx context.Context, h Holder) error {
	var errs sync.WaitGroup
	errs.Go(func() {
		for err := range b.producer.Errors() {
			b.log.Warn("could not tell the backchannel", zap.Error(err)) // who waits for it joins again
		}
	})
	b.alive()
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	last := time.Now()
	for ctx.Err() == nil {
		select {
		case now := <-t.C:
			// Who was silent for so long may have been taken for dead.
			if now.Sub(last) > deadAfter-aliveEvery {
				b.alive()
				h.Lost(nil)
			}
			last = now
			b.alive()
			h.Held()
			h.Proven()
		case <-ctx.Done():
		}
	}
	for p := range b.partitions {
		b.say(p, alivePlace+b.place.String(), nil)
	}
	b.producer.AsyncClose()
	errs.Wait()
	return nil
}

// backchannelLocator is a redistributor's side: a table for each partition that it owns, rebuilt from the backchannel.
type backchannelLocator struct {
	topic string
	cl    sarama.Client
	cons  sarama.Consumer
	log   *zap.Logger
	read  func(bytes int)
	look  func(n int)

	mu     sync.Mutex
	tables map[int32]*table // guarded by mu; each table belongs to its partition's goroutine
}

type table struct {
	places map[string][]Place
	alive  map[Place]time.Time // by the backchannel's time
	now    time.Time           // of its newest event
}

// NewBackchannelLocator follows the backchannel. Read hears of its traffic.
func NewBackchannelLocator(k topic.Config, partitions int32, log *zap.Logger, lookups, read func(int)) (Locator, error) {
	name := backchannelTopic(k.Topic)
	err := ensureTopic(k, name, partitions, map[string]string{"cleanup.policy": "compact"})
	if err != nil {
		return nil, err
	}
	b := &backchannelLocator{topic: name, log: log, look: lookups, read: read, tables: make(map[int32]*table)}
	if b.cl, err = sarama.NewClient(k.Brokers, topic.Sarama(k.ClientID+"-backchannel")); err != nil {
		return nil, fmt.Errorf("open the backchannel: %w", err)
	}
	if b.cons, err = sarama.NewConsumerFromClient(b.cl); err != nil {
		return nil, errors.Join(fmt.Errorf("open the backchannel: %w", err), b.cl.Close())
	}
	return b, nil
}

func (b *backchannelLocator) Close() error { return errors.Join(b.cons.Close(), b.cl.Close()) }

func (b *backchannelLocator) Follow(ctx context.Context, p int32, ready func(), do func(func()), joined func(Join)) error {
	var end int64
	var pc sarama.PartitionConsumer
	err := topic.Again(ctx, b.cl, b.topic, func() (err error) {
		if end, err = b.cl.GetOffset(b.topic, p, sarama.OffsetNewest); err == nil {
			pc, err = b.cons.ConsumePartition(b.topic, p, sarama.OffsetOldest)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the backchannel: %w", err)
	}
	defer func() { _ = pc.Close() }() // only tells errors that came before
	t := &table{places: make(map[string][]Place), alive: make(map[Place]time.Time)}
	b.mu.Lock()
	b.tables[p] = t
	b.mu.Unlock()
	built := end == 0
	if built {
		ready()
	}
	// Compaction may have taken what was last; then silence is the end.
	silence := time.NewTimer(silent)
	defer silence.Stop()
	for {
		select {
		case m, ok := <-pc.Messages():
			if !ok {
				return errors.New("read the backchannel: the consumer has ended")
			}
			b.read(len(m.Key) + len(m.Value))
			if !built {
				silence.Reset(silent) // a long history is no silence
				t.apply(m)            // nobody looks things up yet
				if m.Offset+1 >= end {
					built = true
					ready()
				}
				continue
			}
			do(func() { t.apply(m) })
			var e backchannelEvent
			if m.Value != nil && json.Unmarshal(m.Value, &e) == nil && e.Key != nil {
				if place, ok := parsePlace(e.Place); ok {
					joined(Join{ID: e.ID, Place: place, Key: e.Key, From: e.From})
				}
			}
		case <-silence.C:
			if !built {
				built = true
				ready()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// apply takes an event into the table.
func (t *table) apply(m *sarama.ConsumerMessage) {
	if m.Timestamp.After(t.now) {
		t.now = m.Timestamp
	}
	key := string(m.Key)
	if text, ok := strings.CutPrefix(key, alivePlace); ok {
		place, _ := parsePlace(text)
		if m.Value == nil {
			delete(t.alive, place)
		} else {
			t.alive[place] = m.Timestamp
		}
		return
	}
	text, client, ok := strings.Cut(key, "|")
	place, fine := parsePlace(text)
	if !ok || !fine {
		return
	}
	list := slices.DeleteFunc(slices.Clone(t.places[client]), func(o Place) bool { return o == place })
	if m.Value != nil {
		list = append(list, place)
		// A join is a sign of life, too.
		t.alive[place] = m.Timestamp
	}
	if len(list) == 0 {
		delete(t.places, client)
		return
	}
	t.places[client] = list
}

func (b *backchannelLocator) Where(_ context.Context, p int32, keys []string) ([][]Place, error) {
	b.look(len(keys))
	b.mu.Lock()
	t := b.tables[p]
	b.mu.Unlock()
	out := make([][]Place, len(keys))
	for i, k := range keys {
		for _, place := range t.places[k] {
			if t.now.Sub(t.alive[place]) < deadAfter {
				out[i] = append(out[i], place)
			}
		}
	}
	return out, nil
}
