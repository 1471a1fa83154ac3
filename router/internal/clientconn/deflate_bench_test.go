//go:build unix

package clientconn

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// sample is a record of so many bytes as clients get it: JSON with words that repeat and numbers that do not.
func sample(n int) string {
	var b strings.Builder
	b.WriteString(`{"type":"record","cursor":"AQAAAAAAAAAAAAAAAAAAAAAHAQ","partition":7,"offset":1048576,"timestamp":1767225600000,"value":{"readings":[`)
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, `{"sensor":"s-%04d","temperature":%d.%02d,"humidity":%d,"state":"ok"},`, i*7919%10000, i*31%40, i*17%100, i*13%100)
	}
	return b.String()[:n]
}

// BenchmarkPack is the cost of compressing one message, and what it saves. docs/compression.md has its figures.
func BenchmarkPack(b *testing.B) {
	for _, n := range []int{128, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("%dB", n), func(b *testing.B) {
			s := &Shared{}
			plain := frame(Text, sample(n))
			var packed, buf []byte
			b.ReportAllocs()
			began := cpu(b)
			for b.Loop() {
				d := s.Deflater()
				packed, buf = d.Pack(buf, plain)
				s.Done(d)
			}
			b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(len(packed)), "packed-bytes")
		})
	}
}

// BenchmarkIdleClient is the memory of a client that waits: without compression, with it, and after it has sent a
// compressed message itself. The client's end is in the same process; its part is the same in all three.
func BenchmarkIdleClient(b *testing.B) {
	for _, q := range []struct {
		name  string
		from  int
		sends bool
	}{{"plain", 0, false}, {"compression", 512, false}, {"compression-heard", 512, true}} {
		b.Run(q.name, func(b *testing.B) {
			const clients = 500
			for b.Loop() {
				b.ReportMetric(idle(b, clients, q.from, q.sends)/clients, "B/client")
			}
		})
	}
}

// idle opens clients and returns the bytes that are in use for them.
func idle(b *testing.B, n, from int, sends bool) float64 {
	shared := &Shared{ReadLimit: 1 << 16, PackFrom: from}
	texts := make(chan struct{}, n)
	conns := make(chan *Conn, n)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := shared.Accept(w, r, "")
		if err != nil {
			b.Error(err)
			return
		}
		c.SetOwner(quiet{})
		go c.Serve(func([]byte) { texts <- struct{}{} })
		conns <- c
	}))
	defer srv.Close()
	before := heap()
	var all []*websocket.Conn
	for range n {
		ws, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(srv.URL, "http"), &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1})
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, ws)
		if sends {
			if err := ws.Write(context.Background(), websocket.MessageText, []byte(strings.Repeat("x", 200))); err != nil {
				b.Fatal(err)
			}
			<-texts
		}
	}
	used := heap() - before
	for _, ws := range all {
		_ = ws.CloseNow()
		(<-conns).Abort(1006)
	}
	shared.Wait()
	return used
}

// cpu is the time that this process had, which a busy machine does not stretch.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}
