// Package load makes what a test needs around a Pointsman: thousands of WebSocket clients in one process that
// write down what they receive, producers that keep a pace, and the topic read back. Its clients speak
// WebSocket over plain sockets and read messages with encoding/json, so that they share no code with the
// product that they judge.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// Target is a router as a client sees it.
type Target struct {
	Name string
	URL  string // ws://host:port
}

// Options says what a client wants.
type Options struct {
	Name   string // in reports
	Key    string
	From   string     // "", "latest", "earliest", a time or an offset
	Query  url.Values // added to the request
	Header http.Header
	// Token, if set, gives a token for every connection, and a fresh one whenever the router says that the last one
	// expires.
	Token func() string

	// ReadBuffer is the socket's receive buffer in bytes, 0 for the system's default. A client that is to stop
	// reading takes a small one, so that it is felt soon.
	ReadBuffer int
	// Deaf makes the client give a connection up on which it heard nothing for so long, as a client should
	// after heartbeat_ms. 0 never does.
	Deaf time.Duration
	// Reconnect is asked when a connection ended, other than by Disconnect or Close: where to go next, with
	// the cursor. Nil stays away.
	Reconnect func(end checker.Close) (Target, bool)
	// Expected is asked when a connection to the named router, opened at that time, ended: did the test cause it?
	Expected func(router string, opened time.Time) bool
	// Positions reads a cursor of this key; nil means ReadCursor.
	Positions func(cursor, key string) ([]checker.Position, error)
	// Note receives every event, with the number of its session, in place of the history: for fleets whose
	// histories must be kept in less room. It is called under the client's lock and may not call the client.
	Note func(session int, e checker.Event)
}

// Client is one client of a router. Its methods may be called from several goroutines.
type Client struct {
	opts Options
	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // the reader

	mu      sync.Mutex
	changed *sync.Cond // on every event
	seen    checker.Client
	conn    *wsConn // nil when not connected
	busy    bool    // a reader runs or is about to
	leaving bool    // Disconnect or Close asked for the end
	cursor  string
	hold    bool          // StopReading
	pace    time.Duration // SetPace
	ready   int64         // ms since the epoch: records stamped earlier are backlog
	opened  time.Time     // the newest connection
	retry   time.Duration
	heart   time.Duration
	renewed int     // tokens sent on an open connection
	faults  []error // what the server sent against the protocol
}

var errClosed = errors.New("the client is closed")

// NewClient makes a client that is not connected yet. Close ends it.
func NewClient(opts Options) *Client {
	if opts.Positions == nil {
		opts.Positions = ReadCursor
	}
	c := &Client{opts: opts}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	c.changed = sync.NewCond(&c.mu)
	c.seen.Name, c.seen.Key = opts.Name, opts.Key
	return c
}

// Connect opens a connection, with the cursor when there is one. It returns after the upgrade; WaitHello waits
// for more. A refusal is a *HandshakeError.
func (c *Client) Connect(ctx context.Context, to Target) error {
	c.mu.Lock()
	if c.busy {
		c.mu.Unlock()
		return fmt.Errorf("client %s is connected already", c.opts.Name)
	}
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return errClosed
	}
	c.busy, c.leaving = true, false
	// Close waits for the group only after it saw busy or set ctx, both under this lock.
	c.wg.Add(1)
	cursor := c.cursor
	c.mu.Unlock()

	conn, err := c.dial(ctx, to, cursor)
	if err != nil {
		c.mu.Lock()
		c.busy = false
		c.changed.Broadcast()
		c.mu.Unlock()
		c.wg.Done()
		return err
	}
	c.open(conn, to, cursor != "")
	go func() {
		defer c.wg.Done()
		c.run(conn)
	}()
	return nil
}

func (c *Client) dial(ctx context.Context, to Target, cursor string) (*wsConn, error) {
	q := url.Values{}
	for k, v := range c.opts.Query {
		q[k] = v
	}
	if q.Get("key_b64") == "" && !q.Has("key") {
		q.Set("key", c.opts.Key)
	}
	switch {
	case cursor != "":
		q.Set("cursor", cursor)
	case c.opts.From != "":
		q.Set("from", c.opts.From)
	}
	header := c.opts.Header
	if c.opts.Token != nil {
		header = header.Clone()
		if header == nil {
			header = http.Header{}
		}
		header.Set("Authorization", "Bearer "+c.opts.Token())
	}
	return dialWS(ctx, dialConfig{
		base: to.URL, target: "/v1/ws?" + q.Encode(), header: header,
		protocols: []string{"pointsman.json.v1"}, readBuffer: c.opts.ReadBuffer,
	})
}

func (c *Client) open(conn *wsConn, to Target, resumed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	c.opened = time.Now()
	c.retry = 0
	if c.leaving {
		conn.release() // asked while this connection was being made
	}
	c.seen.Sessions = append(c.seen.Sessions, checker.Session{Router: to.Name, Resumed: resumed})
	c.changed.Broadcast()
}

// run reads until the connection ends, and goes elsewhere if it is told to.
func (c *Client) run(conn *wsConn) {
	for conn != nil {
		stop := context.AfterFunc(c.ctx, conn.release)
		err := c.read(conn)
		stop()
		conn.release()
		end, again := c.ended(err)
		conn = nil
		if again {
			conn = c.reconnect(end)
		}
	}
	c.mu.Lock()
	c.busy = false
	c.changed.Broadcast()
	c.mu.Unlock()
}

func (c *Client) read(conn *wsConn) error {
	var buf []byte
	for {
		c.mu.Lock()
		for c.hold && !c.leaving && c.ctx.Err() == nil {
			c.changed.Wait()
		}
		c.mu.Unlock()
		if c.opts.Deaf > 0 {
			if err := conn.raw.SetReadDeadline(time.Now().Add(c.opts.Deaf)); err != nil {
				return fmt.Errorf("set read deadline: %w", err)
			}
		}
		op, msg, err := conn.read(buf)
		if err != nil {
			return err
		}
		at := time.Now()
		if cap(msg) <= 64<<10 {
			buf = msg
		}
		c.receive(op, msg, at)
		if d := c.takes(); d > 0 {
			pause(c.ctx, d)
		}
	}
}

func (c *Client) receive(op byte, msg []byte, at time.Time) {
	var m message
	var err error
	if op != opText {
		err = fmt.Errorf("message with opcode %d, want text", op)
	} else if err = json.Unmarshal(msg, &m); err == nil {
		err = c.take(&m, at)
		if m.Type == "expiring" && c.opts.Token != nil {
			err = errors.Join(err, c.renew())
		}
	}
	if err != nil {
		c.mu.Lock()
		if len(c.faults) < 10 {
			c.faults = append(c.faults, fmt.Errorf("client %s (key %s): %w: %.200q", c.opts.Name, c.opts.Key, err, msg))
		}
		c.mu.Unlock()
	}
}

// renew sends a fresh token.
func (c *Client) renew() error {
	msg, err := json.Marshal(map[string]string{"type": "auth", "token": c.opts.Token()})
	if err != nil {
		return err
	}
	if c.Send(string(msg)) != nil {
		return nil // the connection ends, and says why itself
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewed++
	c.changed.Broadcast()
	return nil
}

// WaitRenewed waits until so many tokens were sent on open connections.
func (c *Client) WaitRenewed(ctx context.Context, n int) error {
	return c.Wait(ctx, func(*checker.Client) bool { return c.renewed >= n })
}

// take writes a message down. What is wrong with it is returned, and it counts nevertheless where it can.
func (c *Client) take(m *message, at time.Time) error {
	var positions []checker.Position
	var err error
	if m.Cursor != "" {
		positions, err = c.opts.Positions(m.Cursor, c.opts.Key)
	}
	var sum uint32
	if m.Type == "record" {
		value, verr := m.value()
		headers, herr := m.headers()
		err = errors.Join(err, verr, herr)
		sum = checker.Sum(value, headers)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.changed.Broadcast()
	if m.Cursor != "" {
		c.cursor = m.Cursor
	}
	s := &c.seen.Sessions[len(c.seen.Sessions)-1]
	if s.HelloAt.IsZero() && m.Type != "hello" && m.Type != "waiting" && m.Type != "goaway" && m.Type != "expiring" {
		err = errors.Join(err, fmt.Errorf("%s before hello", m.Type))
	}
	switch m.Type {
	case "hello":
		if !s.HelloAt.IsZero() {
			err = errors.Join(err, errors.New("a second hello"))
		}
		s.HelloAt, s.Complete, s.Start = at, m.Resumed, positions
		c.heart = time.Duration(m.HeartbeatMS) * time.Millisecond
		c.ready = max(c.ready, at.UnixMilli())
	case "record":
		e := checker.Event{
			Kind: checker.Record, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Timestamp.UnixMilli(),
			At: at.UnixNano(), Sum: sum, Backlog: m.Timestamp.UnixMilli() < c.ready,
		}
		for _, p := range positions {
			if p.Partition == m.Partition {
				e.Next = p.Next
			}
		}
		c.noteLocked(e)
	case "checkpoint", "gap":
		kind := checker.Checkpoint
		if m.Type == "gap" {
			kind = checker.Gap
		}
		for _, p := range positions {
			c.noteLocked(checker.Event{Kind: kind, Partition: p.Partition, Next: p.Next, At: at.UnixNano(), Reason: m.Reason})
		}
	case "waiting":
		s.Waiting++
	case "goaway":
		s.GoAways++
		c.retry = time.Duration(m.RetryAfterMS) * time.Millisecond
	case "expiring":
	default:
		err = errors.Join(err, fmt.Errorf("unknown type %q", m.Type))
	}
	return err
}

func (c *Client) noteLocked(e checker.Event) {
	last := len(c.seen.Sessions) - 1
	if c.opts.Note != nil {
		c.opts.Note(last, e)
		return
	}
	c.seen.Sessions[last].Events = append(c.seen.Sessions[last].Events, e)
}

// ended writes the end of a connection down and says whether to go elsewhere.
func (c *Client) ended(err error) (checker.Close, bool) {
	end := checker.Close{At: time.Now(), Reason: fmt.Sprint(err)}
	var ce *closeError
	switch {
	case errors.As(err, &ce):
		end.Code, end.Reason = ce.code, ce.reason
	case errors.Is(err, os.ErrDeadlineExceeded) && c.opts.Deaf > 0:
		end.Reason = "heard nothing for " + c.opts.Deaf.String()
	}
	c.mu.Lock()
	s := &c.seen.Sessions[len(c.seen.Sessions)-1]
	router, opened := s.Router, c.opened
	leaving := c.leaving || c.ctx.Err() != nil
	c.mu.Unlock()
	end.Expected = leaving || (c.opts.Expected != nil && c.opts.Expected(router, opened))

	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	c.seen.Sessions[len(c.seen.Sessions)-1].Ended = &end
	c.changed.Broadcast()
	return end, !leaving && c.opts.Reconnect != nil
}

// reconnect tries until it has a connection, Reconnect says no, or the client is closed.
func (c *Client) reconnect(end checker.Close) *wsConn {
	c.mu.Lock()
	wait := c.retry
	c.mu.Unlock()
	backoff := 50 * time.Millisecond
	for {
		if !pause(c.ctx, wait) {
			return nil
		}
		to, ok := c.opts.Reconnect(end)
		if !ok {
			return nil
		}
		c.mu.Lock()
		cursor, leaving := c.cursor, c.leaving
		c.mu.Unlock()
		if leaving {
			return nil
		}
		conn, err := c.dial(c.ctx, to, cursor)
		if err == nil {
			c.open(conn, to, cursor != "")
			return conn
		}
		end = checker.Close{At: time.Now(), Reason: err.Error()}
		wait = backoff/2 + rand.N(backoff) //nolint:gosec // jitter
		backoff = min(2*backoff, time.Second)
	}
}

// pause waits for d, less when ctx ends: then it is false.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Wait returns when ok is true of what the client saw, which is looked at after every event.
func (c *Client) Wait(ctx context.Context, ok func(*checker.Client) bool) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !ok(&c.seen) {
		if ctx.Err() != nil {
			return fmt.Errorf("client %s (key %s): %w", c.opts.Name, c.opts.Key, context.Cause(ctx))
		}
		c.changed.Wait()
	}
	return nil
}

// WaitHello waits for the hello of the connection now open, or its end.
func (c *Client) WaitHello(ctx context.Context) error {
	var refused *checker.Close
	err := c.Wait(ctx, func(s *checker.Client) bool {
		if len(s.Sessions) == 0 {
			return false
		}
		last := s.Sessions[len(s.Sessions)-1]
		refused = last.Ended
		return !last.HelloAt.IsZero() || last.Ended != nil
	})
	if err != nil {
		return fmt.Errorf("wait for hello: %w", err)
	}
	if refused != nil {
		return fmt.Errorf("client %s (key %s): closed with %d %q before hello", c.opts.Name, c.opts.Key, refused.Code, refused.Reason)
	}
	return nil
}

// StopReading leaves everything that arrives in the socket, from the next message on, until ReadAgain.
func (c *Client) StopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold, c.seen.Lagging = true, true
}

// ReadAgain ends StopReading.
func (c *Client) ReadAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = false
	c.ready = max(c.ready, time.Now().UnixMilli())
	c.changed.Broadcast()
}

// SetPace makes the client take so long over each message.
func (c *Client) SetPace(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pace = d
}

func (c *Client) takes() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pace
}

// Disconnect closes the connection in order and waits until its reader has ended. The cursor is kept.
func (c *Client) Disconnect(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	conn := c.conn
	c.changed.Broadcast()
	c.mu.Unlock()
	if conn != nil {
		if err := conn.write(opClose, []byte{1000 >> 8, 1000 & 0xff}); err != nil {
			conn.release()
		}
	}
	stop := context.AfterFunc(ctx, func() {
		if conn != nil {
			conn.release()
		}
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy {
		c.changed.Wait()
	}
	return ctx.Err()
}

// Sever breaks the connection without a close frame, as a lost network does, and waits until its reader has ended.
func (c *Client) Sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	if c.conn != nil {
		c.conn.release()
	}
	c.changed.Broadcast()
	for c.busy {
		c.changed.Wait()
	}
}

// Send writes a text message, which the product may refuse.
func (c *Client) Send(msg string) error {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return fmt.Errorf("client %s is not connected", c.opts.Name)
	}
	return conn.write(opText, []byte(msg))
}

// Close ends the client and waits for its reader.
func (c *Client) Close() {
	c.mu.Lock()
	c.leaving = true
	c.stop(errClosed)
	if c.conn != nil {
		c.conn.release()
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	c.wg.Wait()
}

// Cursor is the newest one received; SetCursor makes the next Connect resume from another, "" for none.
func (c *Client) Cursor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cursor
}

// SetCursor replaces the cursor.
func (c *Client) SetCursor(cursor string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cursor = cursor
}

// Lagging keeps the client's delays out of the measurement: it reads old records on purpose.
func (c *Client) Lagging() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Lagging = true
}

// Heartbeat is what hello promised.
func (c *Client) Heartbeat() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heart
}

// Connected reports whether a connection is open, or about to be.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// Key is the client key.
func (c *Client) Key() string { return c.opts.Key }

// History is a copy of what the client saw so far.
func (c *Client) History() checker.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.seen
	h.Sessions = make([]checker.Session, len(c.seen.Sessions))
	copy(h.Sessions, c.seen.Sessions)
	for i := range h.Sessions {
		// Events are only appended: what is there now stays as it is.
		h.Sessions[i].Events = h.Sessions[i].Events[:len(h.Sessions[i].Events):len(h.Sessions[i].Events)]
	}
	return h
}

// Faults is what the server sent against the protocol: messages that cannot be read, or not at that place.
func (c *Client) Faults() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.faults...)
}
