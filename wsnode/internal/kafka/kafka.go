// Package kafka is the node's only door to Kafka: it reads partitions through one raw fetch path, whether the
// group assigned them or a stream needs them, and keeps the node's membership of the consumer group. sarama's
// types stop here.
//
// Connections are never shared between purposes, because a sarama Broker is one lock and one connection, held
// until the reply arrives: live fetches have one connection per broker, scans and control requests have pools
// of their own, and the consumer group has two clients of its own.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

var (
	// ErrTopicNotFound says that the cluster answered and knows no such topic.
	ErrTopicNotFound = errors.New("topic does not exist")
	// ErrTopicChanged is what a Sink's Failed hears when the topic was recreated (its id changed) under a
	// reader. The reader is stopped until the next Read.
	ErrTopicChanged = errors.New("topic was recreated")
	// ErrClosed says that the Client is closed.
	ErrClosed = errors.New("kafka client is closed")
)

// OutOfRangeError says that the broker has no record at the offset asked for, and what it has.
type OutOfRangeError struct {
	Partition int32
	Offset    int64
	Bounds    source.Bounds
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("partition %d: offset %d is outside [%d, %d]", e.Partition, e.Offset, e.Bounds.Start, e.Bounds.High)
}

// Config is what a Client is built with. Zero values of the optional fields mean the defaults named there.
type Config struct {
	Brokers  []string // bootstrap addresses, host:port
	Topic    string
	ClientID string // default "pointsman"

	// TLS, when not nil, is used for every connection.
	TLS *tls.Config
	// SASL, when its Mechanism is not empty, authenticates every connection.
	SASL SASL

	FetchMaxBytes int32         // per partition and fetch; default 1 MiB. A larger batch is still read.
	FetchTotal    int32         // per fetch over all its partitions; default 16 MiB
	FetchMaxWait  time.Duration // how long a broker may hold an empty fetch; default 50 ms
	NetTimeout    time.Duration // dial, write, and reply beyond what a request may wait by design; default 5 s
	ScanConns     int           // connections per broker for scans; default 2

	Logger *zap.Logger
}

// SASL says how to authenticate.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	User      string
	Password  string
}

// Topic is the identity and size of the topic.
type Topic struct {
	ID         [16]byte
	Partitions int32
}

// Sink receives what the live reader reads of one partition. Its calls come one at a time, from a goroutine
// that also reads other partitions: it may block only briefly.
//
// A call that was already under way when Read or StopRead replaced its reader may still finish afterwards;
// none begins later. Pass a Sink of its own to each Read when that matters.
type Sink interface {
	// Batch brings what comes next; batches of one Read join without a hole or an overlap. A batch whose Next
	// equals its From carries only news of the bounds.
	Batch(*source.Batch)
	// OutOfRange says that the broker has nothing at the reader's position. The reader then waits for the
	// next Read.
	OutOfRange(source.Bounds)
	// Failed is called once when a partition stops being readable (no leader, no connection, another leader,
	// a batch that cannot be decoded), before any further Batch. The reader heals by itself, except after
	// ErrTopicChanged.
	Failed(error)
}

// Open connects to the cluster. It waits, and says so in the log, while no broker answers, until ctx ends; a
// topic that does not exist and refused credentials are errors at once.
func Open(ctx context.Context, cfg Config) (*Client, error) { return nil, nil }

// Client reads one topic.
type Client struct{}

// Close ends all readers and connections and waits for them. Groups must have ended before.
func (c *Client) Close() error { return nil }

// Topic asks a broker, never a cache, for the topic's identity and partition count.
func (c *Client) Topic(ctx context.Context) (Topic, error) { return Topic{}, nil }

// Bounds asks the partition's leader for its bounds.
func (c *Client) Bounds(ctx context.Context, partition int32) (source.Bounds, error) {
	return source.Bounds{}, nil
}

// OffsetAt finds the first committed offset whose record is not older than t (milliseconds since the Unix
// epoch); ok is false when there is none.
func (c *Client) OffsetAt(ctx context.Context, partition int32, t int64) (offset int64, ok bool, err error) {
	return 0, false, nil
}

// Scan reads one batch that begins at from, on connections of its own. An offset that the log does not have
// gives an *OutOfRangeError.
func (c *Client) Scan(ctx context.Context, partition int32, from int64, maxBytes int32) (*source.Batch, error) {
	return nil, nil
}

// Read starts reading a partition at from; an earlier Read of it is replaced. It does not block.
func (c *Client) Read(partition int32, from int64, sink Sink) {}

// StopRead ends the reading of a partition. It does not block.
func (c *Client) StopRead(partition int32) {}
