package client

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

// Start is where a key begins that is subscribed: behind Cursor, which has to be one of this key or name it among others,
// or, without one, From, as in Config. The zero Start is the end.
type Start struct{ Cursor, From string }

// ErrOneKey refuses Subscribe and Unsubscribe.
var ErrOneKey = errors.New("the client is one of a single key: connect with Config.Keys or Config.Several")

// keys are the keys that the program wishes, and what the router of the connection at hand was told of them. Each has one
// request at a time under way, so that an answer is never taken for that to another. No I/O, no clock.
type keys struct {
	all   []*wished // in the order in which they were wished
	given bool      // the program came with a cursor, of keys that it knows
	// every is set while the token says which keys there are. A program that changed one of them names the others itself on
	// the next connection, if each has been heard of: one that waits for a node has not.
	every   bool
	changed bool
	named   int // by the token
}

type wished struct {
	key    []byte
	gone   bool   // the program wishes it no more
	begin  *Start // asked for by message; nil when the address names the key, and once the router has granted it
	token  bool   // the token named it
	placed bool   // the router said where it is

	// On the connection at hand.
	live  bool   // the router follows it
	asked string // the type of the request under way, "" for none
	sent  *Start // what a subscribe under way asks for
	after time.Time
	tries int // in a row that were unavailable
}

func newKeys(cfg Config) *keys {
	if cfg.Keys == nil && !cfg.Several {
		return nil
	}
	k := &keys{every: cfg.Keys != nil && len(cfg.Keys) == 0, given: cfg.Cursor != ""}
	for _, key := range cfg.Keys {
		if k.find(key) == nil {
			k.all = append(k.all, &wished{key: bytes.Clone(key)})
		}
	}
	return k
}

func (k *keys) find(key []byte) *wished {
	i := slices.IndexFunc(k.all, func(w *wished) bool { return bytes.Equal(w.key, key) })
	if i < 0 {
		return nil
	}
	return k.all[i]
}

func (k *keys) drop(w *wished) {
	k.all = slices.DeleteFunc(k.all, func(o *wished) bool { return o == w })
}

func (k *keys) subscribe(key []byte, at Start) {
	k.changed = true
	switch w := k.find(key); {
	case w == nil:
		k.all = append(k.all, &wished{key: bytes.Clone(key), begin: &at})
	case w.gone:
		w.gone, w.begin = false, &at
	}
}

func (k *keys) unsubscribe(key []byte) {
	k.changed = true
	w := k.find(key)
	switch {
	case w == nil && k.every: // perhaps the token names it, and it waits for a node
		k.all = append(k.all, &wished{key: bytes.Clone(key), gone: true})
	case w == nil:
	case w.live || w.asked != "" || k.every:
		w.gone, w.begin = true, nil
	default:
		k.drop(w)
	}
}

// connect begins a connection and puts the keys that it begins with into its address. It tells whether a cursor makes
// sense: one that names none of them would be refused.
func (k *keys) connect(q url.Values) (resumes bool) {
	if k.every && k.changed && k.named > 0 {
		heard := 0
		for _, w := range k.all {
			if w.token {
				heard++
			}
		}
		k.every = heard < k.named
	}
	if !k.every {
		k.all = slices.DeleteFunc(k.all, func(w *wished) bool { return w.gone })
	}
	var first [][]byte
	for _, w := range k.all {
		w.live = w.begin == nil && (!k.every || w.token) // all keys of the token, also those that are wished no more
		w.asked, w.sent, w.after, w.tries = "", nil, time.Time{}, 0
		if w.live {
			first = append(first, w.key)
			resumes = resumes || w.placed || k.given
		}
	}
	switch {
	case k.every:
		q.Set("several", "true")
		return true
	case len(first) == 0: // "true" would follow all that the token names
		q.Set("several", "none")
		return false
	}
	q.Set("several", "true")
	text := !slices.ContainsFunc(first, func(key []byte) bool { return !utf8.Valid(key) })
	for _, key := range first {
		if text { // either all as text, or all as bytes
			q.Add("key", string(key))
		} else {
			q.Add("key_b64", base64.RawURLEncoding.EncodeToString(key))
		}
	}
	return resumes
}

// goesOn tells of a key whether it continues where it is.
func (k *keys) goesOn(key string) bool {
	w := k.find([]byte(key))
	if w == nil {
		return k.every
	}
	return !w.gone && w.begin == nil
}

// next is the next request. Without one it gives the wait until there may be one, negative for as long as nothing changes.
func (k *keys) next(now time.Time) (msg []byte, wait time.Duration) {
	wait = -1
	for _, w := range k.all {
		switch {
		case w.asked != "":
		case w.live && (w.gone || w.begin != nil):
			w.asked = clientmsg.TypeUnsubscribe
			return clientmsg.AppendUnsubscribe(nil, w.key), 0
		case w.live || w.gone || w.begin == nil:
		case w.after.After(now):
			if d := w.after.Sub(now); wait < 0 || d < wait {
				wait = d
			}
		default:
			w.asked, w.sent = clientmsg.TypeSubscribe, w.begin
			return clientmsg.AppendSubscribe(nil, w.key, w.begin.Cursor, w.begin.From), 0
		}
	}
	return nil, wait
}

// hear takes a message about keys, and gives the wish that a subscribed grants: nil if the address named the key. again is
// when a subscribe that was unavailable so often in a row is asked for once more.
func (k *keys) hear(m *clientmsg.Message, again func(tries int) time.Time) (granted *Start) {
	w := k.find(m.Key)
	switch {
	case m.Type == clientmsg.TypeHello:
		if k.every {
			k.named = int(m.Keys)
		}
		return nil
	case w == nil && m.Type == clientmsg.TypeSubscribed && k.every:
		k.all = append(k.all, &wished{key: m.Key, token: true, placed: true, live: true})
		return nil
	case w == nil:
		return nil
	case m.Type == clientmsg.TypeSubscribed && w.asked == clientmsg.TypeSubscribe:
		w.asked, w.live, w.placed = "", true, true
		granted = w.sent
		k.settle(w)
	case m.Type == clientmsg.TypeSubscribed:
		w.live, w.placed, w.token = true, true, w.token || k.every
	case m.Type == clientmsg.TypeUnsubscribed && w.asked == clientmsg.TypeUnsubscribe,
		m.Type == clientmsg.TypeRefused && w.asked == clientmsg.TypeUnsubscribe && m.Of == w.asked:
		w.asked, w.live, w.placed = "", false, false
	case m.Type == clientmsg.TypeRefused && w.asked == clientmsg.TypeSubscribe && m.Of == w.asked:
		w.asked = ""
		switch {
		case m.Reason == clientmsg.RefusedUnavailable:
			w.after = again(w.tries)
			w.tries++
		case m.Reason == clientmsg.RefusedAlready: // the token names it
			w.live = true
			k.settle(w)
		case w.begin == w.sent:
			w.gone, w.begin = true, nil
		}
	}
	if w.gone && !w.live && w.asked == "" && !w.token {
		k.drop(w)
	}
	return granted
}

// settle takes a wish as granted, unless the program has had another one since.
func (*keys) settle(w *wished) {
	if w.begin == w.sent {
		w.begin = nil
	}
}

func (at Start) check() error {
	switch {
	case at.Cursor != "" && at.From != "":
		return errors.New("give either a cursor or where to begin, not both")
	case !utf8.ValidString(at.From):
		return errors.New("where to begin is not UTF-8")
	}
	for _, c := range []byte(at.Cursor) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return fmt.Errorf("a cursor has no %q", c)
		}
	}
	return nil
}
