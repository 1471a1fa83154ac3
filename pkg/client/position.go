package client

import (
	"slices"
	"strings"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// position is what was received: the cursor to reconnect with, and what lies below it. No I/O, no clock.
type position struct {
	cursor string          // with several keys, that of all of them
	single []placed        // newer ones of single keys; of a list joined with dots the last that names a key counts
	had    map[string]bool // keys that were placed on some connection
	next   map[feed]int64  // the lowest offset that is new
}

// placed is where one of several keys continues.
type placed struct{ key, cursor string }

// feed is a key in a partition. With one key on the socket the records do not name it.
type feed struct {
	key       string
	partition int32
}

func newPosition(cursor string) position {
	return position{cursor: cursor, had: map[string]bool{}, next: map[feed]int64{}}
}

// text is the cursor to reconnect with.
func (p *position) text() string {
	if len(p.single) == 0 {
		return p.cursor
	}
	var b strings.Builder
	b.WriteString(p.cursor)
	for _, s := range p.single {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s.cursor)
	}
	return b.String()
}

// place moves one of several keys.
func (p *position) place(key []byte, cursor string) {
	p.had[string(key)] = true
	i := slices.IndexFunc(p.single, func(s placed) bool { return s.key == string(key) })
	if i < 0 {
		p.single = append(p.single, placed{key: string(key)})
		i = len(p.single) - 1
	}
	p.single[i].cursor = cursor
}

// take applies a message and gives the cursor that holds after it ("" for no change), and whether it repeats a
// record that was received.
func (p *position) take(m *clientmsg.Message, asked string) (cursor string, repeat bool) {
	switch m.Type {
	case clientmsg.TypeRecord:
		f := feed{string(m.Key), m.Partition}
		if next, ok := p.next[f]; ok && m.Offset < next {
			return "", true
		}
		p.next[f] = m.Offset + 1
		if m.Key != nil {
			p.place(m.Key, m.Cursor)
			return p.text(), false
		}
	case clientmsg.TypeSubscribed: // with several keys, in place of hello
		if m.Resumed || !p.had[string(m.Key)] {
			p.place(m.Key, m.Cursor)
			return p.text(), false
		}
		return "", false
	case clientmsg.TypeUnsubscribed:
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
		p.cursor, p.single = m.Cursor, nil
	}
	return m.Cursor, false
}

// skip allows for offsets that come a second time: after a gap of these two reasons they are other records.
func (p *position) skip(m *clientmsg.Message) {
	switch m.Reason {
	case link.GapTopic.String():
		clear(p.next)
	case link.GapTruncated.String():
		for f, next := range p.next {
			if f.partition == m.Partition {
				p.next[f] = min(next, m.To)
			}
		}
	}
}
