// Command floor is the cheapest program that sends the records of a Kafka topic to WebSocket clients by key: franz-go
// in, a map from keys to connections, one write for every message out. It guarantees nothing: no resume, no order across
// restarts, no second instance, no authentication, no limits; a client that does not read stops all others. Benchmarks
// measure what Pointsman costs beside it, see package bench.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address for clients: /?key=KEY")
	kafka := flag.String("kafka", "127.0.0.1:9092", "brokers, with commas between")
	topic := flag.String("topic", "records", "topic to read, from its end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, strings.Split(*kafka, ","), *topic); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string, brokers []string, topic string) error {
	ends, err := load.Ends(ctx, brokers, topic)
	if err != nil {
		return err
	}
	from := make(map[int32]kgo.Offset)
	for p, end := range ends {
		from[p] = kgo.NewOffset().At(end)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return fmt.Errorf("consume %s: %w", topic, err)
	}
	defer cl.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	f := &floor{conns: make(map[string][]net.Conn)}
	go f.accept(l)
	var frame []byte
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		f.mu.RLock()
		fetches.EachRecord(func(r *kgo.Record) {
			conns := f.conns[string(r.Key)]
			if len(conns) == 0 {
				return
			}
			frame = appendFrame(frame[:0], r.Value)
			for _, c := range conns {
				_, _ = c.Write(frame) // the reader notices an end
			}
		})
		f.mu.RUnlock()
	}
}

// appendFrame appends one unmasked text frame.
func appendFrame(dst, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x81, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x81, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x81, 127), uint64(n))
	}
	return append(dst, payload...)
}

type floor struct {
	mu    sync.RWMutex
	conns map[string][]net.Conn // guarded by mu; by key
}

func (f *floor) accept(l net.Listener) {
	readers := sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 1024) }}
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		go f.serve(conn, &readers)
	}
}

// serve upgrades a connection and then waits for its end in a goroutine with nothing but its stack.
func (f *floor) serve(conn net.Conn, readers *sync.Pool) {
	key, ok := f.upgrade(conn, readers)
	if !ok {
		_ = conn.Close()
		return
	}
	var buf [16]byte
	for {
		if _, err := conn.Read(buf[:]); err != nil { // a close frame is followed by the end
			break
		}
	}
	f.mu.Lock()
	for i, c := range f.conns[key] {
		if c == conn {
			f.conns[key] = append(f.conns[key][:i:i], f.conns[key][i+1:]...)
			break
		}
	}
	if len(f.conns[key]) == 0 {
		delete(f.conns, key)
	}
	f.mu.Unlock()
	_ = conn.Close()
}

func (f *floor) upgrade(conn net.Conn, readers *sync.Pool) (key string, ok bool) {
	br, _ := readers.Get().(*bufio.Reader)
	br.Reset(conn)
	defer func() {
		br.Reset(nil)
		readers.Put(br)
	}()
	var nonce [64]byte
	var length int
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return "", false
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			_, query, found := bytes.Cut(line, []byte("key="))
			name, _, ends := bytes.Cut(query, []byte(" "))
			if !found || !ends {
				return "", false
			}
			key = string(name)
			continue
		}
		if len(line) == 0 {
			break
		}
		const header = "sec-websocket-key:"
		if len(line) > len(header) && bytes.EqualFold(line[:len(header)], []byte(header)) {
			length = copy(nonce[:], bytes.TrimSpace(line[len(header):]))
		}
	}
	if length != 24 {
		return "", false
	}
	sum := sha1.Sum(append(nonce[:length:length], "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) //nolint:gosec // RFC 6455
	answer := make([]byte, 0, 160)
	answer = append(answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	answer = base64.StdEncoding.AppendEncode(answer, sum[:])
	answer = append(answer, "\r\n\r\n"...)
	if _, err := conn.Write(answer); err != nil {
		return "", false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[key] = append(f.conns[key], conn)
	return key, true
}
