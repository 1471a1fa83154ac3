package clientconn

import (
	"encoding/binary"
	"unicode/utf8"
)

// Opcode is a WebSocket frame's kind.
type Opcode byte

// The opcodes of RFC 6455 that a router sends.
const (
	Text   Opcode = 1
	Binary Opcode = 2

	opClose Opcode = 8
	opPing  Opcode = 9
	opPong  Opcode = 10

	fin = 0x80
)

// HeaderRoom is what Seal needs before the payload.
const HeaderRoom = 10

// maxControl bounds a control frame's payload, maxReason a close frame's reason.
const (
	maxControl = 125
	maxReason  = maxControl - 2
)

// Seal makes a whole frame of the payload buf[at+HeaderRoom:]: it writes the header right before the payload and
// returns the frame, which aliases buf. A server's frames are not masked, so one frame serves many clients.
func Seal(buf []byte, at int, op Opcode) []byte {
	n := len(buf) - at - HeaderRoom
	var h [HeaderRoom]byte
	h[0] = fin | byte(op)
	size := 2
	switch {
	case n <= 125:
		h[1] = byte(n)
	case n <= 0xffff:
		h[1] = 126
		binary.BigEndian.PutUint16(h[2:], uint16(n))
		size = 4
	default:
		h[1] = 127
		binary.BigEndian.PutUint64(h[2:], uint64(n))
		size = 10
	}
	start := at + HeaderRoom - size
	copy(buf[start:], h[:size])
	return buf[start:]
}

// Reserve appends the room that Seal needs.
func Reserve(buf []byte) []byte {
	var room [HeaderRoom]byte
	return append(buf, room[:]...)
}

// appendClose appends a close frame. A reason that is too long is cut at a rune.
func appendClose(dst []byte, code int, reason string) []byte {
	for len(reason) > maxReason {
		_, size := utf8.DecodeLastRuneInString(reason)
		reason = reason[:len(reason)-size]
	}
	dst = append(dst, fin|byte(opClose), byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}
