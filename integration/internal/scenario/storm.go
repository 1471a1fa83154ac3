package scenario

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// backlogRecord is the size of a record's value, in bytes, where catch-up is measured.
const backlogRecord = 128

// storm is a world in which many clients go away and come back together, far behind.
type storm struct {
	*world
	bulk     *load.Producer
	keys     []string
	others   []string // keys that no client has
	clients  []*load.Client
	trickler string // the key of the one that reads slowly when it is back
	live     []string
	probe    *load.Probe
	homes    map[string]int32
	written  int
}

func beginStorm(t testing.TB, flags ...string) *storm {
	t.Helper()
	opts := stack.Options{Nodes: 1, NodeFlags: flags} // one node, so that it has all of it to do
	if !rough(t).real() {
		opts.Partitions = 2 // so that a small backlog is a long one in each
	}
	s := &storm{world: begin(t, opts), homes: make(map[string]int32)}
	var err error
	s.bulk, err = load.NewProducer(s.Kafka(), s.Topic(), load.Bulk()...)
	s.must(err)
	t.Cleanup(s.bulk.Close)
	s.keys = keys("behind", size(s.world, 40, 1000))
	s.others = keys("other", 10*len(s.keys))
	s.clients = s.connect(s.keys, load.Options{})
	for _, c := range s.clients {
		c.Lagging()
	}
	return s
}

// home is partitionOf, remembered: it is asked for every record.
func (s *storm) home(key string) int32 {
	p, known := s.homes[key]
	if !known {
		p = s.partitionOf(key)
		s.homes[key] = p
	}
	return p
}

// watch connects clients that stay, with a plain consumer beside them, and lets records flow to them.
func (s *storm) watch() {
	s.t.Helper()
	s.live = keys("live", size(s.world, 10, 50))
	s.connect(s.live, load.Options{})
	var err error
	s.probe, err = load.StartProbe(s.Kafka(), s.Topic())
	s.must(err)
	s.t.Cleanup(s.probe.Close)
	s.produce(s.live, size(s.world, 100.0, 1000.0), backlogRecord)
	s.must(s.flowing())
}

// flowing waits until every client that stays has received a record stamped from now on.
func (s *storm) flowing() error { return s.settled(30 * time.Second) }

// backlog is what was written while clients were away.
type backlog struct {
	records  int
	size     map[int32]int64 // bytes of keys, values and headers, by partition
	from, to map[int32]int64 // offsets, by partition
	count    map[string]int  // of the clients' keys
	last     map[string]*kgo.Record
}

func (b *backlog) bytes() (n int64) {
	for _, size := range b.size {
		n += size
	}
	return n
}

// write writes n records, of which every nth is the clients'.
func (s *storm) write(p *load.Producer, n, nth int) *backlog {
	s.t.Helper()
	b := &backlog{records: n, size: make(map[int32]int64), count: make(map[string]int), last: make(map[string]*kgo.Record)}
	var err error
	b.from, err = load.Ends(s.ctx, s.Kafka(), s.Topic())
	s.must(err)
	begun := time.Now()
	s.must(p.BurstOf(s.ctx, n, func(i int) *kgo.Record {
		key, theirs := s.others[i%len(s.others)], i%nth == 0
		if theirs {
			key = s.keys[i/nth%len(s.keys)]
		} else if s.trickler != "" && i%nth < 3 {
			key, theirs = s.trickler, true
		}
		r := load.Sample(key, int64(s.written+i), backlogRecord)
		if theirs {
			b.last[key] = r
			b.count[key]++
		}
		b.size[s.home(key)] += sizeOf(r)
		return r
	}))
	s.written += n
	b.to, err = load.Ends(s.ctx, s.Kafka(), s.Topic())
	s.must(err)
	s.t.Logf("%d records, %d MB, 1 of %d for the clients, written in %s", n, b.bytes()>>20, nth, show(time.Since(begun)))
	return b
}

func sizeOf(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// burst lets n records become visible all at once, by the end of a transaction, to clients that wait for them: how
// fast they arrive says nothing of the producer.
func (s *storm) burst(id string, n int) recovery {
	s.t.Helper()
	tx, err := load.Begin(s.ctx, s.Kafka(), s.Topic(), id, time.Minute, load.Bulk()...)
	s.must(err)
	defer tx.Close()
	b := s.write(tx.Producer, n, 1)
	r := recovery{from: time.Now()}
	s.must(tx.End(s.ctx, true))
	r.to = s.everything(s.clients, b)
	s.t.Logf("burst of %d records received after %s", n, show(r.took()))
	return r
}

// miss lets the clients go away, writes records that they miss, and replaces the node: the new one has nothing of
// them in memory.
func (s *storm) miss(n, nth int) *backlog {
	s.t.Helper()
	s.must(load.Each(s.clients, func(_ int, c *load.Client) error { return c.Disconnect(s.ctx) }))
	b := s.write(s.bulk, n, nth)
	old := s.Nodes()[0].ID
	_, err := s.AddNode(s.ctx)
	s.must(err)
	s.must(s.DrainNode(s.ctx, old))
	s.eventually(30*time.Second, "the new node has read all partitions to their ends", func() error {
		v, err := s.vars(s.Nodes()[0].Admin)
		for _, p := range v.Partitions {
			if !p.Assigned || !p.Readable {
				err = fmt.Errorf("partition %d: assigned %v, readable %v", p.Partition, p.Assigned, p.Readable)
			}
		}
		if err == nil && len(v.Partitions) != int(s.Partitions()) {
			err = fmt.Errorf("it has %d partitions", len(v.Partitions))
		}
		return err
	})
	if s.live != nil {
		s.must(s.flowing())
	}
	return b
}

// recovery is what a catch-up, or what it is compared with, came to.
type recovery struct {
	from, to time.Time     // the first connection, the last record
	hello    time.Duration // until the last hello

	before map[int32]int64   // bytes read again before, by partition
	each   map[int32]float64 // how often a partition's backlog was read
	passes float64           // the most of them
	memory int64             // what the node had at most beyond what it had before, resident, in bytes; 0 if not known
}

func (r *recovery) took() time.Duration { return r.to.Sub(r.from) }

// rehearse lets others come back with the clients' cursors, and go again when they have everything.
func (s *storm) rehearse(b *backlog) recovery {
	s.t.Helper()
	fleet := load.NewFleet()
	defer fleet.Close()
	others := make([]*load.Client, len(s.clients))
	for i, c := range s.clients {
		others[i] = fleet.New(load.Options{Key: c.Key()})
		others[i].SetCursor(c.Cursor())
	}
	r := s.catchUp(others, b)
	for _, c := range others {
		h := c.History()
		if n := len(recordsOf(&h)); n != b.count[c.Key()] || !h.Sessions[0].Complete {
			s.t.Fatalf("client of key %s: %d records, hello.resumed %v; want %d and true", c.Key(), n, h.Sessions[0].Complete, b.count[c.Key()])
		}
	}
	return r
}

// comeBack connects the clients again.
func (s *storm) comeBack(b *backlog) recovery {
	s.t.Helper()
	return s.catchUp(s.clients, b)
}

// catchUp connects clients and waits until they have everything, but for the one that reads slowly.
func (s *storm) catchUp(clients []*load.Client, b *backlog) recovery {
	s.t.Helper()
	r := recovery{before: s.scanned()}
	stop := s.watchMemory()
	r.from = time.Now()
	s.must(s.fleet.Connect(s.ctx, clients, s.target))
	r.hello = time.Since(r.from)
	r.to = s.everything(clients, b)
	r.memory = stop()
	r.each = s.passesSince(r.before, b)
	for _, n := range r.each {
		r.passes = max(r.passes, n)
	}
	s.t.Logf("%d records behind: last hello after %s, last record after %s; a partition's backlog was read %.2f times at most",
		b.records, show(r.hello), show(r.took()), r.passes)
	return r
}

// everything waits until clients have all that is theirs, and says when the last record came.
func (s *storm) everything(clients []*load.Client, b *backlog) time.Time {
	s.t.Helper()
	var last int64
	for _, c := range clients {
		newest := b.last[c.Key()]
		if newest == nil || c.Key() == s.trickler {
			continue
		}
		s.must(c.Wait(s.ctx, func(seen *checker.Client) bool {
			events := seen.Sessions[len(seen.Sessions)-1].Events
			for i := len(events) - 1; i >= 0; i-- {
				if events[i].Next > newest.Offset {
					last = max(last, events[i].At)
					return true
				}
			}
			return false
		}))
	}
	return time.Unix(0, last)
}

// scanned is how many bytes the node has read again, by partition.
func (s *storm) scanned() map[int32]int64 {
	s.t.Helper()
	v, err := s.vars(s.Nodes()[0].Admin)
	s.must(err)
	out := make(map[int32]int64)
	for _, p := range v.Partitions {
		out[p.Partition] = p.Scanned
	}
	return out
}

// passesSince is how often the backlog of each partition was read since.
func (s *storm) passesSince(before map[int32]int64, b *backlog) map[int32]float64 {
	s.t.Helper()
	out := make(map[int32]float64)
	for p, n := range s.scanned() {
		out[p] = float64(n-before[p]) / float64(b.size[p])
	}
	return out
}

// watchMemory looks at the node's resident memory until stop, which returns the most that it had beyond what it
// began with.
func (s *storm) watchMemory() (stop func() int64) {
	pid := s.Nodes()[0].PID
	before, ok := resident(pid)
	if !ok {
		return func() int64 { return 0 }
	}
	most := before
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(10 * time.Millisecond)
		defer t.Stop()
		for {
			if n, ok := resident(pid); ok {
				most = max(most, n)
			}
			select {
			case <-t.C:
			case <-done:
				return
			}
		}
	})
	return func() int64 {
		close(done)
		wg.Wait()
		s.t.Logf("memory of the node: %d MB before, %d MB at most", before>>20, most>>20)
		return most - before
	}
}

// readBare reads a backlog with nothing around the product's own Kafka library: its consumer, one reader for each
// partition.
func (s *storm) readBare(b *backlog) recovery {
	s.t.Helper()
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	conf.Consumer.IsolationLevel = sarama.ReadCommitted
	consumer, err := sarama.NewConsumer(s.Kafka(), conf)
	s.must(err)
	defer func() { s.must(consumer.Close()) }()
	var wg sync.WaitGroup
	r := recovery{from: time.Now()}
	for p, to := range b.to {
		pc, err := consumer.ConsumePartition(s.Topic(), p, b.from[p])
		s.must(err)
		wg.Go(func() {
			for m := range pc.Messages() {
				if m.Offset >= to-1 {
					break
				}
			}
			pc.AsyncClose()
			for range pc.Messages() { // what is left, as sarama asks for
			}
		})
	}
	wg.Wait()
	r.to = time.Now()
	s.t.Logf("bare read of %d records: %s", b.records, show(r.took()))
	return r
}
