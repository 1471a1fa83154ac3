package partition

import (
	"slices"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// warm is how many offsets before the end a reader may start, so that the streams that move here in a planned
// handover find their next records in the ring and need no scan.
const warm = 4096

// How long the loop waits before it repeats what failed.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
	// recheckAfter is how often a reader beyond the end of the log asks again.
	recheckAfter = 250 * time.Millisecond
)

// phase is how far reading has come.
type phase uint8

const (
	stopped phase = iota // neither assigned nor attached: nothing is read
	finding              // the bounds were asked for
	reading              // the live reader runs at head
)

// Loop is the state machine of one partition. It is not safe for concurrent use: its shell owns it.
type Loop struct {
	cfg Config
	out Output

	phase     phase
	assigned  bool
	readable  bool  // Readable was called for this assignment
	target    int64 // the end as it was when reading or the assignment began: readable from there on
	committed int64 // where the group's commits stand, -1 if unknown
	head      int64 // valid while reading: the next offset the live reader delivers
	bounds    source.Bounds
	boundsAt  time.Time // when they were learned
	idleSince time.Time
	retryAt   time.Time // FindBounds is asked again then, if not zero
	retries   int

	// The live reader lies outside the log: ask again at recheckAt; it has lain beyond the end since beyondSince.
	recheckAt   time.Time
	beyondSince time.Time

	ring  ring
	keys  map[string]*subscribers
	links []*attachment // in order of their first attach, so that a run is reproducible
	byID  map[LinkID]*attachment

	unresolved []*stream // wait for bounds
	timed      map[uint64]*stream
	request    uint64
	ahead      []*stream // attached beyond the head

	scan scan

	checkpointAt time.Time // a checkpoint is due then, if anything moved

	attached, behind, pending int
	sent                      uint64

	// Scratch, reused from call to call.
	frame link.Record
	ids   []uint64
	one   [1]uint64
}

// New returns a loop that reads nothing yet.
func New(cfg Config, out Output) *Loop {
	if cfg.CheckpointEvery <= 0 {
		cfg.CheckpointEvery = 100 * time.Millisecond
	}
	if cfg.TruncatedAfter <= 0 {
		cfg.TruncatedAfter = 10 * time.Second
	}
	if cfg.ScanBytes <= 0 {
		cfg.ScanBytes = 256 << 10 // little, so that decoding it does not keep live records waiting
	}
	return &Loop{
		cfg: cfg, out: out, committed: -1,
		ring:  newRing(),
		keys:  make(map[string]*subscribers),
		byID:  make(map[LinkID]*attachment),
		timed: make(map[uint64]*stream),
	}
}

// Assign says that the group assigned the partition; committed is the group's committed offset or -1.
func (l *Loop) Assign(now time.Time, committed int64) {
	l.assigned, l.readable, l.committed = true, false, committed
	l.target = l.bounds.Stable
	l.begin(now)
	if l.phase == reading {
		l.out.Head(l.head) // the commits of whoever had it before may be far behind
	}
	l.announce()
}

// Revoke says that the group took the partition away. Attached streams go on being served.
func (l *Loop) Revoke(now time.Time) {
	l.assigned, l.readable = false, false
	l.rest(now)
}

// Attach subscribes a stream. What a comes with is copied.
func (l *Loop) Attach(now time.Time, id LinkID, a *link.Attach) {
	at := l.byID[id]
	if at == nil {
		at = &attachment{id: id, streams: make(map[uint64]*stream), at: len(l.links), checkpointed: -1}
		l.byID[id] = at
		l.links = append(l.links, at)
	}
	if _, taken := at.streams[a.Stream]; taken {
		l.out.Closed(id, link.Closed{Stream: a.Stream, Reason: link.ClosedError, Detail: "stream number in use"})
		return
	}
	s := &stream{
		id: a.Stream, link: at, key: slices.Clone(a.Key), start: a.Start, credit: a.Credit, hint: none,
		state: pending,
	}
	s.hash = l.ring.hash(s.key)
	at.streams[s.id] = s
	l.pending++
	if l.phase != reading {
		l.unresolved = append(l.unresolved, s)
		l.begin(now)
		return
	}
	l.resolve(now, s)
}

// Detach ends a stream. An unknown one was closed meanwhile and is passed over.
func (l *Loop) Detach(now time.Time, id LinkID, stream uint64) {
	if at := l.byID[id]; at != nil {
		if s := at.streams[stream]; s != nil {
			l.remove(s)
			l.dropLink(at)
			l.rest(now)
		}
	}
}

// Credit gives a stream more bytes.
func (l *Loop) Credit(now time.Time, id LinkID, stream uint64, bytes int64) {
	at := l.byID[id]
	if at == nil || bytes <= 0 {
		return
	}
	if s := at.streams[stream]; s != nil {
		s.credit += bytes
		l.serve(now, s)
		l.advanceScan(now)
	}
}

// LinkGone ends all streams of a link.
func (l *Loop) LinkGone(now time.Time, id LinkID) {
	at := l.byID[id]
	if at == nil {
		return
	}
	for _, s := range at.streams {
		l.remove(s) // has no effect outside: the order of the map does not show
	}
	l.dropLink(at)
	l.rest(now)
}

// LinkWritable says that a link that had no room has some again.
func (l *Loop) LinkWritable(now time.Time, id LinkID) {
	at := l.byID[id]
	if at == nil {
		return
	}
	for _, s := range slices.Clone(at.behind) {
		if !l.out.Room(id) {
			break
		}
		l.serve(now, s)
	}
	l.advanceScan(now)
}

// Bounds answers FindBounds.
func (l *Loop) Bounds(now time.Time, b source.Bounds) {
	if l.phase != finding {
		return
	}
	l.retryAt, l.retries = time.Time{}, 0
	l.bounds, l.boundsAt = b, now
	if !l.needed() {
		l.phase = stopped
		return
	}
	l.phase, l.target = reading, b.Stable
	l.head = l.entry(b)
	l.ring.reset(l.head)
	l.out.Read(l.head)
	l.out.Head(l.head)
	waiting := l.unresolved
	l.unresolved = nil
	for _, s := range waiting {
		if !s.gone {
			l.resolve(now, s)
		}
	}
	l.announce()
	l.advanceScan(now)
}

// BoundsFailed answers FindBounds; the loop asks again at a later Tick.
func (l *Loop) BoundsFailed(now time.Time) {
	if l.phase != finding {
		return
	}
	l.retryAt = now.Add(l.backoff())
}

// TimeFound answers FindTime. Without ok nothing is that new: the stream begins at what was the end when it was
// asked, because what came since may be.
func (l *Loop) TimeFound(now time.Time, request uint64, offset int64, ok bool) {
	s := l.timed[request]
	delete(l.timed, request)
	if s == nil || s.gone || l.phase != reading {
		return
	}
	if !ok {
		offset = s.next
	}
	l.admit(now, s, max(offset, l.bounds.Start), link.GapNone)
	l.advanceScan(now)
}

// Batch takes what the live reader read.
func (l *Loop) Batch(now time.Time, b *source.Batch) {
	if l.phase != reading {
		return
	}
	l.bounds, l.boundsAt = b.Bounds, now
	l.recheckAt, l.beyondSince = time.Time{}, time.Time{}
	if b.From > l.head {
		// What lies between head and From was read by nobody: a jump would go unnoticed.
		l.out.Read(l.head)
		return
	}
	if b.Next > l.head {
		from := l.head
		for i := range b.Records {
			rec := &b.Records[i]
			if rec.Offset < from || !rec.HasKey {
				continue
			}
			big := l.big(rec)
			l.ring.add(*rec, big)
			l.deliver(rec, big)
		}
		l.head = b.Next
		l.ring.trim(l.cfg.Ring)
		l.out.Head(l.head)
		l.arrived()
	}
	l.announce()
	l.advanceScan(now)
}

// OutOfRange says that a reader asked for an offset outside the log, which now has these bounds.
func (l *Loop) OutOfRange(now time.Time, b source.Bounds) {
	if l.phase != reading {
		return
	}
	l.bounds, l.boundsAt = b, now
	switch {
	case l.head < b.Start:
		// Retention overtook the reader.
		l.jump(now, b.Start, link.GapRetention)
	case l.head > b.High:
		// A new leader's high watermark may lag: wait, and believe it only after a while.
		if l.beyondSince.IsZero() {
			l.beyondSince = now
		}
		if now.Sub(l.beyondSince) >= l.cfg.TruncatedAfter {
			l.beyondSince = time.Time{}
			l.jump(now, b.Stable, link.GapTruncated)
			return
		}
		l.recheckAt = now.Add(recheckAfter)
	default:
		l.recheckAt = now.Add(recheckAfter)
	}
}

// TopicChanged says that the topic was recreated: what is known of the log is worth nothing any more.
func (l *Loop) TopicChanged(now time.Time) {
	for _, at := range slices.Clone(l.links) {
		for _, id := range sortedIDs(at) {
			l.remove(at.streams[id])
			l.out.Closed(at.id, link.Closed{Stream: id, Reason: link.ClosedTopic})
		}
		l.dropLink(at)
	}
	l.stop()
	l.committed = -1
	if l.assigned {
		l.readable = false
		l.begin(now)
	}
	l.rest(now)
}

// SetRing changes the bound of the recent records, in bytes.
func (l *Loop) SetRing(bytes int64) {
	l.cfg.Ring = bytes
	l.ring.trim(bytes)
}

// Tick does what is due and returns when it wants to be called next.
func (l *Loop) Tick(now time.Time) (next time.Time) {
	if !l.retryAt.IsZero() && !now.Before(l.retryAt) {
		l.retryAt = time.Time{}
		l.out.FindBounds()
	}
	if !l.recheckAt.IsZero() && !now.Before(l.recheckAt) {
		l.recheckAt = time.Time{}
		l.out.Read(l.head)
	}
	l.checkAhead(now)
	l.advanceScan(now)
	if !now.Before(l.checkpointAt) {
		l.checkpoint()
		l.checkpointAt = now.Add(l.cfg.CheckpointEvery)
	}
	if len(l.links) > 0 {
		return l.checkpointAt
	}
	return now.Add(time.Second)
}

// Idle reports whether nobody needs the partition and its linger is over: the loop may be dropped.
func (l *Loop) Idle(now time.Time) bool {
	return !l.needed() && now.Sub(l.idleSince) >= l.cfg.Linger
}

// needed is the one rule for reading: the group assigns it, or a stream is attached.
func (l *Loop) needed() bool { return l.assigned || l.attached+l.pending > 0 }

// begin starts to read if that is not under way.
func (l *Loop) begin(now time.Time) {
	if l.phase == stopped {
		l.phase = finding
		l.retryAt, l.retries = time.Time{}, 0
		l.out.FindBounds()
	}
}

// rest notes since when nobody needs the partition, and stops reading once the linger is over.
func (l *Loop) rest(now time.Time) {
	if !l.needed() {
		l.idleSince = now
		if l.cfg.Linger <= 0 {
			l.stop()
		}
	}
}

// Close stops reading; the loop is not used after it.
func (l *Loop) Close() { l.stop() }

func (l *Loop) stop() {
	if l.phase == reading {
		l.out.Stop()
	}
	l.phase = stopped
	l.retryAt, l.recheckAt, l.beyondSince = time.Time{}, time.Time{}, time.Time{}
	l.ring.reset(l.head)
	l.scan.reset()
	l.unresolved, l.ahead = nil, nil
	clear(l.timed)
}

// entry is where a new live reader starts: the end, or a little before it if something needs what lies there.
func (l *Loop) entry(b source.Bounds) int64 {
	from := b.Stable
	consider := func(offset int64) {
		if offset >= b.Start && offset < from && b.Stable-offset <= warm {
			from = offset
		}
	}
	consider(l.committed)
	for _, s := range l.unresolved {
		if !s.gone && (s.start.Kind == link.StartCursor || s.start.Kind == link.StartOffset) {
			consider(s.start.Value)
		}
	}
	return from
}

// end is what "the end" means to a person: the last stable offset as far as it is known.
func (l *Loop) end() int64 { return max(l.head, l.bounds.Stable) }

// announce tells the shell once that an assigned partition is readable: its reader has reached the end that
// was known when it started, so that routers that come here find everything.
func (l *Loop) announce() {
	if l.assigned && !l.readable && l.phase == reading && l.head >= l.target {
		l.readable = true
		l.out.Readable()
	}
}

// resolve finds where a stream begins.
func (l *Loop) resolve(now time.Time, s *stream) {
	v := s.start.Value
	switch s.start.Kind {
	case link.StartLatest:
		l.admit(now, s, l.end(), link.GapNone)
	case link.StartEarliest:
		l.admit(now, s, l.bounds.Start, link.GapNone)
	case link.StartTime:
		l.request++
		s.request, s.next = l.request, l.end() // the answer will be about what is there by then, at least
		l.timed[s.request] = s
		l.out.FindTime(s.request, v)
		return
	case link.StartOffset, link.StartCursor:
		if s.start.Kind == link.StartOffset {
			v = min(v, l.end())
		}
		if v < l.bounds.Start {
			l.admit(now, s, l.bounds.Start, link.GapRetention)
		} else {
			l.admit(now, s, v, link.GapNone)
		}
	default:
		l.remove(s)
		l.out.Closed(s.link.id, link.Closed{Stream: s.id, Reason: link.ClosedError, Detail: "unknown start"})
		l.dropLink(s.link)
		l.rest(now)
		return
	}
	l.advanceScan(now)
}

// admit lets a stream begin at next.
func (l *Loop) admit(now time.Time, s *stream, next int64, gap link.GapReason) {
	if limit := l.cfg.ReplayLimit; limit > 0 && l.head-next > limit {
		next, gap = l.head-limit, link.GapReplayLimit
	}
	k := l.keys[string(s.key)]
	if k == nil {
		k = &subscribers{}
		l.keys[string(s.key)] = k
	}
	s.group = k.group(s.link)
	s.next = next
	l.pending--
	l.attached++
	if next < l.head {
		l.toBehind(s, next)
	} else {
		l.toLive(s)
		if next > l.head {
			s.aheadSince = now
			l.ahead = append(l.ahead, s)
		}
	}
	// What the ring can say for sure now spares the stream a checkpoint: no record of its key since next.
	caughtUp := s.state == live
	if !caughtUp && next >= l.ring.low && l.ring.find(s.key, s.hash, next, none) == none {
		l.toLive(s)
		caughtUp = true
	}
	l.out.Attached(s.link.id, link.Attached{Stream: s.id, Next: next, Head: l.head, Gap: gap, Live: caughtUp})
	if !caughtUp {
		s.link.dirty = true
	}
	l.serve(now, s)
}

// arrived forgets the streams whose position the head has reached.
func (l *Loop) arrived() {
	if len(l.ahead) > 0 {
		l.ahead = slices.DeleteFunc(l.ahead, func(s *stream) bool { return s.gone || l.head >= s.next })
	}
}

// checkAhead ends the wait of streams whose cursor stays beyond the end of the log: it was truncated.
func (l *Loop) checkAhead(now time.Time) {
	l.arrived()
	stale := false
	for _, s := range l.ahead {
		switch {
		case s.next <= l.bounds.High:
			s.aheadSince = now // it exists; an open transaction may hide it
		case l.phase != reading || l.head < l.bounds.Stable || now.Sub(s.aheadSince) < l.cfg.TruncatedAfter:
		case l.boundsAt.Sub(s.aheadSince) < l.cfg.TruncatedAfter:
			stale = true
		default:
			l.out.Gap(s.link.id, link.Gap{Stream: s.id, From: s.next, To: l.head, Reason: link.GapTruncated})
			s.next = l.head
		}
	}
	if stale && l.recheckAt.IsZero() {
		// The reader says nothing while nothing changes, and a node that Kafka does not answer knows nothing of its
		// end: a new reader tells.
		l.out.Read(l.head)
		l.recheckAt = now.Add(retryMost)
	}
}

// jump moves the head to another place, because the log has nothing between; every stream that needs
// what lies between is told.
func (l *Loop) jump(now time.Time, to int64, reason link.GapReason) {
	from := l.head
	l.head = to
	l.ring.reset(to)
	l.scan.forget()
	for _, at := range l.links {
		for _, id := range sortedIDs(at) {
			s := at.streams[id]
			if s.state == pending {
				continue
			}
			next := s.next
			if s.state == live {
				next = max(next, from)
			}
			if reason == link.GapTruncated && next > to || reason != link.GapTruncated && next < to {
				l.out.Gap(at.id, link.Gap{Stream: id, From: next, To: to, Reason: reason})
				s.next = to
				if s.state == behind {
					s.inPass = false
					l.toLive(s)
				}
			}
		}
		at.checkpointed = min(at.checkpointed, to)
	}
	l.ahead = nil
	for _, at := range l.links {
		for _, id := range sortedIDs(at) {
			if s := at.streams[id]; s.state == live && s.next > l.head {
				s.aheadSince = now
				l.ahead = append(l.ahead, s)
			}
		}
	}
	l.out.Read(l.head)
	l.out.Head(l.head)
	l.advanceScan(now)
}

func (l *Loop) dropLink(at *attachment) {
	if len(at.streams) > 0 || l.byID[at.id] != at {
		return
	}
	delete(l.byID, at.id)
	last := len(l.links) - 1
	l.links[at.at] = l.links[last]
	l.links[at.at].at = at.at
	l.links[last] = nil
	l.links = l.links[:last]
}

func (l *Loop) backoff() time.Duration {
	d := min(retryFirst<<min(l.retries, 10), retryMost)
	l.retries++
	return d
}

func sortedIDs(at *attachment) []uint64 {
	ids := make([]uint64, 0, len(at.streams))
	for id := range at.streams {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
