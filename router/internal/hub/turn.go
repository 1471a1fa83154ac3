package hub

import (
	"time"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
	"github.com/pointsmanhq/pointsman/router/internal/session"
)

const (
	// flushAt is how much may be queued for one client before it is flushed within a batch.
	flushAt = 32 << 10
	// maxDirty is how many sessions may wait for the end of a batch: their outboxes are memory.
	maxDirty = 4096
	// keepScratch is the largest scratch buffer that is kept between batches.
	keepScratch = 1 << 20
)

// turn is one goroutine's visit to sessions: its clock, its scratch space, and the sessions that got something to
// send, each of which is flushed once at the end. A session refers to it only while its lock is held.
type turn struct {
	h     *Hub
	now   time.Time
	dirty []*Session
	socks []*Socket // likewise
	visit []*Session
	move  *move // the change of routes that this turn tells of, nil for none

	scratch []byte // of control messages
	cursor  []byte

	// The frame of the record at hand, built once for all the sessions that want it: a record has one key, so
	// they have the same cursor.
	record  []byte
	frame   []byte
	frameOf uint64 // the key hash that frame is for
	frameIs frameKind

	packed     []byte // the same frame compressed, nil before somebody wants it
	packBuffer []byte

	records    uint64
	bytes      uint64
	duplicates uint64
	dropped    uint64
	latency    metrics.Sample
	live       bool // the record at hand came on a stream that is caught up: how old it is tells of the way here
}

type frameKind uint8

const (
	noFrame frameKind = iota
	jsonFrame
	rawFrame
	keyFrame // jsonFrame with the key
)

// turn takes a turn for the caller; end gives it back.
func (h *Hub) turn() *turn {
	t, ok := h.turns.Get().(*turn)
	if !ok {
		t = &turn{h: h, cursor: make([]byte, 0, cursor.SingleRoom)}
	}
	t.now = time.Now()
	return t
}

// end flushes the visited sessions and gives the turn back.
func (t *turn) end() {
	t.flush()
	t.move = nil
	clear(t.visit)
	t.h.turns.Put(t)
}

// flush writes out what the visited sessions have queued, one attempt each, and adds up what was counted.
func (t *turn) flush() {
	for i, s := range t.dirty {
		s.lock()
		s.dirty = false
		if s.enter(t) {
			s.flush(t)
			s.leave(t)
		}
		s.unlock()
		t.dirty[i] = nil
	}
	t.dirty = t.dirty[:0]
	for i, k := range t.socks {
		k.mu.Lock()
		k.dirty = false
		if !k.over {
			k.flush(t.now)
		}
		k.mu.Unlock()
		t.socks[i] = nil
	}
	t.socks = t.socks[:0]
	if t.latency.Waits() {
		t.latency.Written(time.Now().UnixMilli())
	}
	if t.records > 0 {
		t.h.cfg.Metrics.Records.Add(t.records)
		t.h.cfg.Metrics.Bytes.Add(t.bytes)
		t.records, t.bytes = 0, 0
	}
	if t.duplicates > 0 {
		t.h.cfg.Metrics.Duplicates.Add(t.duplicates)
		t.duplicates = 0
	}
	if t.dropped > 0 {
		t.h.cfg.Metrics.Dropped.Add(t.dropped)
		t.dropped = 0
	}
	t.h.cfg.Metrics.Latency.Add(&t.latency)
	t.frameIs = noFrame
	if cap(t.record) > keepScratch {
		t.record = nil
	}
	if t.packed = nil; cap(t.packBuffer) > keepScratch {
		t.packBuffer = nil
	}
}

func (t *turn) flushWhenFull() {
	if len(t.dirty)+len(t.socks) >= maxDirty {
		t.flush()
	}
}

// forget drops the frame of the record before.
func (t *turn) forget() { t.frameIs = noFrame }

// cursorOf is the text of a session's cursor; valid until the next call.
func (t *turn) cursorOf(s *Session, partition int32, next int64) []byte {
	if s.core.Several() {
		return t.cursorOfSeveral(s)
	}
	t.cursor = cursor.AppendSingle(t.cursor[:0], s.topicID, s.keyHash, partition, next, 0)
	return t.cursor
}

// cursorOfSeveral is the cursor of a session whose key is followed from one partition to the next.
func (t *turn) cursorOfSeveral(s *Session) []byte {
	feed := feedOf(s.keyHash, s.core.Positions(nil))
	t.cursor = cursor.Append(t.cursor[:0], cursor.Cursor{TopicID: s.topicID, Feeds: []cursor.Feed{feed}})
	return t.cursor
}

func feedOf(key uint64, at []session.Position) cursor.Feed {
	f := cursor.Feed{Key: key, Positions: make([]cursor.Position, 0, len(at))}
	for _, p := range at {
		f.Positions = append(f.Positions, cursor.Position{Partition: p.Partition, Next: p.Next})
	}
	return f
}

// cursorOfAll is the cursor of a socket with several keys: one, or one for each topic id while the topic is being
// recreated, joined. It is empty as long as no key has a place.
func (t *turn) cursorOfAll(k *Socket) []byte { return t.cursorOfPlaces(k.core.Places(nil)) }

func (t *turn) cursorOfPlaces(places []session.Place) []byte {
	t.cursor = t.cursor[:0]
	for len(places) > 0 {
		c := cursor.Cursor{TopicID: places[0].TopicID, Feeds: make([]cursor.Feed, 0, len(places))}
		var others []session.Place
		for _, p := range places {
			if p.TopicID == c.TopicID {
				c.Feeds = append(c.Feeds, feedOf(p.Key, p.At))
			} else {
				others = append(others, p)
			}
		}
		if len(t.cursor) > 0 {
			t.cursor = append(t.cursor, cursor.Joint)
		}
		t.cursor = cursor.Append(t.cursor, c)
		places = others
	}
	return t.cursor
}

// jsonFrame is the record's message as a whole frame.
func (t *turn) jsonFrame(s *Session, r *link.Record) []byte {
	several := s.core.Several()
	kind, key := jsonFrame, []byte(nil)
	if s.sock != nil {
		kind, key = keyFrame, s.key
	}
	if t.frameIs == kind && t.frameOf == s.keyHash && !several {
		return t.frame
	}
	c := t.cursorOf(s, r.Partition, r.Offset+1)
	t.record = clientconn.Reserve(t.record[:0])
	t.record = clientmsg.AppendRecord(t.record, c, r.Partition, r.Offset, r.Timestamp, r.Headers, r.Value, r.Tombstone, key)
	t.frame, t.packed = clientconn.Seal(t.record, 0, clientconn.Text), nil
	t.frameIs, t.frameOf = kind, s.keyHash
	if several {
		t.frameIs = noFrame // nobody else has the same cursor
	}
	return t.frame
}

// rawFrame is the value alone as a whole frame.
func (t *turn) rawFrame(r *link.Record) []byte {
	if t.frameIs == rawFrame {
		return t.frame
	}
	op := clientconn.Binary
	if utf8.Valid(r.Value) {
		op = clientconn.Text
	}
	t.record = append(clientconn.Reserve(t.record[:0]), r.Value...)
	t.frame = clientconn.Seal(t.record, 0, op)
	t.frameIs, t.packed = rawFrame, nil
	return t.frame
}

// pack is the frame at hand, compressed once for all who want it so.
func (t *turn) pack(frame []byte) []byte {
	if t.packed == nil {
		d := t.h.conns.Deflater()
		t.packed, t.packBuffer = d.Pack(t.packBuffer, frame)
		t.h.conns.Done(d)
	}
	return t.packed
}
