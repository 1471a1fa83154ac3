package session

import (
	"slices"
	"time"
)

// Several is the state machine of a client with several keys: a Feed for each, one account for all, and one heartbeat
// that tells where all of them continue. Order is the Feeds' business and theirs alone; what is here is what they share.
// Like a Feed it is driven by its shell, one event at a time, and the shell drives the Feeds as it would those of
// clients with one key: only what has left the outbox, heartbeats and goodbyes concern the whole client.
type Several struct {
	cfg    *Config
	out    SeveralOutput
	book   ledger
	keys   []*member
	next   int       // whose turn it is to be given credit first
	beatAt time.Time // when the client was last told where its keys continue
	soon   bool      // it is to be told before it is due
}

// SeveralOutput is what a Several asks of its shell, beside what its Feeds ask of their own Output. No call may call
// back into the Several, but to Places.
type SeveralOutput interface {
	// Checkpoint tells the client where its keys continue; so many of them have no node. The message counts in the
	// client's window: it returns what it costs, to be reported as Written like a record's cost.
	Checkpoint(waiting int) (cost int64)
	GoAway(retryAfter time.Duration)
}

// Place is where a client continues with one of its keys.
type Place struct {
	Key     uint64 // as it was named when it was added
	TopicID [16]byte
	At      []Position // nil: nothing is known yet, and nothing was promised
}

// member is one key: a Feed's shell as far as the Feed's messages concern the whole client, else the Feed's own shell.
type member struct {
	Output
	s     *Several
	feed  *Feed
	asked Place // where the client said that it continues, until hello
}

// Full is that of any of the keys.
func (s *Several) Full() bool {
	return s.book.queued > 0 && slices.ContainsFunc(s.keys, func(m *member) bool { return m.feed.Full() })
}

// NewSeveral returns a client without a key.
func NewSeveral(now time.Time, cfg *Config, out SeveralOutput) *Several {
	return &Several{cfg: cfg, out: out, book: ledger{window: cfg.Window, wide: true}, beatAt: now}
}

// Add begins a key. Its Feed has no stream yet; the first Route gives it one. asked is where the client said that it
// continues, with no positions if it did not: until the key is live, that is where it continues.
func (s *Several) Add(out Output, o Open, asked Place) *Feed {
	m := &member{Output: out, s: s, feed: &Feed{joint: true}, asked: asked}
	s.keys = append(s.keys, m)
	m.feed.open(s.cfg, m, &s.book, o)
	return m.feed
}

// Remove forgets a key whose Feed was closed. What it had under way is the others' now.
func (s *Several) Remove(f *Feed) {
	s.book.add(-f.lanes)
	s.keys = slices.DeleteFunc(s.keys, func(m *member) bool { return m.feed == f })
	s.regrant()
}

// Asked is what the client said of a key when it was added.
func (s *Several) Asked(f *Feed) Place {
	for _, m := range s.keys {
		if m.feed == f {
			return m.asked
		}
	}
	return Place{}
}

// Len is how many keys there are.
func (s *Several) Len() int { return len(s.keys) }

// Written says that records and checkpoints of this cost have left the outbox.
func (s *Several) Written(cost int64) {
	s.book.queued -= cost
	s.regrant()
}

// regrant gives everybody the credit that is theirs, each time beginning with another key: where there is not enough,
// none is always the last.
func (s *Several) regrant() {
	n := len(s.keys)
	if n == 0 {
		return
	}
	s.next = (s.next + 1) % n
	for i := range n {
		s.keys[(s.next+i)%n].feed.regrant()
	}
}

// Tick tells the client where its keys continue when that is due: within every heartbeat, however many records come
// meanwhile, because the keys without any are the ones that need it; and soon after a key has lost its node or has one
// again. A client that is so far behind that half of its window waits for it is told later. It wants to be called at
// least ten times per heartbeat, and so do the Feeds' Ticks.
func (s *Several) Tick(now time.Time) {
	if !s.soon && now.Sub(s.beatAt) < s.cfg.Heartbeat*4/5 || s.book.queued > s.book.whole()/2 {
		return
	}
	s.soon, s.beatAt = false, now
	waiting := 0
	for _, m := range s.keys {
		if m.feed.Primary() == 0 {
			waiting++
		}
	}
	s.book.queued += s.out.Checkpoint(waiting)
}

// GoAway tells the client to reconnect, with its cursor.
func (s *Several) GoAway(now time.Time, retryAfter time.Duration) {
	s.beatAt = now
	s.out.GoAway(retryAfter)
}

// Places appends where the client continues with each of its keys, as far as that is known: what it was told, or has
// nothing to be told of, or said itself. A key that is not live yet and whose client named no place has none.
func (s *Several) Places(dst []Place) []Place {
	for _, m := range s.keys {
		dst = m.place(dst)
	}
	return dst
}

// Of is Places of one key.
func (s *Several) Of(f *Feed) []Place {
	for _, m := range s.keys {
		if m.feed == f {
			return m.place(nil)
		}
	}
	return nil
}

func (m *member) place(dst []Place) []Place {
	if topicID, at, ok := m.feed.Place(); ok {
		return append(dst, Place{Key: m.asked.Key, TopicID: topicID, At: at})
	}
	if m.asked.At != nil {
		return append(dst, m.asked)
	}
	return dst
}

// SeveralStatus is the state in numbers, for consistency checks.
type SeveralStatus struct {
	Keys   int
	Queued int64 // bytes of records and checkpoints in the outbox
	Under  int64 // credit under way
	Share  int64 // the most that one stream may have under way
	Window int64 // the most that may be queued and under way
}

// Status returns the state as it is.
func (s *Several) Status() SeveralStatus {
	return SeveralStatus{Keys: len(s.keys), Queued: s.book.queued, Under: s.book.under, Share: s.book.share(), Window: s.book.whole()}
}

// Hello implements Output.
func (m *member) Hello(h Hello) {
	m.asked.At = nil // the Feed knows better now
	m.Output.Hello(h)
}

// Checkpoint implements Output: a Feed's own is that its wait is over.
func (m *member) Checkpoint(int32, int64) { m.s.soon = true }

// Waiting implements Output.
func (m *member) Waiting() { m.s.soon = true }

// GoAway implements Output; the client's goodbye is one for all keys.
func (m *member) GoAway(int32, int64, time.Duration) {}
