package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/pkg/tlsfiles"

	"github.com/pointsmanhq/pointsman/router/internal/survey"
)

const (
	// settled is how old a claim must be before a router that does not know it counts as behind etcd.
	settled = 3 * time.Second
	// etcdPatience bounds how long etcd is waited for.
	etcdPatience = 3 * time.Second
)

// asked is where the operator commands look: at a router, and at etcd.
type asked struct {
	Topic       string        `placeholder:"NAME" help:"Topic; needed only where no router answers."`
	Admin       string        `default:"127.0.0.1:8081" placeholder:"ADDR" help:"The router's address for operators. A node's shows that node's part."`
	Timeout     time.Duration `default:"5s" placeholder:"DURATION" help:"How long to wait for the router's answer."`
	etcdOptions `embed:""`
}

// look asks the router, or, when it does not answer, etcd and the nodes.
func (a *asked) look(ctx context.Context, nodes *survey.Survey) (*overview.Status, error) {
	bounded, cancel := context.WithTimeout(ctx, a.Timeout)
	s, err := overview.Get(bounded, a.Admin)
	cancel()
	if err == nil {
		if a.Topic == "" || s.Topic == nil || s.Topic.Name != a.Topic || s.Of != overview.OfRouter {
			return s, nil
		}
		// The operator says where etcd is: does the router know what stands there?
		if pic, err := a.picture(ctx); err == nil {
			compare(s, pic, time.Now())
		}
		return s, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	why := plain(err, a.Timeout)
	if a.Topic == "" {
		return nil, fmt.Errorf("no router answers at %s (%s). Say where a router's admin address is with --admin, or give --topic and --etcd to read etcd instead", a.Admin, why)
	}
	pic, err := a.picture(ctx)
	if err != nil {
		return nil, fmt.Errorf("no router answers at %s (%s), and etcd at %s neither (%w). Say where they are with --admin and --etcd", a.Admin, why, strings.Join(a.Etcd, ","), err)
	}
	s = fromEtcd(a.Topic, pic)
	s.Problems = []string{fmt.Sprintf("no router answers at %s (%s): this is what etcd and the nodes say. Say where a router's admin address is with --admin", a.Admin, why)}
	survey.Merge(s, nodes.Look(ctx, s.Nodes))
	s.Diagnose()
	return s, nil
}

// plain is why a question had no answer, in as few words as possible.
func plain(err error, timeout time.Duration) string {
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + timeout.String()
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// picture reads etcd once.
func (a *asked) picture(ctx context.Context) (*etcdmap.Picture, error) {
	conf, err := tlsfiles.Client(nil, a.EtcdTLS, a.EtcdCAFile, a.EtcdCertFile, a.EtcdKeyFile)
	if err != nil {
		return nil, options.Usagef("etcd: %w", err)
	}
	password, err := a.EtcdPasswordFile.Read()
	if err != nil {
		return nil, options.Usagef("--etcd-password-file: %w", err)
	}
	m, err := etcdmap.Open(etcdmap.Config{
		Endpoints: a.Etcd, Prefix: a.EtcdPrefix, Topic: a.Topic, TLS: conf, Username: a.EtcdUser, Password: password,
		DialTimeout: etcdPatience,
	})
	if err != nil {
		return nil, &options.UsageError{Err: err}
	}
	pic, err := m.Look(ctx)
	if closed := m.Close(); err == nil {
		err = closed
	}
	return pic, err
}

// fromEtcd is the stack as etcd alone tells it.
func fromEtcd(topic string, pic *etcdmap.Picture) *overview.Status {
	s := &overview.Status{
		Of: overview.OfEtcd, At: time.Now().UTC(), Table: overview.Table{Revision: pic.Revision},
		Routers: []overview.Router{}, Nodes: []overview.Node{}, Partitions: []overview.Partition{},
		Handovers: []overview.Handover{}, Mismatches: []overview.Mismatch{},
	}
	owned := map[string]int{}
	if pic.Topic != nil {
		t := pic.Topic
		s.Topic = &overview.Topic{
			Name: topic, ID: t.TopicID, Partitions: t.Partitions, Partitioner: t.Partitioner, Group: t.Group, Incarnation: t.Incarnation,
		}
		for p := range t.Partitions {
			row := overview.Partition{Partition: p}
			if c, ok := pic.Claims[p]; ok {
				row.Node, row.Generation, row.Since = c.Node, c.Generation, c.Since.UTC().Truncate(time.Second)
				row.StandIn = pic.Nodes[c.Node].Instance != c.Instance
				owned[c.Instance]++
			}
			s.Partitions = append(s.Partitions, row)
		}
	}
	for id, n := range pic.Nodes {
		s.Nodes = append(s.Nodes, overview.Node{
			ID: id, Instance: n.Instance, Addr: n.Addr, Admin: n.Admin, Version: n.Version, Zone: n.Zone, Started: n.Started,
			Draining: n.Draining, Listed: true, Routed: owned[n.Instance],
		})
	}
	return s
}

// compare says when a router does not know what stands in etcd.
func compare(s *overview.Status, pic *etcdmap.Picture, now time.Time) {
	var late []int32
	for i := range s.Partitions {
		p := &s.Partitions[i]
		c, ok := pic.Claims[p.Partition]
		if !ok || now.Sub(c.Since) < settled {
			continue
		}
		known := p.Claimed
		if known == "" && !p.StandIn {
			known = p.Node
		}
		if known != c.Node || p.Generation < c.Generation {
			late = append(late, p.Partition)
		}
	}
	if len(late) > 0 {
		s.Problems = append([]string{fmt.Sprintf(
			"%s does not know what etcd says of partitions %s: its watch is behind. Clients are served all the same; if it lasts, restart that router",
			s.ID, overview.Ranges(late))}, s.Problems...)
	}
}
