package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Checks are all of them, in the order in which they are made.
func Checks() []Check {
	return append([]Check{
		{"hello", "hello comes first, with cursor, key, resumed and heartbeat_ms", hello, ""},
		{"subprotocol", "pointsman.json.v1 is confirmed where it is offered, and spoken where nothing is", subprotocol, ""},
		{"unknown-subprotocol", "a subprotocol that the server does not speak is refused with 400", unknownSubprotocol, ""},
		{"heartbeat", "something arrives at least every heartbeat_ms", heartbeat, ""},
		{"ping", "pings are answered", ping, ""},
		{"close", "a client's close is answered with its code", closing, ""},
		{"plain-http", "without an upgrade the answer is 426", plainHTTP, ""},
		{"parameters", "parameters that are unknown, repeated or contradict each other are refused with 400", parameters, ""},
		{"damaged-cursor", "a cursor that was changed is refused with 400", damagedCursor, ""},
		{"foreign-cursor", "a cursor of another key is refused with 403 or closed with 4002", foreignCursor, ""},
		{"resume-late", "a resume that was not announced is closed with 1008", resumeLate, ""},
		{"resume-nonsense", "a resume message that cannot be read is closed with 4000 or 4001", resumeNonsense, ""},
		{"data-message", "a message that is no control message is closed with 1003", dataMessage, ""},
		{"not-utf8", "a text message that is not UTF-8 is closed with 1007", notUTF8, ""},
		{"too-big", "a message above 128 KB is closed with 1009", tooBig, ""},
		{"auth", "auth with good credentials, or where nobody asks for any, is not answered and changes nothing", auth, ""},
		{"auth-refused", "auth with credentials that are not valid is closed with 4009", authRefused, "tokens"},
		{"no-token", "without a token the answer is 401", noToken, "tokens"},
		{"order", "records come in the order of their offsets, each once", order, "records"},
		{"values", "JSON comes byte for byte, other UTF-8 as text, anything else as base64, nothing as tombstone", values, "records"},
		{"headers", "headers keep order, repetitions and null", headers, "records"},
		{"timestamp", "timestamp is RFC 3339", timestamp, "records"},
		{"resume", "with a record's cursor the one after it comes next, and resumed is true", resume, "records"},
		{"resume-message", "a cursor in the first message does the same", resumeMessage, "records"},
		{"resume-idle", "the cursor of hello or a checkpoint brings what was produced while nobody was there", resumeIdle, "records"},
		{"from-earliest", "from=earliest begins with the oldest record", fromEarliest, "records"},
		{"from-offset", "from= an offset begins there, beyond the end at the end", fromOffset, "records"},
		{"from-latest", "without from and cursor only what comes later arrives", fromLatest, "records"},
		{"raw", "pointsman.raw.v1 carries values alone, and has no cursors", raw, "records"},
	}, severalChecks()...)
}

func hello(ctx context.Context, s *suite) error {
	c, err := s.dial(ctx, nil, jsonV1)
	if err != nil {
		return err
	}
	defer c.end()
	m, err := c.next(ctx, "hello")
	switch {
	case err != nil:
		return err
	case m.Cursor == "":
		return errors.New("hello has no cursor")
	case m.Key == nil || *m.Key != s.key:
		return errors.New("hello does not name the key")
	case m.Resumed == nil:
		return errors.New("hello does not say resumed")
	case m.HeartbeatMS == nil || *m.HeartbeatMS <= 0:
		return errors.New("hello promises no heartbeat_ms")
	}
	return nil
}

func subprotocol(ctx context.Context, s *suite) error {
	for _, offer := range [][]string{{jsonV1}, {"unheard.of", jsonV1}, nil} {
		c, err := s.dial(ctx, nil, offer...)
		if err != nil {
			return fmt.Errorf("offering %q: %w", offer, err)
		}
		_, err = c.next(ctx, "hello")
		got := c.ws.Subprotocol()
		c.end()
		switch {
		case err != nil:
			return fmt.Errorf("offering %q: %w", offer, err)
		case len(offer) > 0 && got != jsonV1, len(offer) == 0 && got != "":
			return fmt.Errorf("offering %q: %q is confirmed", offer, got)
		}
	}
	return nil
}

func unknownSubprotocol(ctx context.Context, s *suite) error {
	return s.refuses(ctx, "an unknown subprotocol", nil, []string{"unheard.of"}, http.StatusBadRequest)
}

func heartbeat(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	if c.hello.HeartbeatMS == nil {
		return errors.New("hello promises no heartbeat_ms")
	}
	// Half of it more: what a client waits before it goes.
	c.patience = time.Duration(*c.hello.HeartbeatMS) * time.Millisecond * 3 / 2
	for range 2 {
		if _, _, err := c.read(ctx); err != nil {
			return err
		}
	}
	return nil
}

func plainHTTP(ctx context.Context, s *suite) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	base := strings.TrimSuffix(strings.Replace(s.cfg.URL, "ws", "http", 1), "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path+"?key="+s.key, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		return fmt.Errorf("status %d, want 426", resp.StatusCode)
	}
	return nil
}

func parameters(ctx context.Context, s *suite) error {
	for what, q := range map[string]url.Values{
		"an unknown parameter":   {"curser": {"x"}},
		"a repeated parameter":   {"from": {"latest", "earliest"}},
		"a start that is no one": {"from": {"yesterday"}},
		"a negative offset":      {"from": {"-1"}},
		"an empty cursor":        {"cursor": {""}},
		"resume and from":        {"resume": {"message"}, "from": {"latest"}},
		"another resume":         {"resume": {"please"}},
	} {
		if err := s.refuses(ctx, what, q, []string{jsonV1}, http.StatusBadRequest); err != nil {
			return err
		}
	}
	return nil
}

func damagedCursor(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	c.end()
	good := c.hello.Cursor
	if len(good) < 4 {
		return fmt.Errorf("cursor %q is too short to be checked", good)
	}
	other := map[bool]string{true: "B", false: "A"}[good[len(good)/2] == 'A']
	for what, bad := range map[string]string{
		"a changed cursor":      good[:len(good)/2] + other + good[len(good)/2+1:],
		"half a cursor":         good[:len(good)/2],
		"a cursor of nothing":   "nonsense",
		"a cursor of no base64": "§§§",
	} {
		if err := s.refuses(ctx, what, url.Values{"cursor": {bad}}, []string{jsonV1}, http.StatusBadRequest); err != nil {
			return err
		}
	}
	return nil
}

func foreignCursor(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	c.end()
	other, err := s.dial(ctx, url.Values{"key": {s.key + "-other"}, "cursor": {c.hello.Cursor}}, jsonV1)
	var r *refused
	switch {
	case errors.As(err, &r) && r.status == http.StatusForbidden:
		return nil
	case err != nil:
		return fmt.Errorf("%w, want 403", err)
	}
	defer other.end()
	return other.closes(ctx, 4002)
}

// answered connects, sends one message and waits for the close that answers it.
func answered(ctx context.Context, s *suite, q url.Values, send func(*conn) error, codes ...int) error {
	c, err := s.dial(ctx, q, jsonV1)
	if err != nil {
		return err
	}
	defer c.end()
	if q == nil {
		if _, err := c.next(ctx, "hello"); err != nil {
			return err
		}
	}
	if err := send(c); err != nil {
		return err
	}
	return c.closes(ctx, codes...)
}

func resumeLate(ctx context.Context, s *suite) error {
	return answered(ctx, s, nil, func(c *conn) error { return c.send(ctx, `{"type":"resume","cursor":"AQIDBA-_"}`) }, 1008)
}

func resumeNonsense(ctx context.Context, s *suite) error {
	for _, text := range []string{`{"type":"resume","cursor":"nonsense"}`, `{"type":"resume"}`, `nonsense`} {
		err := answered(ctx, s, url.Values{"resume": {"message"}}, func(c *conn) error { return c.send(ctx, text) }, 4000, 4001)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

func dataMessage(ctx context.Context, s *suite) error {
	return answered(ctx, s, nil, func(c *conn) error { return c.send(ctx, `{"type":"chat","text":"hello?"}`) }, 1003)
}

func notUTF8(ctx context.Context, s *suite) error {
	return answered(ctx, s, nil, func(c *conn) error { return c.send(ctx, "\xff\xfe") }, 1007)
}

func tooBig(ctx context.Context, s *suite) error {
	return answered(ctx, s, nil, func(c *conn) error {
		_ = c.send(ctx, `{"type":"auth","token":"`+strings.Repeat("x", 200<<10)+`"}`) // it may be closed under way
		return nil
	}, 1009)
}

func auth(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	token := "any"
	if s.cfg.Token != nil {
		token = s.cfg.Token(s.key)
	}
	text, err := json.Marshal(map[string]string{"type": "auth", "token": token})
	if err != nil {
		return err
	}
	if err := c.send(ctx, string(text)); err != nil {
		return err
	}
	// Whatever comes next, it is no close: a heartbeat at the latest.
	c.patience = max(c.patience, time.Duration(*c.hello.HeartbeatMS)*time.Millisecond*3/2)
	_, _, err = c.read(ctx)
	return err
}

func authRefused(ctx context.Context, s *suite) error {
	return answered(ctx, s, nil, func(c *conn) error { return c.send(ctx, `{"type":"auth","token":"a.b.c"}`) }, 4009)
}

func noToken(ctx context.Context, s *suite) error {
	bare := *s
	bare.cfg.Token = nil
	return bare.refuses(ctx, "no token", nil, []string{jsonV1}, http.StatusUnauthorized)
}

func order(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	const n = 20
	for i := range n {
		if err := s.produce(ctx, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	got, err := c.records(ctx, n)
	if err != nil {
		return err
	}
	for i, m := range got {
		if string(m.Value) != strconv.Itoa(i) {
			return fmt.Errorf("record %d has value %s", i, m.Value)
		}
		if i > 0 && *m.Partition == *got[i-1].Partition && *m.Offset <= *got[i-1].Offset {
			return fmt.Errorf("record %d has offset %d after %d", i, *m.Offset, *got[i-1].Offset)
		}
	}
	return nil
}

func values(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	exact := `{ "n": 1.00, "n": 1e5, "e": "\u00e9" }`
	text, binary := "not {JSON} \"\\\n", []byte{0xff, 0x00, 0xfe}
	for _, v := range [][]byte{[]byte(exact), []byte(text), binary, nil, {}} {
		if err := s.cfg.Produce(ctx, s.key, v, nil); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	// The exact bytes are looked for in the message itself.
	waiting, cancel := c.within(ctx, "no record came")
	defer cancel()
	opcode, first, err := c.read(waiting)
	for err == nil && !bytes.Contains(first, []byte(`"record"`)) {
		opcode, first, err = c.read(waiting)
	}
	switch {
	case err != nil:
		return err
	case opcode != websocket.MessageText || !bytes.Contains(first, []byte(`"value":`+exact)):
		return fmt.Errorf("JSON %s came as %s", exact, first)
	}
	got, err := c.records(ctx, 4)
	if err != nil {
		return err
	}
	switch {
	case got[0].Text == nil || *got[0].Text != text || got[0].Value != nil:
		return fmt.Errorf("text came as %+v", got[0])
	case got[1].Base64 == nil || *got[1].Base64 != base64.StdEncoding.EncodeToString(binary) || got[1].Text != nil:
		return fmt.Errorf("bytes came as %+v", got[1])
	case !got[2].Tombstone || got[2].Text != nil || got[2].Value != nil || got[2].Base64 != nil:
		return fmt.Errorf("a tombstone came as %+v", got[2])
	case got[3].Tombstone || got[3].Text == nil || *got[3].Text != "":
		return fmt.Errorf("an empty value came as %+v", got[3])
	}
	return nil
}

func headers(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	sent := []Header{{"b", []byte("text")}, {"a", []byte{0xff}}, {"b", nil}, {"b", []byte{}}}
	if err := errors.Join(s.cfg.Produce(ctx, s.key, []byte("1"), sent), s.cfg.Produce(ctx, s.key, []byte("2"), nil)); err != nil {
		return err
	}
	got, err := c.records(ctx, 2)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, h := range got[0].Headers {
		for _, part := range []*string{h.Key, h.Text, h.Base64} {
			if part == nil {
				b.WriteString("-,")
			} else {
				fmt.Fprintf(&b, "%q,", *part)
			}
		}
	}
	if want := `"b","text",-,"a",-,"/w==","b",-,-,"b","",-,`; b.String() != want {
		return fmt.Errorf("headers came as %s, want %s", b.String(), want)
	}
	if got[1].Headers != nil {
		return errors.New("a record without headers has some")
	}
	return nil
}

func timestamp(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	defer c.end()
	if err := s.produce(ctx, "1"); err != nil {
		return err
	}
	got, err := c.records(ctx, 1)
	if err != nil {
		return err
	}
	if got[0].Timestamp == nil {
		return errors.New("a record with a time came without")
	}
	at, err := time.Parse(time.RFC3339, *got[0].Timestamp)
	if err != nil {
		return err
	}
	if d := time.Since(at); d < -time.Hour || d > time.Hour {
		return fmt.Errorf("the time %s is not that of the record", at)
	}
	return nil
}

// five produces five records and gives them as a connection gets them.
func five(ctx context.Context, s *suite) ([]message, error) {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if err := s.produce(ctx, "1", "2", "3", "4", "5"); err != nil {
		return nil, err
	}
	return c.records(ctx, 5)
}

// begins connects and holds that the records from number n on come.
func begins(ctx context.Context, s *suite, q url.Values, n int, resumed bool) error {
	c, err := s.follow(ctx, q)
	if err != nil {
		return err
	}
	defer c.end()
	return c.continues(ctx, n, resumed)
}

// continues holds that the records from number n to 5 come.
func (c *conn) continues(ctx context.Context, n int, resumed bool) error {
	if resumed && (c.hello.Resumed == nil || !*c.hello.Resumed) {
		return errors.New("hello says that it was not resumed")
	}
	got, err := c.records(ctx, 6-n)
	if err != nil {
		return err
	}
	for i, m := range got {
		if string(m.Value) != strconv.Itoa(n+i) {
			return fmt.Errorf("record %s came where %d was due", m.Value, n+i)
		}
	}
	return nil
}

func resume(ctx context.Context, s *suite) error {
	got, err := five(ctx, s)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 4} {
		if err := begins(ctx, s, url.Values{"cursor": {got[n-1].Cursor}}, n+1, true); err != nil {
			return fmt.Errorf("behind record %d: %w", n, err)
		}
	}
	return nil
}

func resumeMessage(ctx context.Context, s *suite) error {
	got, err := five(ctx, s)
	if err != nil {
		return err
	}
	c, err := s.dial(ctx, url.Values{"resume": {"message"}}, jsonV1)
	if err != nil {
		return err
	}
	defer c.end()
	if err := c.send(ctx, `{"type":"resume","cursor":"`+got[1].Cursor+`"}`); err != nil {
		return err
	}
	if c.hello, err = c.next(ctx, "hello"); err != nil {
		return err
	}
	return c.continues(ctx, 3, true)
}

func resumeIdle(ctx context.Context, s *suite) error {
	c, err := s.follow(ctx, nil)
	if err != nil {
		return err
	}
	c.end()
	if err := s.produce(ctx, "1", "2", "3", "4", "5"); err != nil {
		return err
	}
	return begins(ctx, s, url.Values{"cursor": {c.hello.Cursor}}, 1, true)
}

func fromEarliest(ctx context.Context, s *suite) error {
	if err := s.produce(ctx, "1", "2", "3", "4", "5"); err != nil {
		return err
	}
	return begins(ctx, s, url.Values{"from": {"earliest"}}, 1, false)
}

func fromOffset(ctx context.Context, s *suite) error {
	got, err := five(ctx, s)
	if err != nil {
		return err
	}
	at := strconv.FormatInt(*got[2].Offset, 10)
	if err := begins(ctx, s, url.Values{"from": {at}}, 3, false); err != nil {
		return fmt.Errorf("from the third's offset: %w", err)
	}
	return fresh(ctx, s, url.Values{"from": {"4611686018427387904"}})
}

func fromLatest(ctx context.Context, s *suite) error {
	// What was delivered to one client is the past to another; what was only just produced need not be.
	if _, err := five(ctx, s); err != nil {
		return err
	}
	return errors.Join(fresh(ctx, s, nil), fresh(ctx, s, url.Values{"from": {"latest"}}))
}

// fresh holds that only what is produced later comes.
func fresh(ctx context.Context, s *suite, q url.Values) error {
	c, err := s.follow(ctx, q)
	if err != nil {
		return err
	}
	defer c.end()
	if err := s.produce(ctx, `"later"`); err != nil {
		return err
	}
	got, err := c.records(ctx, 1)
	if err != nil {
		return err
	}
	if string(got[0].Value) != `"later"` {
		return fmt.Errorf("an old record came: %s", got[0].Value)
	}
	return nil
}

func raw(ctx context.Context, s *suite) error {
	if err := s.refuses(ctx, "a cursor on "+rawV1, url.Values{"cursor": {"AQIDBA-_"}}, []string{rawV1}, http.StatusBadRequest); err != nil {
		return err
	}
	c, err := s.dial(ctx, url.Values{"from": {"earliest"}}, rawV1)
	if err != nil {
		return err
	}
	defer c.end()
	if c.ws.Subprotocol() != rawV1 {
		return fmt.Errorf("%q is confirmed", c.ws.Subprotocol())
	}
	if err := errors.Join(s.produce(ctx, `{"a": 1}`), s.cfg.Produce(ctx, s.key, nil, nil), s.produce(ctx, "\xff")); err != nil {
		return err
	}
	for _, want := range []string{`{"a": 1}`, "\xff"} {
		_, got, err := c.read(ctx)
		if err != nil {
			return err
		}
		if string(got) != want {
			return fmt.Errorf("%q came, want %q", got, want)
		}
	}
	return nil
}
