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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends = (expiry{}); !at.IsZero() {
		s.ends = expiry{at: at.UnixNano(), warn: warn.UnixNano()}
	}
}

// Remind tells the client of the end of its credentials again, not before a time: what it sent to renew them could not
// be judged.
func (s *Session) Remind(notBefore time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends.at != 0 {
		s.ends.warn = max(s.ends.warn, notBefore.UnixNano())
	}
}

// expire warns or ends a client whose credentials run out. The caller holds mu, within a visit.
func (s *Session) expire(t *turn) {
	now := t.now.UnixNano()
	switch {
	case s.ends.at == 0:
	case now >= s.ends.at:
		s.conn.Close(closecode.CredentialsExpired, "the credentials have expired; connect again with fresh ones")
		s.finish = true
	case s.ends.warn != 0 && now >= s.ends.warn:
		s.ends.warn = 0
		left := time.Duration(s.ends.at - now)
		s.say(func(dst []byte) []byte { return clientmsg.AppendExpiring(dst, left) })
	}
}
