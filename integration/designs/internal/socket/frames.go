package socket

import "time"

const (
	fin     = 0x80
	masked  = 0x80
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10

	// maxControl bounds the payload of a control frame.
	maxControl = 125
	// smallRead fits a control frame, and is all that an idle client has of a buffer.
	smallRead = 96
)

// inbound follows what a client sends, however it is cut into reads. Clients have nothing to say but control frames,
// so it knows no others. It belongs to the reader.
type inbound struct {
	head    [6]byte // opcode, length, mask
	have    uint8   // bytes of head that have come
	control []byte  // of the frame under way
}

// violation is why a client's bytes end its connection; 0 is none.
type violation int

// take looks at one more byte; whole is true when it was a frame's last.
func (in *inbound) take(b byte) (whole bool, bad violation) {
	if int(in.have) < len(in.head) {
		in.head[in.have] = b
		in.have++
		switch in.have {
		case 1:
			if op := in.op(); op < opClose {
				return false, 1003 // clients have nothing to say here
			} else if op > opPong || b&0xf0 != fin {
				return false, 1002
			}
		case 2:
			if b&masked == 0 || b&^masked > maxControl {
				return false, 1002
			}
		}
	} else {
		in.control = append(in.control, b^in.head[2+len(in.control)%4])
	}
	return int(in.have) == len(in.head) && len(in.control) == int(in.head[1]&^masked), 0
}

func (in *inbound) op() byte { return in.head[0] & 0xf }

// next forgets the frame that was whole.
func (in *inbound) next() { in.have, in.control = 0, nil }

// serve reads until the connection ends.
func (c *conn) serve() {
	defer c.abort()
	p := c.replay
	c.replay = nil
	for deaf := false; ; {
		for _, b := range p {
			if deaf {
				break // its connection is being closed, and what it says is only waited out
			}
			whole, bad := c.in.take(b)
			if bad != 0 {
				c.close(int(bad), "clients have nothing to say here")
				deaf = true
			}
			if !whole {
				continue
			}
			if c.heed(c.in.op(), c.in.control) {
				if c.sent() {
					return
				}
				deaf = true
			}
			c.in.next()
		}
		n, err := c.net.Read(c.small[:])
		if n == 0 || err != nil {
			return
		}
		c.heard.Store(time.Now().UnixNano())
		p = c.small[:n]
	}
}

// heed answers a control frame, and reports whether it was the client's last.
func (c *conn) heed(op byte, payload []byte) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch op {
	case opPing:
		if !c.writing { // who floods us with pings and does not read is answered later
			c.queueLocked(append([]byte{fin | opPong, byte(len(payload))}, payload...))
			c.flushLocked()
		}
	case opClose:
		if !c.closing && !c.shut {
			c.queueLocked(append([]byte{fin | opClose, byte(len(payload))}, payload...))
			c.closing = true
			c.flushLocked()
			_ = c.net.SetReadDeadline(time.Now().Add(closeTime))
		}
		return true
	}
	return false
}

// sent reports whether nothing is left to be written.
func (c *conn) sent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsentLocked() == 0
}
