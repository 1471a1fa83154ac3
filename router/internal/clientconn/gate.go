package clientconn

import (
	"encoding/binary"
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

// gate looks at a client's bytes before the library does and finds what the library lets pass: frames without a mask,
// which it drops without a close code, and text and close reasons that are no UTF-8, each at the byte that proves it. It
// follows frames no further than that takes; all else is the library's.
type gate struct {
	refusal *violation // once there is one, nothing passes

	head  [14]byte // of the frame under way
	have  uint8    // bytes of head that have come
	need  uint8    // how many there will be; 0 before the second
	mask  [4]byte
	at    uint64 // bytes of the payload that have come
	size  uint64 // of the payload
	check bool   // the payload is text, or a close reason
	text  bool   // the message under way is text that is not compressed

	runes  decoder // of the message
	reason decoder // of a close frame
}

// pass returns how many of the bytes may be read; less than all only with a refusal.
func (g *gate) pass(p []byte) int {
	for i := 0; i < len(p); {
		if g.need == 0 || g.have < g.need {
			g.head[g.have] = p[i]
			g.have++
			i++
			if g.refusal = g.header(); g.refusal != nil {
				return i - 1
			}
			continue
		}
		n := int(min(uint64(len(p)-i), g.size-g.at))
		if g.check {
			if bad := g.payload(p[i : i+n]); bad >= 0 {
				g.refusal = &violation{closecode.InvalidData, notUTF8}
				return i + bad
			}
		}
		g.at += uint64(n)
		i += n
		if g.at == g.size {
			if !g.end() {
				return i - 1
			}
		}
	}
	return len(p)
}

// header looks at what is known of a frame after another byte of its head.
func (g *gate) header() *violation {
	switch g.have {
	case 1:
		return nil
	case 2:
		if g.head[1]&0x80 == 0 {
			return &violation{closecode.ProtocolError, "frames of clients must be masked"}
		}
		g.need = 2 + 4
		switch g.head[1] & 0x7f {
		case 126:
			g.need += 2
		case 127:
			g.need += 8
		}
	}
	if g.have < g.need {
		return nil
	}
	switch n := g.head[1] & 0x7f; n {
	case 126:
		g.size = uint64(binary.BigEndian.Uint16(g.head[2:]))
	case 127:
		g.size = binary.BigEndian.Uint64(g.head[2:])
	default:
		g.size = uint64(n)
	}
	copy(g.mask[:], g.head[g.need-4:])
	g.at = 0
	switch op := Opcode(g.head[0] & 0xf); op {
	case Text, Binary:
		g.text = op == Text && g.head[0]&rsv1 == 0
		g.check, g.runes = g.text, decoder{}
	case 0:
		g.check = g.text
	case opClose:
		g.check, g.reason = true, decoder{}
	default:
		g.check = false
	}
	if g.size == 0 && !g.end() {
		return g.refusal
	}
	return nil
}

// payload returns the first byte that cannot be, or -1.
func (g *gate) payload(p []byte) int {
	d, skip := &g.runes, uint64(0)
	if Opcode(g.head[0]&0xf) == opClose {
		d, skip = &g.reason, 2 // the code
	}
	for i, b := range p {
		at := g.at + uint64(i)
		if at >= skip && !d.next(b^g.mask[at&3]) {
			return i
		}
	}
	return -1
}

// end is called when a frame is whole. It is false if the frame may not end so.
func (g *gate) end() bool {
	last := g.head[0]&fin != 0
	op := Opcode(g.head[0] & 0xf)
	g.have, g.need = 0, 0
	if !g.check || !last {
		return true
	}
	d := &g.runes
	if op == opClose {
		d = &g.reason
	}
	if !d.between() {
		g.refusal = &violation{closecode.InvalidData, notUTF8}
		return false
	}
	return true
}

// decoder finds the first byte that cannot be UTF-8 (RFC 3629).
type decoder struct {
	left     uint8 // continuation bytes that must come
	low, top uint8 // what the next of them may be
}

func (d *decoder) between() bool { return d.left == 0 }

func (d *decoder) next(b byte) bool {
	if d.left > 0 {
		if b < d.low || b > d.top {
			return false
		}
		d.left--
		d.low, d.top = 0x80, 0xbf
		return true
	}
	d.low, d.top = 0x80, 0xbf
	switch {
	case b < utf8.RuneSelf:
	case b < 0xc2:
		return false
	case b < 0xe0:
		d.left = 1
	case b < 0xf0:
		d.left = 2
		switch b {
		case 0xe0:
			d.low = 0xa0 // else a shorter form would do
		case 0xed:
			d.top = 0x9f // surrogates
		}
	case b < 0xf5:
		d.left = 3
		switch b {
		case 0xf0:
			d.low = 0x90
		case 0xf4:
			d.top = 0x8f // U+10FFFF is the last one
		}
	default:
		return false
	}
	return true
}
