package wsnode

import (
	"context"
	"errors"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"
)

const (
	// revokeTimeout bounds the last words to etcd; the lease ends by itself.
	revokeTimeout = 3 * time.Second
	// closeGrace is how long links may take to close in order.
	closeGrace = 2 * time.Second
)

// drain stops the node in order. It leaves the group at once, so that the others take over its partitions, and
// serves the attached streams by plain reads until the routers have moved them, or the grace is over.
func (n *Node) drain(hard context.Context) error {
	began := time.Now()
	_, before := n.links.Status()
	n.draining.Store(true)
	n.at("draining")
	n.log.Info("draining", zap.Duration("at_most", n.cfg.DrainTimeout))
	n.publish()
	n.links.Drain()

	grace, cancel := context.WithTimeout(hard, n.cfg.DrainTimeout)
	defer cancel()
	left := n.leaveGroup()
	n.handing.Store(true)
	n.notice()
	err := n.links.WaitEmpty(grace)
	n.handing.Store(false)
	moving := time.Since(began)
	_, totals := n.links.Status()
	select {
	case <-left:
	case <-grace.Done():
		err = errors.Join(err, grace.Err())
	}
	if hard.Err() != nil {
		return context.Cause(hard)
	}
	switch {
	case err == nil:
	case n.successors() == 0:
		n.log.Warn("drain timeout is over and no other node has come: clients wait until there is one",
			zap.Int64("streams", totals.Streams))
	default:
		n.log.Warn("drain timeout is over; routers will find other nodes for what is left",
			zap.Int64("streams", totals.Streams))
	}
	// etcd first: routers do not dial a node again that is not there.
	last, cancel := context.WithTimeout(hard, revokeTimeout)
	defer cancel()
	if err := n.publisher.Revoke(last); err != nil {
		n.log.Warn("lease not revoked; it ends by itself", zap.Error(err))
	}
	n.links.Close(closeGrace, websocket.StatusGoingAway, "the node has drained")
	if hard.Err() != nil {
		return context.Cause(hard)
	}
	// A stream is served here until the router has it elsewhere, so its client waits for nothing meanwhile.
	// Routers that had not heard of the drain, and those of other nodes that stop, attach streams meanwhile.
	streams := max(totals.Streams, before.Streams+int64(totals.Attached-before.Attached)) //nolint:gosec // far below
	n.log.Info("drained", zap.Int64("streams", streams), zap.Int64("streams_left", totals.Streams),
		zap.Duration("moving_took", moving), zap.Duration("took", time.Since(began)))
	return nil
}

// notice says when a node that hands over finds that there is nobody to hand over to, and when there is again: at first
// and at every picture, because nodes that are stopped together see each other drain only after they have begun.
func (n *Node) notice() {
	if !n.handing.Load() {
		return
	}
	_, totals := n.links.Status()
	switch alone := n.successors() == 0; {
	case alone && totals.Streams > 0 && n.alone.CompareAndSwap(false, true):
		n.log.Warn("no other node can take over: this one serves its streams until the drain timeout is over",
			zap.Duration("drain_timeout", n.cfg.DrainTimeout), zap.Int64("streams", totals.Streams))
	case !alone && n.alone.CompareAndSwap(true, false):
		n.log.Info("another node can take over now", zap.Int64("streams", totals.Streams))
	}
}
