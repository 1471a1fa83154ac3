package client

import (
	"context"
	"fmt"
	"iter"
	"time"
)

const (
	// DefaultSaveEvery is how often a cursor is saved at most.
	DefaultSaveEvery = time.Second
	// saveTime is how long the last save, in Close, may take.
	saveTime = 5 * time.Second
)

// Storage is where a cursor outlives the program. To have each effect exactly once, store Record.Cursor together with
// the effect instead, and come back with it as Config.Cursor.
type Storage interface {
	// Load gives the cursor that was saved last, "" when there is none.
	Load(ctx context.Context) (string, error)
	// Save is called by one goroutine at a time. What it could not save is saved with the next cursor.
	Save(ctx context.Context, cursor string) error
}

// GapError ends Records when Config.OnGap is not set.
type GapError struct{ Gap Gap }

func (e *GapError) Error() string {
	if e.Gap.From < 0 {
		return fmt.Sprintf("records of partition %d below %d can no longer be delivered: %s", e.Gap.Partition, e.Gap.To, e.Gap.Reason)
	}
	return fmt.Sprintf("records %d to %d of partition %d can no longer be delivered: %s", e.Gap.From, e.Gap.To-1, e.Gap.Partition, e.Gap.Reason)
}

// Records is Events for programs that want records alone. Gaps go to Config.OnGap; without it one ends the iteration
// with a *GapError, and Records may be called again to go on behind it. It ends after the pair with an error.
func (c *Client) Records(ctx context.Context) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		for {
			event, err := c.Next(ctx)
			if err == nil {
				switch e := event.(type) {
				case *Record:
					if !yield(e, nil) {
						return
					}
					continue
				case *Gap:
					err = c.gap(e)
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

func (c *Client) gap(g *Gap) error {
	if c.cfg.OnGap != nil {
		return c.cfg.OnGap(*g)
	}
	return &GapError{Gap: *g}
}

// Commit says that the program is done with the event that Next returned last, without asking for another. Next says
// so by itself; before Close it is worth saying.
func (c *Client) Commit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = c.cursor
}

// load puts the stored cursor in place of none.
func (cfg *Config) load(ctx context.Context) error {
	if cfg.Storage == nil || cfg.Cursor != "" {
		return nil
	}
	cursor, err := cfg.Storage.Load(ctx)
	if err != nil {
		return fmt.Errorf("connect: load the cursor: %w", err)
	}
	cfg.Cursor = cursor
	return nil
}

// save saves the cursor of what the program is done with, again and again until Close and once then.
func (c *Client) save() {
	ticker := time.NewTicker(c.cfg.SaveEvery)
	defer ticker.Stop()
	saved := c.cfg.Cursor
	once := func(ctx context.Context) {
		c.mu.Lock()
		cursor := c.settled
		c.mu.Unlock()
		if cursor == saved {
			return
		}
		if err := c.cfg.Storage.Save(ctx, cursor); err != nil {
			c.count(func(s *Stats) { s.SaveErrors++ })
			return
		}
		saved = cursor
	}
	for {
		select {
		case <-ticker.C:
			once(c.ctx)
		case <-c.ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), saveTime)
			defer cancel()
			once(ctx)
			return
		}
	}
}
