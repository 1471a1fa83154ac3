package clientconn

import (
	"encoding/binary"
	"time"
)

// smallRest is how much of a frame under way is still sent to a client that is given up to save memory.
const smallRest = 16 << 10

// Held is the memory, in bytes, that the connection's queue takes, and the message that its client has not finished.
func (c *Conn) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heldLocked()
}

func (c *Conn) heldLocked() int {
	n := c.flyingHeld + int(c.reading.held.Load())
	if c.out != nil {
		n += cap(c.out.b)
	}
	return n
}

// Shed is Close for a client that costs too much: what is queued is dropped at once, but for the rest of the frame
// under way, so that the close frame can still be read. Where that cannot be (much is left of that frame, or a TLS
// record is under way), the socket is closed without a word. It returns the memory, in bytes, that is free then.
func (c *Conn) Shed(code int, reason string) (freed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || c.shed {
		return 0
	}
	c.shed = true
	freed = c.heldLocked()
	if c.code == 0 {
		c.code = code
	}
	if c.writing && c.raw == nil {
		c.shutLocked()
		return freed
	}
	if c.out != nil {
		rest := boundary(c.out.b, c.base, c.off) - c.off
		if rest > smallRest {
			c.shutLocked()
			return freed
		}
		kept := append([]byte(nil), c.out.b[c.off:c.off+rest]...)
		c.left += c.cost
		c.cost, c.off, c.base = 0, 0, rest
		c.out = nil // not into the pool: its memory is wanted elsewhere
		if rest > 0 {
			c.out = &buffer{b: kept}
		}
	}
	if c.writing {
		// The goroutine waits for the socket with all it has; it goes on with less, see trimLocked.
		c.trim = true
		_ = c.net.SetWriteDeadline(time.Unix(1, 0))
	}
	// A close frame that was queued before has gone with the queue.
	c.closing = false
	var frame [2 + maxControl]byte
	c.queueLocked(appendClose(frame[:0], code, reason), 0)
	c.closeQueuedLocked(code)
	c.flushLocked()
	c.stopReadingLocked()
	return freed
}

// trimLocked makes what the writer goroutine holds small: the rest of the frame under way. ok is false when that is
// large, too.
func (c *Conn) trimLocked(buf *buffer, base, off int) (rest *buffer, ok bool) {
	c.trim = false
	end := boundary(buf.b, base, off)
	c.left += c.flyingCost
	c.flyingCost = 0
	if end-off > smallRest {
		c.flying, c.flyingHeld = 0, 0
		c.shutLocked()
		return nil, false
	}
	rest = &buffer{b: append([]byte(nil), buf.b[off:end]...)}
	c.flying, c.flyingHeld = end-off, cap(rest.b)
	_ = c.net.SetWriteDeadline(time.Now().Add(closeTime))
	return rest, true
}

// boundary is the first beginning of a frame in b at off or behind it; base is one at or before off. Frames are
// ours: whole and not masked.
func boundary(b []byte, base, off int) int {
	for base < off {
		length := int(b[base+1] & 0x7f)
		base += 2
		switch length {
		case 126:
			length = int(binary.BigEndian.Uint16(b[base:]))
			base += 2
		case 127:
			length = int(binary.BigEndian.Uint64(b[base:]))
			base += 8
		}
		base += length
	}
	return base
}
