package wsnode

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
)

// sayAfter is how long a dependency may keep the start waiting before the log says so.
const sayAfter = 2 * time.Second

// seePicture keeps the newest picture of etcd.
func (n *Node) seePicture(p *etcdmap.Picture) {
	n.picture.Store(p)
	select {
	case n.pictured <- struct{}{}:
	default:
	}
}

// firstPicture waits for etcd, and says so.
func (n *Node) firstPicture(ctx context.Context) error {
	t := time.NewTimer(sayAfter)
	defer t.Stop()
	for n.picture.Load() == nil {
		select {
		case <-n.pictured:
		case <-t.C:
			err, _ := n.etcd.Health()
			n.log.Warn("etcd has not answered yet; waiting for it", zap.Strings("endpoints", n.cfg.Etcd), zap.Error(err))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// followPictures tells the parts what etcd says.
func (n *Node) followPictures(ctx context.Context) {
	for {
		p := n.picture.Load()
		if p.Topic != nil {
			n.claims.Incarnation(p.Topic.Incarnation)
		}
		n.identity.Seen(p.Topic)
		n.notice()
		select {
		case <-n.pictured:
		case <-ctx.Done():
			return
		}
	}
}

// living counts the other nodes that etcd lists.
func (n *Node) living() int {
	count := 0
	for id, node := range n.picture.Load().Nodes {
		if id != n.cfg.ID && node.Instance != n.instance {
			count++
		}
	}
	return count
}

// successors counts the nodes that can take over: others that are not draining.
func (n *Node) successors() int {
	count := 0
	for _, node := range n.picture.Load().Nodes {
		if node.Instance != n.instance && !node.Draining {
			count++
		}
	}
	return count
}
