package produce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

func TestRecordsGoWhereEachPartitionerPutsThem(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(50, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for name, want := range map[string]int32{"murmur2": 16, "": 16, "crc32": 19, "fnv1a": 26} {
		p, err := Open(ctx, Config{Brokers: c.ListenAddrs(), Topic: "orders", Partitioner: name})
		if err != nil {
			t.Fatalf("open with %q: %v", name, err)
		}
		partition, _, err := p.Send(ctx, Record{Key: []byte("foobar"), Value: []byte("v")})
		if err != nil || partition != want {
			t.Errorf("%q puts foobar in %d (%v), want %d", name, partition, err, want)
		}
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestNullsAndHeadersArriveAsTheyWereSent(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p, err := Open(ctx, Config{Brokers: c.ListenAddrs(), Topic: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sent := []Record{
		{Key: []byte("a"), Value: []byte("v"), Headers: []Header{{Key: "h", Value: []byte("1")}, {Key: "h"}}},
		{Key: []byte("a")},
		{Value: []byte{}},
		{Key: []byte{}, Value: []byte("v")},
	}
	for i, r := range sent {
		if partition, offset, err := p.Send(ctx, r); err != nil || partition != 0 || offset != int64(i) {
			t.Fatalf("send %d: %d, %d, %v", i, partition, offset, err)
		}
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	var got []*kgo.Record
	for len(got) < len(sent) {
		fetched := consumer.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			t.Fatal(err)
		}
		got = append(got, fetched.Records()...)
	}
	for i, r := range got {
		want := sent[i]
		if (r.Key == nil) != (want.Key == nil) || (r.Value == nil) != (want.Value == nil) ||
			string(r.Key) != string(want.Key) || string(r.Value) != string(want.Value) || len(r.Headers) != len(want.Headers) {
			t.Errorf("record %d is %+v, sent %+v", i, r, want)
		}
	}
	if h := fmt.Sprint(got[0].Headers); h != "[{h [49]} {h []}]" {
		t.Errorf("headers are %s", h)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	ctx := context.Background()
	if _, err := Open(ctx, Config{Brokers: c.ListenAddrs(), Topic: "nowhere"}); !errors.Is(err, kafka.ErrTopicNotFound) {
		t.Errorf("missing topic: %v", err)
	}
	if _, err := Open(ctx, Config{Brokers: c.ListenAddrs(), Topic: "orders", Partitioner: "dice"}); err == nil || !strings.Contains(err.Error(), "dice") {
		t.Errorf("unknown partitioner: %v", err)
	}
	if _, err := Open(ctx, Config{Brokers: []string{nobody}, Topic: "orders"}); err == nil {
		t.Error("a cluster that is not there is accepted")
	}
}
