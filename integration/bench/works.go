package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/lean"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
)

// patience is how long clients may take for what is due to them when nothing more is written.
const patience = 2 * time.Minute

// warm is how long a steady rate runs before it is measured, as a share of the measurement.
const warm = 0.3

// connect connects all clients and notes what that took.
func (m *measurement) connect(ctx context.Context) error {
	before := m.meter.look()
	joined, err := m.crowd.connect(ctx, m.x, m.s)
	if err != nil {
		return err
	}
	after := m.meter.look()
	n := float64(m.s.Clients)
	took := time.Duration(joined.Last - joined.First)
	m.figures["accepts_per_s"] = n / took.Seconds()
	m.figures["accept_us"] = after.since(&before) / n * 1e6
	m.figures["accept_p99_ms"] = ms(joined.Took.Quantile(0.99))
	if m.s.Settle > 0 {
		from := m.meter.look()
		if !pause(ctx, seconds(m.s.Settle)) {
			return context.Cause(ctx)
		}
		after = m.meter.look()
		m.figures["idle_cpu_percent"] = after.since(&from) / after.at.Sub(from.at).Seconds() * 100
	}
	for role, rss := range after.rss {
		if own(role) {
			m.figures["rss_"+role+"_kb"] = float64(rss-before.rss[role]) / n / 1024
			m.figures["rss_total_mb"] += float64(rss) / (1 << 20)
		}
	}
	m.figures["rss_kb"] = float64(after.memory()-before.memory()) / n / 1024
	return nil
}

// keys is how many keys records are written to in turn.
func (m *measurement) keys() int64 {
	if m.s.OneKey {
		return 1
	}
	return int64(m.s.Clients)
}

// stream is a producer at work, for one epoch.
type stream struct {
	due     lean.Due // Records grows until stop
	made    atomic.Int64
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	err     error // written before wg ends
	cleanup func()
}

// stop ends the producing and returns what is due.
func (s *stream) stop() (lean.Due, error) {
	s.cancel()
	s.wg.Wait()
	s.cleanup()
	s.due.Records = s.made.Load()
	return s.due, s.err
}

// record is the n-th record of an epoch.
func record(keys [][]byte, epoch, n int64, size int) *kgo.Record {
	k := n % int64(len(keys))
	stamp := lean.Stamp{Epoch: epoch, Key: k, Seq: n / int64(len(keys)), Sent: time.Now().UnixNano()}
	return &kgo.Record{Key: keys[k], Value: lean.AppendValue(make([]byte, 0, max(size, 96)), stamp, size)}
}

func (m *measurement) rawKeys() [][]byte {
	keys := make([][]byte, m.keys())
	for i := range keys {
		keys[i] = []byte(m.crowd.keys[i])
	}
	return keys
}

// arm begins an epoch in all clients.
func (m *measurement) arm(ctx context.Context) (lean.Due, error) {
	m.epochs++
	return lean.Due{Epoch: m.epochs, Keys: m.keys(), Within: patience}, m.crowd.arm(ctx, m.epochs)
}

// produce writes records at a steady rate until the stream is stopped.
func (m *measurement) produce(ctx context.Context, rate float64, keys [][]byte) (*stream, error) {
	due, err := m.arm(ctx)
	if err != nil {
		return nil, err
	}
	p, err := load.NewProducer(m.back.Kafka(), m.x.topic, kgo.MaxBufferedRecords(1_000_000))
	if err != nil {
		return nil, err
	}
	s := &stream{due: due, cleanup: p.Close}
	ctx, s.cancel = context.WithCancel(ctx)
	s.wg.Go(func() {
		s.err = p.RunOf(ctx, rate, func(n int64) *kgo.Record {
			s.made.Store(n + 1)
			return record(keys, due.Epoch, n, m.s.Size)
		})
	})
	return s, nil
}

// window is what happened between two moments.
type window struct {
	seen         lean.Seen
	from, to     reading
	before, then counters
	made         int64
}

// cores is how many of them the subject used.
func (w *window) cores() float64 { return w.to.since(&w.from) / w.to.at.Sub(w.from.at).Seconds() }

// steady lets records flow and measures a part of it.
func (m *measurement) steady(ctx context.Context, s *stream) (w window, err error) {
	if !pause(ctx, seconds(warm*m.opts.Seconds)) {
		return w, context.Cause(ctx)
	}
	if w.before, err = m.x.counters(ctx); err != nil {
		return w, err
	}
	if _, err = m.crowd.look(ctx); err != nil {
		return w, err
	}
	w.from, w.made = m.meter.look(), s.made.Load()
	if !pause(ctx, seconds(m.opts.Seconds)) {
		return w, context.Cause(ctx)
	}
	if w.seen, err = m.crowd.look(ctx); err != nil {
		return w, err
	}
	w.to, w.made = m.meter.look(), s.made.Load()-w.made
	w.then, err = m.x.counters(ctx)
	return w, err
}

// finish waits until all clients have all that was written.
func (m *measurement) finish(ctx context.Context, s *stream, slow bool) error {
	due, err := s.stop()
	if err != nil {
		return err
	}
	due.Slow = slow
	seen, err := m.crowd.await(ctx, due)
	return errors.Join(err, complain(&seen))
}

// pace measures a steady rate.
func (m *measurement) pace(ctx context.Context) error {
	before, err := m.x.counters(ctx)
	if err != nil {
		return err
	}
	s, err := m.produce(ctx, m.s.Rate, m.rawKeys())
	if err != nil {
		return err
	}
	w, err := m.steady(ctx, s)
	if err != nil {
		_, stopped := s.stop()
		return errors.Join(err, stopped)
	}
	if m.s.Slow > 0 {
		// First those that read have everything, while the others still do not; then the others, too.
		due, err := s.stop()
		if err != nil {
			return err
		}
		seen, err := m.crowd.await(ctx, due)
		if err := errors.Join(err, complain(&seen)); err != nil {
			return err
		}
		begun := time.Now()
		due.Slow = true
		if seen, err = m.crowd.await(ctx, due); err != nil {
			return err
		}
		m.figures["slow_caught_up_ms"] = ms(time.Since(begun))
		if err := complain(&seen); err != nil {
			return err
		}
	} else if err := m.finish(ctx, s, false); err != nil {
		return err
	}
	m.flow(&w)
	if asked := m.s.Rate * float64(m.s.perRecord()); asked > 0 {
		m.figures["kept_up"] = m.figures["rate"] / asked
	}
	after, err := m.x.counters(ctx)
	if err != nil || m.x.stack == nil {
		return err
	}
	// Of the whole epoch, so that nothing is under way at its ends.
	made := float64(s.made.Load())
	for _, name := range []string{"records", "messages", "bytes"} {
		counter := "pointsman_router_link_" + name + "_total"
		m.figures["link_"+name] = (after.routers[counter] - before.routers[counter]) / made
	}
	return nil
}

// flow notes the figures of a steady rate.
func (m *measurement) flow(w *window) {
	f := m.figures
	delivered, took := float64(max(1, w.seen.Records)), w.to.at.Sub(w.from.at).Seconds()
	f["rate"] = delivered / took
	f["cpu_us"] = w.to.since(&w.from) / delivered * 1e6
	for role, cpu := range w.to.cpu {
		f["cpu_"+role+"_us"] = (cpu - w.from.cpu[role]) / delivered * 1e6
	}
	delays(f, &w.seen.Delays)
	if m.x.stack == nil {
		return
	}
	var sum, most float64
	for id, after := range w.then.nodes {
		const name = "pointsman_wsnode_read_bytes_total"
		n := (after[name] - w.before.nodes[id][name]) / took / 1000
		sum += n
		most = max(most, n)
	}
	f["ingest_kb_s"], f["ingest_most_kb_s"] = sum/float64(max(1, len(w.then.nodes))), most
}

func delays(f map[string]float64, h *lean.Histogram) {
	f["p50_ms"], f["p90_ms"] = ms(h.Quantile(0.5)), ms(h.Quantile(0.9))
	f["p99_ms"], f["p999_ms"] = ms(h.Quantile(0.99)), ms(h.Quantile(0.999))
}

const (
	steeper = 1.25 // from one step of a ramp to the next
	steps   = 14
	lateMax = 200 * time.Millisecond // p99 at a rate that counts as sustained
)

// ramp raises the rate until the clients fall behind.
func (m *measurement) ramp(ctx context.Context) error {
	keys := m.rawKeys()
	rate := m.s.Rate
	for range steps {
		s, err := m.produce(ctx, rate, keys)
		if err != nil {
			return err
		}
		w, err := m.steady(ctx, s)
		if err != nil {
			_, stopped := s.stop()
			return errors.Join(err, stopped)
		}
		if err := m.finish(ctx, s, false); err != nil {
			return err
		}
		got := float64(w.seen.Records) / w.to.at.Sub(w.from.at).Seconds()
		if got < 0.97*rate || w.seen.Delays.Quantile(0.99) > lateMax {
			break
		}
		m.figures["max_rate"] = got
		m.flow(&w)
		rate *= steeper
	}
	return nil
}

// burst lets records become visible all at once, by the end of a transaction: how fast they arrive says nothing of
// the producer.
func (m *measurement) burst(ctx context.Context) error {
	due, err := m.arm(ctx)
	if err != nil {
		return err
	}
	tx, err := load.Begin(ctx, m.back.Kafka(), m.x.topic, m.x.topic, 5*time.Minute, load.Bulk()...)
	if err != nil {
		return err
	}
	defer tx.Close()
	keys := m.rawKeys()
	err = tx.BurstOf(ctx, int(m.s.Records), func(i int) *kgo.Record { return record(keys, due.Epoch, int64(i), m.s.Size) })
	if err != nil {
		return err
	}
	from := m.meter.look()
	most := m.watchMemory(ctx)
	begun := time.Now()
	if err := tx.End(ctx, true); err != nil {
		most()
		return err
	}
	due.Records = m.s.Records
	seen, err := m.crowd.await(ctx, due)
	peak := most()
	if err := errors.Join(err, complain(&seen)); err != nil {
		return err
	}
	to := m.meter.look()
	n := float64(m.s.Records)
	m.figures["burst_rate"] = n / time.Unix(0, seen.Last).Sub(begun).Seconds()
	m.figures["cpu_us"] = to.since(&from) / n * 1e6
	m.figures["burst_gain_mb"] = float64(peak-from.memory()) / (1 << 20)
	m.figures["burst_peak_mb"] = float64(peak) / (1 << 20)
	return nil
}

// watchMemory looks at the subject's memory until the returned function is called, which returns the most of it.
func (m *measurement) watchMemory(ctx context.Context) func() int64 {
	ctx, cancel := context.WithCancel(ctx)
	var most int64
	var wg sync.WaitGroup
	own := &meter{processes: m.x.processes, cpu: make(map[string]map[int]float64)}
	wg.Go(func() {
		for {
			r := own.look()
			most = max(most, r.memory())
			if !pause(ctx, 50*time.Millisecond) {
				return
			}
		}
	})
	return func() int64 {
		cancel()
		wg.Wait()
		return most
	}
}

// idle has nothing to do but to check that all clients are served: one record for each.
func (m *measurement) idle(ctx context.Context) error {
	due, err := m.arm(ctx)
	if err != nil {
		return err
	}
	p, err := load.NewProducer(m.back.Kafka(), m.x.topic)
	if err != nil {
		return err
	}
	defer p.Close()
	keys := m.rawKeys()
	due.Records = int64(len(keys))
	if err := p.BurstOf(ctx, len(keys), func(i int) *kgo.Record { return record(keys, due.Epoch, int64(i), m.s.Size) }); err != nil {
		return err
	}
	seen, err := m.crowd.await(ctx, due)
	m.figures["answered"] = float64(seen.Records)
	return errors.Join(err, complain(&seen))
}

// unheard writes records that nobody wants.
func (m *measurement) unheard(ctx context.Context) error {
	others := keysOf("nobody", 1000)
	keys := make([][]byte, len(others))
	for i, k := range others {
		keys[i] = []byte(k)
	}
	s, err := m.produce(ctx, m.s.Rate, keys)
	if err != nil {
		return err
	}
	w, err := m.steady(ctx, s)
	_, stopped := s.stop()
	if err := errors.Join(err, stopped); err != nil {
		return err
	}
	if w.seen.Records > 0 {
		return fmt.Errorf("%d records were delivered that nobody asked for", w.seen.Records)
	}
	read := 0.0
	for id, after := range w.then.nodes {
		const name = "pointsman_wsnode_records_read_total"
		read += after[name] - w.before.nodes[id][name]
	}
	if m.x.stack == nil {
		read = float64(w.made)
	}
	if read == 0 {
		return errors.New("no record was read")
	}
	m.figures["unheard_us"] = (w.to.cpu[roleNode] - w.from.cpu[roleNode] + w.to.cpu[roleFloor] - w.from.cpu[roleFloor]) / read * 1e6
	m.figures["unheard_rate"] = read / w.to.at.Sub(w.from.at).Seconds()
	return nil
}

// discard ends a subject and deletes what it read.
func (b *bench) discard(ctx context.Context, x *subject) error {
	err := x.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(err, load.DeleteTopic(ctx, b.back.Kafka(), x.topic))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
