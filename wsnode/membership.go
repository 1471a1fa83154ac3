package wsnode

import (
	"context"
	"sync"
	"time"
)

// membership runs the group until it is told to leave.
type membership struct {
	mu    sync.Mutex
	leave context.CancelFunc // guarded by mu; nil before join
	done  chan struct{}
}

// join begins the membership; it ends with ctx or when leaveGroup is called.
func (n *Node) join(life *life) {
	ctx, cancel := context.WithCancel(life.ctx)
	now := time.Now()
	n.joined.Store(&now)
	m := &n.member
	m.mu.Lock()
	m.leave, m.done = cancel, make(chan struct{})
	m.mu.Unlock()
	life.run("consumer group", func(context.Context) error {
		defer close(m.done)
		defer cancel()
		return n.group.Run(ctx)
	})
}

// leaveGroup makes the node leave the group and returns a channel that is closed when it has left.
func (n *Node) leaveGroup() <-chan struct{} {
	m := &n.member
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave()
	return m.done
}

// waitGroup waits for the end of a membership whose context has ended.
func (n *Node) waitGroup() {
	m := &n.member
	m.mu.Lock()
	done := m.done
	m.mu.Unlock()
	if done != nil {
		<-done
	}
}
