package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// severalChecks are those of several keys on one connection. A token is for one key, so only some need more.
func severalChecks() []Check {
	return []Check{
		{"several-hello", "with several=true hello has the number of keys and no cursor, and subscribed is each key's", severalHello, ""},
		{"several-none", "several=none begins without a key, and may have some later", severalNone, ""},
		{"several-refused", "what cannot be granted is refused with the reason, and ends nothing", severalRefused, ""},
		{"subscribe-from", "subscribe begins where from says", subscribeFrom, "records"},
		{"unsubscribe", "nothing comes of a key behind unsubscribed, whose cursor continues it", unsubscribe, "records"},
		{"cursor-last", "of joined cursors that name a key the last counts", cursorLast, "records"},
		{"several-order", "records name their key, are in order per key, and have its cursor", severalOrder, "keys"},
		{"cursor-joined", "the cursor of a checkpoint, and behind it newer ones of single keys, continue each key", cursorJoined, "keys"},
	}
}

// open connects with several keys and gives the subscribed of each, in any order.
func (s *suite) open(ctx context.Context, q url.Values, keys ...string) (*conn, map[string]message, error) {
	q.Set("several", "true")
	q["key"] = keys
	c, err := s.follow(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	got := map[string]message{}
	for len(got) < len(keys) {
		m, err := c.next(ctx, "subscribed", "record")
		switch {
		case err != nil:
		case m.Type == "record" && m.Key != nil && got[*m.Key].Key != nil:
			c.early = append(c.early, m) // one key need not wait for the others
			continue
		case m.Type == "record":
			err = errors.New("a record came before its key was subscribed")
		case m.Key == nil || m.Cursor == "" || m.Resumed == nil:
			err = errors.New("subscribed has no key, cursor or resumed")
		case got[*m.Key].Key != nil:
			err = fmt.Errorf("%s is subscribed twice", *m.Key)
		}
		if err != nil {
			c.end()
			return nil, nil, err
		}
		got[*m.Key] = m
	}
	return c, got, nil
}

// ask sends a message about a key and waits for the answer.
func (c *conn) ask(ctx context.Context, key, kind, answer string, more ...string) (message, error) {
	text := map[string]string{"type": kind, "key": key}
	for i := 0; i < len(more); i += 2 {
		text[more[i]] = more[i+1]
	}
	b, err := json.Marshal(text)
	if err != nil {
		return message{}, err
	}
	if err := c.send(ctx, string(b)); err != nil {
		return message{}, err
	}
	m, err := c.next(ctx, answer)
	if err == nil && (m.Key == nil || *m.Key != key) {
		err = fmt.Errorf("%s does not name the key", answer)
	}
	return m, err
}

// bring holds that the next records of a key have these values, and gives them.
func (c *conn) bring(ctx context.Context, key string, from, to int) ([]message, error) {
	got, err := c.records(ctx, to-from+1)
	if err != nil {
		return nil, err
	}
	for i, m := range got {
		if m.Key == nil || *m.Key != key || string(m.Value) != strconv.Itoa(from+i) {
			return nil, fmt.Errorf("record %s came where %d of %s was due", m.Value, from+i, key)
		}
	}
	return got, nil
}

func severalHello(ctx context.Context, s *suite) error {
	c, _, err := s.open(ctx, url.Values{}, s.key)
	if err != nil {
		return err
	}
	defer c.end()
	if c.hello.Keys == nil || *c.hello.Keys != 1 || c.hello.Cursor != "" {
		return errors.New("hello does not say one key, or has a cursor")
	}
	return nil
}

func severalNone(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, url.Values{"several": {"none"}})
	if err != nil {
		return err
	}
	defer c.end()
	if c.hello.Keys == nil || *c.hello.Keys != 0 {
		return errors.New("hello does not say that there are no keys")
	}
	_, err = c.ask(ctx, s.key, "subscribe", "subscribed")
	return err
}

func severalRefused(ctx context.Context, s *suite) error {
	single, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer single.end()
	c, _, err := s.open(ctx, url.Values{}, s.key)
	if err != nil {
		return err
	}
	defer c.end()
	for _, tt := range []struct {
		c                 *conn
		key, kind, reason string
	}{
		{single, s.key, "subscribe", "single"},
		{c, s.key, "subscribe", "already"},
		{c, s.key + "-other", "unsubscribe", "unknown"},
		{c, s.key, "subscribe", "already"},
	} {
		m, err := tt.c.ask(ctx, tt.key, tt.kind, "refused")
		if err != nil {
			return err
		}
		if m.Of != tt.kind || m.Reason != tt.reason {
			return fmt.Errorf("%s is refused as %q of %q, want %q", tt.kind, m.Reason, m.Of, tt.reason)
		}
	}
	return nil
}

func subscribeFrom(ctx context.Context, s *suite) error {
	if err := s.produce(ctx, "1", "2", "3"); err != nil {
		return err
	}
	c, err := s.follow(ctx, url.Values{"several": {"none"}})
	if err != nil {
		return err
	}
	defer c.end()
	if _, err := c.ask(ctx, s.key, "subscribe", "subscribed", "from", "earliest"); err != nil {
		return err
	}
	_, err = c.bring(ctx, s.key, 1, 3)
	return err
}

func unsubscribe(ctx context.Context, s *suite) error {
	c, _, err := s.open(ctx, url.Values{}, s.key)
	if err != nil {
		return err
	}
	defer c.end()
	if err := s.produce(ctx, "1", "2"); err != nil {
		return err
	}
	if _, err := c.bring(ctx, s.key, 1, 2); err != nil {
		return err
	}
	left, err := c.ask(ctx, s.key, "unsubscribe", "unsubscribed")
	if err != nil {
		return err
	}
	if err := s.produce(ctx, "3", "4"); err != nil {
		return err
	}
	// Something that is still followed has come by then: next takes no record in its place.
	if _, err := c.next(ctx, "checkpoint"); err != nil {
		return err
	}
	m, err := c.ask(ctx, s.key, "subscribe", "subscribed", "cursor", left.Cursor)
	if err != nil {
		return err
	}
	if m.Resumed == nil || !*m.Resumed {
		return errors.New("subscribed says that it was not resumed")
	}
	_, err = c.bring(ctx, s.key, 3, 4)
	return err
}

func cursorLast(ctx context.Context, s *suite) error {
	c, at, err := s.open(ctx, url.Values{}, s.key)
	if err != nil {
		return err
	}
	defer c.end()
	if err := s.produce(ctx, "1", "2", "3", "4"); err != nil {
		return err
	}
	got, err := c.bring(ctx, s.key, 1, 4)
	if err != nil {
		return err
	}
	joined := strings.Join([]string{at[s.key].Cursor, got[2].Cursor, got[1].Cursor}, ".")
	again, _, err := s.open(ctx, url.Values{"cursor": {joined}}, s.key)
	if err != nil {
		return err
	}
	defer again.end()
	_, err = again.bring(ctx, s.key, 3, 4)
	return err
}

// pair produces 1 to 3 for two keys in turn and reads them; it gives each key's records.
func pair(ctx context.Context, s *suite) (c *conn, keys []string, got map[string][]message, err error) {
	keys = []string{s.key, s.key + "-two"}
	c, _, err = s.open(ctx, url.Values{}, keys...)
	if err != nil {
		return nil, nil, nil, err
	}
	for i := range 3 {
		for _, key := range keys {
			if err := s.cfg.Produce(ctx, key, []byte(strconv.Itoa(i+1)), nil); err != nil {
				c.end()
				return nil, nil, nil, fmt.Errorf("produce: %w", err)
			}
		}
	}
	all, err := c.records(ctx, 6)
	got = map[string][]message{}
	for _, m := range all {
		if m.Key == nil {
			err = errors.New("a record does not name its key")
			break
		}
		got[*m.Key] = append(got[*m.Key], m)
		if n := len(got[*m.Key]); string(m.Value) != strconv.Itoa(n) {
			err = fmt.Errorf("record %d of %s has value %s", n, *m.Key, m.Value)
		}
	}
	if err != nil {
		c.end()
		return nil, nil, nil, err
	}
	return c, keys, got, nil
}

func severalOrder(ctx context.Context, s *suite) error {
	c, keys, got, err := pair(ctx, s)
	if err != nil {
		return err
	}
	c.end()
	for _, key := range keys { // that of a single key serves a connection with this key alone
		one, err := s.follow(ctx, url.Values{"key": {key}, "cursor": {got[key][0].Cursor}})
		if err != nil {
			return err
		}
		next, err := one.records(ctx, 1)
		one.end()
		if err != nil {
			return err
		}
		if string(next[0].Value) != "2" {
			return fmt.Errorf("record %s came where 2 of %s was due", next[0].Value, key)
		}
	}
	return nil
}

func cursorJoined(ctx context.Context, s *suite) error {
	c, keys, got, err := pair(ctx, s)
	if err != nil {
		return err
	}
	all, err := c.next(ctx, "checkpoint")
	c.end()
	if err != nil {
		return err
	}
	if err := s.cfg.Produce(ctx, keys[1], []byte("4"), nil); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	// The first key is behind what the checkpoint says, the second where it says.
	again, at, err := s.open(ctx, url.Values{"cursor": {all.Cursor + "." + got[keys[0]][0].Cursor}}, keys...)
	if err != nil {
		return err
	}
	defer again.end()
	for _, key := range keys {
		if !*at[key].Resumed {
			return fmt.Errorf("%s was not resumed", key)
		}
	}
	rest, err := again.records(ctx, 3)
	if err != nil {
		return err
	}
	came := map[string]string{}
	for _, m := range rest {
		if m.Key != nil {
			came[*m.Key] += string(m.Value)
		}
	}
	if came[keys[0]] != "23" || came[keys[1]] != "4" {
		return fmt.Errorf("%v came where 2 and 3 of the first key and 4 of the second were due", came)
	}
	return nil
}
