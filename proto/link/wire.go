package link

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Frame numbers: the fields of Frame.body in link.proto.
const (
	frameHello      protowire.Number = 1
	frameAttach     protowire.Number = 2
	frameCredit     protowire.Number = 3
	frameDetach     protowire.Number = 4
	frameWelcome    protowire.Number = 5
	frameAttached   protowire.Number = 6
	frameRecord     protowire.Number = 7
	frameCheckpoint protowire.Number = 8
	frameGap        protowire.Number = 9
	frameClosed     protowire.Number = 10
	frameDraining   protowire.Number = 11
)

// batchFrames is Batch.frames.
const batchFrames protowire.Number = 1

// What a decoder holds for a frame is a multiple of the frame's bytes (a stream of one byte takes 8, a header
// of two bytes 48), so lists are bounded apart from MaxMessage.
const (
	// MaxStreams is more streams than one frame may name: more than a router has clients.
	MaxStreams = 1 << 23
	// MaxHeaders is the largest number of headers of a record: more than fit in a record of a broker with
	// Kafka's default limits.
	MaxHeaders = 1 << 20
)

// ErrMalformed is wrapped by every error that a decoder returns for a message that is not a sequence of
// frames of this protocol; the link must be closed. A handler's own error is returned as it is.
var ErrMalformed = errors.New("malformed link message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// field is one decoded field: its number, its wire type, and either an integer or bytes that alias the input.
type field struct {
	num protowire.Number
	typ protowire.Type
	n   uint64
	b   []byte
}

// fields walks an encoded message. Groups and fixed-size fields are legal protobuf that version 1 does not
// use; they are stepped over like any unknown field.
type fields struct {
	rest []byte
}

// next reads one field into f; false at the end.
func (w *fields) next(f *field) (bool, error) {
	if len(w.rest) == 0 {
		return false, nil
	}
	num, typ, n := protowire.ConsumeTag(w.rest)
	if n < 0 {
		return false, malformed("field tag: %v", protowire.ParseError(n))
	}
	if num > protowire.MaxValidNumber {
		return false, malformed("field number %d", num)
	}
	w.rest = w.rest[n:]
	f.num, f.typ, f.n, f.b = num, typ, 0, nil
	switch typ {
	case protowire.VarintType:
		f.n, n = protowire.ConsumeVarint(w.rest)
	case protowire.BytesType:
		f.b, n = protowire.ConsumeBytes(w.rest)
	default:
		n = protowire.ConsumeFieldValue(num, typ, w.rest)
	}
	if n < 0 {
		return false, malformed("field %d: %v", num, protowire.ParseError(n))
	}
	w.rest = w.rest[n:]
	return true, nil
}

// is reports whether f is the known field num with the wire type that the schema gives it. A known number
// with another wire type is an unknown field to protobuf, and to us.
func (f *field) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

func (f *field) text() (string, error) {
	if !utf8.Valid(f.b) {
		return "", malformed("field %d: text is not UTF-8", f.num)
	}
	return string(f.b), nil
}

func (f *field) topicID(dst *[16]byte) error {
	switch len(f.b) {
	case 16:
		copy(dst[:], f.b)
	case 0:
		*dst = [16]byte{}
	default:
		return malformed("field %d: a topic id has 16 bytes, not %d", f.num, len(f.b))
	}
	return nil
}

// enum keeps values that this version does not know distinct from all that it knows.
func (f *field) enum() uint8 {
	if v := int32(uint32(f.n)); v >= 0 && v < 255 {
		return uint8(v)
	}
	return 255
}

// numbers adds a repeated uint64 to dst; protobuf allows it packed or not, in any mixture.
func (f *field) numbers(dst []uint64) ([]uint64, error) {
	if f.typ == protowire.VarintType {
		dst = append(dst, f.n)
	}
	for b := f.b; len(b) > 0; {
		if len(dst) == MaxStreams {
			break
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return dst, malformed("field %d: %v", f.num, protowire.ParseError(n))
		}
		dst = append(dst, v)
		b = b[n:]
	}
	if len(dst) >= MaxStreams {
		return dst, malformed("field %d: %d streams or more", f.num, MaxStreams)
	}
	return dst, nil
}

func (f *field) isNumbers(num protowire.Number) bool {
	return f.num == num && (f.typ == protowire.BytesType || f.typ == protowire.VarintType)
}

// present makes an empty value distinct from an absent one.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
