package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

func ping(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	reading := c.ws.CloseRead(ctx) // pongs are heard by whoever reads; it ends the connection at a message
	for {
		err := c.ws.Ping(ctx)
		if err == nil || reading.Err() == nil || ctx.Err() != nil {
			return err
		}
		c.end()
		if c, err = s.follow(ctx, nil); err != nil {
			return err
		}
		reading = c.ws.CloseRead(ctx)
	}
}

func closing(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	// The library waits five seconds for the answer, and may not say that none came.
	const least = 4 * time.Second
	closed := make(chan error, 1)
	go func() { closed <- c.ws.Close(websocket.StatusNormalClosure, "") }()
	patience := time.NewTimer(min(s.cfg.Patience, least))
	defer patience.Stop()
	select {
	case err = <-closed:
	case <-patience.C:
		c.end()
		err = errors.Join(errors.New("no answer came"), <-closed)
	}
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
