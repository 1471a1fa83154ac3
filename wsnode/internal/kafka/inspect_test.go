package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestInspectorSeesWhatOperatorsAskFor(t *testing.T) {
	onEach(t, 2, func(t *testing.T, f *cluster) {
		i, err := Inspect(Config{Brokers: f.brokers, Topic: f.topic})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(i.Close)
		at := f.brokers[0]
		s, err := i.Ask(t.Context(), at)
		if err != nil || s.TopicErr != nil || len(s.Brokers) == 0 || len(s.Partitions) != 2 || s.Partitions[0].Leader == "" || s.Topic.ID == [16]byte{} {
			t.Fatalf("got %+v, %v", s, err)
		}
		set, err := i.TopicSettings(t.Context(), at, "retention.ms", "cleanup.policy")
		if err != nil || set["cleanup.policy"] != "delete" || len(set) != 2 {
			t.Errorf("topic settings %v, %v", set, err)
		}
		asking, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		for timeout, want := range map[time.Duration]error{6 * time.Second: nil, time.Second: ErrSessionTimeout} {
			if err := i.TrySession(asking, at, f.group, timeout); !errors.Is(err, want) {
				t.Errorf("session timeout %s: got %v, want %v", timeout, err, want)
			}
		}
		// The question leaves no member behind.
		if g, err := i.GroupState(asking, at, f.group); err != nil || len(g.Members) != 0 {
			t.Errorf("group %+v, %v", g, err)
		}

		cl := f.kgo(kgo.TransactionalID("tx-" + f.topic))
		f.begin(cl)
		first := f.produce(cl, 1, "a", "b")
		leader := s.Partitions[1].Leader
		open, err := i.Transactions(t.Context(), leader, 1)
		if err != nil || len(open) != 1 || open[0].Start != first || open[0].Partition != 1 || time.Since(open[0].LastWrite).Abs() > time.Minute {
			t.Errorf("got %+v, %v, want one transaction from offset %d", open, err, first)
		}
		f.end(cl, kgo.TryCommit)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for wait := (backoff{}); ; { // the marker is written behind the commit's answer
			if open, err = i.Transactions(ctx, leader, 1); err != nil || len(open) == 0 || !wait.sleep(ctx) {
				break
			}
		}
		if err != nil || len(open) != 0 {
			t.Errorf("after the commit: %+v, %v", open, err)
		}
		if open, err := i.Transactions(t.Context(), s.Partitions[0].Leader, 0); err != nil || len(open) != 0 {
			t.Errorf("partition 0: %+v, %v", open, err)
		}
	})
	t.Run("missing topic", func(t *testing.T) {
		f := newFake(t, 1)
		i, err := Inspect(Config{Brokers: f.brokers, Topic: "missing"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(i.Close)
		if s, err := i.Ask(t.Context(), f.brokers[0]); err != nil || !errors.Is(s.TopicErr, ErrTopicNotFound) {
			t.Errorf("got %+v, %v", s, err)
		}
	})
}
