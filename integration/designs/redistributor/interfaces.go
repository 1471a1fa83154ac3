// Package redistributor is the design in which servers keep client sockets and read no topic: a tier of redistributors
// shares the partitions and forwards each record to the server that holds its client.
//
// Two choices are open, each behind an interface: how redistributors know where clients are (a cache, or a topic of
// connects and disconnects beside the data, the backchannel), and what carries records to servers (HTTP, or a topic
// for each server).
package redistributor

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// Place is a server as redistributors know it: one process's life, and where it can be reached.
type Place struct {
	Instance string // unique to the process; no spaces or slashes
	Addr     string // host:port
}

// String is the place in one word.
func (p Place) String() string { return p.Instance + "@" + p.Addr }

func parsePlace(text string) (Place, bool) {
	instance, addr, ok := strings.Cut(text, "@")
	return Place{Instance: instance, Addr: addr}, ok
}

// Join says that a client of a key came to a place and wants the key's records from some offset on.
type Join struct {
	ID    uint64 // unique in its place
	Place Place  // where the client is; a Presence fills it in
	Key   []byte
	From  int64 // an offset, feed.Latest or feed.Oldest
}

// IsTopicOf reports whether a topic is a design's own beside a topic of records: its backchannel, or that of a server.
func IsTopicOf(records, name string) bool {
	return name == backchannelTopic(records) || strings.HasPrefix(name, serverTopic(records, ""))
}

// Presence is a server's side of knowing where clients are.
type Presence interface {
	// Join tells the redistributor of a partition of a client. It returns at once; a join that is not taken up is told
	// again by the caller. Leave takes the key back, when its last client is gone.
	Join(partition int32, j Join)
	Leave(partition int32, key []byte)
	// Run works until ctx ends.
	Run(ctx context.Context, h Holder) error
}

// Holder is the server as its Presence sees it.
type Holder interface {
	// Held lists the keys that clients have joined for.
	Held() []Held
	// Lost says that redistributors may have missed these keys for a while; nil means all.
	Lost(keys []string)
	// Proven says that redistributors have known all keys, but those of Lost, since before Held was last called.
	Proven()
}

// Held is a key that a server has clients of.
type Held struct {
	Partition int32
	Key       string
}

// Locator is a redistributor's side of it.
type Locator interface {
	// Follow hears the joins of one partition until ctx ends. It calls ready once its picture is complete. What it passes
	// to do runs between two batches of the partition's records, before a join that is passed to joined afterwards.
	Follow(ctx context.Context, partition int32, ready func(), do func(func()), joined func(Join)) error
	// Where names the places of each key, in the goroutine of the partition's records. It waits for whatever it has to
	// ask, and is wrong only in ways that the Presence hears of.
	Where(ctx context.Context, partition int32, keys []string) ([][]Place, error)
	Close() error
}

// ErrGone is what Send returns when the place's process has ended for good.
var ErrGone = errors.New("the server is gone")

// Sender carries bundles to servers.
type Sender interface {
	// Send returns when the server has the bundle, or a log in front of it. It is called for one place at a time by one
	// goroutine, and again with the same bundle when it failed.
	Send(ctx context.Context, to Place, bundle []byte) error
	Close() error
}

// Receiver is a server's side of it.
type Receiver interface {
	// Mount adds what the server's own address has to answer, if anything.
	Mount(mux *http.ServeMux, take func(bundle []byte) error)
	// Run works until ctx ends.
	Run(ctx context.Context, take func(bundle []byte) error) error
}
