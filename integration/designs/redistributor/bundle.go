package redistributor

import (
	"encoding/binary"
	"errors"

	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
)

// kind is what a message of a bundle says.
type kind byte

const (
	kindRecord   kind = iota + 1 // of a key; for everybody, or for the join that it names
	kindAttached                 // a join was taken up: what follows begins at the offset
	kindCaughtUp                 // the join has everything below the offset: live records are its too
	kindGap                      // a join's records below the offset are gone
	kindHead                     // everything below the offset was sent to this server
	kindReset                    // something was lost on the way here: all clients must join again
)

// message is one message from a redistributor to a server. A bundle is several of them, one after the other.
type message struct {
	kind      kind
	join      uint64 // 0: for every client of the key
	partition int32
	offset    int64
	complete  bool
	record    feed.Record // of kindRecord; Partition and Offset are above
}

var errBundle = errors.New("malformed bundle")

func (m *message) append(dst []byte) []byte {
	dst = append(dst, byte(m.kind))
	dst = binary.AppendUvarint(dst, m.join)
	dst = binary.AppendUvarint(dst, uint64(m.partition)) //nolint:gosec // never negative
	dst = binary.AppendVarint(dst, m.offset)
	switch m.kind {
	case kindAttached:
		complete := byte(0)
		if m.complete {
			complete = 1
		}
		return append(dst, complete)
	case kindRecord:
	default:
		return dst
	}
	r := &m.record
	dst = binary.AppendVarint(dst, r.Timestamp)
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendUvarint(dst, uint64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = appendBytes(dst, h.Key)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

// appendBytes keeps nil and empty apart.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b))+1)
	return append(dst, b...)
}

// parse reads a bundle. The messages' slices alias it and hold only during the call.
func parse(bundle []byte, each func(*message)) error {
	r := &reader{rest: bundle}
	for len(r.rest) > 0 {
		m := r.message()
		if r.failed {
			return errBundle
		}
		each(&m)
	}
	return nil
}

// message reads one message.
func (r *reader) message() message {
	m := message{kind: kind(r.octet()), join: r.uvarint(), partition: int32(r.uvarint()), offset: r.varint()} //nolint:gosec // as it was written
	switch m.kind {
	case kindAttached:
		m.complete = r.octet() == 1
	case kindRecord:
		m.record = feed.Record{Partition: m.partition, Offset: m.offset, Timestamp: r.varint(), Key: r.bytes(), Value: r.bytes()}
		for n := r.uvarint(); n > 0 && !r.failed; n-- {
			m.record.Headers = append(m.record.Headers, link.Header{Key: r.bytes(), Value: r.bytes()})
		}
	case kindCaughtUp, kindGap, kindHead, kindReset:
	default:
		r.failed = true
	}
	return m
}

type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) octet() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	switch {
	case n == 0:
		return nil
	case n-1 > uint64(len(r.rest)):
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[: n-1 : n-1]
	r.rest = r.rest[n-1:]
	return b
}

// split finds where a bundle can be cut so that the first part has about most bytes, and one message at least.
func split(bundle []byte, most int) (int, error) {
	if len(bundle) <= most {
		return len(bundle), nil
	}
	at := 0
	r := &reader{rest: bundle}
	for len(r.rest) > 0 {
		r.message()
		if r.failed {
			return 0, errBundle
		}
		end := len(bundle) - len(r.rest)
		if end > most && at > 0 {
			return at, nil
		}
		at = end
	}
	return at, nil
}
