package clientconn

import (
	"errors"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// errFlood ends the reading of a client that sends too much.
var errFlood = errors.New("too many messages")

// meter counts the frames that a client sends, of every kind: the library answers pings and drops pongs by itself, so
// nobody else sees a flood of them. It belongs to the reader.
type meter struct {
	head   [10]byte // of the frame that begins
	have   int      // bytes of it
	skip   uint64   // what is left of the frame before
	bucket          // frames that may still come
}

// bucket is how much may still come.
type bucket struct {
	tokens float64
	at     int64 // Unix nanoseconds when tokens was right
}

// frames is how many frames begin in b, which follows what was seen before.
func (m *meter) frames(b []byte) (n int) {
	for len(b) > 0 {
		if m.skip > 0 {
			step := min(m.skip, uint64(len(b)))
			m.skip -= step
			b = b[step:]
			continue
		}
		m.head[m.have] = b[0]
		m.have++
		b = b[1:]
		if m.have < 2 {
			continue
		}
		need, length := 2, uint64(m.head[1]&0x7f)
		switch length {
		case 126:
			need = 4
		case 127:
			need = 10
		}
		if m.have < need {
			continue
		}
		if need > 2 {
			length = 0
			for _, c := range m.head[2:need] {
				length = length<<8 | uint64(c)
			}
		}
		const mask = 4
		if m.head[1]&0x80 != 0 {
			// A length that overflows is refused by the library, too.
			length = max(length, length+mask)
		}
		m.skip, m.have = length, 0
		n++
	}
	return n
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

// metered counts what was read; false when the client has to go, and was told.
func (c *Conn) metered(b []byte, now int64) bool {
	if c.shared.MessageRate <= 0 {
		return true
	}
	n := c.meter.frames(b)
	if n == 0 || c.meter.spend(n, now, float64(c.shared.MessageRate), float64(max(c.shared.MessageBurst, c.shared.MessageRate))) {
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
