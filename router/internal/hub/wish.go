package hub

import (
	"slices"

	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// Wish is what a client asks for, checked as far as it can be without the table.
type Wish struct {
	Key     []byte
	Raw     bool            // pointsman.raw.v1
	Cursors []cursor.Cursor // empty: begin at Start
	Start   link.Start
}

// resolve makes a wish concrete with the table in force.
func (v *view) resolve(w Wish) (session.Open, error) {
	if v.fit != nil {
		return session.Open{}, v.fit
	}
	o := session.Open{Key: w.Key, Partition: v.partitioner.Partition(w.Key, v.Partitions()), TopicID: v.TopicID}
	path := v.path(w.Key)
	if len(w.Cursors) == 0 {
		o.From(path, w.Start)
		return o, nil
	}
	topicID, feed, ok := cursor.Of(w.Cursors, w.Key)
	if !ok {
		return session.Open{}, ErrNoCursor
	}
	if topicID != v.TopicID {
		o.Gap = link.GapTopic
		o.From(path, link.Start{Kind: link.StartEarliest})
		return o, nil
	}
	at := positions(feed)
	if slices.ContainsFunc(at, func(p session.Position) bool { return p.Partition >= v.Partitions() }) {
		return session.Open{}, ErrBehind
	}
	o.At(path, at)
	return o, nil
}

func positions(feed cursor.Feed) []session.Position {
	at := make([]session.Position, 0, len(feed.Positions))
	for _, p := range feed.Positions {
		at = append(at, session.Position{Partition: p.Partition, Next: p.Next})
	}
	return at
}

// path is a key's way through the topic's growth, nil if it never moved.
func (v *view) path(key []byte) []session.Stage {
	return v.Path(func(partitions int32) int32 { return v.partitioner.Partition(key, partitions) })
}

// Check tells whether a wish could be granted now, without granting it.
func (h *Hub) Check(w Wish) error {
	_, err := h.view.Load().resolve(w)
	return err
}

// Partition is where a key lives now; false before the topic is known.
func (h *Hub) Partition(key []byte) (int32, bool) {
	v := h.view.Load()
	if v.fit != nil {
		return 0, false
	}
	return v.partitioner.Partition(key, v.Partitions()), true
}
