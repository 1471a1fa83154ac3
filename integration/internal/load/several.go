package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/proto/cursor"
)

// Several is one client with several keys on one socket. What it saw of each key is a history of its own. When its
// connection ends it goes where next says, with the cursor of the last message that named all keys, and those that
// single keys have brought since.
type Several struct {
	name string
	next func(attempt int) Target
	wg   sync.WaitGroup
	ctx  context.Context // ends with Close
	stop context.CancelFunc

	mu      sync.Mutex
	keys    []string
	seen    map[string]*checker.Client
	all     string            // guarded by mu; the last combined cursor
	since   map[string]string // guarded by mu; by key, newer than that
	resumes int               // guarded by mu
	combos  int               // guarded by mu; resumes of which a combined cursor was part
	faults  []error           // guarded by mu
	live    int               // guarded by mu; keys that are live on this connection
}

// OpenSeveral connects and returns; Live tells when all keys are there.
func OpenSeveral(ctx context.Context, name string, keys []string, next func(attempt int) Target) *Several {
	c := &Several{name: name, next: next, keys: keys, seen: make(map[string]*checker.Client), since: make(map[string]string)}
	c.ctx, c.stop = context.WithCancel(ctx)
	for _, key := range keys {
		c.seen[key] = &checker.Client{Name: name, Key: key}
	}
	c.wg.Go(c.run)
	return c
}

// Close ends the client; it waits.
func (c *Several) Close() {
	c.stop()
	c.wg.Wait()
}

func (c *Several) run() {
	for attempt := 0; c.ctx.Err() == nil; attempt++ {
		to := c.next(attempt)
		conn, err := c.dial(to)
		if err == nil {
			stop := context.AfterFunc(c.ctx, conn.release)
			err = c.read(conn, to)
			stop()
			conn.release()
			c.ended(err)
		}
		pause(c.ctx, 100*time.Millisecond)
	}
}

func (c *Several) dial(to Target) (*wsConn, error) {
	q := url.Values{"key": c.keys, "several": {"true"}}
	c.mu.Lock()
	text := c.all
	for _, part := range c.since {
		if text != "" {
			text += "."
		}
		text += part
	}
	combined := c.all != ""
	c.mu.Unlock()
	if text != "" {
		q.Set("resume", "message")
	}
	conn, err := dialWS(c.ctx, dialConfig{base: to.URL, target: "/v1/ws?" + q.Encode(), protocols: []string{"pointsman.json.v1"}})
	if err != nil || text == "" {
		return conn, err
	}
	msg, err := json.Marshal(map[string]string{"type": "resume", "cursor": text})
	if err == nil {
		err = conn.write(opText, msg)
	}
	if err != nil {
		conn.release()
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resumes++
	if combined {
		c.combos++
	}
	return conn, nil
}

func (c *Several) read(conn *wsConn, to Target) error {
	c.mu.Lock()
	c.live = 0
	c.mu.Unlock()
	var buf []byte
	for {
		_, msg, err := conn.read(buf)
		if err != nil {
			return err
		}
		if cap(msg) <= 64<<10 {
			buf = msg
		}
		if err := c.take(msg, to, time.Now()); err != nil {
			c.mu.Lock()
			if len(c.faults) < 10 {
				c.faults = append(c.faults, fmt.Errorf("client %s: %w: %.200q", c.name, err, msg))
			}
			c.mu.Unlock()
		}
	}
}

func (c *Several) take(msg []byte, to Target, at time.Time) error {
	var m struct {
		message
		Key *string `json:"key"`
	}
	if err := json.Unmarshal(msg, &m); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m.Type {
	case "hello":
		return nil
	case "checkpoint", "goaway", "gap":
		if m.Cursor == "" {
			return nil
		}
		list, err := cursor.DecodeList(m.Cursor)
		if err != nil {
			return err
		}
		// A key that is not live yet is listed at where it came from, or not at all, and then what it has stays.
		kept := make(map[string]string)
		for _, key := range c.keys {
			_, f, ok := cursor.Of(list, []byte(key))
			if !ok {
				if part := c.since[key]; part != "" {
					kept[key] = part
				}
				continue
			}
			kind, reason := checker.Checkpoint, ""
			if m.Type == "gap" && m.Key != nil && *m.Key == key {
				kind, reason = checker.Gap, m.Reason
			}
			s := c.session(key)
			if s == nil || s.Ended != nil {
				continue
			}
			for _, p := range f.Positions {
				s.Events = append(s.Events, checker.Event{Kind: kind, Partition: p.Partition, Next: p.Next, At: at.UnixNano(), Reason: reason})
			}
		}
		c.all, c.since = m.Cursor, kept
		return nil
	}
	if m.Key == nil || c.seen[*m.Key] == nil {
		return errors.New("it is of none of the keys")
	}
	key := *m.Key
	positions, err := ReadCursor(m.Cursor, key)
	switch m.Type {
	case "subscribed":
		resumed := len(c.seen[key].Sessions) > 0
		c.seen[key].Sessions = append(c.seen[key].Sessions, checker.Session{
			Router: to.Name, Resumed: resumed, HelloAt: at, Complete: m.Resumed, Start: positions,
		})
		c.live++
	case "record":
		value, verr := m.value()
		headers, herr := m.headers()
		err = errors.Join(err, verr, herr)
		e := checker.Event{
			Kind: checker.Record, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Timestamp.UnixMilli(),
			At: at.UnixNano(), Sum: checker.Sum(value, headers), Backlog: true,
		}
		for _, p := range positions {
			if p.Partition == m.Partition {
				e.Next = p.Next
			}
		}
		s := c.session(key)
		if s == nil || s.Ended != nil {
			return errors.Join(err, errors.New("record of a key that is not live"))
		}
		s.Events = append(s.Events, e)
	default:
		return fmt.Errorf("unexpected type %q", m.Type)
	}
	c.since[key] = m.Cursor
	return err
}

// session is a key's newest one. The caller holds mu.
func (c *Several) session(key string) *checker.Session {
	all := c.seen[key].Sessions
	if len(all) == 0 {
		return nil
	}
	return &all[len(all)-1]
}

// ended notes the end of a connection, which the test caused or which is to be complained about.
func (c *Several) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := checker.Close{At: time.Now(), Reason: err.Error(), Expected: true}
	for _, key := range c.keys {
		if s := c.session(key); s != nil && s.Ended == nil {
			s.Ended = &end
		}
	}
}

// Live reports whether all keys are live.
func (c *Several) Live() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live == len(c.keys)
}

// Combined reports whether a message has named the position of all keys.
func (c *Several) Combined() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all != ""
}

// Since reports whether every key has had a record stamped at or after a time in milliseconds.
func (c *Several) Since(stamp int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.keys {
		s := c.session(key)
		if s == nil {
			return false
		}
		fresh := false
		for i := len(s.Events) - 1; i >= 0 && !fresh; i-- {
			if s.Events[i].Kind == checker.Record {
				if fresh = s.Events[i].Timestamp >= stamp; !fresh {
					return false
				}
			}
		}
		if !fresh {
			return false
		}
	}
	return true
}

// CaughtUp reports whether every key has what the topic has.
func (c *Several) CaughtUp(truth *checker.Truth) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.keys {
		if _, _, behind := checker.Behind(truth, c.seen[key]); behind {
			return false
		}
	}
	return true
}

// Judge hands the histories to a judge, and says how often it came back, how often with a combined cursor, and what came
// against the protocol. After Close.
func (c *Several) Judge(j *checker.Judge) (resumes, combined int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.keys {
		j.Add(c.seen[key])
	}
	return c.resumes, c.combos, errors.Join(c.faults...)
}
