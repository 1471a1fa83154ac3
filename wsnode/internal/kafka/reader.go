package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

const (
	// stale is how long a reader may be out of touch before it asks again who the topic is: a process that was
	// frozen must not go on in a topic that was recreated meanwhile. A fetch that waits hears of a deletion, so what
	// counts is that no topic is deleted, created and filled beyond the old one's end in a shorter pause.
	stale = 200 * time.Millisecond
	// barrenLimit is how many answers without progress, although there is something to read, lead to a solo
	// fetch, which always makes progress.
	barrenLimit = 2
	// awayMost is the longest wait between two looks for the broker of a partition. All partitions share one question,
	// so a short one costs little, and it is what clients wait for longer than any other consumer when a broker is back.
	awayMost = 150 * time.Millisecond
	// refusedMost is the same for a partition that is refused, or cannot be understood, by a broker that is there.
	refusedMost = time.Second
	// paced is the size of an answer, in bytes, from which on the next fetch is not put off; or half of what one partition
	// may have of it, where that is less.
	paced = 64 << 10
	// readerIdle is how long the reader of a broker outlives its last partition.
	readerIdle = 30 * time.Second
)

// part is one Read of one partition. It travels: whoever holds it (the dispatcher, one reader, or the goroutine
// that finds the bounds of an offset out of range) owns the fields below and is the only one that calls the
// sink.
type part struct {
	// Static after construction.
	partition int32
	id        [16]byte // of the topic that from is an offset of
	sink      Sink

	stopped atomic.Bool

	// Owned by the holder.
	pos     int64
	epoch   int32 // of the leader it was given to
	size    int32 // how much to ask for
	barren  int   // answers in a row without progress although there is something to read
	solo    bool  // the next fetch is one of this partition alone
	bounds  source.Bounds
	heard   bool // the sink's last news was a Batch
	failing bool // the sink's last news was Failed
	wait    backoff
	due     time.Time // when the dispatcher may give it to a reader
}

// live reads partitions as records come: one goroutine and one connection per broker, and a dispatcher that
// knows where each partition belongs.
type live struct {
	// Static after construction.
	c    *Client
	wake chan struct{} // capacity 1: the dispatcher has work

	wg sync.WaitGroup

	mu      sync.Mutex
	parts   map[int32]*part    // guarded by mu; the newest Read of each partition
	orphans []*part            // guarded by mu; parts to be given to a reader
	readers map[string]*reader // guarded by mu; by broker address
	closed  bool               // guarded by mu
}

func newLive(c *Client) *live {
	l := &live{
		c:       c,
		wake:    make(chan struct{}, 1),
		parts:   make(map[int32]*part),
		readers: make(map[string]*reader),
	}
	l.wg.Go(l.dispatch)
	return l
}

// Read starts reading a partition at from; an earlier Read of it is replaced. It does not block.
func (v View) Read(partition int32, from int64, sink Sink) {
	l := v.c.live
	p := &part{partition: partition, id: v.id, sink: sink, pos: from, size: v.c.cfg.FetchMaxBytes}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if old := l.parts[partition]; old != nil {
		old.stopped.Store(true)
	}
	l.parts[partition] = p
	// The usual case: the leader is known. Whether it still is one, it will say.
	if t := v.c.meta.current(); t.id == p.id {
		if lead, err := t.leader(partition); err == nil {
			l.giveLocked(p, lead)
			return
		}
	}
	l.orphans = append(l.orphans, p)
	nudge(l.wake)
}

func (l *live) stop(partition int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.parts[partition]; p != nil {
		p.stopped.Store(true)
		delete(l.parts, partition)
	}
}

func (l *live) close() {
	l.mu.Lock()
	l.closed = true
	for _, p := range l.parts {
		p.stopped.Store(true)
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// end forgets a part that will not be read any further.
func (l *live) end(p *part) {
	p.stopped.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts[p.partition] == p {
		delete(l.parts, p.partition)
	}
}

// giveLocked hands a part to the reader of its leader.
func (l *live) giveLocked(p *part, lead leader) {
	p.epoch = lead.epoch
	r := l.readers[lead.addr]
	if r == nil {
		r = &reader{l: l, addr: lead.addr, wake: make(chan struct{}, 1), conn: newConn(l.c.ctx, l.c.sc, lead.addr)}
		l.readers[lead.addr] = r
		l.wg.Go(r.run)
	}
	r.incoming = append(r.incoming, p)
	nudge(r.wake)
}

// orphan gives a part back to the dispatcher because of err; it waits a little longer each time, up to most.
func (l *live) orphan(p *part, err error, most time.Duration) {
	l.fail(p, err)
	p.due = time.Now().Add(min(p.wait.d, most))
	p.wait.next()
	l.mu.Lock()
	l.orphans = append(l.orphans, p)
	l.mu.Unlock()
	nudge(l.wake)
}

// fail tells the sink, once, that the partition cannot be read.
func (l *live) fail(p *part, err error) {
	if p.failing || p.stopped.Load() {
		return
	}
	p.failing, p.heard = true, false
	l.c.log.Debug("partition cannot be read", zap.Int32("partition", p.partition), zap.Int64("offset", p.pos), zap.Error(err))
	p.sink.Failed(partitionError(p.partition, err))
}

// changed ends a part whose topic is no more. The sink hears of it even if the partition was failing before.
func (l *live) changed(p *part) {
	p.failing = false
	l.fail(p, ErrTopicChanged)
	l.end(p)
}

// dispatch gives orphans to readers, after asking who leads them now.
func (l *live) dispatch() {
	ctx := l.c.ctx
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		due, next := l.takeDue(time.Now())
		if len(due) > 0 {
			t, err := l.c.meta.refresh(ctx, time.Now())
			if ctx.Err() != nil {
				return
			}
			for _, p := range due {
				l.place(p, t, err)
			}
		}
		timer.Reset(next)
	}
}

// takeDue takes the orphans whose time has come and says how long the next one waits.
func (l *live) takeDue(now time.Time) (due []*part, next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next = time.Hour
	l.orphans = slices.DeleteFunc(l.orphans, func(p *part) bool {
		if p.stopped.Load() {
			return true
		}
		if p.due.After(now) {
			next = min(next, p.due.Sub(now))
			return false
		}
		due = append(due, p)
		return true
	})
	return due, next
}

func (l *live) place(p *part, t *topology, err error) {
	if err != nil {
		l.orphan(p, err, awayMost)
		return
	}
	if t.id != p.id {
		l.changed(p)
		return
	}
	lead, err := t.leader(p.partition)
	if err != nil {
		l.orphan(p, err, awayMost)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.giveLocked(p, lead)
	}
}

// findBounds answers a broker's "out of range" with what is in range, then leaves the part to its owner.
func (l *live) findBounds(p *part) {
	b, err := l.c.At(p.id).Bounds(l.c.ctx, p.partition)
	switch {
	case l.c.ctx.Err() != nil:
	case err != nil:
		l.orphan(p, err, awayMost)
	case p.pos >= b.Start && p.pos <= b.High:
		// It was so for a moment only, as after a leader change.
		l.orphan(p, sarama.ErrOffsetOutOfRange, awayMost)
	case !p.stopped.Load():
		l.end(p)
		p.sink.OutOfRange(b)
	}
}

// reader reads the partitions of one broker.
type reader struct {
	// Static after construction.
	l    *live
	addr string
	wake chan struct{} // capacity 1: incoming has parts

	incoming []*part // guarded by live.mu

	// Owned by run.
	conn     *conn
	held     []*part
	touched  time.Time // when the broker was last known to be there
	down     bool      // it did not answer last time
	oneByOne bool      // an answer could not be decoded: find out whose part it was
	asked    time.Time // when the last fetch for many was sent
	few      bool      // its answer had records, but few
	clock    *time.Timer
}

func (r *reader) run() {
	ctx := r.l.c.ctx
	defer r.conn.close()
	idle := time.NewTimer(readerIdle)
	defer idle.Stop()
	r.clock = time.NewTimer(0)
	defer r.clock.Stop()
	for ctx.Err() == nil {
		r.takeIncoming()
		if len(r.held) > 0 {
			r.round(ctx)
			continue
		}
		idle.Reset(readerIdle)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-idle.C:
			if r.retire() {
				return
			}
		}
	}
}

func (r *reader) takeIncoming() {
	r.l.mu.Lock()
	fresh := r.incoming
	r.incoming = nil
	r.l.mu.Unlock()
	if len(r.held) == 0 && len(fresh) > 0 {
		r.touched = time.Now()
	}
	r.held = slices.DeleteFunc(append(r.held, fresh...), func(p *part) bool { return p.stopped.Load() })
}

// retire ends an idle reader unless a part came in the meantime.
func (r *reader) retire() bool {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if len(r.incoming) > 0 {
		return false
	}
	delete(r.l.readers, r.addr)
	return true
}

// round fetches once for all held partitions that need no fetch of their own, and once for each that does.
func (r *reader) round(ctx context.Context) {
	if !r.inTouch(ctx) {
		return
	}
	var together []*part
	for _, p := range slices.Clone(r.held) {
		if p.solo || r.oneByOne {
			if !r.fetchSolo(ctx, p) {
				return
			}
			continue
		}
		together = append(together, p)
	}
	r.oneByOne = false
	if len(together) > 0 {
		r.fetchTogether(ctx, together)
	}
}

// keepPace waits until the next fetch is due. The cost of a fetch, here and at the broker, is then shared by the records
// of that time; one that comes after a pause finds a fetch waiting.
func (r *reader) keepPace(ctx context.Context) {
	if wait := r.l.c.cfg.FetchPace - time.Since(r.asked); r.few && wait > 0 {
		r.clock.Reset(wait)
		select {
		case <-r.clock.C:
		case <-ctx.Done():
		}
	}
	r.asked, r.few = time.Now(), false
}

func (r *reader) fetchTogether(ctx context.Context, parts []*part) {
	c := r.l.c
	asks := make([]ask, len(parts))
	for i, p := range parts {
		asks[i] = ask{partition: p.partition, from: p.pos, maxBytes: p.size, epoch: p.epoch}
	}
	r.keepPace(ctx)
	var resp *sarama.FetchResponse
	err := r.conn.do(ctx, func(cn *conn) (err error) {
		resp, err = cn.broker.Fetch(newFetch(c.cfg.Topic, c.cfg.FetchMaxWait, c.cfg.FetchTotal, asks...))
		return err
	})
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && isDecodingError(err):
		r.oneByOne = true
		return
	case err == nil && resp.ErrorCode != 0:
		err = sarama.KError(resp.ErrorCode)
	}
	if err != nil {
		r.lost(err)
		return
	}
	if !r.inTouch(ctx) {
		return
	}
	size := 0
	defer func() { r.few = size > 0 && size < min(paced, int(c.cfg.FetchMaxBytes)/2) }()
	for _, p := range parts {
		block := resp.GetBlock(c.cfg.Topic, p.partition)
		switch {
		case block == nil: // a throttled broker answers without partitions
		case block.Err != sarama.ErrNoError:
			r.refused(p, block.Err)
		default:
			a, err := readBlock(block, p.pos)
			size += a.batch.Bytes
			r.accept(p, a, err)
		}
	}
}

// fetchSolo fetches one partition alone. It reports whether the connection is still good.
func (r *reader) fetchSolo(ctx context.Context, p *part) bool {
	var reply soloReply
	err := r.conn.do(ctx, func(cn *conn) (err error) {
		reply, err = r.l.c.fetchAlone(cn, ask{partition: p.partition, from: p.pos, maxBytes: p.size, epoch: p.epoch})
		return err
	})
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil && isDecodingError(err):
		r.unreadable(p, err)
		return true
	case err != nil:
		r.lost(err)
		return false
	}
	if !r.inTouch(ctx) {
		return false
	}
	if reply.block == nil {
		return true // throttled: the next request waits
	}
	if reply.block.Err != sarama.ErrNoError {
		r.refused(p, reply.block.Err)
		return true
	}
	a, err := reply.read(p.pos)
	if err == nil && a.cut && a.batch.Next == p.pos {
		p.size, err = grow(p.size, a.need)
	}
	r.accept(p, a, err)
	return true
}

// unreadable gives up a partition whose records cannot be understood. That will not get better soon, and must
// not hold up the others: it stays alone.
func (r *reader) unreadable(p *part, err error) {
	p.solo = true
	r.drop(p)
	r.l.orphan(p, fmt.Errorf("read at offset %d: %w", p.pos, err), refusedMost)
}

// accept delivers what a good answer proved.
func (r *reader) accept(p *part, a answer, err error) {
	if err != nil {
		r.unreadable(p, err)
		return
	}
	r.good()
	if p.stopped.Load() {
		return
	}
	p.failing = false
	p.wait = backoff{}
	moved := a.batch.Next > p.pos
	switch {
	case moved:
		p.barren, p.solo, p.size = 0, false, r.l.c.cfg.FetchMaxBytes
	case a.batch.Bounds.Stable > p.pos:
		p.barren++
		p.solo = p.barren >= barrenLimit
	default:
		p.barren, p.solo = 0, false
	}
	if moved || !p.heard || a.batch.Bounds != p.bounds {
		p.heard = true
		p.pos = a.batch.Next
		p.bounds = a.batch.Bounds
		p.sink.Batch(&a.batch)
	}
}

// refused handles a partition's error in an answer.
func (r *reader) refused(p *part, err sarama.KError) {
	r.drop(p)
	if err == sarama.ErrOffsetOutOfRange && !p.stopped.Load() {
		r.l.wg.Go(func() { r.l.findBounds(p) })
		return
	}
	most := refusedMost
	switch err { //nolint:exhaustive // the others do not pass by looking for another leader
	case sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable, sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch,
		sarama.ErrReplicaNotAvailable, sarama.ErrUnknownTopicOrPartition, sarama.ErrBrokerNotAvailable, sarama.ErrKafkaStorageError:
		most = awayMost
	}
	r.l.orphan(p, err, most)
}

// lost gives up all partitions of a broker that does not answer.
func (r *reader) lost(err error) {
	if !r.down {
		r.down = true
		r.l.c.log.Warn("broker does not answer fetches", zap.String("broker", r.addr), zap.Error(err))
	}
	r.abandon(fmt.Errorf("broker %s: %w", r.addr, err))
}

// good notes that the broker answers.
func (r *reader) good() {
	if r.down {
		r.down = false
		r.l.c.log.Info("broker answers fetches again", zap.String("broker", r.addr))
	}
}

func (r *reader) abandon(err error) {
	held := r.held
	r.held = nil
	for _, p := range held {
		r.l.orphan(p, err, awayMost)
	}
}

func (r *reader) drop(p *part) {
	r.held = slices.DeleteFunc(r.held, func(h *part) bool { return h == p })
}

// inTouch makes sure, after a pause, that the topic is still the one that the held positions are of. It reports
// whether the round may go on.
func (r *reader) inTouch(ctx context.Context) bool {
	now := time.Now()
	// Both clocks: the monotonic one stands still while a machine is suspended.
	if now.Sub(r.touched) <= stale && now.Round(0).Sub(r.touched.Round(0)).Abs() <= stale {
		r.touched = now
		return true
	}
	t, err := r.l.c.meta.refresh(ctx, now)
	if ctx.Err() != nil {
		return false
	}
	r.touched = time.Now()
	if err != nil {
		r.abandon(fmt.Errorf("look for the topic after a pause: %w", err))
		return false
	}
	same := true
	for _, p := range slices.Clone(r.held) {
		if t.id != p.id {
			same = false
			r.drop(p)
			r.l.changed(p)
		}
	}
	return same
}

func nudge(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
