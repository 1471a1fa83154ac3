package conformance_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/integration/conformance"
)

// fake is a server in memory that keeps to the protocol, but for one fault that is named as the check that finds it.
type fake struct {
	fault  string
	tokens bool // it asks for the token "good"

	mu      sync.Mutex
	log     []entry       // guarded by mu; an entry's place is its offset
	changed chan struct{} // guarded by mu; closed and replaced when log grows
}

type entry struct {
	key     string
	value   []byte
	headers []conformance.Header
}

func (f *fake) produce(_ context.Context, key string, value []byte, headers []conformance.Header) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, entry{key, value, headers})
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

func (f *fake) end() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log)
}

// from gives what is in the log from an offset on, and what tells that there is more.
func (f *fake) from(next int) ([]entry, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log[next:], f.changed
}

func sum(text string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return strconv.Itoa(int(h.Sum32()))
}

func cursor(key string, next int) string {
	text := key + " " + strconv.Itoa(next)
	return base64.RawURLEncoding.EncodeToString([]byte(text + " " + sum(text)))
}

func readCursor(c string) (key string, next int, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(c)
	parts := strings.Split(string(raw), " ")
	if err != nil || len(parts) != 3 || sum(parts[0]+" "+parts[1]) != parts[2] {
		return "", 0, errors.New("damaged")
	}
	next, err = strconv.Atoi(parts[1])
	return parts[0], next, err
}

// start is where a request begins; a status other than 0 refuses it.
func (f *fake) start(q url.Values, raw bool) (next, status int) {
	key, text, from := q.Get("key"), q.Get("cursor"), q.Get("from")
	for name, v := range q {
		if !strings.Contains(" key cursor from resume ", " "+name+" ") || len(v) > 1 {
			return 0, http.StatusBadRequest
		}
	}
	if (q.Has("resume") && (q.Has("from") || q.Get("resume") != "message")) || (q.Has("cursor") && (text == "" || raw)) {
		return 0, http.StatusBadRequest
	}
	switch of, at, err := readCursor(text); {
	case text == "":
	case err != nil && f.fault == "damaged-cursor":
		return f.end(), 0
	case err != nil:
		return 0, http.StatusBadRequest
	case of != key && f.fault != "foreign-cursor":
		return 0, http.StatusForbidden
	case f.fault == "resume":
		return max(0, at-1), 0
	case f.fault == "resume-idle":
		return f.end(), 0
	default:
		return at, 0
	}
	n, err := strconv.Atoi(from)
	switch {
	case from == "" || from == "latest":
		if f.fault == "from-latest" {
			return 0, 0
		}
		return f.end(), 0
	case from == "earliest" && f.fault == "from-earliest":
		return f.end(), 0
	case from == "earliest":
		return 0, 0
	case err != nil || n < 0:
		return 0, http.StatusBadRequest
	case f.fault == "from-offset":
		return 0, 0
	}
	return min(n, f.end()), 0
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int) { http.Error(w, "refused", status) }
	if r.Header.Get("Upgrade") == "" {
		refuse(map[bool]int{true: http.StatusOK, false: http.StatusUpgradeRequired}[f.fault == "plain-http"])
		return
	}
	offered := r.Header.Get("Sec-WebSocket-Protocol")
	speaks := []string{"pointsman.json.v1", "pointsman.raw.v1"}
	if offered != "" && !strings.Contains(offered, speaks[0]) && !strings.Contains(offered, speaks[1]) && f.fault != "unknown-subprotocol" {
		refuse(http.StatusBadRequest)
		return
	}
	if f.tokens && r.Header.Get("Authorization") != "Bearer good" && f.fault != "no-token" {
		refuse(http.StatusUnauthorized)
		return
	}
	q := r.URL.Query()
	raw := offered == speaks[1]
	var next, status int
	var list []feed
	if q.Has("several") {
		list, status = f.feeds(q)
	} else {
		next, status = f.start(q, raw)
	}
	if status != 0 && f.fault == "parameters" {
		next, status = f.end(), 0
	}
	if status != 0 {
		refuse(status)
		return
	}
	if f.fault == "subprotocol" {
		speaks = speaks[1:]
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: speaks})
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	// The request's context ends with the upgrade.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	ws.SetReadLimit(128 << 10)
	if f.fault == "too-big" {
		ws.SetReadLimit(-1)
	}
	if q.Has("resume") {
		if next = f.resume(ctx, ws, q.Get("key")); next < 0 {
			return
		}
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = ws.CloseNow() }()
	asked := make(chan map[string]string, 16)
	if f.fault != "ping" && f.fault != "close" {
		reading.Go(func() {
			f.read(ctx, ws, asked, q.Has("several"))
			cancel()
		})
	}
	if q.Has("several") {
		f.severally(ctx, ws, list, asked)
		return
	}
	f.write(ctx, ws, q, next, raw)
}

// resume reads the first message; -1 when that ended the connection.
func (f *fake) resume(ctx context.Context, ws *websocket.Conn, key string) int {
	var m struct{ Type, Cursor string }
	_, text, err := ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	of, at, bad := readCursor(m.Cursor)
	switch {
	case f.fault == "resume-message" || f.fault == "resume-nonsense":
		return f.end()
	case err != nil || bad != nil || of != key:
		_ = ws.Close(4000, "no cursor")
		return -1
	}
	return at
}

// read answers what a client sends, until the connection ends.
func (f *fake) read(ctx context.Context, ws *websocket.Conn, asked chan<- map[string]string, several bool) {
	for {
		_, text, err := ws.Read(ctx)
		if err != nil {
			return
		}
		if about := control(text); about != nil {
			if several {
				asked <- about
				continue
			}
			_ = ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"refused","of":%q,"key":%q,"reason":"single"}`, about["type"], about["key"]))
			continue
		}
		var m struct{ Type, Token string }
		malformed := json.Unmarshal(text, &m) != nil
		code := websocket.StatusCode(0)
		fault := ""
		switch {
		case !utf8.Valid(text):
			code, fault = 1007, "not-utf8"
		case m.Type == "resume":
			code, fault = 1008, "resume-late"
		case m.Type == "auth" && f.tokens && m.Token != "good":
			code, fault = 4009, "auth-refused"
		case m.Type == "auth" && f.fault == "auth":
			code = 1008
		case m.Type == "auth":
		case malformed || m.Type != "auth":
			code, fault = 1003, "data-message"
		}
		if code != 0 && f.fault != fault || fault == "" && code != 0 {
			_ = ws.Close(code, "not so")
			return
		}
	}
}

func (f *fake) write(ctx context.Context, ws *websocket.Conn, q url.Values, next int, raw bool) {
	key := q.Get("key")
	say := func(format string, args ...any) bool {
		return ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)) == nil
	}
	if !raw {
		beat := `,"heartbeat_ms":200`
		if f.fault == "hello" {
			beat = ""
		}
		if !say(`{"type":"hello","cursor":%q,"key":%q,"resumed":%t%s}`, cursor(key, next), key, true, beat) {
			return
		}
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		entries, more := f.from(next)
		if f.fault == "order" && len(entries) == 1 { // it waits for two, and changes their places
			entries = nil
		}
		for i := range entries {
			e, offset := entries[i], next+i
			if f.fault == "order" {
				e = entries[len(entries)-1-i]
			}
			if e.key == key && !f.record(ctx, ws, e, offset, raw) {
				return
			}
		}
		next += len(entries)
		select {
		case <-more:
		case <-ticker.C:
			if !raw && f.fault != "heartbeat" && !say(`{"type":"checkpoint","cursor":%q}`, cursor(key, next)) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (f *fake) record(ctx context.Context, ws *websocket.Conn, e entry, offset int, raw bool) bool {
	if raw && f.fault != "raw" {
		kind := websocket.MessageText
		if !utf8.Valid(e.value) {
			kind = websocket.MessageBinary
		}
		return e.value == nil || ws.Write(ctx, kind, e.value) == nil
	}
	at := time.Now().UTC().Format(time.RFC3339Nano)
	if f.fault == "timestamp" {
		at = "yesterday"
	}
	b := fmt.Appendf(nil, `{"type":"record","cursor":%q,"partition":0,"offset":%d,"timestamp":%q`, cursor(e.key, offset+1), offset, at)
	quote := func(v []byte) string {
		if utf8.Valid(v) {
			text, _ := json.Marshal(string(v)) // of text: it cannot fail
			return `"text":` + string(text)
		}
		return `"base64":"` + base64.StdEncoding.EncodeToString(v) + `"`
	}
	for i, h := range e.headers {
		b = fmt.Appendf(b, "%s%s", map[bool]string{true: `,"headers":[`, false: ","}[i == 0], fmt.Sprintf(`{"key":%q`, h.Key))
		if h.Value != nil || f.fault == "headers" {
			b = append(b, ","+quote(h.Value)...)
		}
		b = append(b, '}')
	}
	if len(e.headers) > 0 {
		b = append(b, ']')
	}
	switch {
	case e.value == nil:
		b = append(b, `,"tombstone":true}`...)
	case json.Valid(e.value) && f.fault != "values":
		b = append(append(append(b, `,"value":`...), e.value...), '}')
	default:
		b = append(b, ","+quote(e.value)+"}"...)
	}
	return ws.Write(ctx, websocket.MessageText, b) == nil
}
