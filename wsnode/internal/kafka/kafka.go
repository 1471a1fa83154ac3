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
	"strings"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
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
	FetchPace     time.Duration // the least from one fetch to the next while records come by the few; 0 for none
	NetTimeout    time.Duration // dial, write, and reply beyond what a request may wait by design; default 5 s
	ScanConns     int           // connections per broker for scans; default 4

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
	// equals its From carries only news of the bounds, or says that reading began, or goes on after Failed.
	Batch(*source.Batch)
	// OutOfRange says that the broker has nothing at the reader's position. The reader then waits for the
	// next Read.
	OutOfRange(source.Bounds)
	// Failed is called once when a partition stops being readable (no leader, no connection, another leader,
	// a batch that cannot be decoded), before any further Batch. The reader heals by itself, except after
	// ErrTopicChanged.
	Failed(error)
}

// Client reads one topic.
type Client struct {
	// Static after construction.
	cfg     Config
	log     *zap.Logger
	sc      *sarama.Config // for fetches, scans and control requests
	ctx     context.Context
	cancel  context.CancelCauseFunc
	meta    *metadata
	control *pool // metadata
	offsets *pool // ListOffsets
	scans   *pool
	live    *live

	trusted atomic.Pointer[[16]byte] // the topic id that Open or Topic returned last
}

// Open connects to the cluster. It waits, and says so in the log, while no broker answers, until ctx ends; a
// topic that does not exist and refused credentials are errors at once.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	sc, err := cfg.base()
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancelCause(context.Background())
	c := &Client{cfg: cfg, log: cfg.Logger, sc: sc, ctx: own, cancel: cancel}
	c.control = newPool(own, sc, 1)
	c.offsets = newPool(own, sc, 2)
	c.scans = newPool(own, sc, cfg.ScanConns)
	c.meta = newMetadata(cfg.Topic, cfg.Brokers, c.control)
	t, err := c.firstTopology(ctx)
	if err != nil {
		cancel(ErrClosed)
		c.closePools()
		return nil, err
	}
	c.trusted.Store(&t.id)
	c.live = newLive(c)
	return c, nil
}

// missingTopicTries is how often a topic must be missing before Open believes it: a broker that just started
// may not have heard of it yet.
const missingTopicTries = 4

func (c *Client) firstTopology(ctx context.Context) (*topology, error) {
	var wait backoff
	missing := 0
	var said time.Time
	for {
		t, err := c.meta.refresh(ctx, time.Now())
		switch {
		case err == nil:
			return t, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("reach kafka at %s: %w", strings.Join(c.cfg.Brokers, ","), context.Cause(ctx))
		case errors.Is(err, sarama.ErrSASLAuthenticationFailed), errors.Is(err, sarama.ErrUnsupportedSASLMechanism),
			errors.Is(err, sarama.ErrTopicAuthorizationFailed), errors.Is(err, sarama.ErrInvalidTopic):
			return nil, err
		case errors.Is(err, ErrTopicNotFound):
			if missing++; missing == missingTopicTries {
				return nil, fmt.Errorf("%w: create it first (pointsman never creates topics)", err)
			}
			c.meta.rotate()
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			c.log.Warn("kafka is not ready, waiting for it", zap.Strings("brokers", c.cfg.Brokers), zap.Error(err))
		}
		if !wait.sleep(ctx) {
			return nil, fmt.Errorf("reach kafka at %s: %w", strings.Join(c.cfg.Brokers, ","), context.Cause(ctx))
		}
	}
}

// Close ends all readers and connections and waits for them. Groups must have ended before.
func (c *Client) Close() error {
	c.cancel(ErrClosed)
	c.live.close()
	c.closePools()
	return nil
}

func (c *Client) closePools() {
	c.meta.wait()
	c.control.close()
	c.offsets.close()
	c.scans.close()
}

// Topic asks a broker, never a cache, for the topic's identity and partition count. Views made by the methods
// of Client itself follow the identity that Topic returned last.
func (c *Client) Topic(ctx context.Context) (Topic, error) {
	t, err := c.meta.refresh(ctx, time.Now())
	if err != nil {
		return Topic{}, err
	}
	c.trusted.Store(&t.id)
	return Topic{ID: t.id, Partitions: int32(len(t.leaders))}, nil
}

// At reads the topic only while its id is the given one, so that offsets of a topic that was recreated meanwhile
// are never used on the new one.
func (c *Client) At(id [16]byte) View { return View{c: c, id: id} }

func (c *Client) view() View { return View{c: c, id: *c.trusted.Load()} }

// Bounds is View.Bounds of the topic as Topic returned it last.
func (c *Client) Bounds(ctx context.Context, partition int32) (source.Bounds, error) {
	return c.view().Bounds(ctx, partition)
}

// OffsetAt is View.OffsetAt of the topic as Topic returned it last.
func (c *Client) OffsetAt(ctx context.Context, partition int32, t int64) (offset int64, ok bool, err error) {
	return c.view().OffsetAt(ctx, partition, t)
}

// Scan is View.Scan of the topic as Topic returned it last.
func (c *Client) Scan(ctx context.Context, partition int32, from int64, maxBytes int32) (*source.Batch, error) {
	return c.view().Scan(ctx, partition, from, maxBytes)
}

// Read is View.Read of the topic as Topic returned it last.
func (c *Client) Read(partition int32, from int64, sink Sink) { c.view().Read(partition, from, sink) }

// StopRead ends the reading of a partition. It does not block.
func (c *Client) StopRead(partition int32) { c.live.stop(partition) }

// backoff waits 50 ms, then twice as long each time, up to a second.
type backoff struct{ d time.Duration }

func (b *backoff) next() time.Duration {
	b.d = min(max(2*b.d, 50*time.Millisecond), time.Second)
	return b.d
}

// sleep waits the next time; it reports whether ctx still lives.
func (b *backoff) sleep(ctx context.Context) bool {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
