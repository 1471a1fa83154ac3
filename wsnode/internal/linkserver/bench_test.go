package linkserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// benchLog hands out its one reader's sink.
type benchLog struct{ sink chan runner.Sink }

func (benchLog) Bounds(context.Context, [16]byte, int32) (source.Bounds, error) {
	return source.Bounds{}, nil
}
func (benchLog) OffsetAt(context.Context, [16]byte, int32, int64) (int64, bool, error) {
	return 0, false, nil
}
func (benchLog) Scan(_ context.Context, _ [16]byte, _ int32, from int64, _ int32) (*source.Batch, *source.Bounds, error) {
	return &source.Batch{From: from, Next: from}, nil, nil
}
func (b benchLog) Read(_ [16]byte, _ int32, _ int64, s runner.Sink) { b.sink <- s }
func (benchLog) StopRead(int32)                                     {}

type sure struct{}

func (sure) Verified() (time.Time, <-chan struct{}) { return time.Now(), nil }
func (sure) Recheck()                               {}

// BenchmarkRecordsOverOneLink is a node's work from a fetched batch to the socket: one partition, 1,000 streams on
// one link, 128 bytes to one of them each.
func BenchmarkRecordsOverOneLink(b *testing.B) {
	log := benchLog{make(chan runner.Sink, 1)}
	run := runner.New(runner.Config{
		Loop: partition.Config{}, RingBudget: 64 << 20, Partitions: 1, Log: log, Identity: sure{},
	})
	defer run.Close()
	s := New(Config{Handler: run, Welcome: func() link.Welcome { return link.Welcome{} }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = s.Serve(ctx, l) }()
	defer s.Close(0, websocket.StatusGoingAway, "")
	conn, _, err := websocket.Dial(ctx, "ws://"+l.Addr().String()+link.Path, &websocket.DialOptions{Subprotocols: []string{link.Subprotocol}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(link.MaxMessage)
	const streams = 1000
	var msg []byte
	for i := range streams {
		msg = link.AppendAttach(msg, &link.Attach{
			Stream: uint64(i) + 1, Key: fmt.Appendf(nil, "key-%d", i), Start: link.Start{Kind: link.StartLatest}, Credit: 1 << 50,
		})
	}
	for _, m := range [][]byte{link.AppendHello(nil, &link.Hello{Version: link.Version}), msg} {
		if err := conn.Write(ctx, websocket.MessageBinary, m); err != nil {
			b.Fatal(err)
		}
	}
	sink := <-log.sink
	total := int64(0)
	read := make(chan int64, 1)
	wanted := int64(b.N)*128 + 1
	go func() {
		var n int64
		for n < wanted {
			_, r, err := conn.Reader(ctx)
			if err != nil {
				break
			}
			m, err := io.Copy(io.Discard, r)
			if n += m; err != nil {
				break
			}
		}
		read <- n
	}()
	value := make([]byte, 128)
	keys := make([][]byte, streams)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%d", i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for total < int64(b.N) {
		batch := &source.Batch{From: total, Next: total + min(500, int64(b.N)-total)}
		batch.Records = make([]source.Record, batch.Next-batch.From)
		for i := range batch.Records {
			batch.Records[i] = source.Record{Offset: total + int64(i), Key: keys[(total+int64(i))%streams], HasKey: true, Value: value}
		}
		batch.Bounds = source.Bounds{Stable: batch.Next, High: batch.Next}
		sink.Batch(batch)
		total = batch.Next
	}
	<-read
}
