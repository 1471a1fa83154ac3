package kafka

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/IBM/sarama"
)

// sarama takes a batch for a cut one when it has more records than there are bytes after its record count, which
// is how alike records look after compression, and never gets past it. A batch that is followed by enough other
// bytes is read, whatever they are. So a solo fetch's response is stretched where needed: bytes that sarama
// drops, as the beginning of a batch that did not fit, are added at its end.

// soloVersion is the last fetch version whose response ends with the records and counts in plain integers.
const soloVersion = 11

// stretchByte makes a record set's tail an incomplete batch, whatever its length: the batch's magic, size and
// record count all become too large.
const stretchByte = 0x7f

// stretcher passes a connection's responses on, whole frames at a time, and stretches fetch responses.
type stretcher struct {
	src   io.Reader
	ready []byte // of the current frame, not yet read
}

func (s *stretcher) Read(p []byte) (int, error) {
	if len(s.ready) == 0 {
		var size [4]byte
		if _, err := io.ReadFull(s.src, size[:]); err != nil {
			return 0, err
		}
		n := int32(binary.BigEndian.Uint32(size[:]))
		if n < 0 || n > sarama.MaxResponseSize {
			// sarama will say what it thinks of that.
			s.ready = size[:]
		} else {
			frame := make([]byte, 4+int(n))
			copy(frame, size[:])
			if _, err := io.ReadFull(s.src, frame[4:]); err != nil {
				return 0, err
			}
			s.ready = stretch(frame)
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// stretch returns the frame, changed if it is a solo fetch's response that sarama would misread.
func stretch(frame []byte) []byte {
	at, ok := recordsLength(frame)
	if !ok {
		return frame
	}
	if at+4 == len(frame) {
		// No records: null is legal, and sarama refuses it in this version.
		binary.BigEndian.PutUint32(frame[at:], 0)
		return frame
	}
	missing := missingBytes(frame[at+4:])
	if missing <= 0 || missing > int(sarama.MaxResponseSize)-len(frame) {
		return frame
	}
	size, records := len(frame)-4+missing, len(frame)-at-4+missing
	frame = slices.Grow(frame, missing)
	for range missing {
		frame = append(frame, stretchByte)
	}
	binary.BigEndian.PutUint32(frame, uint32(size))
	binary.BigEndian.PutUint32(frame[at:], uint32(records))
	return frame
}

// recordsLength finds where the length of the records is in the response to a solo fetch of version 11. Any other
// frame is not ok, because its lengths do not add up.
func recordsLength(frame []byte) (at int, ok bool) {
	r := fields{b: frame}
	r.skip(4 + 4) // frame size, correlation id
	r.skip(4 + 2 + 4)
	if r.int32() != 1 { // topics
		return 0, false
	}
	r.skip(int(r.int16()))
	if r.int32() != 1 { // partitions
		return 0, false
	}
	r.skip(4 + 2 + 8 + 8 + 8) // index, error, high watermark, last stable offset, log start
	r.skip(max(0, int(r.int32())) * 16)
	r.skip(4) // preferred replica
	at = r.at
	size := max(0, int(r.int32()))
	return at, !r.bad && r.at+size == len(frame)
}

// missingBytes is how many bytes must follow a record set so that none of its batches has more records than bytes
// after its record count.
func missingBytes(set []byte) int {
	const magicAt, countAt, bodyAt = 16, 57, 61
	missing := 0
	for rest := set; len(rest) >= bodyAt && rest[magicAt] == 2; {
		count := int(int32(binary.BigEndian.Uint32(rest[countAt:])))
		missing = max(missing, count-(len(rest)-bodyAt))
		size := int(int32(binary.BigEndian.Uint32(rest[8:])))
		if size < bodyAt-12 || 12+size > len(rest) {
			break // cut, in truth
		}
		rest = rest[12+size:]
	}
	return missing
}

// fields reads big-endian integers; reading past the end makes it bad.
type fields struct {
	b   []byte
	at  int
	bad bool
}

func (f *fields) skip(n int) {
	if n < 0 || n > len(f.b)-f.at {
		f.bad = true
		f.at = len(f.b)
		return
	}
	f.at += n
}

func (f *fields) int16() int16 {
	from := f.at
	if f.skip(2); f.bad {
		return -1
	}
	return int16(binary.BigEndian.Uint16(f.b[from:]))
}

func (f *fields) int32() int32 {
	from := f.at
	if f.skip(4); f.bad {
		return -1
	}
	return int32(binary.BigEndian.Uint32(f.b[from:]))
}
