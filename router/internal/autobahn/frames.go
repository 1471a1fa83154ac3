package autobahn

import (
	"encoding/binary"
	"slices"
)

const fin = 0x80

// mask is the same for all frames: a case must fail or pass the same way each time.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// frame is a client's masked frame; first has FIN, the reserved bits and the opcode.
func frame(first byte, data string) []byte {
	b := make([]byte, 0, 14+len(data))
	b = append(b, first)
	switch n := len(data); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, data...)
	for i := range b[at:] {
		b[at+i] ^= mask[i&3]
	}
	return b
}

// rsv is a frame's first byte with reserved bits, numbered as the list does.
func rsv(bits, op byte) byte { return fin | bits<<4 | op }

func text(data string) []byte   { return frame(fin|opText, data) }
func binaryOf(d string) []byte  { return frame(fin|opBinary, d) }
func ping(data string) []byte   { return frame(fin|opPing, data) }
func pong(data string) []byte   { return frame(fin|opPong, data) }
func raw(payload string) []byte { return frame(fin|opClose, payload) }

func closeFrame(code int, reason string) []byte {
	return raw(string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason)
}

// fragments is one message in pieces, and other frames between them: by the number of pieces that went before.
func fragments(op byte, pieces []string, between map[int][]byte) [][]byte {
	var all [][]byte
	for i, p := range pieces {
		first := byte(opCont)
		if i == 0 {
			first = op
		}
		if i == len(pieces)-1 {
			first |= fin
		}
		all = append(all, frame(first, p))
		if extra, ok := between[i+1]; ok {
			all = append(all, extra)
		}
	}
	return all
}

// split cuts a text into pieces of n bytes.
func split(data string, n int) []string {
	var all []string
	for chunk := range slices.Chunk([]byte(data), n) {
		all = append(all, string(chunk))
	}
	return all
}

// The three ways in which the list sends frames: together, one by one, and byte by byte.
func together(frames ...[]byte) func() []step {
	return func() []step { return []step{{data: slices.Concat(frames...)}} }
}

func oneByOne(frames ...[]byte) func() []step {
	return func() []step {
		var all []step
		for _, f := range frames {
			all = append(all, step{data: f})
		}
		return all
	}
}

func byteByByte(frames ...[]byte) func() []step {
	return func() []step { return []step{{data: slices.Concat(frames...), chop: 1}} }
}

func msg(data string) event    { return event{opText, data} }
func bin(data string) event    { return event{opBinary, data} }
func ponged(data string) event { return event{opPong, data} }
