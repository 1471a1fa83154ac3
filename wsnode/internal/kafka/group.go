package kafka

import (
	"context"
	"time"
)

// GroupConfig is what a Group is built with. Zero durations mean the defaults named there.
type GroupConfig struct {
	Group            string
	SessionTimeout   time.Duration // default 6 s, the least that brokers allow by default
	Heartbeat        time.Duration // default 250 ms: it is also how soon a rebalance is heard of
	RebalanceTimeout time.Duration // default 10 s: how long a join may wait for other members
	RebalanceBackoff time.Duration // default 100 ms
	CommitEvery      time.Duration // default 1 s
	GrowthCheck      time.Duration // default 5 s: how often the group's leader looks for added partitions
	Handler          GroupHandler
}

// GroupHandler hears of assignments. Calls for one partition alternate and never overlap; calls for different
// partitions may come at the same time. Both must return soon.
type GroupHandler interface {
	// Assigned says that the group gave this member the partition in the given generation; committed is the
	// group's committed offset, -1 if there is none.
	Assigned(partition, generation int32, committed int64)
	// Revoked says that the group took the partition away, or that the membership ended.
	Revoked(partition int32)
}

// Group is this node's membership of the consumer group. It fetches nothing.
type Group struct{}

// NewGroup prepares a membership; Run starts it.
func (c *Client) NewGroup(cfg GroupConfig) (*Group, error) { return nil, nil }

// Run is a member of the group until ctx ends, then commits, leaves the group and returns nil. Errors are
// logged and retried for ever. It may be called once.
func (g *Group) Run(ctx context.Context) error { return nil }

// Mark says that everything below next was read. It is committed in the background, at a revoke and at the end;
// for a partition that is not assigned it is ignored. It never blocks.
func (g *Group) Mark(partition int32, next int64) {}

// Generation is the group's generation as this member knows it, 0 before the first join.
func (g *Group) Generation() int32 { return 0 }
