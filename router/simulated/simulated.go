// Package simulated lends the router's cores to the simulation in integration/simulate. They are internal, because
// no other program may build on them, and the simulation is another module: these aliases are the one door.
// Nothing here adds behaviour, so what the simulation drives is what a router runs.
package simulated

import (
	"time"

	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

// LinkID names a link, see package session.
type LinkID = session.LinkID

// Session is a client's state machine, see package session.
type Session = session.Feed

// SessionConfig is shared by all sessions of a router, see package session.
type SessionConfig = session.Config

// SessionOutput is what a session asks of its shell, see package session.
type SessionOutput = session.Output

// SessionStatus is a session in numbers, see package session.
type SessionStatus = session.Status

// Open is a new client's wish, see package session.
type Open = session.Open

// Stage is one home of a key, see package session.
type Stage = session.Stage

// Position is a place in a partition, see package session.
type Position = session.Position

// Done is the next offset of a partition that is done with, see package session.
const Done = session.Done

// Grew reports whether a later table knows more of the topic's growth.
func Grew(old, next *Table) bool { return table.Grew(old, next) }

// Hello is what the client is told first, see package session.
type Hello = session.Hello

// Gap tells the client what is out of reach, see package session.
type Gap = session.Gap

// NewSession returns a session that has no stream yet.
func NewSession(cfg *SessionConfig, out SessionOutput, o Open) *Session {
	return session.NewFeed(cfg, out, o)
}

// Table says who serves what, see package table.
type Table = table.Table

// Picture is what etcd says, see package table.
type Picture = table.Picture

// Link is a link that is up, see package table.
type Link = table.Link

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

// Several is what the keys of a client with several share, see package session.
type Several = session.Several

// SeveralOutput is what a Several asks of its shell, see package session.
type SeveralOutput = session.SeveralOutput

// Place is where a client continues with one of several keys, see package session.
type Place = session.Place

// NewSeveral returns a client with no key yet.
func NewSeveral(now time.Time, cfg *SessionConfig, out SeveralOutput) *Several {
	return session.NewSeveral(now, cfg, out)
}
