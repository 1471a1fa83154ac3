package linkserver

import (
	"context"
	"errors"
	"runtime"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
)

// keepOut is the largest write buffer that an unbusy link keeps, in bytes.
const keepOut = 256 << 10

// errFinished is the cause of a link's end that this node chose.
var errFinished = errors.New("closed by this node")

// ID names the link within the process.
func (l *Link) ID() partition.LinkID { return l.id }

// Room reports whether records are taken. When it says no, Handler.Writable for p follows.
func (l *Link) Room(p int32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	if int64(len(l.out)) < l.s.cfg.Buffer/2 {
		return true
	}
	l.refused[p] = struct{}{}
	return false
}

// Record queues a record. Callers ask Room first; one record larger than the room is taken all the same.
func (l *Link) Record(f *link.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	before := len(l.out)
	l.out = link.AppendRecord(l.out, f)
	l.cutLocked(before)
	l.records.Add(1)
}

// Attached queues the frame.
func (l *Link) Attached(f link.Attached) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.out)
	l.out = link.AppendAttached(l.out, &f)
	l.controlledLocked(before)
}

// Checkpoint queues the frame.
func (l *Link) Checkpoint(f *link.Checkpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.out)
	l.out = link.AppendCheckpoint(l.out, f)
	l.controlledLocked(before)
}

// Gap queues the frame.
func (l *Link) Gap(f link.Gap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.out)
	l.out = link.AppendGap(l.out, &f)
	l.controlledLocked(before)
}

// Closed queues the frame and forgets the stream.
func (l *Link) Closed(f link.Closed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.out)
	l.out = link.AppendClosed(l.out, &f)
	l.controlledLocked(before)
	if _, ok := l.streams[f.Stream]; ok {
		delete(l.streams, f.Stream)
		l.s.countStreams(-1)
	}
}

func (l *Link) sayDraining() {
	l.mu.Lock()
	before := len(l.out)
	l.out = link.AppendDraining(l.out)
	l.controlledLocked(before)
	l.mu.Unlock()
	l.Flush()
}

// controlledLocked accounts for the frame that begins at before. Such frames have no credit to hold them back,
// so a router that does not read is cut off before they fill the memory.
func (l *Link) controlledLocked(before int) {
	if l.ended {
		l.out = nil
		return
	}
	l.control += len(l.out) - before
	if int64(l.control) > l.s.cfg.ControlBuffer {
		l.ended = true
		l.out, l.cuts, l.control = nil, nil, 0
		l.cancel(refuse(websocket.StatusTryAgainLater, "the router does not read: too many frames wait for it"))
		return
	}
	l.cutLocked(before)
}

// cutLocked keeps messages inside the protocol's limit: the frame that begins at before goes into a new one if
// it does not fit any more.
func (l *Link) cutLocked(before int) {
	start := 0
	if n := len(l.cuts); n > 0 {
		start = l.cuts[n-1]
	}
	if len(l.out)-start > l.s.maxMessage && before > start {
		l.cuts = append(l.cuts, before)
	}
}

// Flush wakes the writer.
func (l *Link) Flush() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// finish closes the link in order: what is queued goes out first.
func (l *Link) finish(code websocket.StatusCode, reason string) {
	l.mu.Lock()
	if l.closing == nil {
		l.closing = &closing{code, reason}
	}
	l.mu.Unlock()
	l.Flush()
}

// write sends what is queued, all of it as one message, until the link ends.
func (l *Link) write() {
	defer close(l.written)
	var spare []byte
	var cuts []int
	for {
		l.mu.Lock()
		msg := l.out
		l.out, spare = spare[:0], nil
		cuts, l.cuts = l.cuts, cuts[:0]
		l.control = 0
		l.inFlight = len(msg)
		closing := l.closing
		var refused []int32
		for p := range l.refused {
			refused = append(refused, p)
		}
		clear(l.refused)
		ended := l.ended
		l.mu.Unlock()
		if ended {
			return
		}
		// There is room for the next half while this one is being written.
		for _, p := range refused {
			l.s.cfg.Handler.Writable(l, p)
		}
		if len(msg) == 0 {
			if closing != nil {
				// Not through the context: its end would cut the connection before the close frame is out.
				err := l.conn.Close(closing.code, clip(closing.reason))
				l.cancel(errors.Join(errFinished, err))
				return
			}
			spare = msg
			select {
			case <-l.wake:
			case <-l.ctx.Done():
				return
			}
			// The loops of other partitions have been woken by the same fetch: what they add goes along.
			runtime.Gosched()
			continue
		}
		if err := l.send(msg, cuts); err != nil {
			l.s.log.Debug("link write failed", zap.Uint64("link", uint64(l.id)), zap.Error(err))
			l.cancel(err)
			return
		}
		if cap(msg) <= keepOut || len(msg) > cap(msg)/4 {
			spare = msg
		}
	}
}

func (l *Link) send(msg []byte, cuts []int) error {
	from := 0
	for i := 0; i <= len(cuts); i++ {
		to := len(msg)
		if i < len(cuts) {
			to = cuts[i]
		}
		// No deadline of its own: the connection notices when nothing moves (see watchedConn), and cut ends it.
		if err := l.conn.Write(context.Background(), websocket.MessageBinary, msg[from:to]); err != nil {
			return err
		}
		l.messages.Add(1)
		from = to
	}
	l.sent.Add(uint64(len(msg)))
	return nil
}
