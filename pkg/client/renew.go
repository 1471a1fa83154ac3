package client

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

// renewer sends fresh credentials on one connection when the router says that the old ones end. Its goroutine exists
// from the first such word to the end of the connection, because asking for a token may take long and records must go
// on meanwhile.
type renewer struct {
	// Static after construction.
	c    *Client
	ctx  context.Context // ends with the connection
	conn *websocket.Conn
	ask  chan struct{} // capacity 1; never closed

	started bool // owned by the connection's reader
	wg      sync.WaitGroup
}

func (c *Client) renewer(ctx context.Context, conn *websocket.Conn) *renewer {
	return &renewer{c: c, ctx: ctx, conn: conn, ask: make(chan struct{}, 1)}
}

// soon renews once more, or once after what is under way.
func (r *renewer) soon() {
	if r.c.cfg.Token == nil {
		return
	}
	select {
	case r.ask <- struct{}{}:
	default:
	}
	if !r.started {
		r.started = true
		r.wg.Go(r.run)
	}
}

func (r *renewer) run() {
	for {
		select {
		case <-r.ask:
			r.renew()
		case <-r.ctx.Done():
			return
		}
	}
}

// renew tries until a token was sent or the connection has ended, which it does when the old one runs out.
func (r *renewer) renew() {
	for attempt := 0; ; attempt++ {
		err := r.once()
		if err == nil {
			r.c.count(func(s *Stats) { s.Renewals++ })
			return
		}
		timer := time.NewTimer(r.c.backoff(attempt))
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (r *renewer) once() error {
	ctx, cancel := context.WithTimeout(r.ctx, r.c.cfg.DialTimeout)
	defer cancel()
	token, err := r.c.cfg.Token(ctx)
	if err != nil {
		return err
	}
	return r.conn.Write(ctx, websocket.MessageText, clientmsg.AppendAuth(nil, strings.ToValidUTF8(token, "")))
}

// stale reports whether a refusal may be about a token that was too old, and that the next one is worth a try.
func (c *Client) stale(refused *RefusedError) bool {
	if refused.Status != http.StatusUnauthorized || c.cfg.Token == nil || c.doubted {
		return false
	}
	c.doubted = true
	return true
}
