package socket

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// nowhere is a design that delivers nothing.
type nowhere struct{}

func (nowhere) Admit(int32) error     { return nil }
func (nowhere) Attach(*Client)        {}
func (nowhere) Detach(*Client)        {}
func (nowhere) Covered(*Client) int64 { return -1 }

// serve runs a server and returns its address and itself.
func serve(t *testing.T) (string, *Server) {
	t.Helper()
	s, err := New(Config{Partitions: 1, Logger: zap.NewNop()}, nowhere{}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx, l, nil); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return l.Addr().String(), s
}

// connect does a handshake by hand; early is sent right behind it. Only the socket stays.
func connect(t *testing.T, addr string, early []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	head := "GET /v1/ws?key=k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: " + subprotocol + "\r\n\r\n"
	if _, err := c.Write(append([]byte(head), early...)); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer reads the handshake's.
func answer(t *testing.T, r *bufio.Reader) {
	t.Helper()
	var all []byte
	for !bytes.HasSuffix(all, []byte("\r\n\r\n")) {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	for _, want := range []string{"HTTP/1.1 101 ", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Sec-Websocket-Protocol: " + subprotocol} {
		if !bytes.Contains(all, []byte(want)) {
			t.Fatalf("the handshake's answer lacks %q:\n%s", want, all)
		}
	}
}

func frame(op byte, payload string) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := append([]byte{fin | op, masked | byte(len(payload))}, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

func TestClientsFramesAreReadHoweverTheyAreCut(t *testing.T) {
	long := string(bytes.Repeat([]byte("p"), maxControl))
	for _, tt := range []struct {
		name string
		sent []byte
		want []byte // and the end behind it
	}{
		{"ping, pong, close", join(frame(opPing, "a"), frame(opPong, "b"), frame(opPing, ""), frame(opClose, "\x03\xe8bye")), []byte("\x8a\x01a\x8a\x00\x88\x05\x03\xe8bye")},
		{"longest ping", join(frame(opPing, long), frame(opClose, "")), []byte("\x8a\x7d" + long + "\x88\x00")},
		{"message", join(frame(opText, "hello"), frame(opPing, "unheard")), nil},
		{"not masked", []byte{fin | opPing, 0, 0, 0, 0, 0}, nil},
		{"control frame in parts", []byte{opPing, masked, 0, 0, 0, 0}, nil},
		{"too long", []byte{fin | opPing, masked | 126, 0, 200}, nil},
	} {
		for cut := range len(tt.sent) {
			if cut > 20 && cut%40 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", tt.name, cut), func(t *testing.T) {
				addr, _ := serve(t)
				c := connect(t, addr, tt.sent[:cut])
				r := bufio.NewReader(c)
				answer(t, r)
				if _, err := c.Write(tt.sent[cut:]); err != nil {
					t.Fatal(err)
				}
				if tt.want == nil { // a close frame of ours, which is answered
					head, err := r.Peek(4)
					if code := int(head[2])<<8 | int(head[3]); err != nil || head[0] != fin|opClose || code != 1002 && code != 1003 {
						t.Fatalf("got %v, %v", head, err)
					}
					_ = c.(*net.TCPConn).CloseWrite()
					if _, err := io.Copy(io.Discard, r); err != nil {
						t.Logf("the end: %v", err) // what was not read is answered with a reset
					}
					return
				}
				got := make([]byte, len(tt.want))
				if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, tt.want) {
					t.Fatalf("got %q, %v, want %q", got, err, tt.want)
				}
				if b, err := r.ReadByte(); err != io.EOF {
					t.Fatalf("then %v, %v, want the end", b, err)
				}
			})
		}
	}
}

func used() uint64 {
	runtime.GC()
	runtime.GC() // the first one frees what had a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// TestAnIdleClientIsSmall weighs sockets, ours and the test's own ends of them.
func TestAnIdleClientIsSmall(t *testing.T) {
	addr, s := serve(t)
	r := bufio.NewReader(nil)
	const clients = 1000
	all := make([]net.Conn, 0, clients)
	before := used()
	for range clients {
		c := connect(t, addr, nil)
		r.Reset(c)
		answer(t, r)
		all = append(all, c)
	}
	for len(s.Clients()) < clients {
		runtime.Gosched()
	}
	each := (used() - before) / clients
	t.Logf("%d bytes each", each)
	const most = 7_500 // the race detector takes two thousand; with the library's connection it would be 8,300 without
	if each > most {
		t.Errorf("an idle client takes %d bytes of heap and stack, want at most %d", each, most)
	}
	runtime.KeepAlive(all)
}
