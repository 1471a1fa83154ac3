// Package simulated lends the node's cores to the simulation in integration/simulate. They are internal, because no
// other program may build on them, and the simulation is another module: these aliases are the one door. Nothing
// here adds behaviour, so what the simulation drives is what a node runs.
package simulated

import (
	"github.com/pointsmanhq/pointsman/wsnode/internal/claims"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// Record is what a partition is read from, see package source.
type Record = source.Record

// Batch is records and what they cover, see package source.
type Batch = source.Batch

// Bounds is what a broker says of a partition, see package source.
type Bounds = source.Bounds

// LinkID names a link, see package partition.
type LinkID = partition.LinkID

// Loop is a partition's state machine, see package partition.
type Loop = partition.Loop

// LoopConfig is what a loop is built with, see package partition.
type LoopConfig = partition.Config

// LoopOutput is what a loop asks of its shell, see package partition.
type LoopOutput = partition.Output

// LoopStatus is a partition in numbers, see package partition.
type LoopStatus = partition.Status

// NewLoop returns a loop that reads nothing yet.
func NewLoop(cfg LoopConfig, out LoopOutput) *Loop { return partition.New(cfg, out) }

// Claims decide which claims a node publishes, see package claims.
type Claims = claims.Core

// ClaimsOutput is what they ask of their shell, see package claims.
type ClaimsOutput = claims.Output

// NewClaims returns a core without claims; incarnation is what etcd says at the start.
func NewClaims(node, instance string, incarnation int64, out ClaimsOutput) *Claims {
	return claims.New(node, instance, incarnation, out)
}
