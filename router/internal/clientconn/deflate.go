package clientconn

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// rsv1 marks a message that is compressed (RFC 7692). Its messages are compressed each by itself: neither end keeps
// anything between them, so that one frame serves many clients and an idle client costs nothing.
const rsv1 = 0x40

// syncTail is what a flushed stream ends with, and a message leaves out.
var syncTail = []byte{0, 0, 0xff, 0xff}

// Deflater makes compressed frames. Its state is 1.2 MB, which is why it comes from a pool: there are as many as
// goroutines that compress at the same time.
type Deflater struct {
	out bytes.Buffer
	w   *flate.Writer
}

// deflaters are a router's.
type deflaters struct{ pool, inflaters sync.Pool }

// Deflater takes one from the pool; Done gives it back.
func (s *Shared) Deflater() *Deflater {
	if d, ok := s.deflaters.pool.Get().(*Deflater); ok {
		return d
	}
	d := &Deflater{}
	d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed) // fails only for levels that do not exist
	return d
}

// Done gives a Deflater back.
func (s *Shared) Done(d *Deflater) {
	const keep = 1 << 20
	if d.out.Cap() > keep {
		d.out = bytes.Buffer{}
	}
	s.deflaters.pool.Put(d)
}

// Pack makes the compressed form of a whole frame that Seal made, in buf, and returns it, which aliases the buffer that is
// returned second. It returns the frame itself where it would not become shorter.
func (d *Deflater) Pack(buf, frame []byte) (packed, next []byte) {
	payload := frame[headerSize(frame):]
	d.out.Reset()
	d.w.Reset(&d.out)
	_, err := d.w.Write(payload)
	if err == nil {
		err = d.w.Flush()
	}
	body := bytes.TrimSuffix(d.out.Bytes(), syncTail)
	if err != nil || len(body) >= len(payload) {
		return frame, buf
	}
	next = append(Reserve(buf[:0]), body...)
	packed = Seal(next, 0, Opcode(frame[0]&0xf))
	packed[0] |= rsv1
	return packed, next
}

// headerSize is the length of a frame's header; frames of a server are not masked.
func headerSize(frame []byte) int {
	switch frame[1] {
	case 126:
		return 2 + 2
	case 127:
		return 2 + 8
	}
	return 2
}

// PayloadSize is the length of the payload of a whole frame that Seal made.
func PayloadSize(frame []byte) int { return len(frame) - headerSize(frame) }

// Packs is the length of a payload from which on the client wants it compressed; 0: it does not.
func (c *Conn) Packs() int {
	if !c.packs {
		return 0
	}
	return c.shared.PackFrom
}

// negotiated reports whether an extension header of the answer promises compression.
func negotiated(extensions string) bool { return strings.HasPrefix(extensions, "permessage-deflate") }

// unpack makes a client's compressed message what it was. It may become much larger: the limit counts what comes out.
func (c *Conn) unpack(op Opcode, data []byte) ([]byte, error) {
	// A block that says it is the last one makes the reader stop, and not miss anything.
	in := bytes.NewReader(append(append(data, syncTail...), 1, 0, 0, 0xff, 0xff))
	pool := &c.shared.deflaters.inflaters
	r, ok := pool.Get().(io.ReadCloser)
	if !ok {
		r = flate.NewReader(in)
	} else if err := r.(flate.Resetter).Reset(in, nil); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, c.shared.ReadLimit+1))
	pool.Put(r)
	var bad *violation
	switch {
	case err != nil:
		bad = &violation{closecode.InvalidData, "the compressed message is damaged"}
	case int64(len(out)) > c.shared.ReadLimit:
		bad = &violation{closecode.TooBig, fmt.Sprintf("a message may have %d bytes", c.shared.ReadLimit)}
	case op == Text && !utf8.Valid(out):
		bad = &violation{closecode.InvalidData, notUTF8}
	default:
		return out, nil
	}
	c.Close(bad.code, bad.reason)
	return nil, bad
}
