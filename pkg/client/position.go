package client

import (
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// position is what was received: the cursor to reconnect with, and what lies below it. No I/O, no clock.
type position struct {
	cursor string
	next   map[feed]int64 // the lowest offset that is new
}

// feed is a key in a partition. With one key on the socket the records do not name it.
type feed struct {
	key       string
	partition int32
}

func newPosition(cursor string) position {
	return position{cursor: cursor, next: map[feed]int64{}}
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
			// With several keys this is the cursor of one of them; the others would be lost.
			return "", false
		}
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
		p.cursor = m.Cursor
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
