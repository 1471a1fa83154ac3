package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/placement"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

const (
	// maxSampled bounds the partitions that records are read of, spread over all.
	maxSampled = 128
	// atOnce bounds the partitions that are asked at the same time.
	atOnce = 8
	// scanBytes is how much one read asks for.
	scanBytes = 256 << 10
)

// sample is what was seen of the partitions.
type sample struct {
	by      partitioner.Partitioner
	checker *placement.Checker

	mu       sync.Mutex
	held     []kafka.Transaction // guarded by mu; partitions with open transactions: Start is the last stable offset
	checked  int                 // guarded by mu
	keyless  int                 // guarded by mu
	wrong    int                 // guarded by mu
	looks    map[string]int      // guarded by mu; misplaced records by the partitioner that puts them there
	where    []int32             // guarded by mu; partitions with misplaced records
	newest   time.Time           // guarded by mu; of the records' times
	failures []error             // guarded by mu
}

// log looks at all partitions' ends and at some of their records.
func (d *doctor) log(ctx context.Context, i *kafka.Inspector) {
	by, err := partitioner.New(d.cfg.Partitioner)
	if err != nil {
		d.wrong("records", err.Error(), "correct --partitioner")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*d.cfg.Patience)
	defer cancel()
	client, err := kafka.Open(ctx, d.cfg.Kafka)
	if err != nil {
		d.skip("records", "transactions and records are not examined: %s", plain(err))
		return
	}
	defer func() { _ = client.Close() }()
	s := &sample{by: by, checker: placement.New(by, zap.NewNop()), looks: map[string]int{}}
	count := d.state.Topic.Partitions
	if d.picture != nil && d.picture.Topic != nil && d.picture.Topic.Partitions == count {
		s.checker.SetLayout(count, d.picture.Topic.Growth)
	} else {
		s.checker.SetLayout(count, nil)
	}
	every := max(1, (count+maxSampled-1)/maxSampled)
	each := int64(max(1, d.cfg.Records/int(min(count, maxSampled))))
	var asking sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for p := range count {
		asking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			b, err := client.Bounds(ctx, p)
			if err == nil {
				s.bounds(p, b)
				if p%every == 0 {
					err = d.read(ctx, client, s, p, b, each)
				}
			}
			if err != nil {
				s.fail(err)
			}
		})
	}
	asking.Wait()
	d.transactions(ctx, i, s)
	d.placement(s)
	if s.newest.After(d.now()) {
		d.future = s.newest.Sub(d.now())
	}
}

func (s *sample) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, err)
}

func (s *sample) bounds(p int32, b source.Bounds) {
	if b.High > b.Stable {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = append(s.held, kafka.Transaction{Partition: p, Start: b.Stable})
	}
}

// read looks at the newest committed records of a partition.
func (d *doctor) read(ctx context.Context, client *kafka.Client, s *sample, p int32, b source.Bounds, most int64) error {
	for at := max(b.Start, b.Stable-most); at < b.Stable; {
		batch, err := client.Scan(ctx, p, at, scanBytes)
		var outside *kafka.OutOfRangeError
		switch {
		case errors.As(err, &outside):
			return nil // retention was faster
		case err != nil:
			return err
		case batch.Next <= at:
			return nil
		}
		s.records(p, batch.Records, d.state.Topic.Partitions, d.now())
		at = batch.Next
	}
	return nil
}

func (s *sample) records(p int32, records []source.Record, partitions int32, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		r := &records[i]
		s.checked++
		if t := time.UnixMilli(r.Timestamp); r.Timestamp > 0 && t.After(s.newest) {
			s.newest = t
		}
		if !r.HasKey {
			s.keyless++
			continue
		}
		before := s.checker.Totals().Mismatched
		s.checker.Check(p, records[i:i+1], now)
		if s.checker.Totals().Mismatched == before {
			continue
		}
		s.wrong++
		if !slices.Contains(s.where, p) {
			s.where = append(s.where, p)
		}
		for _, name := range partitioner.Names() {
			if by, err := partitioner.New(name); err == nil && by.Partition(r.Key, partitions) == p {
				s.looks[name]++
			}
		}
	}
}

// placement tells of producers that put records where nobody looks for them.
func (d *doctor) placement(s *sample) {
	const check = "records"
	if len(s.failures) > 0 {
		d.warn(check, fmt.Sprintf("%s could not be read: %s", plural(len(s.failures), "partition", "partitions"), plain(s.failures[0])), "look at the brokers that lead them")
	}
	switch {
	case s.checked == 0 && len(s.failures) == 0:
		d.skip(check, "the topic holds no committed records, so the producers' partitioner is not known")
		return
	case s.checked == 0:
		return
	}
	if s.wrong > 0 {
		slices.Sort(s.where)
		text := fmt.Sprintf("%d of %d records lie in other partitions than %s says (partitions %s), so no client gets them",
			s.wrong, s.checked, s.by.Name(), overview.Ranges(s.where))
		best := ""
		for name, n := range s.looks {
			if n*10 >= s.wrong*9 && (best == "" || n > s.looks[best]) {
				best = name
			}
		}
		remedy := "find the producer that chooses partitions by itself, and let it use " + s.by.Name()
		if best != "" {
			text += fmt.Sprintf("; their producer uses %s%s", best, whoUses(best))
			remedy = fmt.Sprintf("set that producer's partitioner to %s%s, or, if all producers use %s, start the nodes with --partitioner=%s", s.by.Name(), howToSet(s.by.Name()), best, best)
		}
		d.wrong(check, text, remedy)
	}
	if s.keyless > 0 {
		d.warn(check, fmt.Sprintf("%d of %d records have no key: no client can get them", s.keyless, s.checked), "let their producer set the client's key as the record's key")
	}
	if s.wrong == 0 && s.keyless == 0 {
		d.ok(check, "the newest %d lie where %s says", s.checked, s.by.Name())
	}
}

func whoUses(name string) string {
	switch name {
	case partitioner.CRC32:
		return " (librdkafka's default: kcat, confluent-kafka)"
	case partitioner.FNV1a:
		return " (sarama's default)"
	case partitioner.Murmur2:
		return " (Java's default)"
	}
	return ""
}

func howToSet(name string) string {
	if name == partitioner.Murmur2 {
		return " (librdkafka: partitioner=murmur2_random)"
	}
	return ""
}

// transactions tells of those that hold records back and write nothing any more.
func (d *doctor) transactions(ctx context.Context, i *kafka.Inspector, s *sample) {
	const check = "transactions"
	if len(s.held) == 0 {
		d.ok(check, "none holds records back")
		return
	}
	slices.SortFunc(s.held, func(a, b kafka.Transaction) int { return int(a.Partition - b.Partition) })
	var hanging []string
	var first kafka.Transaction
	unknown := 0
	for _, at := range s.held {
		var open []kafka.Transaction
		err := d.ask(ctx, func(ctx context.Context) (err error) {
			open, err = i.Transactions(ctx, d.state.Partitions[at.Partition].Leader, at.Partition)
			return err
		})
		if err != nil {
			unknown++
			continue
		}
		for _, tx := range open {
			if idle := d.now().Sub(tx.LastWrite); !tx.LastWrite.IsZero() && idle >= d.cfg.HangingAfter {
				if len(hanging) == 0 {
					first = tx
				}
				hanging = append(hanging, fmt.Sprintf("producer %d in partition %d since offset %d, silent for %s", tx.Producer, tx.Partition, tx.Start, idle.Round(time.Second)))
			}
		}
	}
	switch {
	case len(hanging) > 0:
		more := ""
		if len(hanging) > 3 {
			more = fmt.Sprintf(" and %d more", len(hanging)-3)
		}
		d.wrong(check, "open transactions hold records back: "+strings.Join(hanging[:min(3, len(hanging))], "; ")+more,
			fmt.Sprintf("stop or restart that producer; if the broker has forgotten it: kafka-transactions.sh --bootstrap-server %s abort --topic %s --partition %d --start-offset %d",
				d.cfg.Kafka.Brokers[0], d.cfg.Kafka.Topic, first.Partition, first.Start))
	case unknown > 0:
		d.warn(check, fmt.Sprintf("open transactions hold records of %s back, and the brokers do not say whose", plural(unknown, "partition", "partitions")), "ask again; if they stay, use kafka-transactions.sh find-hanging")
	default:
		d.ok(check, "%s under way, none older than %s", plural(len(s.held), "is", "are"), d.cfg.HangingAfter)
	}
}
