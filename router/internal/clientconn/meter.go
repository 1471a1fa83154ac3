package clientconn

import (
	"errors"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// errFlood ends the reading of a client that sends too much.
var errFlood = errors.New("too many messages")

// bucket is how much may still come.
type bucket struct {
	tokens float64
	at     int64 // Unix nanoseconds when tokens was right
}

// spend takes frames off what may come; false when there were too many. A client begins with all of burst.
func (m *bucket) spend(frames int, now int64, rate, burst float64) bool {
	if m.at == 0 {
		m.tokens = burst
	} else {
		m.tokens = min(burst, m.tokens+float64(now-m.at)/float64(time.Second)*rate)
	}
	m.at = now
	m.tokens -= float64(frames)
	return m.tokens >= 0
}

// metered counts the frames that have come, of every kind; false when the client has to go, and was told.
func (c *Conn) metered(now int64) bool {
	n := c.in.frames
	c.in.frames = 0
	if n == 0 || c.shared.MessageRate <= 0 ||
		c.meter.spend(n, now, float64(c.shared.MessageRate), float64(max(c.shared.MessageBurst, c.shared.MessageRate))) {
		return true
	}
	c.Close(closecode.TooManyMessages, "too many messages a second")
	return false
}

// Renewals of credentials, each of which costs a signature's check: so many a second, and so many at once.
const (
	renewalRate  = 1
	renewalBurst = 5
)

// MayRenew counts a message with fresh credentials; false when the client has to go, and was told. It is the reader's.
func (c *Conn) MayRenew(now time.Time) bool {
	if c.renewals.spend(1, now.UnixNano(), renewalRate, renewalBurst) {
		return true
	}
	c.Close(closecode.TooManyMessages, "credentials are renewed too often")
	return false
}
