package hub

import (
	"bytes"
	"time"

	"github.com/pointsmanhq/pointsman/proto/cursor"
)

// Client is one session of a key, for operators.
type Client struct {
	Remote    string    `json:"remote"`
	Since     time.Time `json:"since"`
	Protocol  string    `json:"protocol"`         // json or raw
	Node      string    `json:"node,omitempty"`   // that serves it; empty while it waits
	Moving    bool      `json:"moving,omitempty"` // a handover is under way
	Cursor    string    `json:"cursor,omitempty"` // empty until it was greeted
	Partition int32     `json:"partition"`
	Next      int64     `json:"next"` // offset; everything below it was delivered
	// Also lists the other partitions in which the key is followed since partitions were added.
	Also    []Position `json:"also,omitempty"`
	Greeted bool       `json:"greeted"`
	Lag     *int64     `json:"lag,omitempty"` // to the nodes' heads; absent when a head is not known
	Queued  int64      `json:"queued_bytes"`
	Dropped uint64     `json:"duplicates_dropped"`
	Keys    int        `json:"keys,omitempty"` // how many the socket has, if it is one with several; Queued is for all
}

// Position is where a session continues in one partition.
type Position struct {
	Partition int32 `json:"partition"`
	Next      int64 `json:"next"`
}

// Clients lists up to most sessions of a key and says how many there are.
func (h *Hub) Clients(key []byte, most int) (list []Client, total int) {
	hash := cursor.Hash(key)
	seen := map[*Session]bool{}
	list = []Client{}
	for _, b := range *h.buckets.Load() {
		b.mu.Lock()
		var found []*Session
		for _, s := range b.sessions {
			if s.keyHash == hash && bytes.Equal(s.key, key) {
				found = append(found, s)
			}
		}
		b.mu.Unlock()
		for _, s := range found {
			if seen[s] {
				continue
			}
			seen[s] = true
			total++
			if len(list) < most {
				list = append(list, h.client(s))
			}
		}
	}
	return list, total
}

func (h *Hub) client(s *Session) Client {
	t := h.turn()
	defer t.end()
	s.lock()
	defer s.unlock()
	st := s.core.Status()
	c := Client{
		Remote: s.conn.Remote(), Since: s.since.UTC(), Protocol: "json", Moving: s.pending,
		Partition: st.Partition, Greeted: st.Greeted, Queued: s.conn.Owed(), Dropped: st.Dropped,
	}
	if s.raw {
		c.Protocol = "raw"
	}
	if s.sock != nil {
		c.Keys = s.sock.core.Len()
	}
	if p, next, ok := s.core.Cursor(); ok {
		c.Partition, c.Next = p, next
		c.Cursor = string(t.cursorOf(s, p, next))
		if s.core.Several() {
			for _, at := range s.core.Positions(nil) {
				if at.Partition != p {
					c.Also = append(c.Also, Position(at))
				}
			}
		}
	}
	if ln := h.lane(st.Primary); ln != nil {
		c.Node = ln.link.Node
	}
	return c
}
