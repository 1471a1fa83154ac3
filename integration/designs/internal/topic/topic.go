// Package topic is the designs' side of Kafka, by the library that the product uses too, so that what is compared is
// the designs. It reads plain topics: no transactions, no compaction.
package topic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
)

// Config says where a topic is.
type Config struct {
	Brokers  []string
	Topic    string
	ClientID string
}

// Topic is one topic, open for reading. It is a feed.Source.
type Topic struct {
	// Static after Open.
	cfg        Config
	ID         [16]byte
	Partitions int32
	live       sarama.Client
	tails      *tails
	behind     sarama.Client // reads of old records must not hold up the live ones: a broker is one lock

	Records, Bytes atomic.Int64 // read live
}

// dialer makes connections as the product does.
type dialer struct{}

func (dialer) Dial(network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	c, err := d.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return nonblock.Framed(c), nil
}

// Sarama is the configuration that every client of the designs begins with.
func Sarama(clientID string) *sarama.Config {
	sc := sarama.NewConfig()
	sc.Version = sarama.V3_6_0_0
	sc.ClientID = clientID
	sc.ChannelBufferSize = 1024
	sc.Net.DialTimeout, sc.Net.ReadTimeout, sc.Net.WriteTimeout = 5*time.Second, 5*time.Second, 5*time.Second
	sc.Metadata.AllowAutoTopicCreation = false
	// A broker that is busy or restarts is waited for: a process that ends because of it makes things worse.
	sc.Metadata.Retry.Max, sc.Metadata.Retry.Backoff = 100, 100*time.Millisecond
	sc.MetricRegistry = unmeasured{}
	sc.Net.Proxy.Enable, sc.Net.Proxy.Dialer = true, dialer{}
	sc.Consumer.MaxWaitTime = fetchWait
	sc.Consumer.MaxProcessingTime = time.Second
	sc.Consumer.Retry.Backoff = 100 * time.Millisecond
	return sc
}

// Open connects and finds out what the topic is.
func Open(cfg Config) (_ *Topic, err error) {
	t := &Topic{cfg: cfg}
	if t.live, err = sarama.NewClient(cfg.Brokers, Sarama(cfg.ClientID)); err != nil {
		return nil, fmt.Errorf("open topic %s: %w", cfg.Topic, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.behind, err = sarama.NewClient(cfg.Brokers, Sarama(cfg.ClientID+"-behind")); err != nil {
		return nil, fmt.Errorf("open topic %s: %w", cfg.Topic, err)
	}
	t.tails = newTails(t)
	return t, t.describe()
}

func (t *Topic) describe() error {
	broker := t.live.LeastLoadedBroker()
	if broker == nil {
		return fmt.Errorf("describe topic %s: %w", t.cfg.Topic, sarama.ErrOutOfBrokers)
	}
	if err := broker.Open(t.live.Config()); err != nil && !errors.Is(err, sarama.ErrAlreadyConnected) {
		return fmt.Errorf("describe topic %s: %w", t.cfg.Topic, err)
	}
	resp, err := broker.GetMetadata(sarama.NewMetadataRequest(t.live.Config().Version, []string{t.cfg.Topic}))
	if err != nil {
		return fmt.Errorf("describe topic %s: %w", t.cfg.Topic, err)
	}
	for _, m := range resp.Topics {
		if m.Err != sarama.ErrNoError {
			return fmt.Errorf("describe topic %s: %w", t.cfg.Topic, m.Err)
		}
		t.ID, t.Partitions = m.Uuid, int32(len(m.Partitions)) //nolint:gosec // Kafka counts partitions in 32 bits
	}
	return nil
}

// Close ends the connections; nothing may read any more.
func (t *Topic) Close() error {
	var errs []error
	if t.tails != nil {
		t.tails.close()
	}
	if t.behind != nil {
		errs = append(errs, t.behind.Close())
	}
	return errors.Join(append(errs, t.live.Close())...)
}

// tries and tryPause bound how long a partition without a leader is waited for.
const (
	tries    = 100
	tryPause = 100 * time.Millisecond
)

// Again repeats what fails while leaders move, or before every broker knows of a new topic.
func Again(ctx context.Context, cl sarama.Client, topic string, f func() error) (err error) {
	for range tries {
		if err = f(); err == nil || ctx.Err() != nil {
			return err
		}
		wait(ctx, tryPause)
		_ = cl.RefreshMetadata(topic) // the next try tells
	}
	return err
}

// Bounds implements feed.Source.
func (t *Topic) Bounds(ctx context.Context, partition int32) (oldest, end int64, err error) {
	err = Again(ctx, t.behind, t.cfg.Topic, func() (err error) {
		if oldest, err = t.behind.GetOffset(t.cfg.Topic, partition, sarama.OffsetOldest); err == nil {
			end, err = t.behind.GetOffset(t.cfg.Topic, partition, sarama.OffsetNewest)
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("find the bounds of partition %d: %w", partition, err)
	}
	return oldest, end, nil
}

// Recent is where to begin so that clients that come with fresh cursors are served from memory: so many records before
// the end.
func (t *Topic) Recent(ctx context.Context, partition int32, back int64) (from, end int64, err error) {
	oldest, end, err := t.Bounds(ctx, partition)
	return max(oldest, end-back), end, err
}

// Read implements feed.Source.
func (t *Topic) Read(ctx context.Context, partition int32, from, to int64, record func(*feed.Record) bool) error {
	if from >= to {
		return nil
	}
	c, err := sarama.NewConsumerFromClient(t.behind)
	if err != nil {
		return fmt.Errorf("read partition %d: %w", partition, err)
	}
	defer func() { _ = c.Close() }() // has nothing of its own to lose
	pc, err := c.ConsumePartition(t.cfg.Topic, partition, from)
	if err != nil {
		return fmt.Errorf("read partition %d from %d: %w", partition, from, err)
	}
	defer func() { _ = pc.Close() }()
	for {
		select {
		case m, ok := <-pc.Messages():
			if !ok {
				return fmt.Errorf("read partition %d: the consumer has ended", partition)
			}
			if m.Offset >= to || !record(convert(m)) || m.Offset+1 >= to {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func convert(m *sarama.ConsumerMessage) *feed.Record {
	return &feed.Record{Partition: m.Partition, Offset: m.Offset, Timestamp: m.Timestamp.UnixMilli(), Key: m.Key, Value: m.Value, Headers: headers(m.Headers)}
}

func headers(from []*sarama.RecordHeader) []link.Header {
	if len(from) == 0 {
		return nil
	}
	out := make([]link.Header, 0, len(from))
	for _, h := range from {
		out = append(out, link.Header{Key: h.Key, Value: h.Value})
	}
	return out
}
