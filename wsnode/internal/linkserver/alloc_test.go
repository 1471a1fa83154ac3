package linkserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// rawRouter is a router's end of a link without a WebSocket library, whose allocations would be counted, too.
type rawRouter struct {
	conn net.Conn
	br   *bufio.Reader
	got  atomic.Int64 // bytes
}

func dialRaw(tb testing.TB, addr string) *rawRouter {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", link.Path, link.Subprotocol)
	if err != nil {
		tb.Fatal(err)
	}
	r := &rawRouter{conn: conn, br: bufio.NewReaderSize(conn, 64<<10)}
	resp, err := http.ReadResponse(r.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		tb.Fatalf("upgrade: %v, %v", resp, err)
	}
	return r
}

func (r *rawRouter) write(tb testing.TB, msg []byte) {
	tb.Helper()
	frame := []byte{0x82, 0x80 | byte(len(msg))}
	if len(msg) > 125 {
		frame = binary.BigEndian.AppendUint16([]byte{0x82, 0x80 | 126}, uint16(len(msg))) // 64 KB at most
	}
	frame = append(frame, 0, 0, 0, 0) // a mask that changes nothing
	if _, err := r.conn.Write(append(frame, msg...)); err != nil {
		tb.Fatal(err)
	}
}

// read counts bytes until the connection ends.
func (r *rawRouter) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.br.Read(buf)
		r.got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// TestRecordsReachTheSocketWithoutAllocations counts what a node allocates from a fetched batch to the link's socket:
// nothing.
func TestRecordsReachTheSocketWithoutAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	for _, each := range []int{1, 100} {
		t.Run(fmt.Sprintf("%d records a fetch", each), func(t *testing.T) { countAllocations(t, each) })
	}
}

func countAllocations(t *testing.T, each int) {
	log := benchLog{make(chan runner.Sink, 1)}
	run := runner.New(runner.Config{
		Loop: partition.Config{CheckpointEvery: time.Hour}, RingBudget: 1 << 20, Partitions: 1, Log: log, Identity: sure{},
	})
	defer run.Close()
	s := New(Config{Handler: run, Welcome: func() link.Welcome { return link.Welcome{} }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = s.Serve(ctx, l) }() // ends with the context
	defer s.Close(0, websocket.StatusGoingAway, "")
	router := dialRaw(t, l.Addr().String())
	defer router.conn.Close()
	const streams = 100
	keys := make([][]byte, streams)
	var attach []byte
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%d", i)
		attach = link.AppendAttach(attach, &link.Attach{
			Stream: uint64(i) + 1, Key: keys[i], Start: link.Start{Kind: link.StartLatest}, Credit: 1 << 50,
		})
	}
	router.write(t, link.AppendHello(nil, &link.Hello{Version: link.Version}))
	router.write(t, attach)
	go router.read() // ends with the connection
	sink := <-log.sink
	value := []byte(strings.Repeat("v", 128))

	const warm, rounds = 100, 200
	batches := make([]*source.Batch, warm+rounds)
	for b := range batches {
		from := int64(b * each)
		batch := &source.Batch{From: from, Next: from + int64(each), Bounds: source.Bounds{Stable: from + int64(each), High: from + int64(each)}}
		for i := range each {
			batch.Records = append(batch.Records, source.Record{Offset: from + int64(i), Key: keys[(b+i)%streams], HasKey: true, Value: value})
		}
		batches[b] = batch
	}
	feed := func(some []*source.Batch) {
		for _, b := range some {
			want := router.got.Load() + int64(each*len(value))
			sink.Batch(b)
			for router.got.Load() < want { // one at a time, as they come at a low rate
				runtime.Gosched()
			}
		}
	}
	feed(batches[:warm]) // until the ring is full and buffers have grown
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	feed(batches[warm:])
	runtime.ReadMemStats(&after)
	perBatch := float64(after.Mallocs-before.Mallocs) / rounds
	t.Logf("%.2f allocations a batch of %d records", perBatch, each)
	// One is left to pings and timers.
	if perBatch > 1 {
		t.Errorf("%.2f allocations a batch of %d records, want none", perBatch, each)
	}
}
