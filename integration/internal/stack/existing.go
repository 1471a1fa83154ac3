package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// existing is a stack that somebody else runs: it can be used and looked at, and nothing in it may be touched.
type existing struct {
	opts    Options
	routers []Router
}

func openExisting(ctx context.Context, o Options) (Stack, error) {
	if len(o.RouterURLs) == 0 || len(o.KafkaAddrs) == 0 {
		return nil, errors.New("an existing stack needs Options.RouterURLs and Options.KafkaAddrs")
	}
	if len(o.RouterAdmins) > 0 && len(o.RouterAdmins) != len(o.RouterURLs) {
		return nil, fmt.Errorf("%d routers and %d admin addresses: give one for each, or none", len(o.RouterURLs), len(o.RouterAdmins))
	}
	e := &existing{opts: o}
	for i, url := range o.RouterURLs {
		r := Router{Name: url, URL: url}
		if len(o.RouterAdmins) > 0 {
			r.Admin = o.RouterAdmins[i]
		}
		e.routers = append(e.routers, r)
	}
	var err error
	if e.opts.Partitions, err = countPartitions(ctx, o.KafkaAddrs, o.Topic); err != nil {
		return nil, err
	}
	o.Logf("stack %s: Kafka %v, routers %v, topic %s with %d partitions", Existing, o.KafkaAddrs, o.RouterURLs, o.Topic, e.opts.Partitions)
	return e, nil
}

func (e *existing) Kind() Kind         { return Existing }
func (e *existing) Topic() string      { return e.opts.Topic }
func (e *existing) Partitions() int32  { return e.opts.Partitions }
func (e *existing) EtcdPrefix() string { return e.opts.EtcdPrefix }
func (e *existing) Kafka() []string    { return e.opts.KafkaAddrs }
func (e *existing) Etcd() []string     { return e.opts.EtcdAddrs }
func (e *existing) Routers() []Router  { return slices.Clone(e.routers) }
func (e *existing) Nodes() []Node      { return nil }
func (e *existing) Dir() string        { return os.TempDir() }
func (e *existing) Close() error       { return nil }

func (e *existing) AddNode(context.Context) (Node, error)    { return Node{}, ErrUnsupported }
func (e *existing) DrainNode(context.Context, string) error  { return ErrUnsupported }
func (e *existing) KillNode(context.Context, string) error   { return ErrUnsupported }
func (e *existing) FreezeNode(context.Context, string) error { return ErrUnsupported }
func (e *existing) ThawNode(context.Context, string) error   { return ErrUnsupported }
func (e *existing) KillRouter(context.Context, int) error    { return ErrUnsupported }
func (e *existing) StopRouter(context.Context, int) error    { return ErrUnsupported }
func (e *existing) StartRouter(context.Context, int) error   { return ErrUnsupported }
func (e *existing) FreezeRouter(context.Context, int) error  { return ErrUnsupported }
func (e *existing) ThawRouter(context.Context, int) error    { return ErrUnsupported }
func (e *existing) StopEtcd(context.Context) error           { return ErrUnsupported }
func (e *existing) StartEtcd(context.Context) error          { return ErrUnsupported }
func (e *existing) WipeEtcd(context.Context) error           { return ErrUnsupported }
func (e *existing) StopKafka(context.Context) error          { return ErrUnsupported }
func (e *existing) StartKafka(context.Context) error         { return ErrUnsupported }
