package partition

import (
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// A stream is in exactly one of these states.
type state uint8

const (
	pending state = iota // where it starts is not known yet; no Attached was sent
	live                 // everything below max(next, head) was sent
	behind               // everything below next was sent; not in the live path
)

// stream is one subscription of one link: a key and the next offset it needs.
type stream struct {
	id     uint64
	link   *attachment
	group  *group
	key    []byte
	hash   uint64
	state  state
	start  link.Start
	next   int64
	credit int64

	liveAt   int // index in group.live or group.behind
	behindAt int // index in link.behind
	hint     int64

	// Scan.
	inPass    bool
	wanting   bool
	passed    bool // has been in a pass
	passAfter time.Time
	passBytes int64
	passDelay time.Duration

	aheadSince time.Time // when next was found beyond the end of the log; zero if it is not
	request    uint64    // the FindTime under way, 0 for none
	gone       bool
}

// attachment is what one link has attached here.
type attachment struct {
	id      LinkID
	streams map[uint64]*stream
	behind  []*stream
	at      int // index in Loop.links

	checkpointed int64 // the last checkpoint sent
	dirty        bool  // coverage changed since: a checkpoint is due although the head did not move
}

// group holds the streams of one key on one link: what one Record frame can serve.
type group struct {
	link   *attachment
	live   []*stream
	behind []*stream
}

// subscribers are the streams of one key.
type subscribers struct {
	groups []*group
}

func (k *subscribers) group(a *attachment) *group {
	for _, g := range k.groups {
		if g.link == a {
			return g
		}
	}
	g := &group{link: a}
	k.groups = append(k.groups, g)
	return g
}

func (k *subscribers) drop(g *group) {
	for i := range k.groups {
		if k.groups[i] == g {
			k.groups = append(k.groups[:i], k.groups[i+1:]...)
			return
		}
	}
}

func removeAt(list []*stream, i int, moved func(*stream, int)) []*stream {
	last := len(list) - 1
	if i != last {
		list[i] = list[last]
		moved(list[i], i)
	}
	list[last] = nil
	return list[:last]
}

func setLiveAt(s *stream, i int)   { s.liveAt = i }
func setBehindAt(s *stream, i int) { s.behindAt = i }

// toLive puts a stream into the live path: everything below the head was sent, or its next lies beyond.
func (l *Loop) toLive(s *stream) {
	switch s.state {
	case live:
		return
	case behind:
		s.group.behind = removeAt(s.group.behind, s.liveAt, setLiveAt)
		s.link.behind = removeAt(s.link.behind, s.behindAt, setBehindAt)
		s.link.dirty = true // the next checkpoint covers it again
		l.behind--
	}
	s.state, s.hint, s.inPass, s.wanting = live, none, false, false
	s.passDelay = 0
	s.liveAt = len(s.group.live)
	s.group.live = append(s.group.live, s)
}

// toBehind takes a stream out of the live path; it needs everything from next on.
func (l *Loop) toBehind(s *stream, next int64) {
	if s.state == live {
		s.group.live = removeAt(s.group.live, s.liveAt, setLiveAt)
	}
	s.next, s.hint = next, none
	if s.state == behind {
		return
	}
	s.state = behind
	s.liveAt = len(s.group.behind)
	s.group.behind = append(s.group.behind, s)
	s.behindAt = len(s.link.behind)
	s.link.behind = append(s.link.behind, s)
	l.behind++
}

// remove forgets a stream in whatever state it is.
func (l *Loop) remove(s *stream) {
	delete(s.link.streams, s.id)
	s.gone = true
	switch s.state {
	case pending:
		l.pending-- // its place in a waiting list is passed over
		return
	case live:
		s.group.live = removeAt(s.group.live, s.liveAt, setLiveAt)
	case behind:
		s.group.behind = removeAt(s.group.behind, s.liveAt, setLiveAt)
		s.link.behind = removeAt(s.link.behind, s.behindAt, setBehindAt)
		l.behind--
	}
	if len(s.group.live)+len(s.group.behind) == 0 {
		k := l.keys[string(s.key)]
		k.drop(s.group)
		if len(k.groups) == 0 {
			delete(l.keys, string(s.key))
		}
	}
	l.attached--
}

// serve sends a stream that is behind what the ring has for it. When the ring does not reach back to it, the
// stream asks for the scan.
func (l *Loop) serve(now time.Time, s *stream) {
	if s.state != behind || s.credit <= 0 || s.inPass {
		return
	}
	if s.next < l.ring.low {
		l.wantScan(now, s)
		return
	}
	for s.credit > 0 && s.next < l.head {
		seq := l.ring.find(s.key, s.hash, s.next, s.hint)
		if seq == none {
			s.next = l.head
			break
		}
		e := l.ring.at(seq)
		if e.big {
			l.pass(s, e.rec.Offset)
			continue
		}
		if !l.out.Room(s.link.id) {
			return
		}
		l.one[0] = s.id
		l.send(s.link, &e.rec, l.one[:])
		s.credit -= l.frame.Cost()
		s.next, s.hint = e.rec.Offset+1, seq
	}
	if s.next >= l.head {
		l.toLive(s)
	}
}

// certainlyFits is a size in bytes below which a record need not be asked whether a link can carry it.
const certainlyFits = link.MaxMessage / 4

// big reports whether no link can carry the record.
func (l *Loop) big(rec *source.Record) bool {
	if size(rec) < certainlyFits && len(rec.Headers) <= link.MaxHeaders {
		return false
	}
	l.fill(rec)
	l.frame.Streams = nil
	return !l.frame.Fits()
}

// pass tells a stream that the record at offset cannot be carried; everything of its key below was sent.
func (l *Loop) pass(s *stream, offset int64) {
	s.next = offset + 1
	l.out.Gap(s.link.id, link.Gap{Stream: s.id, From: offset, To: s.next, Reason: link.GapTooLarge})
}

// send fills the loop's one frame and hands it out. The cost of the record is then l.frame.Cost().
func (l *Loop) send(a *attachment, rec *source.Record, streams []uint64) {
	l.fill(rec)
	l.frame.Streams = streams
	l.out.Record(a.id, &l.frame)
	l.sent += uint64(len(streams))
}

func (l *Loop) fill(rec *source.Record) {
	f := &l.frame
	f.Partition, f.Offset, f.Timestamp = l.cfg.Partition, rec.Offset, rec.Timestamp
	f.Key, f.Value, f.Tombstone = rec.Key, rec.Value, rec.Value == nil
	f.Headers = f.Headers[:0]
	for _, h := range rec.Headers {
		f.Headers = append(f.Headers, link.Header{Key: h.Key, Value: h.Value})
	}
}

// deliver sends one record of the live path to every stream that is live.
func (l *Loop) deliver(rec *source.Record, big bool) {
	k, ok := l.keys[string(rec.Key)]
	if !ok {
		return
	}
	filled := false
	for _, g := range k.groups {
		if len(g.live) == 0 {
			continue
		}
		if !filled {
			l.fill(rec)
			filled = true
		}
		room := l.out.Room(g.link.id)
		cost := l.frame.Cost()
		l.ids = l.ids[:0]
		for i := len(g.live) - 1; i >= 0; i-- { // backwards: toBehind fills the hole from the end
			s := g.live[i]
			if rec.Offset < s.next {
				continue
			}
			if big {
				l.pass(s, rec.Offset)
				continue
			}
			if !room || s.credit <= 0 {
				l.toBehind(s, rec.Offset)
				continue
			}
			s.credit -= cost
			l.ids = append(l.ids, s.id)
		}
		if len(l.ids) > 0 {
			l.frame.Streams = l.ids
			l.out.Record(g.link.id, &l.frame)
			l.sent += uint64(len(l.ids))
		}
	}
}
