// Package clientmsg is what a router and its clients say to each other: the messages of the subprotocol
// pointsman.json.v1, as bytes. Every message is one JSON object with a "type", valid UTF-8, on one line
// unless an embedded value has line breaks of its own.
package clientmsg

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// What the two ends agree on in the handshake.
const (
	// Path is the router's HTTP path for clients.
	Path = "/v1/ws"
	// JSON is the subprotocol of this package, the default.
	JSON = "pointsman.json.v1"
	// Raw is the subprotocol that carries values alone.
	Raw = "pointsman.raw.v1"
	// BearerPrefix begins the subprotocol in which browsers send a token.
	BearerPrefix = "pointsman.bearer."
)

// The values of "type".
const (
	TypeHello      = "hello"
	TypeRecord     = "record"
	TypeCheckpoint = "checkpoint"
	TypeGap        = "gap"
	TypeWaiting    = "waiting"
	TypeGoAway     = "goaway"
	TypeExpiring   = "expiring"

	// On sockets with several keys only.
	TypeSubscribed   = "subscribed"
	TypeUnsubscribed = "unsubscribed"
	TypeRefused      = "refused"

	TypeResume      = "resume"
	TypeAuth        = "auth"
	TypeSubscribe   = "subscribe"
	TypeUnsubscribe = "unsubscribe"
)

// Why a subscribe or unsubscribe was refused. The socket and its other keys go on.
const (
	RefusedSingle      = "single"      // the socket is one for a single key: connect with several=true
	RefusedForbidden   = "forbidden"   // the client's credentials do not name the key
	RefusedTooMany     = "too_many"    // the socket has as many keys as the operator allows
	RefusedAlready     = "already"     // the key is followed
	RefusedUnknown     = "unknown"     // the key is not followed
	RefusedCursor      = "cursor"      // the cursor cannot be read, or is not of this key
	RefusedBadRequest  = "bad_request" // key or from make no sense
	RefusedUnavailable = "unavailable" // not now: try again in a moment
)

// MaxNesting is how deep a value may nest arrays and objects and still be embedded as JSON. Deeper ones go as
// "text": parsers have limits (Go's is 10,000, Python's about 1,000, PHP's 512, counting the message itself),
// and a message that a client cannot parse would stop it for ever.
const MaxNesting = 500

// NoTimestamp is Kafka's timestamp of a record that has none; "timestamp" is left out for it.
const NoTimestamp = -1

// AppendHello appends the hello message. A nil key leaves "key" out. The heartbeat is rounded down to
// milliseconds.
func AppendHello[C string | []byte](dst []byte, cursor C, key []byte, resumed bool, heartbeat time.Duration) []byte {
	dst = append(dst, `{"type":"hello"`...)
	dst = appendCursor(dst, cursor)
	dst = appendKey(dst, key)
	dst = append(dst, `,"resumed":`...)
	dst = strconv.AppendBool(dst, resumed)
	dst = append(dst, `,"heartbeat_ms":`...)
	dst = strconv.AppendInt(dst, heartbeat.Milliseconds(), 10)
	return append(dst, '}')
}

// AppendHelloSeveral appends the hello message of a socket with several keys: so many are followed from the start, and
// each is announced by a subscribed message of its own.
func AppendHelloSeveral(dst []byte, keys int, heartbeat time.Duration) []byte {
	dst = append(dst, `{"type":"hello","keys":`...)
	dst = strconv.AppendInt(dst, int64(keys), 10)
	dst = append(dst, `,"heartbeat_ms":`...)
	dst = strconv.AppendInt(dst, heartbeat.Milliseconds(), 10)
	return append(dst, '}')
}

// AppendSubscribed appends the message that a key is live from the cursor on, which is the key's own.
func AppendSubscribed[C string | []byte](dst []byte, cursor C, key []byte, resumed bool) []byte {
	dst = append(dst, `{"type":"subscribed"`...)
	dst = appendCursor(dst, cursor)
	dst = appendKey(dst, key)
	dst = append(dst, `,"resumed":`...)
	dst = strconv.AppendBool(dst, resumed)
	return append(dst, '}')
}

// AppendUnsubscribed appends the message that nothing more comes of a key. The cursor is where it would go on, left out
// if it was not live yet.
func AppendUnsubscribed[C string | []byte](dst []byte, cursor C, key []byte) []byte {
	dst = append(dst, `{"type":"unsubscribed"`...)
	dst = appendCursor(dst, cursor)
	dst = appendKey(dst, key)
	return append(dst, '}')
}

// AppendRefused appends the answer to a subscribe or unsubscribe, of says which, that cannot be granted. The detail is
// for people and must be valid UTF-8.
func AppendRefused(dst []byte, of string, key []byte, reason, detail string) []byte {
	dst = append(dst, `{"type":"refused","of":"`...)
	dst = append(dst, of...)
	dst = append(dst, '"')
	dst = appendKey(dst, key)
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, reason...)
	dst = append(dst, `","detail":`...)
	dst = appendString(dst, []byte(detail))
	return append(dst, '}')
}

// AppendRecord appends the record message. The timestamp is in milliseconds since the Unix epoch, NoTimestamp
// for none. A nil withKey leaves "key" out. It allocates only what dst has no room for.
func AppendRecord[C string | []byte](dst []byte, cursor C, partition int32, offset, timestamp int64, headers []link.Header, value []byte, tombstone bool, withKey []byte) []byte {
	dst = append(dst, `{"type":"record"`...)
	dst = appendCursor(dst, cursor)
	dst = appendKey(dst, withKey)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(partition), 10)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, offset, 10)
	dst = appendTimestamp(dst, timestamp)
	if len(headers) > 0 {
		dst = append(dst, `,"headers":[`...)
		for i := range headers {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendHeader(dst, &headers[i])
		}
		dst = append(dst, ']')
	}
	switch {
	case tombstone:
		dst = append(dst, `,"tombstone":true`...)
	case !utf8.Valid(value):
		dst = append(dst, `,"base64":`...)
		dst = appendBase64(dst, value)
	case embeddable(value):
		dst = append(dst, `,"value":`...)
		dst = append(dst, value...)
	default:
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, value)
	}
	return append(dst, '}')
}

// AppendCheckpoint appends the checkpoint message.
func AppendCheckpoint[C string | []byte](dst []byte, cursor C) []byte {
	dst = append(dst, `{"type":"checkpoint"`...)
	dst = appendCursor(dst, cursor)
	return append(dst, '}')
}

// CheckpointOverhead is what a checkpoint has beside its cursor, at most, in bytes.
const CheckpointOverhead = 64

// AppendCheckpointSeveral appends the checkpoint of all keys of a socket. So many of them wait for a node; 0 is left
// out, and so is an empty cursor, as long as no key is live.
func AppendCheckpointSeveral[C string | []byte](dst []byte, cursor C, waiting int) []byte {
	dst = append(dst, `{"type":"checkpoint"`...)
	dst = appendCursor(dst, cursor)
	if waiting > 0 {
		dst = append(dst, `,"waiting":`...)
		dst = strconv.AppendInt(dst, int64(waiting), 10)
	}
	return append(dst, '}')
}

// AppendGapOf appends the gap message of one key of several; the cursor is that of all of them.
func AppendGapOf[C string | []byte](dst []byte, cursor C, key []byte, partition int32, from, to int64, reason link.GapReason) []byte {
	dst = append(dst, `{"type":"gap"`...)
	dst = appendCursor(dst, cursor)
	dst = appendKey(dst, key)
	return appendGap(dst, partition, from, to, reason)
}

// AppendGap appends the gap message: the records of the partition in [from, to) can no longer be delivered.
// A negative from is not known and left out.
func AppendGap[C string | []byte](dst []byte, cursor C, partition int32, from, to int64, reason link.GapReason) []byte {
	dst = append(dst, `{"type":"gap"`...)
	dst = appendCursor(dst, cursor)
	return appendGap(dst, partition, from, to, reason)
}

func appendGap(dst []byte, partition int32, from, to int64, reason link.GapReason) []byte {
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, reason.String()...)
	dst = append(dst, `","partition":`...)
	dst = strconv.AppendInt(dst, int64(partition), 10)
	if from >= 0 {
		dst = append(dst, `,"from":`...)
		dst = strconv.AppendInt(dst, from, 10)
	}
	dst = append(dst, `,"to":`...)
	dst = strconv.AppendInt(dst, to, 10)
	return append(dst, '}')
}

// AppendWaiting appends the waiting message.
func AppendWaiting(dst []byte) []byte { return append(dst, `{"type":"waiting"}`...) }

// AppendGoAway appends the goaway message. An empty cursor, before hello, is left out. The delay is rounded
// down to milliseconds.
func AppendGoAway[C string | []byte](dst []byte, cursor C, retryAfter time.Duration) []byte {
	dst = append(dst, `{"type":"goaway"`...)
	dst = appendCursor(dst, cursor)
	dst = append(dst, `,"retry_after_ms":`...)
	dst = strconv.AppendInt(dst, retryAfter.Milliseconds(), 10)
	return append(dst, '}')
}

// AppendExpiring appends the message that announces the end of the client's credentials. The time left is rounded
// down to milliseconds.
func AppendExpiring(dst []byte, left time.Duration) []byte {
	dst = append(dst, `{"type":"expiring","expires_in_ms":`...)
	dst = strconv.AppendInt(dst, max(0, left.Milliseconds()), 10)
	return append(dst, '}')
}

// AppendResume appends the control message that names the cursor when it is too long for the address.
func AppendResume[C string | []byte](dst []byte, cursor C) []byte {
	dst = append(dst, `{"type":"resume"`...)
	dst = appendCursor(dst, cursor)
	return append(dst, '}')
}

// AppendAuth appends the control message that renews credentials. The token must be valid UTF-8.
func AppendAuth[T string | []byte](dst []byte, token T) []byte {
	dst = append(dst, `{"type":"auth","token":`...)
	dst = appendString(dst, []byte(token))
	return append(dst, '}')
}

// AppendSubscribe appends the control message that asks for a key more, from a cursor of it or, with an empty one, from
// where from says ("" is the end).
func AppendSubscribe[C string | []byte](dst []byte, key []byte, cursor C, from string) []byte {
	dst = append(dst, `{"type":"subscribe"`...)
	dst = appendCursor(dst, cursor)
	dst = appendKey(dst, key)
	if from != "" {
		dst = append(dst, `,"from":`...)
		dst = appendString(dst, []byte(from))
	}
	return append(dst, '}')
}

// AppendUnsubscribe appends the control message that asks for a key less.
func AppendUnsubscribe(dst, key []byte) []byte {
	dst = append(dst, `{"type":"unsubscribe"`...)
	dst = appendKey(dst, key)
	return append(dst, '}')
}

// appendCursor trusts that a cursor is base64url and needs no escapes.
func appendCursor[C string | []byte](dst []byte, cursor C) []byte {
	if len(cursor) == 0 {
		return dst
	}
	dst = append(dst, `,"cursor":"`...)
	dst = append(dst, cursor...)
	return append(dst, '"')
}

func appendKey(dst, key []byte) []byte {
	if key == nil {
		return dst
	}
	if utf8.Valid(key) {
		dst = append(dst, `,"key":`...)
		return appendString(dst, key)
	}
	dst = append(dst, `,"key_b64":`...)
	return appendBase64(dst, key)
}

// appendHeader writes the key and either text, base64 or, for Kafka's null, neither.
func appendHeader(dst []byte, h *link.Header) []byte {
	if utf8.Valid(h.Key) {
		dst = append(dst, `{"key":`...)
		dst = appendString(dst, h.Key)
	} else {
		dst = append(dst, `{"key_b64":`...)
		dst = appendBase64(dst, h.Key)
	}
	switch {
	case h.Value == nil:
	case utf8.Valid(h.Value):
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, h.Value)
	default:
		dst = append(dst, `,"base64":`...)
		dst = appendBase64(dst, h.Value)
	}
	return append(dst, '}')
}

// RFC 3339 has four digits for the year; Kafka's milliseconds reach further.
const (
	minTimestamp = -62167219200000 // 0000-01-01T00:00:00.000Z
	maxTimestamp = 253402300799999 // 9999-12-31T23:59:59.999Z
)

// appendTimestamp writes RFC 3339 with milliseconds, in UTC, or "timestamp_ms" for a time that RFC 3339 cannot
// write (a producer that took another unit, usually).
func appendTimestamp(dst []byte, ms int64) []byte {
	if ms == NoTimestamp {
		return dst
	}
	if ms < minTimestamp || ms > maxTimestamp {
		dst = append(dst, `,"timestamp_ms":`...)
		return strconv.AppendInt(dst, ms, 10)
	}
	t := time.UnixMilli(ms).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(dst, `,"timestamp":"`...)
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1e6, 3)
	return append(dst, 'Z', '"')
}

func appendDigits(dst []byte, n, digits int) []byte {
	for range digits {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// appendBase64 writes standard base64 with padding: what a browser's atob takes.
func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// appendString writes valid UTF-8 as a JSON string. U+2028 and U+2029 stand as they are: JSON allows it, and
// nobody reads these messages as JavaScript.
func appendString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	plain := 0
	for i, c := range s {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[plain:i]...)
		plain = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[plain:]...)
	return append(dst, '"')
}
