package scenario

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

const (
	// clientWindow is the default of the routers' --client-window.
	clientWindow = 128 << 10
	// slowRecord is the size of most records for the client that does not read.
	slowRecord = 8 << 10
	// perFrame is more than the JSON, the cursor and the WebSocket header around a record take.
	perFrame = 1 << 10
	// outboxLimit is what one client may have in its router: the window, one record that is larger than what is left
	// of it, and what is around all these records. Clients that read have nothing there for longer than a moment.
	outboxLimit = clientWindow + slowRecord + (clientWindow/slowRecord+1)*perFrame
	// several windows must be what a client is behind: so much that its window and the sockets on the way, which take
	// less than a megabyte, cannot be why it is not in its router.
	several = 8
)

// SlowClient does not read for a while: it stays connected, nobody else notices, what is held for it stays bounded,
// and it gets everything when it reads again.
func SlowClient(t testing.TB) {
	w := begin(t, neglectOn())
	n := w.neglect()
	for _, err := range []error{n.produced(), n.bounded(), n.left()} {
		if err != nil {
			t.Error(err)
		}
	}
}

// SlowClientIsChecked gives clients a window that bounds nothing: what SlowClient asserts must fail.
func SlowClientIsChecked(t testing.TB) {
	w := beginOn(t, stack.InProcess, neglectOn(fmt.Sprintf("--client-window=%d", 1<<30)))
	n := w.neglect()
	if err := n.produced(); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"the outbox's bound": n.bounded(), "that the stream is behind": n.left()} {
		t.Logf("%s: %v", what, err)
		if err == nil {
			t.Errorf("with a window of 1 GiB the check of %s passed", what)
		}
	}
}

// neglectOn is the stack for neglect. Its nodes keep so few recent records that their memory is full of them before the
// client stops reading: what grows afterwards is something else.
func neglectOn(routerFlags ...string) stack.Options {
	return stack.Options{
		Routers: 1, Nodes: 2, RouterFlags: routerFlags, NodeFlags: []string{fmt.Sprintf("--ring=%d", 16<<20)},
	}
}

// neglected is what was seen of a client while it did not read.
type neglected struct {
	written int64 // bytes of the records produced for it meanwhile
	queued  int64 // the most that waited in routers
	behind  int64 // the most offsets that its partition's lowest stream was behind its node's head
}

// produced tells whether there was enough for the other checks to mean something.
func (n neglected) produced() error {
	if least := int64(2 * several * clientWindow); n.written < least {
		return fmt.Errorf("only %d bytes were produced for the slow client while it did not read, want %d", n.written, least)
	}
	return nil
}

// bounded tells whether routers held no more than the window allows.
func (n neglected) bounded() error {
	if n.queued > outboxLimit {
		return fmt.Errorf("%d bytes waited in the router for the slow client, above %d", n.queued, outboxLimit)
	}
	return nil
}

// left tells whether the rest stayed where it costs nothing: in the log, with a stream that is behind.
func (n neglected) left() error {
	if least := int64(several * clientWindow / slowRecord); n.behind < least {
		return fmt.Errorf("the slow client's stream was %d offsets behind at most, want %d", n.behind, least)
	}
	return nil
}

// neglect lets one client of many stop reading for some windows of time. It judges delivery, delays and memory; what was
// held for that client is the caller's to judge.
func (w *world) neglect() neglected {
	w.t.Helper()
	const key = "slow"
	clients := keys("client", size(w, 50, 300))
	w.connect(clients, load.Options{})
	slow := w.client(0, load.Options{Key: key, ReadBuffer: 256 << 10})
	probe, err := load.StartProbe(w.Kafka(), w.Topic())
	w.must(err)
	w.t.Cleanup(probe.Close)
	w.produce(clients, size(w, 200.0, 600.0), 128)
	// Far above every socket buffer on the way and above the session's window; over processes also above growth.
	w.produce([]string{key}, size(w, 200.0, 300.0), slowRecord)
	w.must(w.settled(30 * time.Second))

	seconds := size(w, 1, 6)
	marks := []time.Time{time.Now()}
	mark := func(each func()) {
		begun := marks[len(marks)-1]
		for i := range seconds {
			w.at(begun, time.Duration(i+1)*time.Second)
			each()
		}
		marks = append(marks, time.Now())
	}
	mark(func() {})
	mark(func() {}) // two windows before
	before := w.memory()
	var n neglected
	look := func() { w.must(n.look(w, w.partitionOf(key))) }
	slow.StopReading()
	stopped := time.Now()
	for range 5 {
		mark(look)
	}
	w.must(w.settled(30 * time.Second)) // the others
	look()
	after := w.memory()
	again := time.Now()
	if ended := slow.History().Sessions[0].Ended; ended != nil {
		w.t.Errorf("the slow client was closed with %d %q", ended.Code, ended.Reason)
	}
	slow.ReadAgain()
	w.finish()
	for _, e := range slow.History().Sessions[0].Events {
		if e.Kind == checker.Record && e.Timestamp >= stopped.UnixMilli() && e.Timestamp < again.UnixMilli() {
			n.written += slowRecord
		}
	}
	w.t.Logf("while it did not read: %d KiB produced for it, at most %d KiB in its router (%d allowed), at most %d offsets behind",
		n.written>>10, n.queued>>10, outboxLimit>>10, n.behind)
	w.compareMemory(before, after)
	w.compareDelays(probe, marks)
	return n
}

// look asks routers and nodes what they hold for the client, by their own account.
func (n *neglected) look(w *world, partition int32) error {
	var queued int64
	for _, r := range w.Routers() {
		bytes, err := w.metric(r.Admin, "pointsman_router_outbox_bytes")
		if err != nil {
			return err
		}
		queued += int64(bytes)
	}
	n.queued = max(n.queued, queued)
	for _, node := range w.Nodes() {
		v, err := w.vars(node.Admin)
		if err != nil {
			return err
		}
		for _, p := range v.Partitions {
			if p.Partition == partition && p.Behind > 0 {
				n.behind = max(n.behind, p.Head-p.Lowest)
			}
		}
	}
	return nil
}

// metric is the value of a metric without labels.
func (w *world) metric(admin, name string) (float64, error) {
	status, body := w.get(admin + "/metrics")
	if status != http.StatusOK {
		return 0, fmt.Errorf("%s/metrics: HTTP %d %.200s", admin, status, body)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				err = errors.Join(fmt.Errorf("%s/metrics: %s", admin, line), err)
			}
			return v, err
		}
	}
	return 0, fmt.Errorf("%s/metrics has no %s", admin, name)
}
