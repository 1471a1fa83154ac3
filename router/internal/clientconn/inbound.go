package clientconn

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

const notUTF8 = "the message is not UTF-8"

// violation is what a client may not send.
type violation struct {
	code   int
	reason string
}

// Error implements error.
func (v *violation) Error() string { return v.reason }

func violates(format string, args ...any) *violation {
	return &violation{closecode.ProtocolError, fmt.Sprintf(format, args...)}
}

// event is what has come to its end.
type event uint8

const (
	nothing event = iota
	wholeMessage
	wholePing
	wholePong
	wholeClose
)

// inbound follows what a client sends, however it is cut into reads: frames, their order and their bounds (RFC 6455,
// section 5), and the message that they make. What cannot be is found at the byte that proves it, in texts, too. It holds memory while a message or a control frame is under way, and belongs to the reader.
type inbound struct {
	// Static after Accept.
	limit int  // of a message, in bytes
	packs bool // messages may be compressed

	head   [14]byte // of the frame under way
	have   uint8    // bytes of head that have come
	need   uint8    // how many there will be; 0 before the second
	inside bool     // the head is whole
	mask   [4]byte
	at     uint8  // place in mask
	left   uint64 // bytes of the payload that are to come

	kind    Opcode // of the message under way, 0 for none
	packed  bool   // it is compressed
	runes   decoder
	data    []byte // of the message
	control []byte // of a control frame
	frames  int    // that were begun since somebody asked
}

// op is the kind of the frame under way.
func (in *inbound) op() Opcode { return Opcode(in.head[0] & 0xf) }

func isControl(op Opcode) bool { return op >= opClose }

// take looks at bytes until something is whole, and returns how many it took.
func (in *inbound) take(p []byte) (n int, what event, bad *violation) {
	for n < len(p) {
		if !in.inside {
			in.head[in.have] = p[n]
			in.have++
			n++
			if bad = in.header(); bad != nil {
				return n, nothing, bad
			}
		} else {
			size := int(min(uint64(len(p)-n), in.left)) //nolint:gosec // at most the length of p
			if bad = in.payload(p[n : n+size]); bad != nil {
				return n, nothing, bad
			}
			n += size
		}
		if in.inside && in.left == 0 {
			if what, bad = in.end(); what != nothing || bad != nil {
				return n, what, bad
			}
		}
	}
	return n, nothing, nil
}

// header looks at what is known of a frame after another byte of its head.
func (in *inbound) header() *violation {
	switch in.have {
	case 1:
		return in.first()
	case 2:
		if bad := in.second(); bad != nil {
			return bad
		}
	}
	if in.have < in.need {
		return nil
	}
	switch n := in.head[1] & 0x7f; n {
	case 126:
		in.left = uint64(binary.BigEndian.Uint16(in.head[2:]))
	case 127:
		in.left = binary.BigEndian.Uint64(in.head[2:])
	default:
		in.left = uint64(n)
	}
	copy(in.mask[:], in.head[in.need-4:])
	in.at, in.inside = 0, true
	in.frames++
	if isControl(in.op()) {
		return nil
	}
	most := in.limit
	if in.packed {
		most += most/1000 + 64 // what does not shrink grows a little
	}
	if in.left > uint64(max(0, most-len(in.data))) { //nolint:gosec // not negative
		return &violation{closecode.TooBig, fmt.Sprintf("a message may have %d bytes", in.limit)}
	}
	return nil
}

// first looks at the kind of a frame.
func (in *inbound) first() *violation {
	b, op := in.head[0], in.op()
	if rsv := b & 0x70; rsv != 0 && (rsv != rsv1 || !in.packs || op != Text && op != Binary) {
		return violates("reserved bits are set in a frame of opcode %d", op)
	}
	switch op {
	case 0:
		if in.kind == 0 {
			return violates("a continuation came where no message was begun")
		}
	case Text, Binary:
		if in.kind != 0 {
			return violates("a message was begun before the last one's end")
		}
		in.kind, in.packed, in.runes = op, b&rsv1 != 0, decoder{}
	case opClose, opPing, opPong:
		if b&fin == 0 {
			return violates("a control frame came in parts")
		}
	default:
		return violates("frames of opcode %d are unknown", op)
	}
	return nil
}

// second looks at the length of a frame, as far as it is known.
func (in *inbound) second() *violation {
	n := in.head[1] & 0x7f
	if in.head[1]&0x80 == 0 {
		return violates("frames of clients must be masked")
	}
	if isControl(in.op()) && n > maxControl {
		return violates("a control frame may have %d bytes", maxControl)
	}
	in.need = 2 + 4
	switch n {
	case 126:
		in.need += 2
	case 127:
		in.need += 8
	}
	return nil
}

// payload takes bytes of the frame under way.
func (in *inbound) payload(p []byte) *violation {
	if isControl(in.op()) {
		in.control = append(in.control, p...)
		return in.came(in.control[len(in.control)-len(p):])
	}
	in.reserve(len(p))
	in.data = append(in.data, p...)
	return in.came(in.data[len(in.data)-len(p):])
}

// room is where the rest of a message's frame may be read to, nil where that is not worth a read of its own.
func (in *inbound) room(least int) []byte {
	if !in.inside || isControl(in.op()) || in.left < uint64(least) { //nolint:gosec // not negative
		return nil
	}
	in.reserve(1)
	n := len(in.data)
	return in.data[n:min(uint64(cap(in.data)), uint64(n)+in.left)]
}

// filled says that n bytes were read to room.
func (in *inbound) filled(n int) (what event, bad *violation) {
	at := len(in.data)
	in.data = in.data[:at+n]
	if bad = in.came(in.data[at:]); bad != nil || in.left > 0 {
		return nothing, bad
	}
	return in.end()
}

// reserve makes room for n bytes, and for as many again as have come: what a head promises is not believed.
func (in *inbound) reserve(n int) {
	const few = 512
	if len(in.data)+n <= cap(in.data) {
		return
	}
	size := max(few, 2*cap(in.data))
	if promised := uint64(len(in.data)) + in.left; in.head[0]&fin != 0 && uint64(size) > promised { //nolint:gosec // not negative
		size = int(promised) //nolint:gosec // less than size was
	}
	grown := make([]byte, len(in.data), max(size, len(in.data)+n))
	copy(grown, in.data)
	in.data = grown
}

// came takes the mask off bytes that have come, and checks a text.
func (in *inbound) came(b []byte) *violation {
	for i := range b {
		b[i] ^= in.mask[in.at&3]
		in.at++
	}
	in.left -= uint64(len(b))
	if isControl(in.op()) || in.kind != Text || in.packed {
		return nil
	}
	for _, c := range b {
		if !in.runes.next(c) {
			return &violation{closecode.InvalidData, notUTF8}
		}
	}
	return nil
}

// end is called when a frame is whole.
func (in *inbound) end() (event, *violation) {
	op, last := in.op(), in.head[0]&fin != 0
	in.have, in.need, in.inside = 0, 0, false
	switch {
	case op == opPing:
		return wholePing, nil
	case op == opClose:
		return wholeClose, checkClose(in.control)
	case isControl(op):
		return wholePong, nil
	case !last:
		return nothing, nil
	case in.kind == Text && !in.packed && !in.runes.between():
		return nothing, &violation{closecode.InvalidData, notUTF8}
	}
	return wholeMessage, nil
}

// message hands out the message that is whole.
func (in *inbound) message() (op Opcode, packed bool, data []byte) {
	op, packed, data = in.kind, in.packed, in.data
	in.kind, in.packed, in.data = 0, false, nil
	return op, packed, data
}

// checkClose looks at a close frame's payload: nothing, or a code (section 7.4) and a reason.
func checkClose(p []byte) *violation {
	if len(p) == 0 {
		return nil
	}
	if len(p) == 1 {
		return violates("half of a close code came")
	}
	switch code := binary.BigEndian.Uint16(p); {
	case code == 1004, code == 1005, code == 1006, code < 1000, code > 1014 && code < 3000, code >= 5000:
		return violates("close code %d may not be sent", code)
	}
	if !utf8.Valid(p[2:]) {
		return &violation{closecode.InvalidData, notUTF8}
	}
	return nil
}
