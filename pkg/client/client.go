// Package client receives the records of a client key, or of several, from Pointsman's routers, over as many connections
// as it takes.
//
//	c, err := client.Connect(ctx, client.Config{URLs: []string{"ws://127.0.0.1:8080"}, Key: []byte("alice")})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for record, err := range c.Records(ctx) {
//		if err != nil {
//			return err
//		}
//		store(record.Value, record.Cursor) // together, and the effect is exactly-once
//	}
//
// Events gives everything else, too: gaps, checkpoints, connections that end. With Config.Keys several keys share the
// connection, and Subscribe and Unsubscribe change which.
//
// When a connection breaks, falls silent for longer than the router's heartbeat allows, or is closed with a code
// that asks for it, the client connects to the next URL with the cursor of the last message it received, and the
// records go on exactly there. Nothing of that needs the program's help; it is visible as events.
package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// Defaults of Config.
const (
	DefaultMinBackoff  = 200 * time.Millisecond
	DefaultMaxBackoff  = 15 * time.Second
	DefaultDialTimeout = 10 * time.Second
	DefaultBuffer      = 16
	// DefaultReadLimit holds Kafka's largest record where every byte of it needs six in JSON.
	DefaultReadLimit = 6 * link.MaxMessage
)

// Config is fixed for a client's life. URLs is needed, and Key where the routers do not take it from a token.
type Config struct {
	// URLs are the routers, tried in order and around: ws, wss, http or https. Without a path they get
	// clientmsg.Path.
	URLs []string
	// Key is the client key, for routers without authentication. nil names none.
	Key []byte
	// Keys are several client keys on one connection, in place of Key; Subscribe and Unsubscribe change them. Empty and not
	// nil follows all that the token names.
	Keys [][]byte
	// Several is for several keys of which none is known yet: with Keys nil nothing is followed until Subscribe.
	Several bool
	// Cursor continues where an earlier client stopped; it comes from an event or from Client.Cursor.
	Cursor string
	// From is where to begin without a Cursor: "latest" (the default), "earliest", an RFC 3339 time, an offset.
	From string
	// Header goes with every upgrade request.
	Header http.Header
	// Token, if set, is asked for a bearer token before every connection, where its error counts as a failed attempt,
	// and when the router says that the last one expires: the new one is sent on the open connection. A token that is
	// refused with 401 is asked for once more, because it may have been too old.
	Token func(context.Context) (string, error)
	// HTTPClient makes the upgrade requests; it carries TLS settings and proxies. nil is http.DefaultClient.
	HTTPClient *http.Client

	// MinBackoff and MaxBackoff bound the wait before another attempt. The first wait is anything up to
	// MinBackoff; each further one doubles, with jitter, until a connection has lived for MaxBackoff.
	MinBackoff, MaxBackoff time.Duration
	// DialTimeout bounds one attempt to connect.
	DialTimeout time.Duration
	// Silence is how long a connection may be silent; 0 means one and a half of the heartbeat that the router
	// announces, and 30 s before it has announced one.
	Silence time.Duration
	// Buffer is how many events may wait for Next. When they do, the client stops reading: the router sees a slow
	// client, which falls behind and loses nothing.
	Buffer int
	// ReadLimit bounds one message, in bytes.
	ReadLimit int64
	// KeepRepeats hands out records too that lie below the cursor, for programs that check the routers. They are
	// counted in Stats either way.
	KeepRepeats bool
	// OnGap, if set, hears of gaps in Records, in their place; its error ends the iteration.
	OnGap func(Gap) error
	// Storage, if set, has the Cursor where none is given, and is told at most every SaveEvery, and in Close, behind
	// which event the program is done: it is done with one when it asks for the next.
	Storage   Storage
	SaveEvery time.Duration
	// Retrying, if set, hears of the attempts that fail while Connect waits, when there is no Next yet that would
	// tell of them. It must not block.
	Retrying func(Disconnected)
}

func (cfg Config) withDefaults() Config {
	if cfg.MinBackoff <= 0 {
		cfg.MinBackoff = DefaultMinBackoff
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = DefaultMaxBackoff
	}
	cfg.MaxBackoff = max(cfg.MaxBackoff, cfg.MinBackoff)
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = DefaultBuffer
	}
	if cfg.SaveEvery <= 0 {
		cfg.SaveEvery = DefaultSaveEvery
	}
	if cfg.ReadLimit <= 0 {
		cfg.ReadLimit = DefaultReadLimit
	}
	return cfg
}

// ErrClosed is what Next returns after Close.
var ErrClosed = errors.New("client is closed")

// Stats count what happened since Connect.
type Stats struct {
	Connections int64 // upgrades that succeeded
	Lost        int64 // connections that ended other than by Close
	Records     int64 // handed to the program
	Repeats     int64 // records below the cursor; not handed out unless Config.KeepRepeats
	Gaps        int64
	Renewals    int64 // tokens sent on an open connection
	SaveErrors  int64 // of Storage.Save
}

// Client receives. Next (and Events) are for one goroutine at a time; the rest is for any.
type Client struct {
	// Static after construction.
	cfg    Config
	urls   []*url.URL
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	events chan item     // closed by run
	opened chan struct{} // closed by run at the first upgrade that succeeds
	done   chan struct{} // closed by run at its end
	told   chan struct{} // the keys have changed; capacity 1, never closed

	// Owned by run; err may be read after done.
	err      error
	last     error // of the last attempt
	position position
	doubted  bool // the last token was refused as too old, perhaps

	mu      sync.Mutex
	cursor  string // guarded by mu: of the last event that Next returned
	settled string // guarded by mu: of the last one that the program is done with
	stats   Stats  // guarded by mu
	keys    *keys  // what it points to is guarded by mu; nil with one key

	saving sync.WaitGroup // save, begun by Connect
}

// item is an event on its way to Next, and the cursor that holds once the program has it ("" for no change).
type item struct {
	event  Event
	cursor string
}

// Connect starts a client and waits until it is connected once. It tries again while routers are away; a
// refusal that would be repeated is returned at once, as *RefusedError. ctx bounds this first wait only; the
// client lives until Close.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	urls, err := parseURLs(cfg)
	if err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := cfg.load(ctx); err != nil {
		return nil, err
	}
	c := &Client{
		cfg:      cfg,
		urls:     urls,
		events:   make(chan item, cfg.Buffer),
		opened:   make(chan struct{}),
		done:     make(chan struct{}),
		told:     make(chan struct{}, 1),
		keys:     newKeys(cfg),
		position: newPosition(cfg.Cursor),
		cursor:   cfg.Cursor,
		settled:  cfg.Cursor,
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go c.run()

	select {
	case <-c.opened:
		if cfg.Storage != nil {
			c.saving.Go(c.save)
		}
		return c, nil
	case <-c.done:
		return nil, c.err
	case <-ctx.Done():
		_ = c.Close()
		return nil, errors.Join(fmt.Errorf("connect: %w", context.Cause(ctx)), c.last)
	}
}

// Next waits for the next event. After the last one it returns why there is no other: ErrClosed, or an error
// that trying again would not mend (*CloseError, *RefusedError). When ctx ends first nothing is lost.
func (c *Client) Next(ctx context.Context) (Event, error) {
	select {
	case it, ok := <-c.events:
		return c.hand(it, ok)
	default:
	}
	select {
	case it, ok := <-c.events:
		return c.hand(it, ok)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Client) hand(it item, ok bool) (Event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = c.cursor // whoever asks for more is done with what it has
	if !ok {
		return nil, c.err
	}
	if it.cursor != "" {
		c.cursor = it.cursor
	}
	switch it.event.(type) {
	case *Record:
		c.stats.Records++
	case *Gap:
		c.stats.Gaps++
	}
	return it.event, nil
}

// Events is Next as an iterator. It ends after the pair with an error.
func (c *Client) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			event, err := c.Next(ctx)
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Cursor is where another client would continue after the events that Next has returned; "" as long as
// there is none.
func (c *Client) Cursor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cursor
}

// Stats counts what happened so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Client) count(change func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.stats)
}

// Close ends the client and waits for it. The router is told, and given a second to confirm. Events that were
// received can still be had from Next.
func (c *Client) Close() error {
	c.cancel()
	<-c.done
	c.saving.Wait()
	return nil
}

// parseURLs gives complete URLs, less what changes from connection to connection.
func parseURLs(cfg Config) ([]*url.URL, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("connect: no URL of a router is given")
	}
	var urls []*url.URL
	for _, text := range cfg.URLs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		switch u.Scheme {
		case "ws", "wss", "http", "https":
		default:
			return nil, fmt.Errorf("connect: URL %q does not begin with ws:// or wss://", text)
		}
		if u.Host == "" {
			return nil, fmt.Errorf("connect: URL %q has no host", text)
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = clientmsg.Path
		}
		if cfg.Key != nil {
			q := u.Query()
			if utf8.Valid(cfg.Key) {
				q.Set("key", string(cfg.Key))
			} else {
				q.Set("key_b64", base64.RawURLEncoding.EncodeToString(cfg.Key))
			}
			u.RawQuery = q.Encode()
		}
		urls = append(urls, u)
	}
	return urls, nil
}
