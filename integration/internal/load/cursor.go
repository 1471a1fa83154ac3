package load

import (
	"errors"
	"fmt"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/proto/cursor"
)

// ReadCursor is where a cursor of the key points. Clients need not look into cursors; the checker does, since a
// wrong one loses records only after the next reconnect.
func ReadCursor(text, key string) ([]checker.Position, error) {
	c, err := cursor.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("cursor: %w", err)
	}
	feed, ok := c.For([]byte(key))
	if !ok {
		return nil, errors.New("cursor is not of the client's key")
	}
	out := make([]checker.Position, 0, len(feed.Positions))
	for _, p := range feed.Positions {
		out = append(out, checker.Position{Partition: p.Partition, Next: p.Next})
	}
	return out, nil
}
