package arena

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// product is Pointsman itself. Its nodes are the servers, its routers the others.
type product struct{ stack.Stack }

func openProduct(ctx context.Context, o Options) (Arena, error) {
	kind, flags := stack.External, oneAddress()
	if o.Bin == "" {
		kind, flags = stack.InProcess, nil // with a Kafka and an etcd of its own: see Brokers
	}
	s, err := stack.Open(ctx, kind, stack.Options{
		Routers: o.Others, Nodes: o.Servers, Partitions: o.Partitions, Topic: o.Topic, Bin: o.Bin, Dir: o.Dir,
		KafkaAddrs: o.Kafka, EtcdAddrs: o.Etcd, Logf: o.Logf, RouterFlags: flags,
	})
	if err != nil {
		return nil, err
	}
	return product{s}, nil
}

// oneAddress lets all clients come from one address, as in a comparison they do: by default no address may have more than
// three quarters of a router.
func oneAddress() []string {
	const all = 1_000_000 // more than a router takes in from everybody
	return []string{fmt.Sprintf("--max-clients-per-address=%d", all), fmt.Sprintf("--handshake-rate-per-address=%d", all)}
}

// Brokers implements Arena.
func (p product) Brokers() []string { return p.Kafka() }

// Entrances implements Arena.
func (p product) Entrances() []load.Target {
	var out []load.Target
	for _, r := range p.Routers() {
		out = append(out, load.Target{Name: r.Name, URL: r.URL})
	}
	return out
}

// Members implements Arena.
func (p product) Members() []Member {
	var out []Member
	for _, r := range p.Routers() {
		out = append(out, Member{Role: Router, Name: r.Name, PID: r.PID, Admin: r.Admin})
	}
	for _, n := range p.Nodes() {
		out = append(out, Member{Role: Server, Name: n.ID, PID: n.PID, Admin: n.Admin})
	}
	return out
}

// AddServer implements Arena.
func (p product) AddServer(ctx context.Context) error {
	_, err := p.AddNode(ctx)
	return err
}

func (p product) oldest() (string, error) {
	nodes := p.Nodes()
	if len(nodes) == 0 {
		return "", errors.New("no node runs")
	}
	return nodes[0].ID, nil
}

// KillServer implements Arena.
func (p product) KillServer(ctx context.Context) error {
	id, err := p.oldest()
	if err != nil {
		return err
	}
	return p.KillNode(ctx, id)
}

// DrainServer implements Arena.
func (p product) DrainServer(ctx context.Context) error {
	id, err := p.oldest()
	if err != nil {
		return err
	}
	return p.DrainNode(ctx, id)
}

// KillOther implements Arena.
func (p product) KillOther(ctx context.Context) error {
	if err := p.KillRouter(ctx, 0); err != nil {
		return err
	}
	return p.StartRouter(ctx, 0)
}

// Shutdown implements Arena.
func (p product) Shutdown(ctx context.Context) error {
	routers, nodes := p.Routers(), p.Nodes()
	errs := make([]error, len(routers)+len(nodes))
	var wg sync.WaitGroup
	for i := range routers {
		wg.Go(func() { errs[i] = p.StopRouter(ctx, i) })
	}
	wg.Wait()
	for i, n := range nodes {
		wg.Go(func() { errs[len(routers)+i] = p.DrainNode(ctx, n.ID) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
