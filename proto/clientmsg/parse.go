package clientmsg

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// ErrMalformed is wrapped by every error of Parse, ParseControl and DecodeKey.
var ErrMalformed = errors.New("malformed message")

var errNotObject = fmt.Errorf("%w: not a JSON object", ErrMalformed)

// MaxControl bounds a message from a client, in bytes: a cursor of full length and a long token fit.
const MaxControl = 128 << 10

// Form says how a record's value was carried.
type Form uint8

// The forms of a value.
const (
	FormNone   Form = iota // no value: a tombstone, or not a record
	FormJSON               // "value": JSON, byte for byte as the producer wrote it
	FormText               // "text"
	FormBase64             // "base64"
)

// Message is what a router sent; which fields mean something depends on Type.
type Message struct {
	Type       string // a type that this package does not know is to be ignored
	Cursor     string
	Key        []byte // nil when the message names none
	Resumed    bool
	Heartbeat  time.Duration
	Partition  int32
	Offset     int64
	Timestamp  int64 // milliseconds since the Unix epoch; NoTimestamp when absent
	Headers    []link.Header
	Value      []byte // as the producer wrote it; nil only without a value
	Form       Form
	Tombstone  bool
	Reason     string
	Of         string // what a refused message answers
	Detail     string // of a refused message, for people
	Several    bool   // of hello: the socket is one with several keys
	Keys       int32  // of that hello: how many are followed from the start
	Waiting    int32  // of its checkpoints: how many keys wait for a node
	From       int64  // -1 when not known
	To         int64
	RetryAfter time.Duration
	ExpiresIn  time.Duration
}

// Control is what a client sent.
type Control struct {
	Type   string // TypeResume, TypeAuth, TypeSubscribe or TypeUnsubscribe
	Cursor string // of TypeResume, and of TypeSubscribe, where "" is none
	Token  string // of TypeAuth
	Key    []byte // of TypeSubscribe and TypeUnsubscribe, never nil there
	From   string // of TypeSubscribe, "" for none
}

// Parse reads one message from a router. Unknown fields are ignored, and a message of an unknown type is no
// error. Value aliases msg when its form is FormJSON.
func Parse(msg []byte) (Message, error) {
	m := Message{Timestamp: NoTimestamp, From: -1}
	err := object(msg, MaxNesting+1, func(name, raw []byte) error {
		switch string(name) {
		case "type":
			return str(raw, &m.Type)
		case "cursor":
			return str(raw, &m.Cursor)
		case "key":
			return text(raw, &m.Key)
		case "key_b64":
			return base64Bytes(raw, &m.Key)
		case "resumed":
			return json.Unmarshal(raw, &m.Resumed)
		case "heartbeat_ms":
			return milliseconds(raw, &m.Heartbeat)
		case "partition":
			return number(raw, &m.Partition)
		case "offset":
			return number(raw, &m.Offset)
		case "timestamp":
			var t time.Time
			if err := json.Unmarshal(raw, &t); err != nil {
				return err
			}
			m.Timestamp = t.UnixMilli()
			return nil
		case "timestamp_ms":
			return number(raw, &m.Timestamp)
		case "headers":
			return parseHeaders(raw, &m.Headers)
		case "value":
			m.Value, m.Form = raw, FormJSON
			return nil
		case "text":
			m.Form = FormText
			return text(raw, &m.Value)
		case "base64":
			m.Form = FormBase64
			return base64Bytes(raw, &m.Value)
		case "tombstone":
			return json.Unmarshal(raw, &m.Tombstone)
		case "reason":
			return str(raw, &m.Reason)
		case "of":
			return str(raw, &m.Of)
		case "detail":
			return str(raw, &m.Detail)
		case "keys":
			m.Several = true
			return number(raw, &m.Keys)
		case "waiting":
			return number(raw, &m.Waiting)
		case "from":
			return number(raw, &m.From)
		case "to":
			return number(raw, &m.To)
		case "retry_after_ms":
			return milliseconds(raw, &m.RetryAfter)
		case "expires_in_ms":
			return milliseconds(raw, &m.ExpiresIn)
		}
		return nil
	})
	if err != nil {
		return Message{}, err
	}
	if m.Type == "" {
		return Message{}, fmt.Errorf("%w: it has no type", ErrMalformed)
	}
	if m.Type == TypeRecord && m.Tombstone == (m.Form != FormNone) {
		return Message{}, fmt.Errorf("%w: a record needs either a value or tombstone", ErrMalformed)
	}
	return m, nil
}

// ParseControl reads one message from a client. Unknown fields are ignored, unknown types refused.
func ParseControl(msg []byte) (Control, error) {
	var c Control
	var key, key64, from []byte // read only where they mean something
	if len(msg) > MaxControl {
		return c, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(msg), MaxControl)
	}
	err := object(msg, MaxNesting, func(name, raw []byte) error {
		switch string(name) {
		case "type":
			return str(raw, &c.Type)
		case "cursor":
			return str(raw, &c.Cursor)
		case "token":
			return str(raw, &c.Token)
		case "key":
			key = raw
		case "key_b64":
			key64 = raw
		case "from":
			from = raw
		}
		return nil
	})
	switch {
	case err != nil:
		return Control{}, err
	case c.Type == TypeResume && c.Cursor != "":
		return Control{Type: c.Type, Cursor: c.Cursor}, nil
	case c.Type == TypeAuth && c.Token != "":
		return Control{Type: c.Type, Token: c.Token}, nil
	case c.Type == TypeSubscribe, c.Type == TypeUnsubscribe:
		if c.Key, err = controlKey(c.Type, key, key64); err != nil {
			return Control{}, err
		}
		if c.Type == TypeUnsubscribe {
			return Control{Type: c.Type, Key: c.Key}, nil
		}
		if from != nil {
			if err := str(from, &c.From); err != nil {
				return Control{}, fmt.Errorf("%w: from: %w", ErrMalformed, err)
			}
		}
		return Control{Type: c.Type, Key: c.Key, Cursor: c.Cursor, From: c.From}, nil
	case c.Type == TypeResume:
		return Control{}, fmt.Errorf("%w: resume needs a cursor", ErrMalformed)
	case c.Type == TypeAuth:
		return Control{}, fmt.Errorf("%w: auth needs a token", ErrMalformed)
	case c.Type == "":
		return Control{}, fmt.Errorf("%w: it has no type", ErrMalformed)
	}
	return Control{}, fmt.Errorf("%w: unknown type %.40q", ErrMalformed, c.Type)
}

// controlKey reads the key that a message is about.
func controlKey(of string, key, key64 []byte) (k []byte, err error) {
	switch {
	case key != nil && key64 != nil:
		return nil, fmt.Errorf("%w: %s has either key or key_b64, not both", ErrMalformed, of)
	case key != nil:
		err = text(key, &k)
	case key64 != nil:
		var s string
		if err = str(key64, &s); err == nil {
			k, err = DecodeKey(s)
		}
	default:
		return nil, fmt.Errorf("%w: %s needs a key", ErrMalformed, of)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: key: %w", ErrMalformed, err)
	}
	return k, nil
}

// DecodeKey reads ?key_b64= or "key_b64": base64 in the standard or the URL alphabet, padded or not.
func DecodeKey(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: key_b64 is not base64", ErrMalformed)
	}
	key, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: key_b64 is not base64", ErrMalformed)
	}
	return key, nil
}

// object calls field for each name and value of the JSON object that msg is. A value keeps the space around
// it: between the colon and the next comma or brace it is byte for byte what the sender put there.
func object(msg []byte, nesting int, field func(name, raw []byte) error) error {
	if !utf8.Valid(msg) {
		return fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	sc := scanner{s: msg, max: nesting}
	sc.space()
	if !sc.byte('{') {
		return errNotObject
	}
	sc.space()
	for more := !sc.byte('}'); more; {
		sc.space()
		from := sc.i
		if !sc.str() {
			return errNotObject
		}
		name := sc.s[from+1 : sc.i-1]
		sc.space()
		if !sc.byte(':') {
			return errNotObject
		}
		from = sc.i
		if !sc.value() {
			return errNotObject
		}
		sc.space()
		raw := sc.s[from:sc.i:sc.i]
		if more = sc.byte(','); !more && !sc.byte('}') {
			return errNotObject
		}
		// A name spelt with escapes is none that we send; it is unknown.
		if err := field(name, raw); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
		}
	}
	sc.space()
	if sc.i != len(sc.s) {
		return errNotObject
	}
	return nil
}

// plain returns what stands between the quotes of a string that has no escapes.
func plain(raw []byte) ([]byte, bool) {
	if n := len(raw); n >= 2 && raw[0] == '"' && raw[n-1] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : n-1], true
	}
	return nil, false
}

func str(raw []byte, dst *string) error {
	if s, ok := plain(raw); ok {
		*dst = string(s)
		return nil
	}
	return json.Unmarshal(raw, dst)
}

func number[N int32 | int64](raw []byte, dst *N) error {
	n := N(0)
	for i, c := range raw {
		if c < '0' || c > '9' || i == 9 {
			return json.Unmarshal(raw, dst)
		}
		n = 10*n + N(c-'0')
	}
	*dst = n
	return nil
}

func text(raw []byte, dst *[]byte) error {
	if s, ok := plain(raw); ok {
		*dst = append([]byte{}, s...)
		return nil
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	if s == nil {
		return errors.New("null is no text")
	}
	*dst = []byte(*s)
	return nil
}

func base64Bytes(raw []byte, dst *[]byte) error {
	var b []byte
	if err := json.Unmarshal(raw, &b); err != nil {
		return err
	}
	if b == nil {
		return errors.New("null is no base64")
	}
	*dst = b
	return nil
}

func milliseconds(raw []byte, dst *time.Duration) error {
	var n int64
	if err := number(raw, &n); err != nil {
		return err
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	if n < 0 || n > most {
		return fmt.Errorf("%d milliseconds", n)
	}
	*dst = time.Duration(n) * time.Millisecond
	return nil
}

func parseHeaders(raw []byte, dst *[]link.Header) error {
	var in []struct {
		Key    *string `json:"key"`
		KeyB64 []byte  `json:"key_b64"`
		Text   *string `json:"text"`
		Base64 []byte  `json:"base64"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*dst = make([]link.Header, len(in))
	for i, h := range in {
		out := link.Header{Key: h.KeyB64, Value: h.Base64}
		if h.Key != nil {
			out.Key = []byte(*h.Key)
		}
		if h.Text != nil {
			out.Value = []byte(*h.Text)
		}
		(*dst)[i] = out
	}
	return nil
}
