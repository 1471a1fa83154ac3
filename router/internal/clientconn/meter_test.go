package clientconn

import (
	"encoding/binary"
	"math"
	"testing"
)

// FuzzMeter cuts what a client sends into reads of any length: it must count the same, which is what a parser counts that
// has all of it at once.
func FuzzMeter(f *testing.F) {
	f.Add([]byte{0x89, 0x80, 1, 2, 3, 4, 0x8a, 0x00}, []byte{1})
	f.Add(append([]byte{0x81, 0xfe, 0x01, 0x00, 1, 2, 3, 4}, make([]byte, 256)...), []byte{3, 200})
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 3, 4, 'h', 'i', 0x81, 0x81, 0, 0, 0, 0, 'x'}, []byte{9, 1, 1, 4})
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 0x89, 0x80}, []byte{})
	f.Fuzz(func(t *testing.T, sent, cuts []byte) {
		want := headsIn(sent)
		var m meter
		got, rest := 0, sent
		for _, n := range cuts {
			n := min(int(n), len(rest))
			got += m.frames(rest[:n])
			rest = rest[n:]
		}
		got += m.frames(rest)
		if got != want {
			t.Errorf("%d frames in %x, read in parts %v; want %d", got, sent, cuts, want)
		}
		if m.have >= len(m.head) {
			t.Errorf("%d bytes of a head are kept", m.have)
		}
	})
}

// headsIn counts the heads of frames that are complete up to their length; the mask belongs to what follows.
func headsIn(b []byte) (n int) {
	for len(b) >= 2 {
		masked, length, head := b[1] >= 0x80, uint64(b[1]&0x7f), 2
		switch length {
		case 126:
			if head = 4; len(b) >= head {
				length = uint64(binary.BigEndian.Uint16(b[2:]))
			}
		case 127:
			if head = 10; len(b) >= head {
				length = binary.BigEndian.Uint64(b[2:])
			}
		}
		if len(b) < head {
			return n
		}
		n++
		if masked && length <= math.MaxUint64-4 {
			length += 4
		}
		if length >= uint64(len(b)-head) {
			return n
		}
		b = b[head+int(length):] //nolint:gosec // less than the length of b
	}
	return n
}
