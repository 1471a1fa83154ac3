package clientconn

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// dialOffering connects a client that offers compression as mode says.
func (h *harness) dialOffering(mode websocket.CompressionMode) (*websocket.Conn, *http.Response, *Conn) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, h.url(), &websocket.DialOptions{HTTPClient: h.http.Client(), CompressionMode: mode, CompressionThreshold: 1})
	if err != nil {
		h.t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	h.t.Cleanup(func() { _ = ws.CloseNow() })
	c := receive(h.t, "connection", h.conns)
	h.t.Cleanup(func() { c.Abort(1006) })
	return ws, resp, c
}

func TestCompressionIsOnlyForThoseWhoOfferIt(t *testing.T) {
	for name, q := range map[string]struct {
		from  int
		offer websocket.CompressionMode
		want  int
		says  string
	}{
		"off":               {0, websocket.CompressionNoContextTakeover, 0, ""},
		"not offered":       {100, websocket.CompressionDisabled, 0, ""},
		"offered":           {100, websocket.CompressionNoContextTakeover, 100, "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
		"offered with less": {100, websocket.CompressionContextTakeover, 100, "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, false)
			h.shared.PackFrom = q.from
			_, resp, c := h.dialOffering(q.offer)
			if got := resp.Header.Get("Sec-WebSocket-Extensions"); c.Packs() != q.want || got != q.says {
				t.Errorf("compressed from %d on, answer %q; want %d, %q", c.Packs(), got, q.want, q.says)
			}
		})
	}
}

func TestCompressedAndPlainFramesOnOneSocket(t *testing.T) {
	for _, secure := range []bool{false, true} {
		h := newHarness(t, secure)
		h.shared.PackFrom = 1
		ws, _, c := h.dialOffering(websocket.CompressionNoContextTakeover)
		var buf []byte
		for _, n := range []int{1, 100, 125, 126, 1000, 70_000, 1 << 20} {
			text := strings.Repeat(`{"a":"b"},`, n/10+1)[:n]
			plain := frame(Text, text)
			d := h.shared.Deflater()
			var packed []byte
			packed, buf = d.Pack(buf, plain)
			h.shared.Done(d)
			if n >= 1000 && len(packed) >= len(plain)/2 {
				t.Errorf("%d bytes became %d", len(plain), len(packed))
			}
			c.Queue(packed, 0)
			c.Queue(plain, 0)
			c.Flush()
			for range 2 {
				if got := read(t, ws); got != text {
					t.Fatalf("%d bytes: got %d bytes, %.40q", n, len(got), got)
				}
			}
		}
	}
}

// What does not become shorter stays as it is.
func TestPackLeavesWhatDoesNotShrink(t *testing.T) {
	s := &Shared{}
	plain := frame(Binary, "\x00\x07\xfe?%!ab")
	packed, _ := s.Deflater().Pack(nil, plain)
	if &packed[0] != &plain[0] {
		t.Errorf("%d bytes became %d", len(plain), len(packed))
	}
}

func TestMessagesOfClientsMayBeCompressed(t *testing.T) {
	h := newHarness(t, false)
	h.shared.PackFrom = 1
	ws, _, _ := h.dialOffering(websocket.CompressionNoContextTakeover)
	text := strings.Repeat("compressed ", 50)
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, "text", h.texts); got != text {
		t.Errorf("got %q", got)
	}
}

// compressed is a client's compressed text.
func compressed(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	f := masked(byte(Text), bytes.TrimSuffix(b.Bytes(), syncTail))
	f[0] |= rsv1
	return f
}

// inParts cuts a client's frame of fewer than 126 bytes in two.
func inParts(f []byte) []byte {
	payload := bytes.Clone(f[6:])
	for i := range payload {
		payload[i] ^= f[2+i&3]
	}
	one, two := masked(f[0]&0xf, payload[:len(payload)/2]), masked(0, payload[len(payload)/2:])
	one[0] = f[0] &^ fin
	return append(one, two...)
}

// What was compressed, in one frame or in two, is read; so is what follows a message that was damaged, on another socket.
func TestCompressedMessagesAreUnpackedOneByOne(t *testing.T) {
	h := newHarness(t, false)
	h.shared.PackFrom = 1
	text := strings.Repeat("again and ", 20)
	damaged := masked(byte(Text), []byte("\xff\xff\xff\xff"))
	damaged[0] |= rsv1
	for range 3 {
		raw, br, _ := h.knock(damaged, 0)
		if code := closeCode(t, raw, br); code != closecode.InvalidData {
			t.Errorf("closed with %d", code)
		}
		_ = raw.Close()
		receive(t, "end", h.ended)
		good := compressed(t, []byte(text))
		raw, _, _ = h.knock(append(inParts(good), good...), 0)
		for range 2 {
			if got := receive(t, "text", h.texts); got != text {
				t.Errorf("got %q", got)
			}
		}
		_ = raw.Close()
		receive(t, "end", h.ended)
	}
}

// Whatever a compressed message is made of, it is a text within the limit or the end of the client.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("\xff\xff"))
	f.Add([]byte{0xca, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00})
	f.Add([]byte{0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		c := &Conn{shared: &Shared{ReadLimit: 1 << 10}, net: near, tcp: near}
		c.closing = true // says nothing to a socket that nobody reads
		data, err := c.unpack(Text, bytes.Clone(b))
		if err == nil && (len(data) > 1<<10 || !utf8.Valid(data)) {
			t.Errorf("%d bytes, %.40q", len(data), data)
		}
	})
}

// A small message may become a large one: the limit counts what comes out.
func TestCompressedMessagesAreLimitedAndChecked(t *testing.T) {
	for name, q := range map[string]struct {
		send []byte
		code int
	}{
		"bomb":     {compressed(t, make([]byte, 1<<20)), closecode.TooBig},
		"no UTF-8": {compressed(t, []byte("\xff\xfe\xfd and more")), closecode.InvalidData},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, false)
			h.shared.PackFrom = 1
			raw, br, c := h.knock(q.send, 0)
			var head [4]byte
			if _, err := io.ReadFull(br, head[:]); err != nil || head[0] != fin|byte(opClose) {
				t.Errorf("got %x, %v", head, err)
			}
			if got := int(binary.BigEndian.Uint16(head[2:])); got != q.code {
				t.Errorf("closed with %d, want %d", got, q.code)
			}
			_ = raw.Close()
			receive(t, "end", h.ended)
			if got := c.Code(); got != q.code {
				t.Errorf("code %d, want %d", got, q.code)
			}
		})
	}
}
