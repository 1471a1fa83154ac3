package compare

import (
	"maps"
	"slices"
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
)

func TestTopicsOfASampleAreDeletedWithIt(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "a-1", "a-1-where", "a-1-to-server-2-x", "a-10", "a-10-where", "b-1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	if err := deleteTopics(fake.ListenAddrs(), "a-1"); err != nil {
		t.Fatal(err)
	}
	sc := sarama.NewConfig()
	sc.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(fake.ListenAddrs(), sc)
	if err != nil {
		t.Fatal(err)
	}
	left, err := admin.ListTopics()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(left)), []string{"a-10", "a-10-where", "b-1"}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	if err := admin.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheOrderOfDesignsChangesFromRoundToRound(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e", "f", "g"}
	for _, rounds := range []int{1, 2, 3, 7} {
		firsts := make(map[string]bool)
		for round := range rounds {
			got := turn(all, round, rounds)
			if round == 0 && !slices.Equal(got, all) || !slices.Equal(slices.Sorted(slices.Values(got)), all) {
				t.Errorf("round %d of %d: %v", round, rounds, got)
			}
			firsts[got[0]] = true
		}
		if len(firsts) != rounds {
			t.Errorf("in %d rounds only %v come first", rounds, firsts)
		}
	}
	if all[0] != "a" {
		t.Error("the order was changed in place")
	}
}
