// Package simulated lends the node's cores to the simulation in integration/simulate. They are internal, because no
// other program may build on them, and the simulation is another module: these aliases are the one door. Nothing
// here adds behaviour, so what the simulation drives is what a node runs.
package simulated

import (
	"github.com/pointsmanhq/pointsman/wsnode/internal/claims"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

type (
	// Record and what follows are what a partition is read from, see package source.
	Record = source.Record
	Batch  = source.Batch
	Bounds = source.Bounds
)

type (
	// LinkID and what follows are a partition's state machine, see package partition.
	LinkID     = partition.LinkID
	Loop       = partition.Loop
	LoopConfig = partition.Config
	LoopOutput = partition.Output
	LoopStatus = partition.Status
)

// NewLoop returns a loop that reads nothing yet.
func NewLoop(cfg LoopConfig, out LoopOutput) *Loop { return partition.New(cfg, out) }

type (
	// Claims decide which claims a node publishes, see package claims.
	Claims       = claims.Core
	ClaimsOutput = claims.Output
)

// NewClaims returns a core without claims; incarnation is what etcd says at the start.
func NewClaims(node, instance string, incarnation int64, out ClaimsOutput) *Claims {
	return claims.New(node, instance, incarnation, out)
}
