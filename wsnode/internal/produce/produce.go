// Package produce writes single records to the topic with a chosen partitioner, for the operator's command and
// for tests that need a foreign client's placement.
package produce

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

// Config is what a Producer is built with.
type Config struct {
	Brokers     []string
	Topic       string
	ClientID    string // default "pointsman-produce"
	Partitioner string // murmur2 (default, Java's), crc32 (librdkafka's) or fnv1a (sarama's)
	TLS         *tls.Config
	SASL        kafka.SASL
	Timeout     time.Duration // dial, write, reply; default 5 s
}

// Header is a record's header; a nil Value is Kafka's null.
type Header struct {
	Key   string
	Value []byte
}

// Record is what to write. A nil Key is Kafka's null key (any partition), a nil Value a tombstone.
type Record struct {
	Key     []byte
	Value   []byte
	Headers []Header
}

// Producer writes records and waits until all in-sync replicas have them. Its methods may be called at the same
// time.
type Producer struct {
	topic   string
	out     sarama.AsyncProducer
	replies sync.WaitGroup
}

// sent is how the reply to a record finds its Send.
type sent chan error

// Open connects to the cluster; it does not wait for one that is not there.
func Open(ctx context.Context, cfg Config) (*Producer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "pointsman-produce"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	sc := sarama.NewConfig()
	sc.Version = sarama.V3_6_0_0
	sc.ClientID = cfg.ClientID
	sc.Net.DialTimeout, sc.Net.ReadTimeout, sc.Net.WriteTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout
	sc.Metadata.Full = false
	sc.Metadata.AllowAutoTopicCreation = false
	sc.Metadata.Retry.Max = 1
	sc.Producer.RequiredAcks = sarama.WaitForAll
	sc.Producer.Return.Successes = true
	sc.Producer.Return.Errors = true
	switch cfg.Partitioner {
	case "", "murmur2":
		sc.Producer.Partitioner = sarama.NewMurmur2Partitioner
	case "crc32":
		sc.Producer.Partitioner = sarama.NewConsistentCRCHashPartitioner
	case "fnv1a":
		sc.Producer.Partitioner = sarama.NewHashPartitioner
	default:
		return nil, fmt.Errorf("partitioner %q is not known: use murmur2, crc32 or fnv1a", cfg.Partitioner)
	}
	if err := kafka.Secure(sc, cfg.TLS, cfg.SASL); err != nil {
		return nil, err
	}
	client, err := sarama.NewClient(cfg.Brokers, sc)
	if err != nil {
		return nil, fmt.Errorf("connect to kafka: %w", err)
	}
	if err := client.RefreshMetadata(cfg.Topic); err != nil {
		if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
			err = kafka.ErrTopicNotFound
		}
		return nil, errors.Join(fmt.Errorf("look up topic %s: %w", cfg.Topic, err), client.Close())
	}
	out, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start producer: %w", err), client.Close())
	}
	p := &Producer{topic: cfg.Topic, out: out}
	p.replies.Go(func() {
		for m := range out.Successes() {
			m.Metadata.(sent) <- nil
		}
	})
	p.replies.Go(func() {
		for e := range out.Errors() {
			e.Msg.Metadata.(sent) <- e.Err
		}
		// The producer is closed and done with its client.
		_ = client.Close()
	})
	return p, nil
}

// Send writes one record and says where it is. When ctx ends first, the record may or may not be written.
func (p *Producer) Send(ctx context.Context, r Record) (partition int32, offset int64, err error) {
	reply := make(sent, 1)
	m := &sarama.ProducerMessage{Topic: p.topic, Metadata: reply}
	// A nil ByteEncoder would be an empty key or value, not a null one.
	if r.Key != nil {
		m.Key = sarama.ByteEncoder(r.Key)
	}
	if r.Value != nil {
		m.Value = sarama.ByteEncoder(r.Value)
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	select {
	case p.out.Input() <- m:
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	select {
	case err := <-reply:
		if err != nil {
			return 0, 0, fmt.Errorf("produce to %s: %w", p.topic, err)
		}
		return m.Partition, m.Offset, nil
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
}

// Close waits for records under way and closes the connections. No Send may begin after it.
func (p *Producer) Close() error {
	p.out.AsyncClose()
	p.replies.Wait()
	return nil
}
