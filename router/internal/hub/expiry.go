package hub

import (
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// expiry is when a client's credentials end, and when it is to be told. The look at all sessions acts on both, so they
// are as exact as its rounds, a second at most, and cost no timer.
type expiry struct {
	at   int64 // Unix nanoseconds; 0: never
	warn int64 // Unix nanoseconds; 0: it was told
}

// Key is the session's client key.
func (s *Session) Key() []byte { return s.key }

// Expires sets when the client's credentials end and when to tell it so. A zero end is none.
func (s *Session) Expires(at, warn time.Time) {
	s.lock()
	defer s.unlock()
	s.ends.set(at, warn)
}

// Remind tells the client of the end of its credentials again, not before a time: what it sent to renew them could not
// be judged.
func (s *Session) Remind(notBefore time.Time) {
	s.lock()
	defer s.unlock()
	s.ends.remind(notBefore)
}

// expire warns or ends a client whose credentials run out. The caller holds mu, within a visit.
func (s *Session) expire(t *turn) {
	over, warn := s.ends.due(t.now)
	switch {
	case over:
		s.conn.Close(closecode.CredentialsExpired, expired)
		s.finish = true
	case warn > 0:
		s.say(func(dst []byte) []byte { return clientmsg.AppendExpiring(dst, warn) })
	}
}

const expired = "the credentials have expired; connect again with fresh ones"

// due tells whether the credentials have ended, else how much time is left if that is to be told now.
func (e *expiry) due(now time.Time) (over bool, warn time.Duration) {
	n := now.UnixNano()
	switch {
	case e.at == 0:
	case n >= e.at:
		return true, 0
	case e.warn != 0 && n >= e.warn:
		e.warn = 0
		return false, time.Duration(e.at - n)
	}
	return false, 0
}

func (e *expiry) set(at, warn time.Time) {
	if *e = (expiry{}); !at.IsZero() {
		*e = expiry{at: at.UnixNano(), warn: warn.UnixNano()}
	}
}

func (e *expiry) remind(notBefore time.Time) {
	if e.at != 0 {
		e.warn = max(e.warn, notBefore.UnixNano())
	}
}
