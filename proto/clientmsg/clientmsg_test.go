package clientmsg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/internal/golden"
	"github.com/pointsmanhq/pointsman/proto/link"
)

const cur = "AQIDBA-_"

// record writes a record with nothing but a value.
func record(value []byte) []byte {
	return clientmsg.AppendRecord(nil, cur, 3, 4711, 1767323045006, nil, value, false, nil)
}

func headers(kv ...string) (hs []link.Header) {
	for i := 0; i < len(kv); i += 2 {
		hs = append(hs, link.Header{Key: []byte(kv[i]), Value: []byte(kv[i+1])})
	}
	return hs
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestMessagesAreFrozen(t *testing.T) {
	value := []byte(`{"any":"json"}`)
	at := int64(1767323045006)
	nullHeader := append(headers("trace", "4bf9", "trace", "", "bin", "\xff\x00"), link.Header{Key: []byte("null")}, link.Header{Key: []byte("\xfe"), Value: []byte("x")})
	messages := map[string][]byte{}
	var got []golden.Line
	add := func(name string, msg []byte) {
		messages[name] = msg
		got = append(got, golden.Line{Name: name, Text: string(msg)})
	}
	add("hello", clientmsg.AppendHello(nil, cur, []byte("alice"), true, 15*time.Second))
	add("hello-binary-key", clientmsg.AppendHello(nil, cur, []byte{0xff, 0xfe}, false, 1500*time.Microsecond))
	add("hello-empty-key", clientmsg.AppendHello(nil, cur, []byte{}, false, time.Minute))
	add("record", clientmsg.AppendRecord(nil, cur, 3, 4711, at, headers("trace", "4bf9"), value, false, nil))
	add("record-with-key", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, value, false, []byte("alice")))
	add("record-with-binary-key", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, value, false, []byte{0xff}))
	add("record-headers", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nullHeader, []byte("1"), false, nil))
	add("record-spaces", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, []byte(" [1.00, 1e5 ,\"\\u00e9\"]\t"), false, nil))
	add("record-text", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, []byte("say \"hi\"\\\r\n\t\x00\x1f\x7f bücher \u2028"), false, nil))
	add("record-empty", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, []byte{}, false, nil))
	add("record-base64", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, []byte{0xff, 0xfe, 0x00, 0x3e}, false, nil))
	add("record-json-of-bad-utf8", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, []byte("{\"a\":\"\xff\"}"), false, nil))
	add("record-tombstone", clientmsg.AppendRecord(nil, cur, 3, 4711, at, nil, nil, true, nil))
	add("record-no-timestamp", clientmsg.AppendRecord(nil, cur, 0, 0, clientmsg.NoTimestamp, nil, value, false, nil))
	add("record-before-1970", clientmsg.AppendRecord(nil, cur, 0, 0, -2, nil, value, false, nil))
	add("record-year-0", clientmsg.AppendRecord(nil, cur, 0, 0, -62167219200000, nil, value, false, nil))
	add("record-before-year-0", clientmsg.AppendRecord(nil, cur, 0, 0, -62167219200001, nil, value, false, nil))
	add("record-year-9999", clientmsg.AppendRecord(nil, cur, 0, 0, 253402300799999, nil, value, false, nil))
	add("record-after-year-9999", clientmsg.AppendRecord(nil, cur, 0, 0, 253402300800000, nil, value, false, nil))
	add("record-largest-numbers", clientmsg.AppendRecord(nil, cur, math.MaxInt32, math.MaxInt64, math.MaxInt64, nil, value, false, nil))
	add("checkpoint", clientmsg.AppendCheckpoint(nil, cur))
	add("gap", clientmsg.AppendGap(nil, cur, 3, 10, 4711, link.GapRetention))
	add("gap-from-unknown", clientmsg.AppendGap(nil, cur, 3, -1, 0, link.GapTopic))
	add("waiting", clientmsg.AppendWaiting(nil))
	add("goaway", clientmsg.AppendGoAway(nil, cur, 1200*time.Millisecond))
	add("goaway-before-hello", clientmsg.AppendGoAway(nil, "", 0))
	add("resume", clientmsg.AppendResume(nil, cur))
	add("auth", clientmsg.AppendAuth(nil, "ey\"J"))
	add("expiring", clientmsg.AppendExpiring(nil, 20*time.Second))
	add("hello-several-keys", clientmsg.AppendHelloSeveral(nil, 50, 15*time.Second))
	add("subscribed", clientmsg.AppendSubscribed(nil, cur, []byte("alice"), true))
	add("unsubscribed", clientmsg.AppendUnsubscribed(nil, cur, []byte("alice")))
	add("unsubscribed-before-it-was-live", clientmsg.AppendUnsubscribed(nil, "", []byte("\xff")))
	add("refused", clientmsg.AppendRefused(nil, clientmsg.TypeSubscribe, []byte("alice"), clientmsg.RefusedTooMany, "there are \"100\""))
	add("checkpoint-several-keys", clientmsg.AppendCheckpointSeveral(nil, cur, 0))
	add("checkpoint-some-wait", clientmsg.AppendCheckpointSeveral(nil, cur, 3))
	add("checkpoint-none-live", clientmsg.AppendCheckpointSeveral(nil, "", 50))
	add("gap-of-a-key", clientmsg.AppendGapOf(nil, cur, []byte("alice"), 3, 10, 4711, link.GapRetention))
	add("subscribe", clientmsg.AppendSubscribe(nil, []byte("alice"), cur, ""))
	add("subscribe-from", clientmsg.AppendSubscribe(nil, []byte("\xff"), "", "earliest"))
	add("unsubscribe", clientmsg.AppendUnsubscribe(nil, []byte("alice")))
	golden.Check(t, "testdata/clientmsg.golden", got)
	for name, msg := range messages {
		if !json.Valid(msg) || !utf8.Valid(msg) {
			t.Errorf("%s is not valid: %s", name, msg)
		}
	}
}

func TestMessagesAreReadAsTheyWereWritten(t *testing.T) {
	base := clientmsg.Message{Cursor: cur, Timestamp: clientmsg.NoTimestamp, From: -1}
	with := func(change func(*clientmsg.Message)) clientmsg.Message { m := base; change(&m); return m }
	rec := func(change func(*clientmsg.Message)) clientmsg.Message {
		return with(func(m *clientmsg.Message) {
			m.Type, m.Partition, m.Offset, m.Timestamp = clientmsg.TypeRecord, 3, 4711, 1767323045006
			m.Value, m.Form = []byte("1"), clientmsg.FormJSON
			change(m)
		})
	}
	hs := []link.Header{{Key: []byte("b"), Value: []byte("1")}, {Key: []byte("a"), Value: []byte{}}, {Key: []byte("b"), Value: []byte{0xff}},
		{Key: []byte("null")}, {Key: []byte{0xfe}, Value: []byte("x")}, {Key: []byte{}, Value: []byte("\u2028\"")}}
	tests := map[string]struct {
		msg  []byte
		want clientmsg.Message
	}{
		"hello": {clientmsg.AppendHello(nil, []byte(cur), []byte("alice"), true, 15*time.Second), with(func(m *clientmsg.Message) {
			m.Type, m.Key, m.Resumed, m.Heartbeat = clientmsg.TypeHello, []byte("alice"), true, 15*time.Second
		})},
		"hello with a binary key": {clientmsg.AppendHello(nil, cur, []byte{0xff}, false, 0), with(func(m *clientmsg.Message) {
			m.Type, m.Key = clientmsg.TypeHello, []byte{0xff}
		})},
		"hello with an empty key": {clientmsg.AppendHello(nil, cur, []byte{}, false, 0), with(func(m *clientmsg.Message) {
			m.Type, m.Key = clientmsg.TypeHello, []byte{}
		})},
		"hello without a key": {clientmsg.AppendHello(nil, cur, nil, false, 0), with(func(m *clientmsg.Message) { m.Type = clientmsg.TypeHello })},
		"json":                {record([]byte("1")), rec(func(*clientmsg.Message) {})},
		"json in spaces":      {record([]byte("\r\n { \"a\" : 1.0 } \t")), rec(func(m *clientmsg.Message) { m.Value = []byte("\r\n { \"a\" : 1.0 } \t") })},
		"text":                {record([]byte("tea\x00")), rec(func(m *clientmsg.Message) { m.Value, m.Form = []byte("tea\x00"), clientmsg.FormText })},
		"empty":               {record([]byte{}), rec(func(m *clientmsg.Message) { m.Value, m.Form = []byte{}, clientmsg.FormText })},
		"binary":              {record([]byte{0xff}), rec(func(m *clientmsg.Message) { m.Value, m.Form = []byte{0xff}, clientmsg.FormBase64 })},
		"headers":             {clientmsg.AppendRecord(nil, cur, 3, 4711, 1767323045006, hs, []byte("1"), false, nil), rec(func(m *clientmsg.Message) { m.Headers = hs })},
		"tombstone": {clientmsg.AppendRecord(nil, cur, 3, 4711, -1, nil, nil, true, []byte("bob")), rec(func(m *clientmsg.Message) {
			m.Value, m.Form, m.Tombstone, m.Key, m.Timestamp = nil, clientmsg.FormNone, true, []byte("bob"), clientmsg.NoTimestamp
		})},
		"far timestamp": {clientmsg.AppendRecord(nil, cur, 3, 4711, math.MinInt64, nil, []byte("1"), false, nil), rec(func(m *clientmsg.Message) { m.Timestamp = math.MinInt64 })},
		"old timestamp": {clientmsg.AppendRecord(nil, cur, 3, 4711, -62167219200000, nil, []byte("1"), false, nil), rec(func(m *clientmsg.Message) { m.Timestamp = -62167219200000 })},
		"checkpoint":    {clientmsg.AppendCheckpoint(nil, cur), with(func(m *clientmsg.Message) { m.Type = clientmsg.TypeCheckpoint })},
		"gap": {clientmsg.AppendGap(nil, cur, 3, 10, 20, link.GapTruncated), with(func(m *clientmsg.Message) {
			m.Type, m.Partition, m.From, m.To, m.Reason = clientmsg.TypeGap, 3, 10, 20, "truncated"
		})},
		"waiting": {clientmsg.AppendWaiting(nil), with(func(m *clientmsg.Message) { m.Type, m.Cursor = clientmsg.TypeWaiting, "" })},
		"goaway": {clientmsg.AppendGoAway(nil, cur, time.Second), with(func(m *clientmsg.Message) {
			m.Type, m.RetryAfter = clientmsg.TypeGoAway, time.Second
		})},
		"expiring": {clientmsg.AppendExpiring(nil, 1500*time.Microsecond), with(func(m *clientmsg.Message) {
			m.Type, m.Cursor, m.ExpiresIn = clientmsg.TypeExpiring, "", time.Millisecond
		})},
		"hello several": {clientmsg.AppendHelloSeveral(nil, 50, time.Second), with(func(m *clientmsg.Message) {
			m.Type, m.Cursor, m.Several, m.Keys, m.Heartbeat = clientmsg.TypeHello, "", true, 50, time.Second
		})},
		"subscribed": {clientmsg.AppendSubscribed(nil, cur, []byte("\xff"), true), with(func(m *clientmsg.Message) {
			m.Type, m.Key, m.Resumed = clientmsg.TypeSubscribed, []byte("\xff"), true
		})},
		"unsubscribed": {clientmsg.AppendUnsubscribed(nil, cur, []byte("a")), with(func(m *clientmsg.Message) {
			m.Type, m.Key = clientmsg.TypeUnsubscribed, []byte("a")
		})},
		"refused": {clientmsg.AppendRefused(nil, clientmsg.TypeSubscribe, []byte("a"), clientmsg.RefusedAlready, "\"x\""), with(func(m *clientmsg.Message) {
			m.Type, m.Cursor, m.Of, m.Key, m.Reason, m.Detail = clientmsg.TypeRefused, "", clientmsg.TypeSubscribe, []byte("a"), clientmsg.RefusedAlready, "\"x\""
		})},
		"some wait": {clientmsg.AppendCheckpointSeveral(nil, cur, 3), with(func(m *clientmsg.Message) {
			m.Type, m.Waiting = clientmsg.TypeCheckpoint, 3
		})},
		"gap of a key": {clientmsg.AppendGapOf(nil, cur, []byte("a"), 3, -1, 7, link.GapTopic), with(func(m *clientmsg.Message) {
			m.Type, m.Key, m.Reason, m.Partition, m.To = clientmsg.TypeGap, []byte("a"), "topic", 3, 7
		})},
		"expired":                 {clientmsg.AppendExpiring(nil, -time.Second), with(func(m *clientmsg.Message) { m.Type, m.Cursor = clientmsg.TypeExpiring, "" })},
		"unknown type and fields": {[]byte(` { "type" : "news" , "x":[{}], "" : null } `), with(func(m *clientmsg.Message) { m.Type, m.Cursor = "news", "" })},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := clientmsg.Parse(tt.msg)
			if err != nil {
				t.Fatalf("%s: %v", tt.msg, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("%s\n got %+v\nwant %+v", tt.msg, got, tt.want)
			}
		})
	}
}

// What stands between the quotes is the producer's: numbers, escapes, spaces and duplicate keys.
func TestValuesThatAreJSONAreEmbeddedByteForByte(t *testing.T) {
	for _, value := range []string{
		`null`, `true`, `false`, `0`, `-0`, `-0.0e-0`, `1.000000000000000000000000001`, `1E400`, `12345678901234567890`,
		`""`, `"\u00e9\ud800\/"`, "\"\u2028\u2029\ufeff\"", `{"a":1,"a":2}`, `[ ]`, "{\r\n\t\"a\" : [ 1 , {} ]\n}\n", "\"\x7f\"", deep(clientmsg.MaxNesting),
	} {
		if !json.Valid([]byte(value)) {
			t.Fatalf("the example %q is not JSON", value)
		}
		msg := record([]byte(value))
		want := `{"type":"record","cursor":"` + cur + `","partition":3,"offset":4711,"timestamp":"2026-01-02T03:04:05.006Z","value":` + value + `}`
		if string(msg) != want {
			t.Errorf("\n got %s\nwant %s", msg, want)
		}
		if !json.Valid(msg) {
			t.Errorf("%q made the message invalid", value)
		}
	}
}

func TestOtherValuesAreTextOrBase64(t *testing.T) {
	for _, value := range []string{
		``, ` `, `{`, `}`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{1:1}`, `01`, `1.`, `.5`, `+1`, `1e`, `1e+`, `-`, `--1`, `0x1`,
		`NaN`, `Infinity`, `tru`, `truex`, `nul`, `True`, `'a'`, `"a`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\`, "\"\n\"", "\"\x00\"", `1 2`, `{} {}`, `[1]]`, `[}`, `{]`,
		"\ufeff{}", "\u00a01", "1\x00", "\v1", `/**/1`, `"a"b`, deep(clientmsg.MaxNesting + 1), deep(20000), strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 100000),
	} {
		msg := record([]byte(value))
		m, err := clientmsg.Parse(msg)
		if err != nil {
			t.Errorf("%.60q: %v", value, err)
			continue
		}
		if m.Form != clientmsg.FormText || string(m.Value) != value {
			t.Errorf("%.60q came as form %d, %.60q", value, m.Form, m.Value)
		}
		if !json.Valid(msg) {
			t.Errorf("%.60q made the message invalid", value)
		}
	}
	for _, value := range []string{"\xff", "\"\xff\"", "{\"\xc0\x80\":1}", "[1]\x80", "\"\xed\xa0\x80\"", "\xf4\x90\x80\x80"} {
		m, err := clientmsg.Parse(record([]byte(value)))
		if err != nil || m.Form != clientmsg.FormBase64 || string(m.Value) != value {
			t.Errorf("%q came as %+v, %v", value, m, err)
		}
	}
}

func TestDeepestValueLeavesTheMessageReadable(t *testing.T) {
	msg := record([]byte(deep(clientmsg.MaxNesting)))
	var m map[string]any
	if err := json.Unmarshal(msg, &m); err != nil {
		t.Fatal(err)
	}
	if _, err := clientmsg.Parse(msg); err != nil {
		t.Fatal(err)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	for _, msg := range []string{
		``, `1`, `[]`, `{`, `{}`, `{"type":""}`, `{"type":1}`, `{"type":"hello"`, `{"type":"hello"}x`, `{"type":"hello",}`, `{"type":"hello" "a":1}`, `{type:"hello"}`,
		"{\"type\":\"\xff\"}", `{"type":"record"}`, `{"type":"record","value":1,"tombstone":true}`, `{"type":"record","base64":"***"}`, `{"type":"record","base64":null}`,
		`{"type":"record","text":null}`, `{"type":"record","text":1}`, `{"type":"record","value":1,"offset":"1"}`, `{"type":"record","value":1,"offset":9223372036854775808}`,
		`{"type":"record","value":1,"partition":2147483648}`, `{"type":"record","value":1,"timestamp":"yesterday"}`, `{"type":"record","value":1,"headers":{}}`,
		`{"type":"hello","heartbeat_ms":-1}`, `{"type":"hello","heartbeat_ms":9223372036854775807}`, `{"type":"hello","key":null}`, `{"type":"hello","resumed":"yes"}`,
		`{"type":"record","value":` + deep(clientmsg.MaxNesting+2) + `}`,
	} {
		if m, err := clientmsg.Parse([]byte(msg)); err == nil || !errors.Is(err, clientmsg.ErrMalformed) {
			t.Errorf("%.80s: got %+v, %v", msg, m, err)
		}
	}
}

func TestControlMessages(t *testing.T) {
	for msg, want := range map[string]clientmsg.Control{
		`{"type":"resume","cursor":"AQ"}`:                              {Type: clientmsg.TypeResume, Cursor: "AQ"},
		` {"cursor":"AQ","more":{"a":[]},"type":"resume"} `:            {Type: clientmsg.TypeResume, Cursor: "AQ"},
		`{"type":"auth","token":"a.b.c"}`:                              {Type: clientmsg.TypeAuth, Token: "a.b.c"},
		`{"type":"auth","token":"a.b.c","cursor":"AQ"}`:                {Type: clientmsg.TypeAuth, Token: "a.b.c"},
		`{"type":"auth","token":"a","key":7,"from":[]}`:                {Type: clientmsg.TypeAuth, Token: "a"},
		`{"type":"subscribe","key":"a"}`:                               {Type: clientmsg.TypeSubscribe, Key: []byte("a")},
		`{"type":"subscribe","key":""}`:                                {Type: clientmsg.TypeSubscribe, Key: []byte{}},
		`{"type":"subscribe","key_b64":"_-8","from":"5"}`:              {Type: clientmsg.TypeSubscribe, Key: []byte{0xff, 0xef}, From: "5"},
		`{"type":"unsubscribe","key":"a","cursor":"b","from":7}`:       {Type: clientmsg.TypeUnsubscribe, Key: []byte("a")},
		string(clientmsg.AppendUnsubscribe(nil, []byte("\xff\xfe"))):   {Type: clientmsg.TypeUnsubscribe, Key: []byte("\xff\xfe")},
		string(clientmsg.AppendSubscribe(nil, []byte("a\n"), cur, "")): {Type: clientmsg.TypeSubscribe, Key: []byte("a\n"), Cursor: cur},
		string(clientmsg.AppendResume(nil, []byte(cur))):               {Type: clientmsg.TypeResume, Cursor: cur},
		string(clientmsg.AppendAuth(nil, "\"\\\n\u2028\x00 tok")):      {Type: clientmsg.TypeAuth, Token: "\"\\\n\u2028\x00 tok"},
	} {
		if got, err := clientmsg.ParseControl([]byte(msg)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", msg, got, err, want)
		}
	}
	for msg, want := range map[string]string{
		``:                                     "not a JSON object",
		`hello`:                                "not a JSON object",
		`{}`:                                   "it has no type",
		`{"type":"resume"}`:                    "resume needs a cursor",
		`{"type":"auth","cursor":"AQ"}`:        "auth needs a token",
		`{"type":"publish","token":"a"}`:       `unknown type "publish"`,
		`{"type":"subscribe"}`:                 "subscribe needs a key",
		`{"type":"unsubscribe","cursor":"AQ"}`: "unsubscribe needs a key",
		`{"type":"subscribe","key":"a","key_b64":"YQ"}`:                  "not both",
		`{"type":"subscribe","key":null}`:                                "key: ",
		`{"type":"subscribe","key_b64":"***"}`:                           "key: ",
		`{"type":"subscribe","key":"a","from":7}`:                        "from: ",
		`{"type":"resume","cursor":7}`:                                   "cursor: ",
		`{"type":"resume","cursor":null}`:                                "resume needs a cursor",
		`{"type":["resume"],"cursor":"AQ"}`:                              "type: ",
		"{\"type\":\"auth\",\"token\":\"\xff\"}":                         "not UTF-8",
		`{"type":"auth","token":"` + strings.Repeat("a", 1<<17) + `"}`:   "more than 131072",
		`{"type":"auth","token":"a","x":` + deep(clientmsg.MaxNesting+1): "not a JSON object",
	} {
		got, err := clientmsg.ParseControl([]byte(msg))
		if err == nil || !strings.Contains(err.Error(), want) || !reflect.DeepEqual(got, clientmsg.Control{}) {
			t.Errorf("%.60s: got %+v, error %v; want one that says %q", msg, got, err, want)
		}
	}
}

func TestDecodeKeyTakesBothAlphabets(t *testing.T) {
	want := []byte{0xfb, 0xff, 0xfe, 0x01}
	for _, s := range []string{"-__-AQ", "-__-AQ==", "+//+AQ==", "+//+AQ"} {
		if got, err := clientmsg.DecodeKey(s); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: got %x, %v", s, got, err)
		}
	}
	for _, s := range []string{"*", "A", " AQ", "AQ\n", "A=Q"} {
		if got, err := clientmsg.DecodeKey(s); err == nil {
			t.Errorf("%q: got %x", s, got)
		}
	}
}

func TestAppendRecordDoesNotAllocate(t *testing.T) {
	dst, cursor := make([]byte, 0, 8192), []byte(cur)
	hs, key := headers("trace", "4bf92f3577b34da6", "bin", "\xff"), []byte("alice")
	for _, value := range []string{`{"user":"alice","amount":12.50,"items":[1,2,3]}`, "plain \"text\"\n", "\xff\xfe\xfd", deep(clientmsg.MaxNesting)} {
		v := []byte(value)
		if n := testing.AllocsPerRun(1000, func() {
			dst = clientmsg.AppendRecord(dst[:0], cursor, 3, 4711, 1767323045006, hs, v, false, key)
		}); n != 0 {
			t.Errorf("%v allocations for %.40q", n, value)
		}
	}
}

// Whatever a record holds, its message is JSON that Go and browsers take, and the record comes back from it.
func FuzzAppendRecord(f *testing.F) {
	for _, v := range []string{"", "1", `{"a":[1,"\u00e9",{}]}`, "\xff", "[1]\x80", "tea", deep(600), `"\ud800"`, "{\"\u2028\":1e5}"} {
		f.Add([]byte(v), []byte("key"), []byte("name"), []byte(v), int64(1767323045006), int64(1), int32(1))
	}
	f.Fuzz(func(t *testing.T, value, key, name, header []byte, timestamp, offset int64, partition int32) {
		hs := []link.Header{{Key: name, Value: header}, {Key: header, Value: name}, {Key: name}}
		msg := clientmsg.AppendRecord(nil, cur, partition, offset, timestamp, hs, value, false, key)
		if !json.Valid(msg) || !utf8.Valid(msg) {
			t.Fatalf("not valid: %q", msg)
		}
		m, err := clientmsg.Parse(msg)
		if err != nil {
			t.Fatalf("%q: %v", msg, err)
		}
		if !bytes.Equal(m.Value, value) || !bytes.Equal(m.Key, key) || m.Timestamp != timestamp || m.Offset != offset || m.Partition != partition {
			t.Fatalf("%q was read as %+v", msg, m)
		}
		for i, h := range m.Headers {
			if !bytes.Equal(h.Key, hs[i].Key) || !bytes.Equal(h.Value, hs[i].Value) || (hs[i].Value == nil) != (h.Value == nil) {
				t.Fatalf("%q: header %d was read as %q", msg, i, h)
			}
		}
		if isJSON := json.Valid(value) && utf8.Valid(value); isJSON != (m.Form == clientmsg.FormJSON) && bytes.Count(value, []byte("["))+bytes.Count(value, []byte("{")) <= clientmsg.MaxNesting {
			t.Fatalf("%q has form %d, encoding/json says %v", value, m.Form, isJSON)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{`{"type":"waiting"}`, `{"type":"record","cursor":"AQ","offset":1,"value": {"a":1} }`, `{"type":"record","headers":[{"key":"a","base64":"/w=="}],"tombstone":true}`,
		`{"type":"gap","reason":"topic","to":1}`, `{"type":"goaway","retry_after_ms":1}`, `{"type":"hello","key_b64":"/w==","heartbeat_ms":1,"resumed":true}`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := clientmsg.Parse(msg)
		if err != nil {
			if !errors.Is(err, clientmsg.ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if !json.Valid(msg) || m.Type == "" || (m.Type == clientmsg.TypeRecord && m.Tombstone != (m.Value == nil)) {
			t.Fatalf("%q was read as %+v", msg, m)
		}
	})
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte(`{"type":"resume","cursor":"AQ"}`))
	f.Add([]byte(`{"type":"auth","token":"a.b.c"}`))
	f.Add([]byte(`{"type":"subscribe","key":"a","cursor":"AQ","from":"latest"}`))
	f.Add([]byte(`{"type":"unsubscribe","key_b64":"_-8="}`))
	f.Fuzz(func(t *testing.T, msg []byte) {
		c, err := clientmsg.ParseControl(msg)
		if err != nil {
			if !errors.Is(err, clientmsg.ErrMalformed) || !utf8.ValidString(err.Error()) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		ok := json.Valid(msg)
		switch c.Type {
		case clientmsg.TypeResume, clientmsg.TypeAuth:
			ok = ok && (c.Cursor == "") != (c.Token == "") && c.Key == nil && c.From == ""
		case clientmsg.TypeUnsubscribe:
			ok = ok && c.Key != nil && c.From == "" && c.Cursor == "" && c.Token == ""
		case clientmsg.TypeSubscribe:
			ok = ok && c.Key != nil && c.Token == ""
		default:
			ok = false
		}
		if !ok {
			t.Fatalf("%q was read as %+v", msg, c)
		}
	})
}

func BenchmarkAppendRecord(b *testing.B) {
	dst, cursor, hs := make([]byte, 0, 4096), []byte(cur), headers("trace", "4bf92f3577b34da6")
	value := []byte(`{"user":"alice","amount":12.50,"items":[1,2,3],"note":"` + strings.Repeat("x", 60) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		dst = clientmsg.AppendRecord(dst[:0], cursor, 3, 4711, 1767323045006, hs, value, false, nil)
	}
}

func BenchmarkParse(b *testing.B) {
	msg := clientmsg.AppendRecord(nil, cur, 3, 4711, 1767323045006, nil, []byte(`{"user":"alice","amount":12.50,"items":[1,2,3]}`), false, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := clientmsg.Parse(msg); err != nil {
			b.Fatal(err)
		}
	}
}
