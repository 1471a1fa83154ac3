// Package command is the command line of cmd/designs: one command for each part of each design.
package command

import (
	"context"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/integration/designs/everyone"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
	"github.com/pointsmanhq/pointsman/integration/designs/plainrouter"
	"github.com/pointsmanhq/pointsman/integration/designs/redistributor"
)

// Parts are the commands that run one process of a design.
type Parts struct {
	Everyone everyoneCmd `cmd:"" help:"A server that reads the whole topic and keeps its clients' sockets."`

	PlainrouterNode   plainNode   `cmd:"" help:"A server that shares the partitions with others and serves what routers send to it."`
	PlainrouterRouter plainRouter `cmd:"" help:"A router that proxies each client to the owner of its key's partition."`

	RedistributorServer redistServer `cmd:"" help:"A server that keeps sockets and gets its records from redistributors."`
	Redistributor       redist       `cmd:"" help:"A redistributor: it shares the partitions with others and forwards records to servers."`
}

// Description is for --help.
func Description() options.Program {
	return options.Program{
		Name:    "designs",
		Summary: "The other ways to bring a Kafka topic to WebSocket clients, to be compared with Pointsman.",
		Version: buildinfo.Read().String(),
	}
}

type everyoneCmd struct {
	program.Options `embed:""`
	Listen          string `default:"127.0.0.1:8080" placeholder:"ADDR" group:"Clients" help:"Address for clients."`
}

// Run runs a server of the design.
func (c *everyoneCmd) Run(ctx context.Context, env options.Env) error {
	return c.Options.Run(ctx, env, func(b program.Base) (program.Part, error) { return everyone.New(b, c.Listen) })
}

type etcdOptions struct {
	Etcd       []string `default:"127.0.0.1:2379" placeholder:"HOST:PORT" group:"etcd" help:"etcd endpoints."`
	EtcdPrefix string   `default:"/designs" placeholder:"KEY" group:"etcd" help:"Where this stack's keys begin."`
}

func (o etcdOptions) config(b program.Base) etcdmap.Config {
	return etcdmap.Config{Endpoints: o.Etcd, Prefix: o.EtcdPrefix, Topic: b.Kafka.Topic, Logger: b.Logger.Named("etcd")}
}

type plainNode struct {
	program.Options `embed:""`
	etcdOptions     `embed:""`
	Listen          string `default:"127.0.0.1:9080" placeholder:"ADDR" group:"Process" help:"Address for routers; it is published as it is."`
}

// Run runs a server of the design.
func (c *plainNode) Run(ctx context.Context, env options.Env) error {
	return c.Options.Run(ctx, env, func(b program.Base) (program.Part, error) {
		return plainrouter.NewNode(b, c.Listen, c.config(b))
	})
}

type plainRouter struct {
	program.Options `embed:""`
	etcdOptions     `embed:""`
	Listen          string `default:"127.0.0.1:8080" placeholder:"ADDR" group:"Clients" help:"Address for clients."`
}

// Run runs a router of the design.
func (c *plainRouter) Run(ctx context.Context, env options.Env) error {
	return c.Options.Run(ctx, env, func(b program.Base) (program.Part, error) {
		return plainrouter.NewRouter(b, c.Listen, c.config(b))
	})
}

type redistOptions struct {
	Where   string `default:"cache" enum:"cache,backchannel" group:"Tiers" help:"How redistributors know where clients are: a cache (Redis) or a backchannel topic in Kafka."`
	Forward string `default:"http" enum:"http,kafka" group:"Tiers" help:"What carries records to servers."`
	Redis   string `default:"127.0.0.1:6379" placeholder:"HOST:PORT" group:"Tiers" help:"Redis of the cache."`
}

type redistServer struct {
	program.Options `embed:""`
	redistOptions   `embed:""`
	Listen          string `default:"127.0.0.1:8080" placeholder:"ADDR" group:"Clients" help:"Address for clients and redistributors; it is published as it is."`
}

// Run runs a server of the design.
func (c *redistServer) Run(ctx context.Context, env options.Env) error {
	return c.Options.Run(ctx, env, func(b program.Base) (program.Part, error) {
		sent, err := b.Counter("backchannel_bytes_total", "Keys and values written to the backchannel.")
		if err != nil {
			return nil, err
		}
		return redistributor.NewServer(b, c.Listen, func(at redistributor.Place, partitions int32) (p redistributor.Presence, r redistributor.Receiver, err error) {
			if c.Where == "cache" {
				p = redistributor.NewCachePresence(c.Redis, b.Kafka.Topic, at, b.Logger)
			} else {
				p, err = redistributor.NewBackchannelPresence(b.Kafka, partitions, at, b.Logger, func(n int) { sent.Add(float64(n)) })
			}
			if err != nil {
				return nil, nil, err
			}
			if c.Forward == "http" {
				return p, redistributor.NewHTTPReceiver(at.Instance), nil
			}
			r, err = redistributor.NewKafkaReceiver(b.Kafka, at.Instance)
			return p, r, err
		})
	})
}

type redist struct {
	program.Options `embed:""`
	redistOptions   `embed:""`
}

// Run runs a redistributor.
func (c *redist) Run(ctx context.Context, env options.Env) error {
	return c.Options.Run(ctx, env, func(b program.Base) (program.Part, error) {
		read, err := b.Counter("backchannel_bytes_total", "Keys and values read from the backchannel.")
		if err != nil {
			return nil, err
		}
		sender := redistributor.NewHTTPSender()
		if c.Forward == "kafka" {
			if sender, err = redistributor.NewKafkaSender(b.Kafka); err != nil {
				return nil, err
			}
		}
		return redistributor.New(b, sender, func(partitions int32, lookups func(int)) (redistributor.Locator, error) {
			if c.Where == "cache" {
				return redistributor.NewCacheLocator(c.Redis, b.Kafka.Topic, b.Logger, lookups), nil
			}
			return redistributor.NewBackchannelLocator(b.Kafka, partitions, b.Logger, lookups, func(n int) { read.Add(float64(n)) })
		})
	})
}
