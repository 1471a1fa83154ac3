package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

const (
	// firstSilence is how long a connection may be silent before the router has announced its heartbeat.
	firstSilence = 30 * time.Second
	// closeTime is how long Close waits for the router to confirm.
	closeTime = time.Second
	// longCursor is the length, in bytes, above which a cursor goes as a message: proxies bound request lines.
	longCursor = 1500
)

// errSilent ends a connection on which nothing was heard for too long.
var errSilent = errors.New("nothing was heard from the router for longer than its heartbeat allows")

// ending is how an attempt ended.
type ending struct {
	err   error
	fatal bool          // trying again would not mend it
	lost  bool          // there was a connection
	lived time.Duration // how long
	after time.Duration // how long the router asks to stay away, -1 for no wish
}

// run connects again and again until Close or an error that trying again would not mend.
func (c *Client) run() {
	defer close(c.done)
	defer close(c.events)
	attempt := 0
	for i := 0; ; i++ {
		u := c.urls[i%len(c.urls)]
		end := c.attempt(u)
		if end.lost {
			c.count(func(s *Stats) { s.Lost++ })
		}
		c.last = end.err
		if c.ctx.Err() != nil {
			c.err = ErrClosed
			return
		}
		if end.fatal {
			c.err = end.err
			return
		}
		if end.lived >= c.cfg.MaxBackoff {
			attempt = 0
		}
		wait := max(c.backoff(attempt), end.after)
		if end.lost && end.after >= 0 {
			// The router went in order and spreads its clients itself.
			wait = max(c.backoff(0), end.after)
		}
		attempt++
		event := Disconnected{URL: u.Host, Err: end.err, Lost: end.lost, RetryIn: wait}
		if c.wasOpened() {
			c.emit(item{event: &event})
		} else if c.cfg.Retrying != nil {
			c.cfg.Retrying(event)
		}
		if !c.sleep(wait) {
			c.err = ErrClosed
			return
		}
	}
}

// backoff is the wait before an attempt, the first being 0: up to the least at first, then twice as much
// each time, of which the upper half is chance.
func (c *Client) backoff(attempt int) time.Duration {
	if attempt == 0 {
		return rand.N(c.cfg.MinBackoff)
	}
	d := c.cfg.MaxBackoff
	if shift := min(attempt, 30); c.cfg.MinBackoff<<shift>>shift == c.cfg.MinBackoff {
		d = min(d, c.cfg.MinBackoff<<shift)
	}
	return d/2 + rand.N(d/2+1)
}

func (c *Client) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// emit hands an event to Next; false when the client is closed.
func (c *Client) emit(it item) bool {
	select {
	case c.events <- it:
		return true
	case <-c.ctx.Done():
		return false
	}
}

func (c *Client) wasOpened() bool {
	select {
	case <-c.opened:
		return true
	default:
		return false
	}
}

// attempt connects and serves until the connection ends.
func (c *Client) attempt(base *url.URL) ending {
	u, cursor := c.next(base)
	conn, wire, err := c.dial(u, cursor)
	if err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) {
			return ending{err: err, fatal: !refused.Retry() && !c.stale(refused), after: refused.RetryAfter}
		}
		return ending{err: err, after: -1}
	}
	c.doubted = false
	if !c.wasOpened() {
		close(c.opened)
	}
	c.count(func(s *Stats) { s.Connections++ })
	begun := time.Now()

	// Close ends the connection from outside; its goodbye has a bound.
	goodbye := make(chan struct{})
	stop := context.AfterFunc(c.ctx, func() {
		defer close(goodbye)
		if wire != nil { // Close alone may wait for 10 s, and CloseNow waits for it
			_ = wire.SetDeadline(time.Now().Add(closeTime))
		}
		_ = conn.Close(websocket.StatusNormalClosure, "")
	})
	end := c.serve(conn, u, cursor)
	if !stop() {
		<-goodbye
	}
	_ = conn.CloseNow()
	end.lost = c.ctx.Err() == nil
	end.lived = time.Since(begun)
	return end
}

// next is what the next connection begins with: its address, with the keys where there may be several, and the cursor.
func (c *Client) next(base *url.URL) (u *url.URL, cursor string) {
	if c.keys == nil {
		return base, c.position.text()
	}
	at := *base
	q := at.Query()
	c.mu.Lock()
	defer c.mu.Unlock()
	resumes := c.keys.connect(q)
	at.RawQuery = q.Encode()
	c.position.keep(c.keys.goesOn)
	if resumes {
		cursor = c.position.text()
	}
	return &at, cursor
}

// dial gives the WebSocket connection and what it runs on.
func (c *Client) dial(u *url.URL, cursor string) (conn *websocket.Conn, wire net.Conn, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.DialTimeout)
	defer cancel()
	header := c.cfg.Header.Clone()
	if c.cfg.Token != nil {
		token, err := c.cfg.Token(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("get a token: %w", err)
		}
		if header == nil {
			header = http.Header{}
		}
		header.Set("Authorization", "Bearer "+token)
	}
	target, asMessage := c.target(u, cursor)
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { wire = info.Conn },
	})
	conn, resp, err := websocket.Dial(traced, target, &websocket.DialOptions{ //nolint:bodyclose // the library keeps it or has read it to its end
		HTTPClient: c.cfg.HTTPClient, HTTPHeader: header, Subprotocols: []string{clientmsg.JSON},
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, nil, refusal(resp)
		}
		return nil, nil, fmt.Errorf("connect to %s: %w", u.Host, err)
	}
	conn.SetReadLimit(c.cfg.ReadLimit)
	if asMessage {
		if err := resume(ctx, conn, cursor); err != nil {
			_ = conn.CloseNow()
			return nil, nil, fmt.Errorf("connect to %s: send cursor: %w", u.Host, err)
		}
	}
	return conn, wire, nil
}

// target is the URL to ask; asMessage says that the cursor has to follow as a message.
func (c *Client) target(u *url.URL, cursor string) (target string, asMessage bool) {
	at := *u
	q := at.Query()
	switch {
	case len(cursor) > longCursor:
		q.Set("resume", "message")
		asMessage = true
	case cursor != "":
		q.Set("cursor", cursor)
	}
	if c.cfg.From != "" && !asMessage && (cursor == "" || c.keys != nil) && q.Get("several") != "none" { // of several keys some may have no place
		q.Set("from", c.cfg.From)
	}
	at.RawQuery = q.Encode()
	return at.String(), asMessage
}

func resume(ctx context.Context, conn *websocket.Conn, cursor string) error {
	msg, err := json.Marshal(struct {
		Type   string `json:"type"`
		Cursor string `json:"cursor"`
	}{clientmsg.TypeResume, cursor})
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, msg)
}

func refusal(resp *http.Response) *RefusedError {
	e := &RefusedError{Status: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	if resp.Body != nil {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // a reason that is cut is better than none
		e.Reason, _, _ = strings.Cut(strings.TrimSpace(string(body)), "\n")
	}
	return e
}

// serve reads one connection to its end. The router's silence is measured only while it reads, and any byte of
// a message breaks it: a large record on a slow line is not silence.
func (c *Client) serve(conn *websocket.Conn, u *url.URL, asked string) ending {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(c.ctx))
	renewer := c.renewer(ctx, conn)
	teller := &teller{c: c, ctx: ctx, conn: conn}
	defer teller.wg.Wait()
	defer renewer.wg.Wait()
	defer cancel(nil)
	limit := c.silence(firstSilence)
	watch := time.AfterFunc(limit, func() { cancel(errSilent) })
	defer watch.Stop()
	end := ending{after: -1}
	var buf bytes.Buffer
	for {
		watch.Reset(limit)
		err := readMessage(ctx, conn, &buf, func() { watch.Reset(limit) })
		watch.Stop()
		if err != nil {
			end.err, end.fatal = failure(ctx, u, err)
			return end
		}
		// The message is copied because a value aliases it, and the program may keep values.
		m, err := clientmsg.Parse(bytes.Clone(buf.Bytes()))
		if err != nil {
			end.err = fmt.Errorf("read from %s: %w", u.Host, err)
			return end
		}
		switch m.Type {
		case clientmsg.TypeHello:
			limit = c.silence(m.Heartbeat + m.Heartbeat/2)
			teller.start()
		case clientmsg.TypeGoAway:
			end.after = m.RetryAfter
		case clientmsg.TypeExpiring:
			renewer.soon()
		}
		if !c.deliver(u, &m, asked) {
			end.err = ErrClosed
			return end
		}
	}
}

func (c *Client) silence(announced time.Duration) time.Duration {
	switch {
	case c.cfg.Silence > 0:
		return c.cfg.Silence
	case announced > 0:
		return announced
	}
	return firstSilence
}

func readMessage(ctx context.Context, conn *websocket.Conn, buf *bytes.Buffer, heard func()) error {
	_, r, err := conn.Reader(ctx)
	if err != nil {
		return err
	}
	buf.Reset()
	if buf.Cap() > 1<<20 {
		*buf = bytes.Buffer{} // one large record must not be held for the connection's life
	}
	_, err = buf.ReadFrom(progress{r, heard})
	return err
}

// progress tells of every read that brought something.
type progress struct {
	r     io.Reader
	heard func()
}

func (p progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.heard()
	}
	return n, err
}

// failure says why a connection ended, and whether trying again is useless.
func failure(ctx context.Context, u *url.URL, err error) (_ error, fatal bool) {
	var closed websocket.CloseError
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return fmt.Errorf("read from %s: %w", u.Host, errSilent), false
	case errors.As(err, &closed) && closed.Code != websocket.StatusNoStatusRcvd:
		e := &CloseError{Code: int(closed.Code), Reason: closed.Reason}
		return e, !e.Retry()
	case errors.Is(err, websocket.ErrMessageTooBig):
		return fmt.Errorf("read from %s: a message is larger than Config.ReadLimit: %w", u.Host, err), true
	}
	return fmt.Errorf("read from %s: %w", u.Host, err), false
}

// deliver turns a message into an event; false when the client is closed.
func (c *Client) deliver(u *url.URL, m *clientmsg.Message, asked string) bool {
	cursor, repeat := c.position.take(m, asked, c.hear(m))
	it := item{cursor: cursor}
	switch m.Type {
	case clientmsg.TypeHello:
		it.event = &Hello{URL: u.Host, Cursor: m.Cursor, Key: m.Key, Resumed: m.Resumed, Heartbeat: m.Heartbeat}
	case clientmsg.TypeRecord:
		if repeat {
			c.count(func(s *Stats) { s.Repeats++ })
			if !c.cfg.KeepRepeats {
				return true
			}
		}
		it.event = record(m)
	case clientmsg.TypeSubscribed:
		it.event = &Subscribed{Cursor: m.Cursor, Key: m.Key, Resumed: m.Resumed}
	case clientmsg.TypeUnsubscribed:
		it.event = &Unsubscribed{Cursor: m.Cursor, Key: m.Key}
	case clientmsg.TypeRefused:
		it.event = &Refused{Of: m.Of, Key: m.Key, Reason: m.Reason, Detail: m.Detail}
	case clientmsg.TypeCheckpoint:
		it.event = &Checkpoint{Cursor: m.Cursor}
	case clientmsg.TypeGap:
		it.event = &Gap{Cursor: m.Cursor, Key: m.Key, Reason: m.Reason, Partition: m.Partition, From: m.From, To: m.To}
	case clientmsg.TypeWaiting:
		it.event = &Waiting{}
	case clientmsg.TypeGoAway:
		it.event = &GoAway{Cursor: m.Cursor, RetryAfter: m.RetryAfter}
	case clientmsg.TypeExpiring:
		it.event = &Expiring{In: m.ExpiresIn}
	default:
		return true // of a newer router, for newer clients
	}
	return c.emit(it)
}

func record(m *clientmsg.Message) *Record {
	r := &Record{
		Cursor: m.Cursor, Key: m.Key, Partition: m.Partition, Offset: m.Offset,
		Headers: m.Headers, Value: m.Value, Tombstone: m.Tombstone,
	}
	if m.Timestamp != clientmsg.NoTimestamp {
		r.Timestamp = time.UnixMilli(m.Timestamp).UTC()
	}
	return r
}
