// Package program is what the programs of all designs have in common: flags, log, operators' address, metrics.
package program

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/logging"
	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

// Options are the flags of every program.
type Options struct {
	Topic string   `required:"" placeholder:"NAME" group:"Kafka" help:"Topic to serve; plain, without transactions or compaction."`
	Kafka []string `default:"127.0.0.1:9092" placeholder:"HOST:PORT" group:"Kafka" help:"Brokers to ask first."`
	ID    string   `name:"id" required:"" placeholder:"NAME" group:"Process" help:"Name of this process; no two living ones may share it."`
	Admin string   `default:"127.0.0.1:0" placeholder:"ADDR" group:"Operators" help:"Address for operators: metrics, health, profiles."`

	logging.Options `embed:""`
}

// Base is what a part of a design is built from, as a process or in a test.
type Base struct {
	Kafka    topic.Config
	ID       string
	Registry prometheus.Registerer
	Ready    func(name string, check func() error)
	Vars     func(name string, dump func() any)
	Logger   *zap.Logger
}

// Part is one part of a design: a server, a router, a redistributor.
type Part interface {
	// Run works until ctx ends, then stops in order.
	Run(ctx context.Context) error
}

// Run builds a part and runs it beside the operators' server.
func (o Options) Run(ctx context.Context, env options.Env, build func(Base) (Part, error)) error {
	log, _, err := logging.New(o.Options, env.Stderr)
	if err != nil {
		return options.Usagef("%w", err)
	}
	log = log.With(zap.String("id", o.ID))
	ops := admin.New(admin.Config{Listen: o.Admin, Namespace: "design", Build: buildinfo.Read(), Logger: log})
	if err := ops.Listen(); err != nil {
		return err
	}
	part, err := build(Base{
		Kafka: topic.Config{Brokers: o.Kafka, Topic: o.Topic, ClientID: o.ID},
		ID:    o.ID, Registry: ops.Registry(), Ready: ops.Ready, Vars: ops.Vars, Logger: log,
	})
	if err != nil {
		return err
	}
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	var operators sync.WaitGroup
	operators.Go(func() {
		if err := ops.Run(watch); err != nil {
			log.Error("operators are no longer served", zap.Error(err))
		}
	})
	err = part.Run(ctx)
	stop()
	operators.Wait()
	return err
}

// Listen opens an address for clients.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Ingest registers what a topic has read.
func (b Base) Ingest(t *topic.Topic) error {
	for _, c := range []struct {
		name, help string
		value      func() float64
	}{
		{"ingested_records_total", "Records read live from the topic.", func() float64 { return float64(t.Records.Load()) }},
		{"ingested_bytes_total", "Keys, values and headers read live from the topic.", func() float64 { return float64(t.Bytes.Load()) }},
	} {
		if err := b.Registry.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "design", Name: c.name, Help: c.help}, c.value)); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// Counter registers one.
func (b Base) Counter(name, help string) (prometheus.Counter, error) {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "design", Name: name, Help: help})
	if err := b.Registry.Register(c); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}
