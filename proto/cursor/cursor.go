// Package cursor is the text that a client keeps in order to continue where it was. To clients it is opaque.
// It names the topic's id and, per client key, the next offset of every partition the key lives in.
//
// A client with several keys may join cursors with dots, the newest last: that of all its keys, as a checkpoint brings
// it, and those that records brought since. The parts stand for themselves, so that they may be of several topic ids.
//
// A cursor is versioned, and checksummed against accidents. It is not signed: whoever makes one up gets no
// record that its key is not entitled to, because the key comes from the client's credentials.
package cursor

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// The binary form, before base64url without padding:
//
//	version  1 byte
//	topic id 16 bytes
//	feeds    uvarint, at least 1; each:
//	  key       8 bytes, big endian: Hash(key)
//	  positions uvarint, at least 1; each: partition, next, epoch as uvarints
//	CRC32C of all before, 4 bytes, big endian
//
// There is exactly one text for a cursor: uvarints are of minimal length, and a key or a partition of a key
// appears once.
const (
	version    = 1
	headerSize = 1 + 16
	sumSize    = 4
)

const (
	// MaxLen bounds the text, in bytes. A thousand keys of two partitions each fit.
	MaxLen = 64 << 10
	// MaxSingleLen bounds the text that AppendSingle makes, in bytes.
	MaxSingleLen = (maxSingleRaw*8 + 5) / 6
	// SingleRoom is the room in bytes that dst needs for AppendSingle not to allocate.
	SingleRoom = MaxSingleLen + maxSingleRaw

	maxSingleRaw = headerSize + 1 + 8 + 1 + binary.MaxVarintLen32 + binary.MaxVarintLen64 + binary.MaxVarintLen32 + sumSize
)

// Errors of Decode, for errors.Is.
var (
	ErrMalformed = errors.New("malformed cursor")
	ErrVersion   = errors.New("cursor of an unknown version")
	ErrChecksum  = errors.New("damaged cursor")
)

// Cursor is where a client continues.
type Cursor struct {
	TopicID [16]byte
	Feeds   []Feed // one per client key, in the order of the text
}

// Feed is where one client key continues.
type Feed struct {
	Key       uint64     // Hash of the client key
	Positions []Position // one per partition the key lives in; several after the partition count grew
}

// Position says that every record of the key below Next in Partition was delivered.
type Position struct {
	Partition int32
	Next      int64
	Epoch     int32 // leader epoch; 0 means unknown (reserved)
}

// Hash binds a cursor to a client key: the first 8 bytes of its SHA-256.
func Hash(key []byte) uint64 {
	sum := sha256.Sum256(key)
	return binary.BigEndian.Uint64(sum[:])
}

// For returns the feed of a client key; false when the cursor belongs to other keys.
func (c Cursor) For(key []byte) (Feed, bool) {
	h := Hash(key)
	for _, f := range c.Feeds {
		if f.Key == h {
			return f, true
		}
	}
	return Feed{}, false
}

// Encode returns the text of c. Numbers must not be negative, and Decode refuses what is longer than MaxLen
// or has no feed or a feed without positions; the caller bounds the keys of a client.
func Encode(c Cursor) string { return string(Append(nil, c)) }

// Append appends the text of c, as Encode makes it.
func Append(dst []byte, c Cursor) []byte {
	raw := appendHeader(make([]byte, 0, maxSingleRaw*len(c.Feeds)), c.TopicID, len(c.Feeds))
	for _, f := range c.Feeds {
		raw = appendFeed(raw, f.Key, len(f.Positions))
		for _, p := range f.Positions {
			raw = appendPosition(raw, p.Partition, p.Next, p.Epoch)
		}
	}
	raw = binary.BigEndian.AppendUint32(raw, checksum(raw))
	return base64.RawURLEncoding.AppendEncode(dst, raw)
}

// AppendSingle appends the text of a cursor with one key in one partition. It equals Encode of the same, and
// does not allocate when dst has SingleRoom bytes of room.
func AppendSingle(dst []byte, topicID [16]byte, keyHash uint64, partition int32, next int64, epoch int32) []byte {
	// The binary form is built behind the place of the text, in dst itself: in an array of this function
	// it would escape to the heap through the checksum's assembly.
	at := len(dst)
	var room [SingleRoom]byte
	dst = append(dst, room[:]...)
	raw := dst[at+MaxSingleLen : at+MaxSingleLen]
	raw = appendHeader(raw, topicID, 1)
	raw = appendFeed(raw, keyHash, 1)
	raw = appendPosition(raw, partition, next, epoch)
	raw = binary.BigEndian.AppendUint32(raw, checksum(raw))
	base64.RawURLEncoding.Encode(dst[at:], raw)
	return dst[:at+base64.RawURLEncoding.EncodedLen(len(raw))]
}

func appendHeader(raw []byte, topicID [16]byte, feeds int) []byte {
	raw = append(raw, version)
	raw = append(raw, topicID[:]...)
	return binary.AppendUvarint(raw, uint64(feeds))
}

func appendFeed(raw []byte, keyHash uint64, positions int) []byte {
	raw = binary.BigEndian.AppendUint64(raw, keyHash)
	return binary.AppendUvarint(raw, uint64(positions))
}

func appendPosition(raw []byte, partition int32, next int64, epoch int32) []byte {
	raw = binary.AppendUvarint(raw, uint64(uint32(partition)))
	raw = binary.AppendUvarint(raw, uint64(next))
	return binary.AppendUvarint(raw, uint64(uint32(epoch)))
}

func checksum(raw []byte) uint32 { return crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)) }

// Joint stands between the cursors of a list.
const Joint = '.'

// DecodeList reads cursors that are joined with dots: what a client with several keys comes back with. The last one
// that names a key counts for it, see Of. The whole is no longer than MaxLen. Its errors are Decode's.
func DecodeList(s string) ([]Cursor, error) {
	if len(s) > MaxLen {
		return nil, fmt.Errorf("%w: %d characters, more than %d", ErrMalformed, len(s), MaxLen)
	}
	list := make([]Cursor, 0, 1)
	for text := range strings.SplitSeq(s, string(Joint)) {
		c, err := Decode(text)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Of is where a list continues a client key, and in which topic; false when none of its cursors names the key.
func Of(list []Cursor, key []byte) (topicID [16]byte, f Feed, ok bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if f, ok = list[i].For(key); ok {
			return list[i].TopicID, f, true
		}
	}
	return topicID, f, false
}

// Decode reads the text of a cursor. Its errors wrap ErrMalformed, ErrVersion or ErrChecksum.
func Decode(s string) (Cursor, error) {
	if len(s) > MaxLen {
		return Cursor{}, fmt.Errorf("%w: %d characters, more than %d", ErrMalformed, len(s), MaxLen)
	}
	// Strict refuses bits beyond the last byte; line breaks, which the decoder would skip, are refused here.
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' {
			return Cursor{}, fmt.Errorf("%w: not base64url", ErrMalformed)
		}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return Cursor{}, fmt.Errorf("%w: not base64url", ErrMalformed)
	}
	if len(raw) == 0 {
		return Cursor{}, fmt.Errorf("%w: empty", ErrMalformed)
	}
	// The version comes first: another version may be laid out and summed in another way.
	if raw[0] != version {
		return Cursor{}, fmt.Errorf("%w %d", ErrVersion, raw[0])
	}
	if len(raw) < headerSize+sumSize {
		return Cursor{}, fmt.Errorf("%w: too short", ErrMalformed)
	}
	body, sum := raw[:len(raw)-sumSize], raw[len(raw)-sumSize:]
	if binary.BigEndian.Uint32(sum) != checksum(body) {
		return Cursor{}, ErrChecksum
	}
	var c Cursor
	copy(c.TopicID[:], body[1:])
	r := reader{rest: body[headerSize:]}
	c.Feeds = r.feeds()
	if !r.failed && len(r.rest) > 0 {
		r.failed = true
	}
	if r.failed {
		return Cursor{}, fmt.Errorf("%w: its parts do not fit together", ErrMalformed)
	}
	return c, nil
}

// reader reads the feeds; failed stays set after the first thing that is wrong.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > limit || (n > 1 && r.rest[n-1] == 0) {
		r.failed = true
		r.rest = nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads how many items of at least size bytes follow, so that a list is never larger than its text.
func (r *reader) count(size int) int {
	n := r.uvarint(uint64(len(r.rest) / size))
	if n == 0 {
		r.failed = true
	}
	return int(n)
}

func (r *reader) feeds() []Feed {
	const least = 8 + 1 + 3
	n := r.count(least)
	feeds := make([]Feed, 0, n)
	seen := make(map[uint64]struct{}, n)
	for range n {
		if len(r.rest) < least {
			r.failed = true
			return nil
		}
		f := Feed{Key: binary.BigEndian.Uint64(r.rest)}
		r.rest = r.rest[8:]
		f.Positions = r.positions()
		if _, twice := seen[f.Key]; twice || r.failed {
			r.failed = true
			return nil
		}
		seen[f.Key] = struct{}{}
		feeds = append(feeds, f)
	}
	return feeds
}

func (r *reader) positions() []Position {
	const maxInt32, maxInt64 = 1<<31 - 1, 1<<63 - 1
	n := r.count(3)
	ps := make([]Position, 0, n)
	seen := make(map[int32]struct{}, n)
	for range n {
		p := Position{Partition: int32(r.uvarint(maxInt32)), Next: int64(r.uvarint(maxInt64)), Epoch: int32(r.uvarint(maxInt32))}
		if _, twice := seen[p.Partition]; twice || r.failed {
			r.failed = true
			return nil
		}
		seen[p.Partition] = struct{}{}
		ps = append(ps, p)
	}
	return ps
}
