package redistributor

import (
	"context"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

// nobody is a Locator that knows of no client.
type nobody struct{}

func (nobody) Follow(ctx context.Context, _ int32, ready func(), _ func(func()), _ func(Join)) error {
	ready()
	<-ctx.Done()
	return nil
}

func (nobody) Where(_ context.Context, _ int32, keys []string) ([][]Place, error) {
	return make([][]Place, len(keys)), nil
}

func (nobody) Close() error { return nil }

// TestAPartitionWithoutACommitGetsOneAtOnce has a fresh group own a partition to which nothing more comes.
func TestAPartitionWithoutACommitGetsOneAtOnce(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "records"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DefaultProduceTopic("records"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for range 5 {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("old")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	base := program.Base{
		Kafka: topic.Config{Brokers: fake.ListenAddrs(), Topic: "records", ClientID: "test"}, ID: "r", Registry: prometheus.NewRegistry(),
		Ready: func(string, func() error) {}, Vars: func(string, func() any) {}, Logger: zap.NewNop(),
	}
	r, err := New(base, &sender{}, func(int32, func(int)) (Locator, error) { return nobody{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.working, r.lanes.ctx, r.fail = ctx, ctx, func(err error) { t.Error(err) }
	committed := make(chan int64, 16)
	var owning sync.WaitGroup
	owning.Go(func() { r.Own(ctx, 0, 1, -1, func(next int64) { committed <- next }) })
	if got := <-committed; got != 5 {
		t.Errorf("committed %d, want 5, where it began", got)
	}
	cancel()
	owning.Wait()
	if err := r.topic.Close(); err != nil {
		t.Error(err)
	}
}
