// Package simulated lends the router's cores to the simulation in integration/simulate. They are internal, because
// no other program may build on them, and the simulation is another module: these aliases are the one door.
// Nothing here adds behaviour, so what the simulation drives is what a router runs.
package simulated

import (
	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

type (
	// LinkID and what follows are a client's state machine, see package session.
	LinkID        = session.LinkID
	Session       = session.Core
	SessionConfig = session.Config
	SessionOutput = session.Output
	SessionStatus = session.Status
	Open          = session.Open
	Hello         = session.Hello
	Gap           = session.Gap
)

// NewSession returns a session that has no stream yet.
func NewSession(cfg *SessionConfig, out SessionOutput, o Open) *Session {
	return session.New(cfg, out, o)
}

type (
	// Table and what follows say who serves what, see package table.
	Table   = table.Table
	Picture = table.Picture
	Link    = table.Link
)

// EmptyTable is the table before anything is known.
func EmptyTable() *Table { return table.Empty() }

// BuildTable makes the table that follows prev.
func BuildTable(prev *Table, pic Picture, up []Link) (*Table, error) {
	return table.Build(prev, pic, up)
}

// Moved lists the partitions whose route differs between two tables.
func Moved(old, next *Table) []int32 { return table.Moved(old, next) }

// Streams are a link's streams and what checkpoints say of them, see package links.
type Streams[S any] = links.Streams[S]

// Target is a stream and its owner.
type Target[S any] = links.Target[S]

// NewStreams returns an empty registry for one link.
func NewStreams[S any]() *Streams[S] { return links.NewStreams[S]() }
