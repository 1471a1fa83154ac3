// Package plainrouter is the two-tier design at its simplest: servers share the partitions through a consumer group
// and publish what they own in etcd; a router sends each WebSocket upgrade to the owner of its key's partition and then
// copies bytes. On a rebalance the clients of moved partitions lose their connection and come back.
package plainrouter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/socket"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

// primed is how many records before the end of a partition its new owner reads, so that clients that come from the old
// one are served from memory.
const primed = 4096

// Node is one server.
type Node struct {
	base     program.Base
	instance string
	topic    *topic.Topic
	etcd     *etcdmap.Map
	sockets  *socket.Server
	lis      net.Listener
	pub      *etcdmap.Publisher
	caught   func(int)
	fail     context.CancelCauseFunc // ends Run; set before anything can call it
	working  sync.WaitGroup          // readers and moves of partitions

	mu    sync.Mutex
	owned map[int32]*owned // guarded by mu
}

// owned is a partition between its assignment and its revocation.
type owned struct {
	log *feed.Log
	fan *feed.Local
}

// NewNode opens the topic, etcd and the address that routers dial.
func NewNode(base program.Base, listen string, etcd etcdmap.Config) (_ *Node, err error) {
	n := &Node{base: base, instance: rand.Text(), owned: make(map[int32]*owned)}
	if n.topic, err = topic.Open(base.Kafka); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.topic.Close())
		}
	}()
	if err = base.Ingest(n.topic); err != nil {
		return nil, err
	}
	n.sockets, err = socket.New(socket.Config{TopicID: n.topic.ID, Partitions: n.topic.Partitions, Logger: base.Logger}, n, base.Registry)
	if err != nil {
		return nil, err
	}
	caught, err := base.Counter("caught_up_records_total", "Records read again for clients whose cursor lies below the ring.")
	if err != nil {
		return nil, err
	}
	n.caught = func(records int) { caught.Add(float64(records)) }
	if n.lis, err = program.Listen(listen); err != nil {
		return nil, err
	}
	if n.etcd, err = etcdmap.Open(etcd); err != nil {
		return nil, errors.Join(err, n.lis.Close())
	}
	n.pub = n.etcd.NewPublisher(etcdmap.PublisherConfig{
		NodeID: base.ID, LeaseTTL: 5 * time.Second,
		Node: directory.Node{V: directory.Version, Instance: n.instance, Addr: n.lis.Addr().String(), Started: time.Now()},
	})
	base.Vars("owned", func() any { return n.partitions() })
	base.Ready("registered", func() error {
		select {
		case <-n.pub.Registered():
			return nil
		default:
			return errors.New("not in etcd yet")
		}
	})
	return n, nil
}

func (n *Node) group() string { return "plainrouter-" + n.base.Kafka.Topic }

// Run serves until ctx ends. Then it leaves the group first, so that others own its partitions by the time its clients
// come to them.
func (n *Node) Run(ctx context.Context) error {
	all := context.WithoutCancel(ctx)
	serving, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	n.fail = giveUp
	_, err := n.etcd.EnsureTopic(serving, directory.Topic{
		V: directory.Version, Group: n.group(), TopicID: uuid(n.topic.ID), Partitions: n.topic.Partitions, Partitioner: partitioner.Murmur2,
	})
	publishing, unpublish := context.WithCancel(all)
	defer unpublish()
	var parts sync.WaitGroup
	if err == nil {
		parts.Go(func() {
			if err := n.pub.Run(publishing); err != nil {
				giveUp(err)
			}
		})
		parts.Go(func() {
			if err := n.topic.JoinGroup(serving, topic.GroupConfig{Name: n.group(), Owner: n, Logger: n.base.Logger}); err != nil {
				giveUp(err)
			}
		})
		err = n.sockets.Run(serving, n.lis, nil)
	}
	giveUp(nil)
	unpublish()
	parts.Wait()
	n.working.Wait()
	cause := context.Cause(serving)
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	end, cancel := context.WithTimeout(all, 3*time.Second)
	defer cancel()
	return errors.Join(err, cause, n.pub.Revoke(end), n.etcd.Close(), n.topic.Close())
}

// Own implements topic.Owner: it reads the partition, and publishes the claim when clients can be served.
func (n *Node) Own(ctx context.Context, p, generation int32, _ int64, _ func(int64)) {
	o := &owned{fan: &feed.Local{Frame: n.sockets.Frame, Delivered: n.sockets.Delivered}}
	o.log = feed.New(feed.Config{Partition: p, Source: n.topic, Fan: o.fan, Logger: n.base.Logger, Caught: n.caught})
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.working.Go(func() {
		from, end, err := n.topic.Recent(reading, p, primed)
		if err == nil {
			err = o.log.Run(reading, from, end)
		}
		if err != nil && reading.Err() == nil {
			n.fail(err) // an owner that reads nothing must not hold the claim
		}
	})
	n.mu.Lock()
	n.owned[p] = o
	n.mu.Unlock()
	n.publish(ctx, p, generation, o)
	<-ctx.Done()

	n.pub.DropClaim(p)
	n.mu.Lock()
	delete(n.owned, p)
	n.mu.Unlock()
	// The group has the partition back at once; its clients are served here until their turn to move comes.
	n.working.Go(func() {
		defer stop()
		n.moveAway(o)
	})
}

// publish waits until the partition is read to its end.
func (n *Node) publish(ctx context.Context, p, generation int32, o *owned) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for o.log.Ready() != nil {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
	n.pub.SetClaim(p, directory.Claim{
		V: directory.Version, Node: n.base.ID, Instance: n.instance, Generation: generation, Since: time.Now(),
	})
}

// moveAway closes the partition's clients. They find the new owner through their router.
func (n *Node) moveAway(o *owned) {
	var moved []*socket.Client
	for _, c := range n.sockets.Clients() {
		if c.State.Load() == o {
			moved = append(moved, c)
		}
	}
	n.sockets.MoveAll(moved, "the partition moves")
}

// partitions are those that are owned and ready.
func (n *Node) partitions() []int32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []int32{}
	for p, o := range n.owned {
		if o.log.Ready() == nil {
			out = append(out, p)
		}
	}
	return out
}

func (n *Node) ownedBy(p int32) *owned {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.owned[p]
}

// Admit implements socket.Host.
func (n *Node) Admit(p int32) error {
	o := n.ownedBy(p)
	if o == nil {
		return fmt.Errorf("partition %d is not owned here", p)
	}
	return o.log.Ready()
}

// Attach implements socket.Host.
func (n *Node) Attach(c *socket.Client) {
	o := n.ownedBy(c.Partition())
	if o == nil {
		c.Move("the partition moves")
		return
	}
	c.State.Store(o)
	if o.log.Attach(c) != nil {
		c.Move("the partition moves")
		return
	}
	// The partition may have been taken away before the socket was known.
	if n.ownedBy(c.Partition()) != o {
		c.Move("the partition moves")
	}
}

// Detach implements socket.Host.
func (n *Node) Detach(c *socket.Client) {
	if o, ok := c.State.Load().(*owned); ok {
		_ = o.log.Do(func() { o.fan.Remove(c) }) // a log that has ended delivers to nobody
	}
}

// Covered implements socket.Host.
func (n *Node) Covered(c *socket.Client) int64 {
	o := n.ownedBy(c.Partition())
	if o == nil || !c.IsLive() {
		return -1
	}
	return o.log.Head()
}

// uuid is the canonical text of a topic's id.
func uuid(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
