package hub

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/metrics"
	"github.com/pointsmanhq/pointsman/router/internal/session"
	"github.com/pointsmanhq/pointsman/router/internal/table"
)

type noPool struct{}

func (noPool) Set(links.Expect, []links.Want) {}

// bench is a hub with one lane that nobody reads from, and clients on real sockets.
type bench struct {
	hub  *Hub
	lane *lane
	link *links.Link
	msg  []byte
	dec  *link.RouterDecoder
}

func newBench(tb testing.TB, clients int, key func(i int) string) *bench {
	tb.Helper()
	h := New(Config{
		Topic:   "records",
		Session: session.Config{Window: 1 << 40, Heartbeat: time.Hour}, // credit is not what is measured
		Limits:  clientconn.Limits{Ping: time.Hour, Dead: time.Hour, Stall: time.Hour},
		Logger:  zap.NewNop(), Metrics: metrics.New(prometheus.NewRegistry(), metrics.Gauges{}),
	})
	h.Use(noPool{})
	h.Picture(table.Picture{Topic: &directory.Topic{
		V: 1, TopicID: "00000000-0000-0000-0000-00000000000a", Partitions: 1, Partitioner: "murmur2",
	}})
	b := &bench{hub: h, link: &links.Link{ID: 1, Node: "a", Instance: "a"}, dec: link.NewRouterDecoder()}
	b.lane = h.Open(b.link).(*lane)
	h.Up(b.link)

	sessions := make(chan *Session)
	next := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := h.Conns().Accept(w, r, "")
		if err != nil {
			tb.Errorf("accept: %v", err)
			return
		}
		s, err := h.Connect(c, Wish{Key: []byte(key(next)), Start: link.Start{Kind: link.StartLatest}})
		if err != nil {
			tb.Errorf("connect: %v", err)
		}
		h.Go(func() { s.Serve(func(*Session, []byte) {}) })
		sessions <- s
	}))
	for next = range clients {
		raw, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = raw.Close() })
		_, err = raw.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
		if err != nil {
			tb.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, raw) }()
		<-sessions
	}
	tb.Cleanup(func() {
		srv.Close()
		h.Cut()
	})
	for i := range clients {
		b.feed(link.AppendAttached(nil, &link.Attached{Stream: uint64(i + 1), Next: 0, Head: 0, Live: true}))
	}
	return b
}

func (b *bench) feed(msg []byte) {
	b.lane.Begin()
	if err := b.dec.Decode(msg, b.lane); err != nil {
		panic(err)
	}
	b.lane.End(len(msg))
}

// record delivers one record to the given streams, the offset being part of the message.
func (b *bench) record(r *link.Record) {
	b.msg = link.AppendRecord(b.msg[:0], r)
	b.feed(b.msg)
}

func sample(streams ...uint64) *link.Record {
	return &link.Record{
		Streams: streams, Timestamp: time.Now().UnixMilli(), Key: []byte("k"),
		Headers: []link.Header{{Key: []byte("trace"), Value: []byte("4bf92f3577b34da6")}},
		Value:   []byte(`{"name":"a value of about 128 bytes","numbers":[1,2,3,4,5,6,7,8,9,10],"text":"lorem ipsum dolor sit amet consectetur"}`),
	}
}

func TestDeliveryAllocatesNothing(t *testing.T) {
	if raced {
		t.Skip("not with the race detector")
	}
	for _, n := range []int{1, 10} {
		b := newBench(t, n, func(int) string { return "k" })
		r := sample()
		for i := range n {
			r.Streams = append(r.Streams, uint64(i+1))
		}
		deliver := func() {
			b.record(r)
			r.Offset++
		}
		deliver()
		if got := testing.AllocsPerRun(2000, deliver); got >= 1 {
			t.Errorf("%v allocations for a record to %d clients", got, n)
		}
		if got := b.hub.cfg.Metrics.Records.Load(); got < 2000*uint64(n) {
			t.Errorf("%d records were delivered", got)
		}
		if c := b.hub.Consistency(); len(c.Problems) > 0 {
			t.Errorf("inconsistent: %q", c.Problems)
		}
	}
}

func TestLatencyIsThatOfStreamsThatAreCaughtUp(t *testing.T) {
	b := newBench(t, 1, func(int) string { return "k" })
	r := sample(1)
	observed := func(of string, want bool) {
		t.Helper()
		before := b.hub.cfg.Metrics.Latency.Count()
		b.record(r)
		r.Offset++
		if got := b.hub.cfg.Metrics.Latency.Count() - before; (got == 1) != want {
			t.Errorf("%s: %d deliveries observed, want %v", of, got, want)
		}
	}
	observed("attached at the head", true)
	b.feed(link.AppendCheckpoint(nil, &link.Checkpoint{Next: 1, Except: []uint64{1}}))
	observed("behind", false)
	b.feed(link.AppendCheckpoint(nil, &link.Checkpoint{Next: 2}))
	observed("caught up", true)
}

// BenchmarkDelivery is a record's way from the link's message to the client's socket: one record to one client.
func BenchmarkDelivery(b *testing.B) {
	bench := newBench(b, 100, func(i int) string { return fmt.Sprint("key-", i) })
	r := sample(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Streams[0] = uint64(i%100 + 1)
		r.Offset = int64(i)
		bench.record(r)
	}
}

// BenchmarkFanOut is one record to a hundred clients of a key; an operation is one delivery.
func BenchmarkFanOut(b *testing.B) {
	const n = 100
	bench := newBench(b, n, func(int) string { return "k" })
	r := sample()
	for i := range n {
		r.Streams = append(r.Streams, uint64(i+1))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += n {
		bench.record(r)
		r.Offset++
	}
}

// BenchmarkLookAtIdleSessions is the once-a-second look at all sessions; an operation is one session.
func BenchmarkLookAtIdleSessions(b *testing.B) {
	const n = 200
	bench := newBench(b, n, func(i int) string { return fmt.Sprint("key-", i) })
	var sum look
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += n {
		bench.hub.look(0, bench.hub.start, &sum)
	}
}
