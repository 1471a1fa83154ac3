package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

// Requests for keys go out at a pace that routers allow by default (--client-message-rate), with room for answers to pings:
// so many at once, and then one each tellEvery.
const (
	tellBurst = 50
	tellEvery = 100 * time.Millisecond
)

// Subscribe follows a key more, with Config.Keys or Config.Several, on the open connection and on those after it. The
// answer is an event: *Subscribed, or *Refused. A key that is followed already goes on where it is; to begin it elsewhere
// unsubscribe it before. It does not wait: what cannot be said now is said when it can.
func (c *Client) Subscribe(key []byte, at Start) error {
	if err := at.check(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return c.change("subscribe", func(k *keys) { k.subscribe(key, at) })
}

// Unsubscribe follows a key less. Records of it may come until *Unsubscribed does. A key that is not followed is no error.
func (c *Client) Unsubscribe(key []byte) error {
	return c.change("unsubscribe", func(k *keys) { k.unsubscribe(key) })
}

func (c *Client) change(what string, change func(*keys)) error {
	if c.keys == nil {
		return fmt.Errorf("%s: %w", what, ErrOneKey)
	}
	select {
	case <-c.done:
		return fmt.Errorf("%s: %w", what, c.err)
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.keys)
	c.wake()
	return nil
}

// wake lets tell look for requests.
func (c *Client) wake() {
	select {
	case c.told <- struct{}{}:
	default:
	}
}

// hear takes what the router says about keys; granted is as in keys.hear. The first message of a connection begins tell.
func (c *Client) hear(m *clientmsg.Message) (granted *Start) {
	if c.keys == nil {
		return nil
	}
	switch m.Type {
	case clientmsg.TypeHello, clientmsg.TypeSubscribed, clientmsg.TypeUnsubscribed, clientmsg.TypeRefused:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	granted = c.keys.hear(m, func(tries int) time.Time { return time.Now().Add(c.backoff(tries + 1)) })
	c.wake()
	return granted
}

// teller asks for keys on one connection, from its hello to its end. Its owner is the connection's reader.
type teller struct {
	c    *Client
	ctx  context.Context // ends with the connection
	conn *websocket.Conn

	started bool
	wg      sync.WaitGroup
}

func (t *teller) start() {
	if t.c.keys == nil || t.started {
		return
	}
	t.started = true
	t.wg.Go(t.run)
}

func (t *teller) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	paid := time.Now() // until when the requests so far have taken up the pace
	for {
		t.c.mu.Lock()
		now := time.Now()
		wait := paid.Sub(now) - tellBurst*tellEvery
		var msg []byte
		if wait <= 0 {
			msg, wait = t.c.keys.next(now)
		}
		t.c.mu.Unlock()
		if msg != nil {
			if t.write(msg) != nil {
				return // and the reader hears of it
			}
			if paid.Before(now) {
				paid = now
			}
			paid = paid.Add(tellEvery)
			continue
		}
		var later <-chan time.Time
		if wait >= 0 {
			timer.Reset(wait)
			later = timer.C
		}
		select {
		case <-later:
		case <-t.c.told:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *teller) write(msg []byte) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.c.cfg.DialTimeout)
	defer cancel()
	return t.conn.Write(ctx, websocket.MessageText, msg)
}
