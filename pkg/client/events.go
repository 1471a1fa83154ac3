package client

import (
	"fmt"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// Event is one of *Hello, *Subscribed, *Unsubscribed, *Refused, *Record, *Checkpoint, *Gap, *Waiting, *GoAway, *Expiring
// and *Disconnected.
type Event interface{ event() }

// Header is a record's header; a nil Value is Kafka's null.
type Header = link.Header

// Record is a record of the topic. Its slices belong to the program.
type Record struct {
	Cursor    string // continues after this record; with several keys, this one alone (Client.Cursor continues all)
	Key       []byte // nil when the socket has one key only
	Partition int32
	Offset    int64
	Timestamp time.Time // zero when the record has none
	Headers   []Header
	Value     []byte // as the producer wrote it; nil for a tombstone
	Tombstone bool
}

// Hello says that a connection is served from now on.
type Hello struct {
	URL       string
	Cursor    string
	Key       []byte
	Resumed   bool // with a cursor, false: it could not be continued where it stopped; a Gap follows and says why
	Heartbeat time.Duration
}

// Subscribed says, on a socket with several keys, that a key is served from now on.
type Subscribed struct {
	Cursor  string // continues this key alone
	Key     []byte
	Resumed bool // as in Hello
}

// Unsubscribed says that nothing more comes of a key.
type Unsubscribed struct {
	Cursor string // where it would go on, as Start.Cursor; "" if it was not live
	Key    []byte
}

// Refused says that a Subscribe is not granted. With the reason "already" the key is followed, because the token names it;
// with "unavailable" it is asked for again in a moment; with any other it is given up.
type Refused struct {
	Of     string // "subscribe"
	Key    []byte
	Reason string // for programs: see clientmsg.RefusedForbidden and the others
	Detail string // for people
}

// Checkpoint moves the cursor without a record.
type Checkpoint struct{ Cursor string }

// Gap says that the records [From, To) of Partition can no longer be delivered. From is -1 when not known.
type Gap struct {
	Cursor    string
	Key       []byte // nil when the socket has one key only
	Reason    string // "retention", "replay_limit", "topic", "truncated", "too_large", "moved"; more may come
	Partition int32
	From, To  int64
}

// Waiting says that no node serves the key at the moment; the connection stays.
type Waiting struct{}

// GoAway says that the router is about to stop. The client goes to the next URL once the connection is closed.
type GoAway struct {
	Cursor     string
	RetryAfter time.Duration
}

// Expiring says that the client's credentials end, and the connection with them. With Config.Token fresh ones are sent
// on the open connection, and the program need not do anything.
type Expiring struct{ In time.Duration }

// Disconnected says that a connection ended, or that an attempt to make one failed, and that another attempt
// follows.
type Disconnected struct {
	URL     string
	Err     error // *CloseError when the router gave a code, *RefusedError when it refused the upgrade
	Lost    bool  // a connection ended; else an attempt failed
	RetryIn time.Duration
}

func (*Record) event()       {}
func (*Hello) event()        {}
func (*Subscribed) event()   {}
func (*Unsubscribed) event() {}
func (*Refused) event()      {}
func (*Checkpoint) event()   {}
func (*Gap) event()          {}
func (*Waiting) event()      {}
func (*GoAway) event()       {}
func (*Expiring) event()     {}
func (*Disconnected) event() {}

// CloseError is a close code that the router gave.
type CloseError struct {
	Code   int // see package closecode
	Reason string
}

func (e *CloseError) Error() string {
	text := fmt.Sprintf("closed by the router with code %d", e.Code)
	if row, ok := closecode.Lookup(e.Code); ok {
		text += " (" + row.Name + ")"
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Retry reports whether the code asks to connect again. A code that this program does not know does: a router
// may be newer than its clients.
func (e *CloseError) Retry() bool {
	row, ok := closecode.Lookup(e.Code)
	return !ok || row.Retry
}

// RefusedError is an HTTP status in place of an upgrade.
type RefusedError struct {
	Status     int
	Reason     string        // the answer's first line
	RetryAfter time.Duration // the answer's Retry-After; 0 for none
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("refused by the router with status %d %s", e.Status, http.StatusText(e.Status))
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Retry reports whether the same request may succeed later.
func (e *RefusedError) Retry() bool {
	if row, ok := closecode.LookupStatus(e.Status); ok {
		return row.Retry
	}
	return e.Status == http.StatusTooEarly || e.Status >= 500 // of a proxy, or of a newer router
}
