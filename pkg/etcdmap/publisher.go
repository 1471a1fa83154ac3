package etcdmap

import (
	"context"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// PublisherConfig says what a node publishes.
type PublisherConfig struct {
	NodeID   string
	Node     directory.Node // Instance must be unique to this process
	LeaseTTL time.Duration  // whole seconds, at least 2 s; default 5 s
	// Lost is called when a wanted claim stands behind a newer one, once per winner. It is called from Run and must not block.
	Lost func(p int32, winner directory.Claim)
}

// Publisher keeps one node's registration and claims in etcd.
type Publisher struct {
	m   *Map
	cfg PublisherConfig
}

// NewPublisher prepares a publisher; Run does the work.
func (m *Map) NewPublisher(cfg PublisherConfig) *Publisher { return &Publisher{m: m, cfg: cfg} }

// Run registers the node and keeps everything published until ctx ends; then it returns nil and leaves the lease to
// Revoke or to its end. ErrNodeIDTaken if another instance still holds the id after one lease time.
func (p *Publisher) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Registered is closed after the first registration.
func (p *Publisher) Registered() <-chan struct{} { return nil }

// SetNode replaces the node's value.
func (p *Publisher) SetNode(n directory.Node) {}

// SetClaim wants the claim published: written if absent, older, or of the same instance, and again after every loss.
func (p *Publisher) SetClaim(part int32, c directory.Claim) {}

// DropClaim stops wanting the claim. Nothing is deleted: a newer claim replaces it, or the lease ends.
func (p *Publisher) DropClaim(part int32) {}

// Revoke ends Run and then the lease with everything published under it.
func (p *Publisher) Revoke(ctx context.Context) error { return nil }
