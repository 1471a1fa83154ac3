// Package lean is WebSocket clients for benchmarks. A worker is a process with thousands of them in one epoll loop that
// looks at its sockets about once a millisecond: on a machine that also runs what is measured, clients that wake up for
// every message would cost more than the message. When a message came is the kernel's word (SO_TIMESTAMPNS), so the
// laziness does not blur delays. Every client checks that it received all that it is due, in order.
package lean

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"time"
)

// Join says which clients a worker adds, and where they connect.
type Join struct {
	Targets []string // host:port; the clients take them in turn
	Path    string   // of the request, up to the key: "/v1/ws?key="
	Keys    []string // of the clients, one each
	First   int64    // number of the first key; the others follow, or are the same
	OneKey  bool     // all keys are the same
	Sources []string // addresses to connect from in turn; none leaves it to the kernel
	AtOnce  int      // connections in the making
	Hello   bool     // a client is connected when it has been greeted, not when it was upgraded
	Slow    int      // one in so many is slow: small buffers, and it reads only when Due says so; 0 for none
	Within  time.Duration
}

// Joined is how connecting went.
type Joined struct {
	Connected int
	First     int64 // nanoseconds since the Unix epoch: the first one began
	Last      int64 // the last one was connected
	Took      Histogram
}

// Due is what the clients are to have received of an epoch: records written to the keys in turn.
type Due struct {
	Epoch   int64
	Records int64 // of all keys
	Keys    int64 // in turn, from 0
	Slow    bool  // slow clients read, too
	Within  time.Duration
}

// of is how many are due to a key.
func (d *Due) of(key int64) int64 {
	n := d.Records / d.Keys
	if key < d.Records%d.Keys {
		n++
	}
	return n
}

// Seen is what a worker's clients received since the last look.
type Seen struct {
	Records int64
	Bytes   int64 // of frames with records, without headers of WebSocket
	Open    int   // clients connected
	Last    int64 // nanoseconds since the Unix epoch, arrival of the newest record
	Delays  Histogram
	Slow    int64    // records of slow clients, in Records too
	Faults  int64    // what was wrong since the worker began
	First   []string // some of those
}

// Worker is the parent's end of a worker process.
type Worker struct {
	rpc *rpc.Client
}

// Accept waits for one worker that dials l.
func Accept(ctx context.Context, l net.Listener) (*Worker, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	conn, err := l.Accept()
	if !stop() {
		return nil, errors.Join(fmt.Errorf("wait for a load process: %w", context.Cause(ctx)), err)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for a load process: %w", err)
	}
	return &Worker{rpc: rpc.NewClient(conn)}, nil
}

// Begin asks for clients and does not wait for them.
func (w *Worker) Begin(j Join, out *Joined) *rpc.Call { return w.rpc.Go("Load.Join", j, out, nil) }

// Arm says that records of an epoch come from now on, and that each client is to receive its own from the first one.
func (w *Worker) Arm(epoch int64) error { return w.rpc.Call("Load.Arm", epoch, new(Seen)) }

// Look returns what came since the last look.
func (w *Worker) Look() (Seen, error) {
	var s Seen
	err := w.rpc.Call("Load.Look", false, &s)
	return s, err
}

// Await returns when all that is due has come, or that time is over: then the worker counts a fault for each client
// that lacks something.
func (w *Worker) Await(d Due) (Seen, error) {
	var s Seen
	err := w.rpc.Call("Load.Await", d, &s)
	return s, err
}

// Close ends the connection, and the worker with it.
func (w *Worker) Close() error { return w.rpc.Close() }
