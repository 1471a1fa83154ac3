// Package feed reads one partition of the topic, keeps its recent records, and brings subscribers from their cursor to
// the live end. Designs that read the topic differ only in whom they fan records out to.
package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// Where a subscriber may begin, beside an offset.
const (
	Latest int64 = -1
	Oldest int64 = -2
)

// Record is one record of the topic. Value is nil for a tombstone.
type Record struct {
	Partition         int32
	Offset, Timestamp int64
	Key, Value        []byte
	Headers           []link.Header
}

// Size is about how many bytes the record takes.
func (r *Record) Size() int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// Source is a topic that can be read.
type Source interface {
	// Tail reads from an offset on for as long as ctx lives; batches come in order and are never empty. Nobody else sends
	// to the channel, which has a capacity: a source may wait for nothing but room in it.
	Tail(ctx context.Context, partition int32, from int64, batches chan<- []*Record) error
	// Read reads what lies in [from, to), and returns early when record does not want more.
	Read(ctx context.Context, partition int32, from, to int64, record func(*Record) bool) error
	// Bounds are the first offset and the end.
	Bounds(ctx context.Context, partition int32) (oldest, end int64, err error)
}

// Subscriber follows one key from some place on. Its methods must not block; they are called by one goroutine at a time.
type Subscriber interface {
	Key() []byte
	From() int64 // an offset, Latest or Oldest
	// Begin says where delivery starts; complete is false when it is not where the subscriber wanted.
	Begin(next int64, complete bool)
	Gap(to int64)
	// Missed delivers a record that was made before the subscriber came.
	Missed(*Record)
	// Live says that the subscriber has everything below next: the Fan has the rest.
	Live(next int64)
	Room() bool // whether a catch-up may go on
	Gone() bool
}

// Fan gives live records to whoever wants them. It is called by the Log's goroutine.
type Fan interface {
	Fan(batch []*Record)
	Add(Subscriber)
}

// Config of a Log.
type Config struct {
	Partition int32
	Source    Source
	Fan       Fan
	RingBytes int // recent records kept; default 16 MiB
	Logger    *zap.Logger
	Caught    func(records int) // hears how many records were read again; may be nil
}

// Log is one partition.
type Log struct {
	cfg  Config
	mail chan func()
	done chan struct{}
	head atomic.Int64
	goal atomic.Int64 // the end when the reading began
	wg   sync.WaitGroup

	// Owned by Run.
	ctx   context.Context
	ring  []*Record
	bytes int
	start int64 // the ring holds everything in [start, head)
	late  []Subscriber
	scans bool
}

// New makes a log; Run reads it.
func New(cfg Config) *Log {
	if cfg.RingBytes <= 0 {
		cfg.RingBytes = 16 << 20
	}
	l := &Log{cfg: cfg, mail: make(chan func(), 1024), done: make(chan struct{})}
	l.head.Store(-1)
	return l
}

// Head is the next offset to be read: everything below was given to the Fan. It is -1 before the start.
func (l *Log) Head() int64 { return l.head.Load() }

// Ready is nil when the log has been read to where it ended when the reading began.
func (l *Log) Ready() error {
	if h := l.Head(); h < 0 || h < l.goal.Load() {
		return fmt.Errorf("partition %d is not read yet", l.cfg.Partition)
	}
	return nil
}

// ErrEnded is what Do returns when the log is no longer read.
var ErrEnded = errors.New("the partition is no longer read here")

// Do runs f in the goroutine that fans records out, between two batches.
func (l *Log) Do(f func()) error {
	select {
	case l.mail <- f:
		return nil
	case <-l.done:
		return ErrEnded
	}
}

// Attach brings a subscriber to the live end.
func (l *Log) Attach(s Subscriber) error { return l.Do(func() { l.attach(s) }) }

// Run reads from an offset on until ctx ends. The log's end now says when Ready.
func (l *Log) Run(ctx context.Context, from, end int64) error {
	defer close(l.done)
	ctx, cancel := context.WithCancel(ctx)
	defer l.wg.Wait()
	defer cancel()
	l.ctx, l.start = ctx, from
	l.goal.Store(end)
	l.head.Store(from)
	batches := make(chan []*Record, 16)
	failed := make(chan error, 1)
	l.wg.Go(func() {
		failed <- l.cfg.Source.Tail(ctx, l.cfg.Partition, from, batches)
	})
	for {
		select {
		case b := <-batches:
			l.take(b)
		case f := <-l.mail:
			f()
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read partition %d: %w", l.cfg.Partition, err)
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Log) take(batch []*Record) {
	l.ring = append(l.ring, batch...)
	for _, r := range batch {
		l.bytes += r.Size() + 100
	}
	drop := 0
	for l.bytes > l.cfg.RingBytes && drop < len(l.ring)-1 {
		l.bytes -= l.ring[drop].Size() + 100
		l.ring[drop] = nil
		drop++
	}
	if drop > 0 {
		l.ring = l.ring[drop:]
		l.start = l.ring[0].Offset
	}
	l.cfg.Fan.Fan(batch)
	l.head.Store(batch[len(batch)-1].Offset + 1)
}

func (l *Log) attach(s Subscriber) {
	from := s.From()
	switch head := l.head.Load(); {
	case from == Latest:
		s.Begin(head, true)
		l.live(s, head)
	case from >= l.start:
		s.Begin(from, true)
		l.finish(s, from)
	default:
		l.late = append(l.late, s)
		l.scan()
	}
}

// finish gives a subscriber what the ring holds from an offset on, and makes it live.
func (l *Log) finish(s Subscriber, from int64) {
	i, j := 0, len(l.ring)
	for i < j {
		if m := (i + j) / 2; l.ring[m].Offset < from {
			i = m + 1
		} else {
			j = m
		}
	}
	key := s.Key()
	for _, r := range l.ring[i:] {
		if string(r.Key) == string(key) {
			s.Missed(r)
		}
	}
	l.live(s, max(from, l.head.Load()))
}

func (l *Log) live(s Subscriber, next int64) {
	l.cfg.Fan.Add(s)
	s.Live(next)
}

// scan reads below the ring for everybody who waits for it, in one pass at a time.
func (l *Log) scan() {
	if l.scans || len(l.late) == 0 {
		return
	}
	late, to := l.late, l.start
	l.late, l.scans = nil, true
	l.wg.Go(func() {
		p := &pass{log: l, to: to, byKey: make(map[string][]*follower)}
		err := p.run(late)
		if err != nil && l.ctx.Err() == nil {
			l.cfg.Logger.Warn("could not read below the ring, trying again", zap.Int32("partition", l.cfg.Partition), zap.Error(err))
		}
		_ = l.Do(func() {
			l.scans = false
			for _, f := range p.all {
				switch {
				case f.Gone():
				case f.next >= l.start:
					l.finish(f.Subscriber, f.next)
				default: // the ring moved on, or the pass failed
					f.again = true
					l.late = append(l.late, f)
				}
			}
			l.scan()
		})
	})
}

// follower is a subscriber in a pass.
type follower struct {
	Subscriber
	next  int64
	again bool // Begin was called in an earlier pass
}

// pass is one forward read below the ring.
type pass struct {
	log   *Log
	to    int64
	all   []*follower
	byKey map[string][]*follower
}

// patience bounds how long a pass waits for one client that does not read.
const patience = 5 * time.Second

func (p *pass) run(late []Subscriber) error {
	oldest, _, err := p.log.cfg.Source.Bounds(p.log.ctx, p.log.cfg.Partition)
	from := p.to
	for _, s := range late {
		f, ok := s.(*follower)
		if !ok {
			f = &follower{Subscriber: s, next: s.From()}
		}
		p.all = append(p.all, f)
		if err != nil {
			continue
		}
		p.begin(f, oldest)
		p.byKey[string(f.Key())] = append(p.byKey[string(f.Key())], f)
		from = min(from, f.next)
	}
	if err != nil {
		return err
	}
	read := 0
	err = p.log.cfg.Source.Read(p.log.ctx, p.log.cfg.Partition, from, p.to, func(r *Record) bool {
		read++
		for _, f := range p.byKey[string(r.Key)] {
			if r.Offset >= f.next && p.wait(f) {
				f.Missed(r)
				f.next = r.Offset + 1
			}
		}
		return p.log.ctx.Err() == nil
	})
	if p.log.cfg.Caught != nil {
		p.log.cfg.Caught(read)
	}
	if err != nil {
		return err
	}
	for _, f := range p.all {
		f.next = max(f.next, p.to)
	}
	return nil
}

func (p *pass) begin(f *follower, oldest int64) {
	want := f.next
	if f.next < oldest {
		f.next = oldest
	}
	if f.again {
		if want < oldest {
			f.Gap(oldest)
		}
		return
	}
	f.again = true
	if want < 0 || want >= oldest {
		f.Begin(f.next, true)
		return
	}
	f.Begin(want, true)
	f.Gap(oldest)
}

// wait waits for room, which the client's own socket makes.
func (p *pass) wait(f *follower) bool {
	if f.Room() {
		return true
	}
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for began := time.Now(); !f.Room() && time.Since(began) < patience; {
		select {
		case <-t.C:
		case <-p.log.ctx.Done():
			return false
		}
	}
	return !f.Gone()
}
