package client

import (
	"slices"
	"strings"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// position is what was received: the cursor to reconnect with, and what lies below it. No I/O, no clock.
type position struct {
	// Of cursors joined with dots the last that names a key counts. So those of floor are for keys that cursor does not
	// name; which these are its opaque text does not tell.
	floor  []placed
	cursor string         // with several keys, that of all of them
	single []placed       // newer ones of single keys
	next   map[feed]int64 // the lowest offset that is new
}

// placed is where one of several keys continues.
type placed struct{ key, cursor string }

// feed is a key in a partition. With one key on the socket the records do not name it.
type feed struct {
	key       string
	partition int32
}

func newPosition(cursor string) position {
	return position{cursor: cursor, next: map[feed]int64{}}
}

// text is the cursor to reconnect with.
func (p *position) text() string {
	if len(p.floor)+len(p.single) == 0 {
		return p.cursor
	}
	var b strings.Builder
	join := func(cursor string) {
		if b.Len() > 0 && cursor != "" {
			b.WriteByte('.')
		}
		b.WriteString(cursor)
	}
	for _, s := range p.floor {
		join(s.cursor)
	}
	join(p.cursor)
	for _, s := range p.single {
		join(s.cursor)
	}
	return b.String()
}

// move moves one of several keys.
func move(list []placed, key []byte, cursor string) []placed {
	i := slices.IndexFunc(list, func(s placed) bool { return s.key == string(key) })
	if i < 0 {
		return append(list, placed{key: string(key), cursor: cursor})
	}
	list[i].cursor = cursor
	return list
}

// begin places a key that the router did not continue. If it had a place, a gap follows and moves it; should the
// connection break before, the next one must be told of the gap again.
func (p *position) begin(key []byte, cursor string) {
	switch {
	case slices.ContainsFunc(p.single, func(s placed) bool { return s.key == string(key) }):
	case p.cursor == "":
		p.single = move(p.single, key, cursor)
	default:
		p.floor = move(p.floor, key, cursor)
	}
}

// forget lets a key begin again wherever the program wants it to.
func (p *position) forget(key string) {
	here := func(s placed) bool { return s.key == key }
	p.floor, p.single = slices.DeleteFunc(p.floor, here), slices.DeleteFunc(p.single, here)
	for f := range p.next {
		if f.key == key {
			delete(p.next, f)
		}
	}
}

// keep forgets the keys that do not go on: the router's answer to an unsubscribe may be lost with its connection.
func (p *position) keep(goesOn func(key string) bool) {
	for _, s := range slices.Concat(p.floor, p.single) {
		if !goesOn(s.key) {
			p.forget(s.key)
		}
	}
	for f := range p.next {
		if !goesOn(f.key) {
			delete(p.next, f)
		}
	}
}

// take applies a message and gives the cursor that holds after it ("" for no change), and whether it repeats a
// record that was received. granted is what the program asked for by a subscribe that a subscribed answers.
func (p *position) take(m *clientmsg.Message, asked string, granted *Start) (cursor string, repeat bool) {
	switch m.Type {
	case clientmsg.TypeRecord:
		f := feed{string(m.Key), m.Partition}
		if next, ok := p.next[f]; ok && m.Offset < next {
			return "", true
		}
		p.next[f] = m.Offset + 1
		if m.Key != nil {
			p.single = move(p.single, m.Key, m.Cursor)
			return p.text(), false
		}
	case clientmsg.TypeSubscribed: // with several keys, in place of hello
		switch {
		case granted != nil:
			at := m.Cursor
			if granted.Cursor != "" && !m.Resumed { // as with hello the gap that follows moves the cursor
				at = granted.Cursor
			}
			p.forget(string(m.Key))
			p.single = move(p.single, m.Key, at)
		case m.Resumed:
			p.single = move(p.single, m.Key, m.Cursor)
		default:
			p.begin(m.Key, m.Cursor)
		}
		return p.text(), false
	case clientmsg.TypeUnsubscribed:
		p.forget(string(m.Key))
		return p.text(), false
	case clientmsg.TypeRefused:
		return "", false
	case clientmsg.TypeHello:
		if asked != "" && !m.Resumed {
			// The gap that follows moves the cursor. Should the connection break before it, the next one must
			// be told of the gap again.
			return "", false
		}
	case clientmsg.TypeGap:
		p.skip(m)
	}
	if m.Cursor != "" {
		p.cursor, p.floor, p.single = m.Cursor, nil, nil
	}
	return m.Cursor, false
}

// skip allows for offsets that come a second time: after a gap of these two reasons they are other records.
func (p *position) skip(m *clientmsg.Message) {
	switch m.Reason {
	case link.GapTopic.String():
		for f := range p.next {
			if m.Key == nil || f.key == string(m.Key) {
				delete(p.next, f)
			}
		}
	case link.GapTruncated.String():
		for f, next := range p.next {
			if f.partition == m.Partition && (m.Key == nil || f.key == string(m.Key)) {
				p.next[f] = min(next, m.To)
			}
		}
	}
}
