package realkafka

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

func TestRecordsOutliveAKillOfTheBroker(t *testing.T) {
	if os.Getenv("POINTSMAN_STACK") != "real" {
		t.Skip("runs Apache Kafka: POINTSMAN_STACK is not real (make test-kafka)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	jars, err := Fetch(ctx, "../../kafka/pom.xml", "../../.work")
	if err != nil {
		t.Fatal(err)
	}
	var ports procs.Ports
	defer ports.Close()
	cfg := Config{Jars: jars, Dir: t.TempDir()}
	if cfg.Addr, err = ports.Take(); err != nil {
		t.Fatal(err)
	}
	if cfg.Controller, err = ports.Take(); err != nil {
		t.Fatal(err)
	}
	b, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "t", 1, 1
	create.Topics = append(create.Topics, topic)
	if _, err := create.RequestWith(ctx, client); err != nil {
		t.Fatal(err)
	}
	for _, restart := range []func() error{func() error { return nil }, b.Kill, func() error { return b.Stop(ctx) }} {
		if err := restart(); err != nil {
			t.Fatal(err)
		}
		if !b.Process().Running() {
			start := time.Now()
			if err := b.Start(ctx); err != nil {
				t.Fatal(err)
			}
			t.Logf("broker served %v after its start", time.Since(start).Round(time.Millisecond))
		}
		if err := client.ProduceSync(ctx, kgo.StringRecord("v")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for got < 3 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if got != 3 {
		t.Errorf("got %d records, want 3", got)
	}
}
