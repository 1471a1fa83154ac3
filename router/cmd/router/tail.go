package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

// tail prints the records of a key.
type tail struct {
	Key    string   `arg:"" optional:"" help:"Client key; with --token-file it may be left to the token."`
	URL    []string `name:"url" default:"ws://127.0.0.1:8080" placeholder:"URL" help:"Routers, tried in order."`
	Base64 bool     `name:"base64" help:"The key is given in base64."`
	From   string   `default:"latest" placeholder:"START" help:"Where to begin: latest, earliest, an offset or an RFC 3339 time."`
	Cursor string   `placeholder:"TEXT" help:"Continue here instead of --from."`
	Count  int      `default:"0" placeholder:"N" help:"Stop after so many records; 0 means never."`
	Values bool     `help:"Print values alone, one a line."`
	Output string   `short:"o" default:"text" enum:"text,raw,json" placeholder:"FORMAT" help:"text shows a terminal no control characters of records, and is the same as raw anywhere else. json is for programs: one message of docs/protocol.md a line (hello, record, checkpoint, gap), each with the cursor to continue with."`

	TokenFile options.SecretFile `placeholder:"FILE" help:"File with the token to show, for --auth=jwt. It is read whenever one is needed, so that another program can keep it fresh."`
}

// Run prints until ctx ends, or as many as were asked for.
func (t *tail) Run(ctx context.Context, env options.Env) error {
	if t.Values && t.Output == "json" {
		return options.Usagef("--values prints no JSON: choose one of --values and -o json")
	}
	key := []byte(t.Key)
	if t.Base64 {
		k, err := clientmsg.DecodeKey(t.Key)
		if err != nil {
			return options.Usagef("the key is not base64")
		}
		key = k
	}
	if t.Key == "" && t.TokenFile == "" {
		return options.Usagef("name a key, or a --token-file")
	}
	cfg := client.Config{URLs: t.URL, Cursor: t.Cursor, From: t.From}
	if t.Key != "" {
		cfg.Key = key
	}
	if t.TokenFile != "" {
		if _, err := t.TokenFile.Read(); err != nil {
			return options.Usagef("--token-file: %w", err)
		}
		cfg.Token = func(context.Context) (string, error) { return t.TokenFile.Read() }
	}
	var failed sync.Once // the first failure says enough; the wait may be long
	cfg.Retrying = func(d client.Disconnected) {
		failed.Do(func() { _, _ = fmt.Fprintf(env.Stderr, "# cannot connect: %v; trying again until it works\n", d.Err) })
	}
	if t.Cursor != "" {
		cfg.From = ""
	}
	c, err := client.Connect(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = c.Close() }()
	seen := 0
	for event, err := range c.Events(ctx) {
		if ctx.Err() != nil {
			return nil // interrupted: that is how a tail ends
		}
		if err != nil {
			return err
		}
		if _, ok := event.(*client.Record); ok {
			seen++
		}
		if err := t.print(env.Stdout, env.Stderr, event); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		if t.Count > 0 && seen >= t.Count {
			return nil
		}
	}
	return nil
}

// print writes records to out and everything else to remarks; as JSON, to out goes everything that moves the cursor.
func (t *tail) print(out, remarks io.Writer, event client.Event) error {
	var err error
	if t.Output == "json" {
		if line := message(event); line != nil {
			_, err = out.Write(line)
			return err
		}
	}
	switch e := event.(type) {
	case *client.Record:
		value := t.value(e, terminal(out))
		if t.Values {
			_, err = fmt.Fprintln(out, value)
			break
		}
		_, err = fmt.Fprintf(out, "%d:%d %s %s\n", e.Partition, e.Offset, e.Timestamp.UTC().Format(time.RFC3339Nano), value)
	case *client.Hello:
		_, err = fmt.Fprintf(remarks, "# connected to %s, resumed %t, cursor %s\n", e.URL, e.Resumed, e.Cursor)
	case *client.Gap:
		_, err = fmt.Fprintf(remarks, "# gap: %s, goes on at %d of partition %d\n", e.Reason, e.To, e.Partition)
	case *client.Waiting:
		_, err = fmt.Fprintln(remarks, "# waiting: no node serves the key")
	case *client.GoAway:
		_, err = fmt.Fprintln(remarks, "# the router is stopping")
	case *client.Expiring:
		if t.TokenFile == "" {
			_, err = fmt.Fprintf(remarks, "# the token expires in %s\n", e.In)
		}
	case *client.Disconnected:
		_, err = fmt.Fprintf(remarks, "# disconnected: %v\n", e.Err)
	}
	return err
}

func (t *tail) value(r *client.Record, person bool) string {
	switch {
	case r.Tombstone:
		return "(tombstone)"
	case person && t.Output != "raw":
		return tame(printable(r.Value))
	}
	return printable(r.Value)
}

// message is an event as the protocol writes it, in one line; nil for one that moves no cursor.
func message(event client.Event) []byte {
	var msg []byte
	switch e := event.(type) {
	case *client.Hello:
		msg = clientmsg.AppendHello(nil, e.Cursor, e.Key, e.Resumed, e.Heartbeat)
	case *client.Record:
		stamp := int64(clientmsg.NoTimestamp)
		if !e.Timestamp.IsZero() {
			stamp = e.Timestamp.UnixMilli()
		}
		msg = clientmsg.AppendRecord(nil, e.Cursor, e.Partition, e.Offset, stamp, e.Headers, e.Value, e.Tombstone, e.Key)
	case *client.Checkpoint:
		msg = clientmsg.AppendCheckpoint(nil, e.Cursor)
	case *client.Gap:
		msg = gap(e)
	default:
		return nil
	}
	// A producer's JSON may have line breaks between its tokens, and in its strings characters that a terminal obeys.
	var line bytes.Buffer
	if err := json.Compact(&line, msg); err != nil {
		line.Reset()
		_, _ = line.Write(msg) // it is JSON: the appenders saw to it
	}
	return append(escape(line.Bytes()), '\n')
}

// gap is the message of a gap; its reason may be one that this version has no word for.
func gap(e *client.Gap) []byte {
	g := struct {
		Type      string  `json:"type"`
		Cursor    string  `json:"cursor"`
		Key       *string `json:"key,omitempty"`
		KeyBase64 []byte  `json:"key_b64,omitempty"`
		Reason    string  `json:"reason"`
		Partition int32   `json:"partition"`
		From      *int64  `json:"from,omitempty"`
		To        int64   `json:"to"`
	}{Type: "gap", Cursor: e.Cursor, Reason: e.Reason, Partition: e.Partition, To: e.To}
	switch key := string(e.Key); {
	case e.Key == nil:
	case utf8.Valid(e.Key):
		g.Key = &key
	default:
		g.KeyBase64 = e.Key
	}
	if e.From >= 0 {
		g.From = &e.From
	}
	msg, _ := json.Marshal(g) // of strings and numbers: it cannot fail
	return msg
}

// escape writes what is not printable as JSON does. Outside of strings compact JSON has nothing of the kind.
func escape(text []byte) []byte {
	out := make([]byte, 0, len(text)+1)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case strconv.IsPrint(r):
			out = append(out, text[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[n:]
	}
	return out
}

// tame spells what a terminal would obey: a record's writer has no business moving the reader's cursor, or worse. Whoever
// reads by a program gets records as they are.
func tame(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\t', r == ' ', strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

func printable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return "base64:" + base64.StdEncoding.EncodeToString(b)
}
