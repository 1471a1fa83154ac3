package redistributor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

const (
	// headsEvery is how often servers are told how far they have everything.
	headsEvery = time.Second
	// commitEvery is how often what all servers have is committed.
	commitEvery = 100 * time.Millisecond
)

// Redistributor is one process of the tier.
type Redistributor struct {
	base    program.Base
	topic   *topic.Topic
	locator Locator
	lanes   *lanes
	records prometheus.Counter
	nobody  prometheus.Counter
	caught  prometheus.Counter

	fail    context.CancelCauseFunc // ends Run; set before anything can call it
	working context.Context         // outlives the membership, so that what was read is forwarded

	mu    sync.Mutex
	owned map[int32]*feed.Log // guarded by mu
}

// New opens the topic. Locate gets what counts lookups.
func New(base program.Base, sender Sender, locate func(partitions int32, lookups func(int)) (Locator, error)) (_ *Redistributor, err error) {
	r := &Redistributor{base: base, owned: make(map[int32]*feed.Log)}
	if r.topic, err = topic.Open(base.Kafka); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.topic.Close())
		}
	}()
	if err = base.Ingest(r.topic); err != nil {
		return nil, err
	}
	var lookups, bytes prometheus.Counter
	for _, c := range []struct {
		into       *prometheus.Counter
		name, help string
	}{
		{&r.records, "forwarded_records_total", "Records forwarded to servers, once for each server."},
		{&r.nobody, "unwanted_records_total", "Records whose key no server holds."},
		{&r.caught, "caught_up_records_total", "Records read again for clients whose cursor lies below the ring."},
		{&lookups, "lookups_total", "Keys that were looked up."},
		{&bytes, "between_tiers_bytes_total", "Bytes of bundles that servers took."},
	} {
		if *c.into, err = base.Counter(c.name, c.help); err != nil {
			return nil, err
		}
	}
	if r.locator, err = locate(r.topic.Partitions, func(n int) { lookups.Add(float64(n)) }); err != nil {
		return nil, err
	}
	r.lanes = newLanes(sender, base.Logger, func(n int) { bytes.Add(float64(n)) })
	base.Vars("owned", func() any { return r.partitions() })
	return r, nil
}

func (r *Redistributor) partitions() []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []int32{}
	for p, l := range r.owned {
		if l.Head() >= 0 {
			out = append(out, p)
		}
	}
	return out
}

// Run works until ctx ends, then leaves the group and forwards what it has read.
func (r *Redistributor) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r.working, r.lanes.ctx = working, working
	member, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.fail = fail
	err := r.topic.JoinGroup(member, topic.GroupConfig{Name: "redistributor-" + r.base.Kafka.Topic, Owner: r, Logger: r.base.Logger})
	cause := context.Cause(member)
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	stop()
	r.lanes.wg.Wait()
	return errors.Join(err, cause, r.lanes.sender.Close(), r.locator.Close(), r.topic.Close())
}

// Own implements topic.Owner: it forwards the partition's records, and commits what servers have taken.
func (r *Redistributor) Own(ctx context.Context, p, _ int32, committed int64, commit func(int64)) {
	f := &fan{r: r, partition: p, ctx: ctx}
	log := feed.New(feed.Config{Partition: p, Source: r.topic, Fan: f, Logger: r.base.Logger, Caught: func(n int) { r.caught.Add(float64(n)) }})
	owning, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	ready := make(chan struct{})
	work.Go(func() {
		do := func(g func()) { _ = log.Do(g) } // when it has ended, so will this
		joined := func(j Join) { _ = log.Attach(&follower{r: r, join: j, partition: p}) }
		if err := r.locator.Follow(owning, p, sync.OnceFunc(func() { close(ready) }), do, joined); err != nil && owning.Err() == nil {
			r.fail(err)
		}
	})
	work.Go(func() {
		select {
		case <-ready:
		case <-owning.Done():
			return
		}
		oldest, end, err := r.topic.Bounds(owning, p)
		if err == nil {
			from := begin(committed, oldest, end)
			if from != committed {
				commit(from) // before a record is forwarded: who comes next must not begin at a later end
			}
			err = log.Run(owning, from, end)
		}
		if err != nil && owning.Err() == nil {
			r.fail(err)
		}
	})
	r.mu.Lock()
	r.owned[p] = log
	r.mu.Unlock()
	r.keepUp(ctx, log, f, commit)

	r.mu.Lock()
	delete(r.owned, p)
	r.mu.Unlock()
	stop()
	work.Wait()
	// What is under way is waited for, so that the next owner need not send it again.
	deadline := time.Now().Add(time.Second)
	for f.commit(commit) > 0 && time.Now().Before(deadline) {
		pause(r.working, 10*time.Millisecond)
	}
}

// begin is where a new owner begins to read.
func begin(committed, oldest, end int64) int64 {
	if committed < 0 || committed > end {
		return end // a fresh group, or another topic: clients bring their own cursors
	}
	return max(committed, oldest)
}

func (r *Redistributor) keepUp(ctx context.Context, log *feed.Log, f *fan, commit func(int64)) {
	commits, heads := time.NewTicker(commitEvery), time.NewTicker(headsEvery)
	defer commits.Stop()
	defer heads.Stop()
	for {
		select {
		case <-commits.C:
			f.commit(commit)
		case <-heads.C:
			_ = log.Do(func() { f.heads(log.Head()) })
		case <-ctx.Done():
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// fan forwards the live records of one partition.
type fan struct {
	r         *Redistributor
	partition int32
	ctx       context.Context

	mu      sync.Mutex
	tickets []*ticket // guarded by mu; in the order of the log
}

// Add implements feed.Fan: who is live is told by the Locator.
func (f *fan) Add(feed.Subscriber) {}

// Fan implements feed.Fan.
func (f *fan) Fan(batch []*feed.Record) {
	index := make(map[string]int, len(batch))
	var keys []string
	for _, r := range batch {
		if _, ok := index[string(r.Key)]; !ok {
			index[string(r.Key)] = len(keys)
			keys = append(keys, string(r.Key))
		}
	}
	where, err := f.r.locator.Where(f.ctx, f.partition, keys)
	for err != nil {
		// Nobody knows where the clients are: their records must wait.
		if f.ctx.Err() != nil {
			return
		}
		f.r.base.Logger.Warn("could not look clients up, trying again", zap.Int32("partition", f.partition), zap.Error(err))
		pause(f.ctx, retryPace)
		where, err = f.r.locator.Where(f.ctx, f.partition, keys)
	}
	t := &ticket{next: batch[len(batch)-1].Offset + 1}
	t.left.Store(1)
	var touched []Place
	for _, rec := range batch {
		places := where[index[string(rec.Key)]]
		if len(places) == 0 {
			f.r.nobody.Inc()
		}
		for _, to := range places {
			m := message{kind: kindRecord, partition: rec.Partition, offset: rec.Offset, record: *rec}
			f.r.lanes.add(to, t, m.append)
			f.r.records.Inc()
			if !slices.Contains(touched, to) {
				touched = append(touched, to)
			}
		}
	}
	f.mu.Lock()
	f.tickets = append(f.tickets, t)
	f.mu.Unlock()
	t.done()
	for _, to := range touched {
		f.r.lanes.flush(to)
	}
}

// heads tells all servers how far they have everything.
func (f *fan) heads(head int64) {
	m := message{kind: kindHead, partition: f.partition, offset: head}
	f.r.lanes.head(m.append)
}

// commit tells what all servers have; it returns how many batches some of them have not.
func (f *fan) commit(commit func(int64)) (left int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := 0
	for done < len(f.tickets) && f.tickets[done].left.Load() == 0 {
		done++
	}
	if done > 0 {
		commit(f.tickets[done-1].next)
		f.tickets = f.tickets[done:]
	}
	return len(f.tickets)
}

// follower is a client on some server that is being brought to the live end.
type follower struct {
	r         *Redistributor
	join      Join
	partition int32
}

func (f *follower) Key() []byte { return f.join.Key }
func (f *follower) From() int64 { return f.join.From }
func (f *follower) Room() bool  { return true } // a lane has its own bound, and says so to the server
func (f *follower) Gone() bool  { return false }

func (f *follower) say(m message) {
	m.join, m.partition = f.join.ID, f.partition
	f.r.lanes.add(f.join.Place, nil, m.append)
}

func (f *follower) Begin(next int64, complete bool) {
	f.say(message{kind: kindAttached, offset: next, complete: complete})
	f.r.lanes.flush(f.join.Place)
}

func (f *follower) Gap(to int64) { f.say(message{kind: kindGap, offset: to}) }

func (f *follower) Missed(r *feed.Record) {
	f.say(message{kind: kindRecord, offset: r.Offset, record: *r})
}

func (f *follower) Live(next int64) {
	f.say(message{kind: kindCaughtUp, offset: next})
	f.r.lanes.flush(f.join.Place)
}
