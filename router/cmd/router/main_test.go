package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// invoke runs a command line and returns its exit code and what it printed.
func invoke(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code = options.Run(ctx, description(), &program{}, args, options.Env{Stdout: &stdout, Stderr: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestBadOptionsAreOneLineAndExitCodeTwo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("topic: x\nlisten-on: :1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "--topic"},
		{[]string{"--topic=x", "--auth=jwt"}, "--jwks"},
		{[]string{"--topic=x", "--jwks=keys.json"}, "--auth=jwt"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=ftp://x"}, "https://"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=k.json", "--jwks-ca-file=/nowhere"}, "--jwks-ca-file"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=https://x", "--jwks-ca-file=/nowhere"}, "--jwks-ca-file"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=k.json", "--jwt-algorithms=none"}, "none"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=k.json", "--jwt-algorithms=HS256"}, "secret"},
		{[]string{"--topic=x", "--auth=jwt", "--jwt-secret-file=/nowhere"}, "/nowhere"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=k.json", "--jwt-leeway=1h"}, "--jwt-leeway"},
		{[]string{"--topic=x", "--auth=jwt", "--jwks=k.json", "--jwt-cookie=t", "--origins=https://*"}, "any page"},
		{[]string{"--topic=x", "--auth=magic"}, "auth"},
		{[]string{"--topic=x", "--heartbeat=0"}, "heartbeat"},
		{[]string{"--topic=x", "--heartbeat=1ms"}, "100ms"},
		{[]string{"--topic=x", "--client-timeout=5s"}, "client-ping"},
		{[]string{"--topic=x", "--link-timeout=1s"}, "link-ping"},
		{[]string{"--topic=x", "--client-window=1KiB"}, "4KiB"},
		{[]string{"--topic=x", "--max-keys=1001"}, "from 1 to 1000"},
		{[]string{"--topic=x", "--origins=[x"}, "origin"},
		{[]string{"--topic=x", "--tls-cert-file=/nowhere"}, "certificate"},
		{[]string{"--topic=x", "--etcd-ca-file=/nowhere"}, "TLS is off"},
		{[]string{"--topic=x", "--link-token-file=/nowhere"}, "--link-token-file"},
		{[]string{"--topic=x", "--max-clients=-1"}, "--max-clients"},
		{[]string{"--topic=x", "--key-policy=last"}, "key-policy"},
		{[]string{"--topic=x", "--client-head=1KiB"}, "4KiB"},
		{[]string{"--topic=x", "--client-message=1MiB"}, "128KiB"},
		{[]string{"--topic=x", "--client-catchup-rate=1KiB"}, "16KiB"},
		{[]string{"--topic=x", "--memory-limit=1MiB"}, "32MiB"},
		{[]string{"--topic=x", "--trusted-proxies=everybody"}, "everybody"},
		{[]string{"--config=" + file}, "listen-on"},
		{[]string{"tail"}, "key"},
		{[]string{"tail", "alice", "--token-file=/nowhere"}, "--token-file"},
		{[]string{"tail", "--base64", "!!"}, "base64"},
		{[]string{"tail", "alice", "--values", "-o", "json"}, "--values"},
	} {
		code, _, errs := invoke(t, c.args...)
		if code != options.ExitUsage || !strings.Contains(strings.ToLower(errs), strings.ToLower(c.want)) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, want %d and a line with %q", c.args, code, errs, options.ExitUsage, c.want)
		}
	}
}

func TestVersionAndHealthcheck(t *testing.T) {
	if code, out, _ := invoke(t, "version"); code != 0 || !strings.HasPrefix(out, "router ") {
		t.Errorf("version: %d %q", code, out)
	}
	ready := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "not ready")
			fmt.Fprintln(w, "router: no node is linked")
		}
	}))
	defer srv.Close()
	admin := "--admin=" + strings.TrimPrefix(srv.URL, "http://")
	if code, out, errs := invoke(t, "healthcheck", admin); code != 0 || out != "ok\n" {
		t.Errorf("healthcheck of a ready router: %d %q %q", code, out, errs)
	}
	ready = false
	if code, _, errs := invoke(t, "healthcheck", admin); code != 1 || !strings.Contains(errs, "no node is linked") {
		t.Errorf("healthcheck of an unready router: %d %q", code, errs)
	}
}

// heard calls said with every write.
type heard struct{ said func(string) }

func (h heard) Write(b []byte) (int, error) {
	h.said(string(b))
	return len(b), nil
}

func TestTailSaysThatItCannotConnect(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	addr := strings.TrimPrefix(srv.URL, "http://")
	srv.Close() // nobody listens there now
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var first string
	errs := heard{func(line string) {
		if first == "" {
			first = line
		}
		cancel()
	}}
	options.Run(ctx, description(), &program{}, []string{"tail", "alice", "--url=ws://" + addr}, options.Env{Stdout: io.Discard, Stderr: errs})
	if !strings.HasPrefix(first, "# cannot connect: ") || !strings.Contains(first, addr) || strings.Count(first, "\n") != 1 {
		t.Errorf("said %q while nothing listens on %s", first, addr)
	}
}

func TestTailPrintsRecords(t *testing.T) {
	var query string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{clientmsg.JSON}})
		if err != nil {
			return
		}
		defer func() { _ = ws.CloseNow() }()
		for _, msg := range [][]byte{
			clientmsg.AppendHello(nil, "c0", []byte("alice"), false, time.Minute),
			clientmsg.AppendRecord(nil, "c1", 3, 7, 1_700_000_000_000, nil, []byte(`{"n":1}`), false, nil),
			clientmsg.AppendRecord(nil, "c2", 3, 9, 1_700_000_000_000, nil, nil, true, nil),
			clientmsg.AppendRecord(nil, "c3", 3, 11, 1_700_000_000_000, nil, []byte{0xff}, false, nil),
		} {
			if ws.Write(r.Context(), websocket.MessageText, msg) != nil {
				return
			}
		}
		_, _, _ = ws.Read(r.Context()) // until the client leaves
	}))
	defer srv.Close()
	url := "--url=ws" + strings.TrimPrefix(srv.URL, "http")
	code, out, errs := invoke(t, "tail", "alice", url, "--from=earliest", "--count=3")
	want := "3:7 2023-11-14T22:13:20Z {\"n\":1}\n3:9 2023-11-14T22:13:20Z (tombstone)\n3:11 2023-11-14T22:13:20Z base64:/w==\n"
	if code != 0 || out != want {
		t.Errorf("tail: %d %q %q, want %q", code, out, errs, want)
	}
	if !strings.Contains(errs, "# connected") {
		t.Errorf("remarks: %q", errs)
	}
	if !strings.Contains(query, "key=alice") || !strings.Contains(query, "from=earliest") {
		t.Errorf("query %q", query)
	}
	if code, out, _ := invoke(t, "tail", "alice", url, "-o", "raw", "--values", "--count=1"); code != 0 || out != "{\"n\":1}\n" {
		t.Errorf("tail -o raw: %d %q", code, out)
	}
	if code, out, _ := invoke(t, "tail", "alice", url, "--values", "--count=1"); code != 0 || out != "{\"n\":1}\n" {
		t.Errorf("tail --values: %d %q", code, out)
	}
}

// What a router sends that moves the cursor is printed as it came, but in one line and without what a terminal obeys.
func TestTailPrintsJSON(t *testing.T) {
	headers := []link.Header{{Key: []byte("trace"), Value: []byte("4bf9")}, {Key: []byte("null")}}
	sent := [][]byte{
		clientmsg.AppendHello(nil, "c0", []byte("alice"), false, time.Minute),
		clientmsg.AppendGap(nil, "c1", 3, -1, 7, link.GapRetention),
		clientmsg.AppendRecord(nil, "c2", 3, 7, 1_700_000_000_000, headers, []byte("{\n  \"n\": 1.0,\r\n  \"s\": \"<\u009b\U000e0001ä\"\n}"), false, nil),
		clientmsg.AppendWaiting(nil),
		clientmsg.AppendRecord(nil, "c3", 3, 9, clientmsg.NoTimestamp, nil, nil, true, nil),
		clientmsg.AppendCheckpoint(nil, "c4"),
		clientmsg.AppendRecord(nil, "c5", 3, 11, 1_700_000_000_000, nil, []byte{0xff}, false, nil),
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{clientmsg.JSON}})
		if err != nil {
			return
		}
		defer func() { _ = ws.CloseNow() }()
		for _, msg := range sent {
			if ws.Write(r.Context(), websocket.MessageText, msg) != nil {
				return
			}
		}
		_, _, _ = ws.Read(r.Context()) // until the client leaves
	}))
	defer srv.Close()
	code, out, errs := invoke(t, "tail", "alice", "--url=ws"+strings.TrimPrefix(srv.URL, "http"), "--from=earliest", "--count=3", "-o", "json")
	want := `{"type":"hello","cursor":"c0","key":"alice","resumed":false,"heartbeat_ms":60000}
{"type":"gap","cursor":"c1","reason":"retention","partition":3,"to":7}
{"type":"record","cursor":"c2","partition":3,"offset":7,"timestamp":"2023-11-14T22:13:20.000Z","headers":[{"key":"trace","text":"4bf9"},{"key":"null"}],"value":{"n":1.0,"s":"<\u009b\udb40\udc01ä"}}
{"type":"record","cursor":"c3","partition":3,"offset":9,"tombstone":true}
{"type":"checkpoint","cursor":"c4"}
{"type":"record","cursor":"c5","partition":3,"offset":11,"timestamp":"2023-11-14T22:13:20.000Z","base64":"/w=="}
`
	if code != 0 || out != want {
		t.Errorf("tail: %d %q\n%s\nwant\n%s", code, errs, out, want)
	}
	if errs != "# waiting: no node serves the key\n" {
		t.Errorf("remarks: %q", errs)
	}
	for line := range strings.Lines(out) {
		if m, err := clientmsg.Parse([]byte(line)); err != nil {
			t.Errorf("%s: %v, %v", line, m, err)
		}
	}
}

// A gap of one key of several names it, whatever it is made of.
func TestTailNamesTheKeyOfAGap(t *testing.T) {
	for key, want := range map[string]string{"bob": `"key":"bob"`, "": `"key":""`, "\xff": `"key_b64":"/w=="`} {
		if got := string(message(&client.Gap{Key: []byte(key), Reason: "moved", From: 3, To: 4})); !strings.Contains(got, want) || !strings.Contains(got, `"from":3`) {
			t.Errorf("%q: %s, want %s in it", key, got, want)
		}
	}
}

func TestTailShowsATokenAndRenewsIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	put := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
	put("first")
	type seen struct{ shown, query, renewed string }
	saw := make(chan seen, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{clientmsg.JSON}})
		if err != nil {
			return
		}
		defer func() { _ = ws.CloseNow() }()
		put("second")
		if ws.Write(r.Context(), websocket.MessageText, clientmsg.AppendExpiring(nil, time.Minute)) != nil {
			return
		}
		_, msg, _ := ws.Read(r.Context())
		saw <- seen{r.Header.Get("Authorization"), r.URL.RawQuery, string(msg)}
		_ = ws.Write(r.Context(), websocket.MessageText, clientmsg.AppendRecord(nil, "c1", 3, 7, 1_700_000_000_000, nil, []byte(`1`), false, nil))
		_, _, _ = ws.Read(r.Context()) // until the client leaves
	}))
	defer srv.Close()
	code, out, errs := invoke(t, "tail", "--url=ws"+strings.TrimPrefix(srv.URL, "http"), "--token-file="+file, "--values", "--count=1")
	if code != 0 || out != "1\n" || strings.Contains(errs, "first") || strings.Contains(errs, "second") {
		t.Errorf("tail: %d %q %q", code, out, errs)
	}
	select {
	case got := <-saw:
		if got.shown != "Bearer first" || strings.Contains(got.query, "key") || got.renewed != `{"type":"auth","token":"second"}` {
			t.Errorf("the router saw %+v", got)
		}
	default:
		t.Error("the router saw no renewal")
	}
}

// A record may hold what a terminal obeys; only who reads by a program gets it as it is.
func TestTailShowsNoTerminalWhatItWouldObey(t *testing.T) {
	record := &client.Record{Value: []byte("\x1b]0;owned\x07\x1b[2Jä\t{\"n\":1}\r\n3:8 forged\u009b")}
	tests := []struct {
		output string
		person bool
		want   string
	}{
		{"text", true, `\x1b]0;owned\a\x1b[2Jä` + "\t" + `{"n":1}\r\n3:8 forged\u009b`},
		{"raw", true, string(record.Value)},
		{"text", false, string(record.Value)},
	}
	for _, tt := range tests {
		if got := (&tail{Output: tt.output}).value(record, tt.person); got != tt.want {
			t.Errorf("-o %s, terminal %v: %q, want %q", tt.output, tt.person, got, tt.want)
		}
	}
}
