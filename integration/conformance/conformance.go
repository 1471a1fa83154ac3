// Package conformance holds a server against docs/protocol.md, from outside: it knows the protocol and nothing of the
// product. Whoever writes another server, or puts something between routers and clients, runs it.
package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	path     = "/v1/ws"
	jsonV1   = "pointsman.json.v1"
	rawV1    = "pointsman.raw.v1"
	bearer   = "pointsman.bearer."
	maxBytes = 16 << 20
)

// Config says what is checked.
type Config struct {
	// URL is the server: ws:// or wss://, host and port.
	URL string
	// Produce puts a record into the topic and returns when clients can get it; a nil value is a tombstone. Without it
	// the checks that need records are left out.
	Produce func(ctx context.Context, key string, value []byte, headers []Header) error
	// Token gives a token for a key, for servers that ask for one.
	Token func(key string) string
	// Patience is how long an answer may take; 0 means 10 s.
	Patience time.Duration
	// Run tells this run's keys from those of earlier ones.
	Run string
	// Only names the checks to make; empty means all.
	Only []string
}

// Header is a header of a record; a nil Value is Kafka's null.
type Header struct {
	Key   string
	Value []byte
}

// Check is one promise of the protocol.
type Check struct {
	Name string
	Says string // what the protocol says
	run  func(ctx context.Context, s *suite) error
	// needs says what it cannot do without: "records", "tokens", "keys" (records, and more than the one key of a token) or
	// nothing.
	needs string
}

// Result is what became of a check.
type Result struct {
	Check   Check
	Err     error  // why it failed
	LeftOut string // why it was not made
	Took    time.Duration
}

// Run makes all checks, one after the other, and tells of each. It returns how many failed.
func Run(ctx context.Context, cfg Config, tell func(Result)) int {
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	failed := 0
	for _, c := range Checks() {
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, c.Name) {
			continue
		}
		r := Result{Check: c}
		switch {
		case (c.needs == "records" || c.needs == "keys") && cfg.Produce == nil:
			r.LeftOut = "nothing is given that produces records"
		case c.needs == "keys" && cfg.Token != nil:
			r.LeftOut = "a token is for one key"
		case c.needs == "tokens" && cfg.Token == nil:
			r.LeftOut = "the server asks for no tokens"
		default:
			begun := time.Now()
			r.Err = c.run(ctx, &suite{cfg: cfg, key: "conformance-" + cfg.Run + "-" + c.Name})
			r.Took = time.Since(begun)
		}
		if r.Err != nil {
			failed++
		}
		tell(r)
	}
	return failed
}

// suite is what a check works with.
type suite struct {
	cfg Config
	key string // its own
}

// message is what a server sends.
type message struct {
	Type        string
	Cursor      string
	Key         *string
	Resumed     *bool
	HeartbeatMS *int64 `json:"heartbeat_ms"`
	Partition   *int32
	Offset      *int64
	Timestamp   *string
	Headers     []struct{ Key, Text, Base64 *string }
	Value       json.RawMessage
	Text        *string
	Base64      *string
	Tombstone   bool
	Keys        *int
	Of, Reason  string
}

// conn is one connection.
type conn struct {
	ws       *websocket.Conn
	patience time.Duration
	hello    message
	answer   *http.Response
	early    []message // records that came before a wanted answer, see suite.open
}

// refused is an answer in place of an upgrade.
type refused struct{ status int }

func (r *refused) Error() string { return fmt.Sprintf("refused with status %d", r.status) }

// dial connects with a query and subprotocols; "key" is added unless it is there.
func (s *suite) dial(ctx context.Context, query url.Values, protocols ...string) (*conn, error) {
	q := url.Values{}
	for name, values := range query {
		q[name] = values
	}
	key := s.key
	switch {
	case q.Has("key"):
		key = q.Get("key")
	case q.Get("several") != "none":
		q.Set("key", s.key)
	}
	header := http.Header{}
	if s.cfg.Token != nil {
		header.Set("Authorization", "Bearer "+s.cfg.Token(key))
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	target := strings.TrimSuffix(s.cfg.URL, "/") + path + "?" + q.Encode()
	ws, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{Subprotocols: protocols, HTTPHeader: header}) //nolint:bodyclose // the library says that it need not be closed
	switch {
	case err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, &refused{resp.StatusCode}
	case err != nil:
		return nil, err
	}
	ws.SetReadLimit(maxBytes)
	return &conn{ws: ws, patience: s.cfg.Patience, answer: resp}, nil
}

// follow connects and waits for hello.
func (s *suite) follow(ctx context.Context, query url.Values) (*conn, error) {
	c, err := s.dial(ctx, query, jsonV1)
	if err != nil {
		return nil, err
	}
	if c.hello, err = c.next(ctx, "hello"); err != nil {
		c.end()
		return nil, fmt.Errorf("no hello came: %w", err)
	}
	return c, nil
}

func (c *conn) end() { _ = c.ws.CloseNow() }

// within bounds a wait; heartbeats do not prolong it.
func (c *conn) within(ctx context.Context, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.patience, fmt.Errorf("%s within %s", what, c.patience))
}

// read gives the next message, whatever it is.
func (c *conn) read(ctx context.Context) (websocket.MessageType, []byte, error) {
	ctx, cancel := c.within(ctx, "nothing came")
	defer cancel()
	kind, text, err := c.ws.Read(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return kind, text, err
}

// next gives the next message of a type. Those that may come at any time are passed over; a hello, record or gap that
// was not asked for is an error.
func (c *conn) next(ctx context.Context, kinds ...string) (message, error) {
	kind := strings.Join(kinds, " or ")
	ctx, cancel := c.within(ctx, "no "+kind+" came")
	defer cancel()
	for {
		opcode, text, err := c.read(ctx)
		if err != nil {
			return message{}, err
		}
		var m message
		if opcode != websocket.MessageText {
			return m, errors.New("a binary message came on " + jsonV1)
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return m, fmt.Errorf("%w: %.200q", err, text)
		}
		switch {
		case slices.Contains(kinds, m.Type):
			return m, nil
		case m.Type == "":
			return m, fmt.Errorf("a message without a type: %.200q", text)
		case slices.Contains([]string{"hello", "record", "gap"}, m.Type):
			return m, fmt.Errorf("%s came in place of %s: %.200q", m.Type, kind, text)
		}
	}
}

// records gives the next n records.
func (c *conn) records(ctx context.Context, n int) ([]message, error) {
	out := make([]message, 0, n)
	for len(out) < n {
		var m message
		var err error
		if len(c.early) > 0 {
			m, c.early = c.early[0], c.early[1:]
		} else {
			m, err = c.next(ctx, "record")
		}
		if err != nil {
			return nil, fmt.Errorf("record %d of %d: %w", len(out)+1, n, err)
		}
		if m.Partition == nil || m.Offset == nil || m.Cursor == "" {
			return nil, fmt.Errorf("record %d has no partition, offset or cursor", len(out)+1)
		}
		out = append(out, m)
	}
	return out, nil
}

// send sends a text message.
func (c *conn) send(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, []byte(text))
}

// closes reads until the server closes, which has to be with one of the codes.
func (c *conn) closes(ctx context.Context, codes ...int) error {
	ctx, cancel := c.within(ctx, "no close came")
	defer cancel()
	for {
		_, _, err := c.read(ctx)
		if err == nil {
			continue
		}
		var closed websocket.CloseError
		if !errors.As(err, &closed) {
			return fmt.Errorf("want a close with code %v: %w", codes, err)
		}
		if !slices.Contains(codes, int(closed.Code)) {
			return fmt.Errorf("closed with code %d %q, want %v", closed.Code, closed.Reason, codes)
		}
		return nil
	}
}

// produce puts values into the topic, one after the other.
func (s *suite) produce(ctx context.Context, values ...string) error {
	for _, v := range values {
		if err := s.cfg.Produce(ctx, s.key, []byte(v), nil); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	return nil
}

// refuses holds that a connection is refused with one of the statuses.
func (s *suite) refuses(ctx context.Context, what string, query url.Values, protocols []string, statuses ...int) error {
	c, err := s.dial(ctx, query, protocols...)
	if err == nil {
		c.end()
		return fmt.Errorf("%s is accepted, want status %v", what, statuses)
	}
	var r *refused
	if !errors.As(err, &r) || !slices.Contains(statuses, r.status) {
		return fmt.Errorf("%s: %w, want status %v", what, err, statuses)
	}
	return nil
}
