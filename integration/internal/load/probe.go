package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// Probe is a plain consumer of the topic. What delays it too is Kafka or the machine, not the product.
type Probe struct {
	cl   *kgo.Client
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	seen []arrival
}

type arrival struct {
	stamped time.Time
	delay   time.Duration
}

// StartProbe reads a topic from its end on until Close.
func StartProbe(brokers []string, topic string) (*Probe, error) {
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd()))
	if err != nil {
		return nil, fmt.Errorf("start a probe: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Probe{cl: cl, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			at := time.Now()
			p.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				p.seen = append(p.seen, arrival{stamped: r.Timestamp, delay: at.Sub(r.Timestamp)})
			})
			p.mu.Unlock()
		}
	}()
	return p, nil
}

// Close ends the probe.
func (p *Probe) Close() {
	p.stop()
	<-p.done
	p.cl.Close()
}

// P99 is how long records stamped in [from, until) took to reach the probe.
func (p *Probe) P99(from, until time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []time.Duration
	for _, a := range p.seen {
		if !a.stamped.Before(from) && a.stamped.Before(until) {
			all = append(all, a.delay)
		}
	}
	slices.Sort(all)
	return checker.Quantile(all, 0.99)
}
