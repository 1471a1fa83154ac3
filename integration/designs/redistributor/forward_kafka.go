package redistributor

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/IBM/sarama"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

// serverTopic is the topic of one server's life.
func serverTopic(topic, instance string) string { return topic + "-to-" + instance }

// kafkaSender writes bundles to the topic of each server.
type kafkaSender struct {
	topic    string
	producer sarama.SyncProducer
}

// NewKafkaSender makes one.
func NewKafkaSender(k topic.Config) (Sender, error) {
	sc := topic.Sarama(k.ClientID + "-forward")
	sc.Producer.RequiredAcks = sarama.WaitForLocal
	sc.Producer.Return.Successes = true
	sc.Producer.Retry.Max = 0 // the lane tries again, and keeps the order
	sc.Producer.MaxMessageBytes = 16 << 20
	p, err := sarama.NewSyncProducer(k.Brokers, sc)
	if err != nil {
		return nil, fmt.Errorf("open a producer: %w", err)
	}
	return &kafkaSender{k.Topic, p}, nil
}

// chunk is how much of a bundle one message holds at most: brokers refuse more than a megabyte by default.
const chunk = 900 << 10

func (s *kafkaSender) Send(_ context.Context, to Place, bundle []byte) error {
	// A message need not be a whole bundle, only whole messages of it.
	for len(bundle) > 0 {
		n, err := split(bundle, chunk)
		if err != nil {
			return err
		}
		if _, _, err := s.producer.SendMessage(&sarama.ProducerMessage{Topic: serverTopic(s.topic, to.Instance), Value: sarama.ByteEncoder(bundle[:n])}); err != nil {
			return fmt.Errorf("forward: %w", err)
		}
		bundle = bundle[n:]
	}
	return nil
}

func (s *kafkaSender) Close() error { return s.producer.Close() }

// kafkaReceiver reads the server's own topic.
type kafkaReceiver struct {
	k    topic.Config
	name string
	cl   sarama.Client
	cons sarama.Consumer
	pc   sarama.PartitionConsumer
}

// NewKafkaReceiver creates the topic of a process and reads it from its beginning.
func NewKafkaReceiver(k topic.Config, instance string) (_ Receiver, err error) {
	r := &kafkaReceiver{k: k, name: serverTopic(k.Topic, instance)}
	if err := ensureTopic(k, r.name, 1, map[string]string{"retention.ms": "60000"}); err != nil {
		return nil, err
	}
	sc := topic.Sarama(k.ClientID + "-receive")
	if r.cl, err = sarama.NewClient(k.Brokers, sc); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if r.cons, err = sarama.NewConsumerFromClient(r.cl); err == nil {
		err = topic.Again(context.Background(), r.cl, r.name, func() (err error) {
			r.pc, err = r.cons.ConsumePartition(r.name, 0, sarama.OffsetOldest)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive: %w", err), r.cl.Close())
	}
	return r, nil
}

func (r *kafkaReceiver) Mount(*http.ServeMux, func([]byte) error) {}

// Run delivers until ctx ends and deletes the topic: what comes for a server that has gone is for nobody.
func (r *kafkaReceiver) Run(ctx context.Context, take func([]byte) error) error {
	var err error
	for ctx.Err() == nil && err == nil {
		select {
		case m, ok := <-r.pc.Messages():
			if !ok {
				err = errors.New("receive: the consumer has ended")
			} else {
				err = take(m.Value)
			}
		case <-ctx.Done():
		}
	}
	closed := errors.Join(r.pc.Close(), r.cons.Close(), r.cl.Close())
	admin, failed := sarama.NewClusterAdmin(r.k.Brokers, topic.Sarama(r.k.ClientID+"-admin"))
	if failed == nil {
		failed = errors.Join(admin.DeleteTopic(r.name), admin.Close())
	}
	return errors.Join(err, closed, failed)
}
