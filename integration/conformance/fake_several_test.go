package conformance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// feed is one of several keys on a connection.
type feed struct {
	key     string
	next    int
	resumed bool
}

// feeds are those that a request begins with; a status other than 0 refuses it.
func (f *fake) feeds(q url.Values) (list []feed, status int) {
	if f.fault == "several-none" && q.Get("several") == "none" {
		return nil, http.StatusBadRequest
	}
	for _, key := range q["key"] {
		one := feed{key: key, next: f.end()}
		parts := strings.Split(q.Get("cursor"), ".")
		if f.fault == "cursor-last" {
			slices.Reverse(parts)
		}
		for _, text := range parts {
			if text == "" {
				continue
			}
			of, at, err := readCursor(text)
			if err != nil {
				return nil, http.StatusBadRequest
			}
			if of == key {
				one.next, one.resumed = at, true
			}
		}
		list = append(list, one)
	}
	return list, 0
}

// severally serves several keys.
func (f *fake) severally(ctx context.Context, ws *websocket.Conn, list []feed, asked <-chan map[string]string) {
	say := func(format string, args ...any) bool {
		return ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)) == nil
	}
	count := len(list)
	if f.fault == "several-hello" {
		count++
	}
	ok := say(`{"type":"hello","keys":%d,"heartbeat_ms":200}`, count)
	for _, one := range list {
		ok = ok && say(`{"type":"subscribed","cursor":%q,"key":%q,"resumed":%t}`, cursor(one.key, one.next), one.key, one.resumed)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for ok {
		_, more := f.from(0)
		for i := range list {
			entries, _ := f.from(list[i].next)
			for _, e := range entries {
				list[i].next++
				if e.key != list[i].key {
					continue
				}
				name := e.key
				if f.fault == "several-order" {
					name = list[0].key
				}
				ok = ok && say(`{"type":"record","cursor":%q,"key":%q,"partition":0,"offset":%d,"value":%s}`, cursor(e.key, list[i].next), name, list[i].next-1, e.value)
			}
		}
		select {
		case <-more:
		case <-ticker.C:
			ok = ok && say(`{"type":"checkpoint","cursor":%q}`, f.joined(list))
		case m := <-asked:
			list = f.change(list, m, say)
		case <-ctx.Done():
			return
		}
	}
}

// joined is the cursor of all keys.
func (f *fake) joined(list []feed) string {
	all := make([]string, 0, len(list))
	for _, one := range list {
		all = append(all, cursor(one.key, one.next))
	}
	if f.fault == "cursor-joined" { // it is of one key alone
		all = all[:min(1, len(all))]
	}
	return strings.Join(all, ".")
}

// change adds or takes away a key.
func (f *fake) change(list []feed, m map[string]string, say func(string, ...any) bool) []feed {
	i := slices.IndexFunc(list, func(one feed) bool { return one.key == m["key"] })
	switch {
	case m["type"] == "subscribe" && i >= 0, m["type"] == "unsubscribe" && i < 0:
		reason := map[bool]string{true: "already", false: "unknown"}[i >= 0]
		if f.fault == "several-refused" {
			reason = "no"
		}
		say(`{"type":"refused","of":%q,"key":%q,"reason":%q,"detail":""}`, m["type"], m["key"], reason)
	case m["type"] == "unsubscribe":
		say(`{"type":"unsubscribed","cursor":%q,"key":%q}`, cursor(list[i].key, list[i].next), m["key"])
		if f.fault != "unsubscribe" {
			return slices.Delete(list, i, i+1)
		}
	default:
		one := feed{key: m["key"], next: f.end()}
		if m["from"] == "earliest" && f.fault != "subscribe-from" {
			one.next = 0
		}
		_, at, err := readCursor(m["cursor"])
		if err == nil {
			one.next = at
		}
		say(`{"type":"subscribed","cursor":%q,"key":%q,"resumed":%t}`, cursor(one.key, one.next), one.key, err == nil)
		return append(list, one)
	}
	return list
}

// control reads a message about keys; nil when it is another.
func control(text []byte) map[string]string {
	var m map[string]string
	if json.Unmarshal(text, &m) != nil || !strings.HasSuffix(m["type"], "subscribe") {
		return nil
	}
	return m
}
