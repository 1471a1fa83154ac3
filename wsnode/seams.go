package wsnode

import (
	"context"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// broker is what a node needs of Kafka.
type broker interface {
	runner.Log
	Topic(ctx context.Context) (kafka.Topic, error)
	Ends(ctx context.Context, topic [16]byte, partitions int32) ([]int64, error)
	Join(cfg kafka.GroupConfig) (group, error)
	Close() error
}

// group is the membership of the consumer group.
type group interface {
	Run(ctx context.Context) error
	Mark(p int32, next int64)
	Generation() int32
}

// register is what a node needs of etcd.
type register interface {
	Watch(ctx context.Context, changed func(*etcdmap.Picture)) error
	Health() (err error, since time.Time)
	Stats() etcdmap.Stats
	EnsureTopic(ctx context.Context, want directory.Topic) (directory.Topic, error)
	UpdateTopic(ctx context.Context, change func(cur directory.Topic) (next directory.Topic, ok bool)) (directory.Topic, error)
	Publish(cfg etcdmap.PublisherConfig) publisher
	Close() error
}

// publisher keeps the node's entry and claims in etcd.
type publisher interface {
	Run(ctx context.Context) error
	Registered() <-chan struct{}
	SetNode(n directory.Node)
	SetClaim(p int32, c directory.Claim)
	DropClaim(p int32)
	Revoke(ctx context.Context) error
}

// doors open the two dependencies and look at the machine; tests have their own.
type doors struct {
	machine machine

	kafka func(ctx context.Context, cfg kafka.Config) (broker, error)
	etcd  func(cfg etcdmap.Config) (register, error)
}

func realDoors() doors {
	return doors{
		machine: thisMachine{},
		kafka: func(ctx context.Context, cfg kafka.Config) (broker, error) {
			c, err := kafka.Open(ctx, cfg)
			if err != nil {
				return nil, err
			}
			return kafkaBroker{c}, nil
		},
		etcd: func(cfg etcdmap.Config) (register, error) {
			m, err := etcdmap.Open(cfg)
			if err != nil {
				return nil, err
			}
			return etcdRegister{m}, nil
		},
	}
}

// etcdRegister is the map in etcd.
type etcdRegister struct{ *etcdmap.Map }

func (e etcdRegister) Publish(cfg etcdmap.PublisherConfig) publisher { return e.NewPublisher(cfg) }

// kafkaBroker is the Kafka client.
type kafkaBroker struct{ *kafka.Client }

func (k kafkaBroker) Join(cfg kafka.GroupConfig) (group, error) {
	g, err := k.NewGroup(cfg)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (k kafkaBroker) Ends(ctx context.Context, topic [16]byte, partitions int32) ([]int64, error) {
	return k.At(topic).Ends(ctx, partitions)
}

func (k kafkaBroker) Bounds(ctx context.Context, topic [16]byte, p int32) (source.Bounds, error) {
	return k.At(topic).Bounds(ctx, p)
}

func (k kafkaBroker) OffsetAt(ctx context.Context, topic [16]byte, p int32, t int64) (int64, bool, error) {
	return k.At(topic).OffsetAt(ctx, p, t)
}

func (k kafkaBroker) Scan(ctx context.Context, topic [16]byte, p int32, from int64, maxBytes int32) (*source.Batch, *source.Bounds, error) {
	return scanned(k.At(topic).Scan(ctx, p, from, maxBytes))
}

func (k kafkaBroker) Read(topic [16]byte, p int32, from int64, sink runner.Sink) {
	k.At(topic).Read(p, from, kafkaSink{sink})
}
