package compare

import (
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/integration/designs/redistributor"
)

// deleteTopics deletes a topic, and what a design made beside it: the broker must not have more to look after in the last
// sample than in the first.
func deleteTopics(brokers []string, topic string) (err error) {
	sc := sarama.NewConfig()
	sc.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(brokers, sc)
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	all, err := admin.ListTopics()
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	var errs []error
	for name := range all {
		if name != topic && !redistributor.IsTopicOf(topic, name) {
			continue
		}
		if err := admin.DeleteTopic(name); err != nil && !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
			errs = append(errs, fmt.Errorf("delete topic %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// turn is the designs in the order of a round: who came first in one comes later in the others.
func turn(designs []string, round, rounds int) []string {
	if len(designs) == 0 {
		return nil
	}
	first := round * max(1, len(designs)/max(1, rounds)) % len(designs)
	return append(append([]string(nil), designs[first:]...), designs[:first]...)
}
