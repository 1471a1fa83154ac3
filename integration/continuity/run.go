// Package continuity runs a whole Pointsman, real Apache Kafka, etcd, routers and nodes, under thousands of clients and
// random faults, and then judges what every client received by the topic itself, read independently, and how long it
// had to wait.
package continuity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// Options says what to run.
type Options struct {
	Seconds    int     `json:"seconds"`
	Seed       uint64  `json:"seed"`
	Kinds      []Kind  `json:"faults"`
	Overlap    bool    `json:"overlap"`
	Clients    int     `json:"clients"`
	Rate       float64 `json:"rate"` // records a second, of all keys
	Size       int     `json:"size"` // bytes of a value, about
	Routers    int     `json:"routers"`
	Nodes      int     `json:"nodes"`
	Partitions int32   `json:"partitions"`
	Spare      bool    `json:"spare"`     // one router and one node live for the whole run
	NoPauses   bool    `json:"no_pauses"` // pauses are printed and not judged
	Quiet      int     `json:"quiet_seconds"`

	Dir  string                           `json:"-"` // of data and logs; empty for a temporary folder
	Bin  string                           `json:"-"` // of router and wsnode
	Logf func(format string, args ...any) `json:"-"` // progress
}

// enough is how many faults a run makes at least: one in ten seconds, where all kinds are made one after another for
// long enough that the draw evens out.
func (o *Options) enough() int {
	if o.Overlap || o.Seconds < 600 || len(o.Kinds) < len(Kinds()) {
		return 1
	}
	return o.Seconds / 10
}

const linkTimeout = 3 * time.Second // the programs' default, which the run does not change

// hotShare of the clients have keys that get hotRate times as much as others.
const (
	hotShare  = 100 // one in a hundred
	hotRate   = 20
	slowShare = 33 // one in 33 stops reading now and then
)

// Run is one run in progress.
type Run struct {
	opts   Options
	stack  stack.Breakable
	crowd  *crowd
	probe  *probe
	admin  *kgo.Client
	nop    *zap.Logger
	plan   *Plan
	began  time.Time // the quiet time before the first fault
	quiet  time.Time // its end
	ended  time.Time
	dir    string // of data and logs
	spare  string // node
	target func(i int) load.Target
	busy   resources
	sample *sampler

	producing sync.WaitGroup
	producer  *load.Producer
	halt      context.CancelFunc

	mu       sync.Mutex
	faults   []*Fault
	produced error // guarded by mu
}

// Do runs to the end, or until ctx ends, and judges what there is then. An error means that there is no verdict.
func Do(ctx context.Context, opts Options) (*Report, error) {
	r := &Run{opts: opts, busy: resources{held: map[string]bool{}}, nop: zap.NewNop(), plan: NewPlan(opts.Seed, opts.Kinds, time.Duration(opts.Seconds)*time.Second, opts.Overlap)}
	if err := r.setUp(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	failed := r.play(ctx)
	rep, err := r.judge(context.WithoutCancel(ctx), errors.Join(failed, context.Cause(ctx)))
	closed := r.close()
	if rep == nil {
		return nil, errors.Join(err, closed)
	}
	if closed != nil {
		rep.Failed = append(rep.Failed, closed.Error())
	}
	return rep, err
}

func (r *Run) logf(format string, args ...any) { r.opts.Logf(format, args...) }

// prepare makes the run's folder, with a copy of the programs in it: a build meanwhile changes nothing then.
func (r *Run) prepare() (err error) {
	if r.dir = r.opts.Dir; r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "pointsman-continuity-"); err != nil {
			return err
		}
	}
	if r.opts.Bin == "" {
		return errors.New("no folder with router and wsnode is given")
	}
	bin := filepath.Join(r.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"router", "wsnode"} {
		program, err := os.ReadFile(filepath.Join(r.opts.Bin, name))
		if err != nil {
			return fmt.Errorf("copy programs: %w", err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), program, 0o755); err != nil {
			return fmt.Errorf("copy programs: %w", err)
		}
	}
	return nil
}

func (r *Run) setUp(ctx context.Context) error {
	o := r.opts
	starting, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the stack did not start within 5 minutes"))
	defer cancel()
	if err := r.prepare(); err != nil {
		return err
	}
	s, err := stack.Open(starting, stack.Real, stack.Options{
		Routers: o.Routers, Nodes: o.Nodes, Partitions: o.Partitions, Bridged: true, Bin: filepath.Join(r.dir, "bin"), Dir: r.dir,
		RouterFlags: []string{"--drain-timeout=4s"},
		// Rings that are full within minutes: what grows later is something else.
		NodeFlags: []string{"--ring=32MiB"},
	})
	if err != nil {
		return err
	}
	b, ok := s.(stack.Breakable)
	if !ok {
		return errors.Join(errors.New("this kind of stack cannot be broken"), s.Close())
	}
	r.stack = b
	r.spare = b.Nodes()[0].ID
	if r.admin, err = newAdmin(b.Kafka()); err != nil {
		return err
	}
	if r.producer, err = load.NewProducer(b.Kafka(), b.Topic(), append(eager(), kgo.MaxBufferedRecords(1_000_000))...); err != nil {
		return err
	}
	r.producer.Tick = 5 * time.Millisecond // Kafka takes part of the same machine
	routers := b.Routers()                 // names and addresses stay
	r.target = func(i int) load.Target {
		at := routers[i%len(routers)]
		return load.Target{Name: at.Name, URL: at.URL}
	}
	keys := r.keys()
	r.crowd = gather(keys, partitionOf(b.Topic(), b.Partitions()), slowShare, r.target)
	r.logf("%d clients connect to %d routers", len(keys), len(routers))
	begun := time.Now()
	if err := r.crowd.connect(starting); err != nil {
		return err
	}
	r.logf("connected in %s", time.Since(begun).Round(10*time.Millisecond))
	if r.probe, err = startProbe(b.Kafka(), b.Topic()); err != nil {
		return err
	}
	r.produce(ctx, keys)
	begin := time.Now()
	if err := r.crowd.settled(starting, begin); err != nil {
		return err
	}
	_, err = r.owned(starting)
	return err
}

// keys makes one key a client; one in fifty shares its key with the client before, as a second device does.
func (r *Run) keys() []string {
	out := make([]string, r.opts.Clients)
	for i := range out {
		out[i] = fmt.Sprintf("client-%05d", i)
		if i%50 == 49 {
			out[i] = out[i-1]
		}
	}
	return out
}

func partitionOf(topic string, partitions int32) func(key string) int32 {
	p := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	return func(key string) int32 {
		return int32(p.Partition(&kgo.Record{Key: []byte(key)}, int(partitions))) //nolint:gosec // less than partitions
	}
}

// produce writes to the few hot keys and to the many cold ones, until halt.
func (r *Run) produce(ctx context.Context, keys []string) {
	ctx, r.halt = context.WithCancel(context.WithoutCancel(ctx))
	var hot, cold []string
	for i, key := range slices.Compact(slices.Clone(keys)) {
		if i%hotShare == 0 {
			hot = append(hot, key)
		} else {
			cold = append(cold, key)
		}
	}
	// In an order that no partition and no router can be seen in.
	rng := rand.New(rand.NewPCG(r.opts.Seed, 3)) //nolint:gosec // choices of a test
	for _, keys := range [][]string{hot, cold} {
		rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
	share := float64(len(hot)*hotRate) / float64(len(hot)*hotRate+len(cold))
	for _, one := range []struct {
		keys []string
		rate float64
	}{{hot, r.opts.Rate * share}, {cold, r.opts.Rate * (1 - share)}} {
		if len(one.keys) == 0 {
			continue
		}
		r.producing.Go(func() {
			if err := r.producer.Run(ctx, one.keys, one.rate, r.opts.Size); err != nil {
				r.mu.Lock()
				r.produced = errors.Join(r.produced, err)
				r.mu.Unlock()
			}
		})
	}
}

// play lets some quiet time pass, then makes one fault after the other.
func (r *Run) play(ctx context.Context) error {
	r.began = time.Now()
	r.sample = startSampler(r)
	pause(ctx, time.Duration(r.opts.Quiet)*time.Second)
	r.quiet = time.Now()
	stop := r.crowd.roam(ctx, r.opts.Seed)
	defer stop()
	end := r.began.Add(time.Duration(r.opts.Seconds) * time.Second)
	var err error
	if r.opts.Overlap {
		err = r.storm(ctx, end)
	} else {
		err = r.inTurn(ctx, end)
	}
	r.ended = time.Now()
	return err
}

// inTurn makes each fault after the one before has healed.
func (r *Run) inTurn(ctx context.Context, end time.Time) error {
	owners, err := r.owned(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		d := r.plan.Next()
		if !pause(ctx, d.Wait) || time.Now().After(end) {
			return nil
		}
		if time.Now().Add(d.Lasts).After(end) {
			continue // another one may still fit
		}
		f := &Fault{Draw: d, owned: owners}
		if !r.choose(f) {
			continue
		}
		r.add(f)
		f.Began = time.Now()
		if err := r.act(ctx, f); err != nil && ctx.Err() == nil {
			f.Error = err.Error()
			return fmt.Errorf("fault %d, %s: %w", f.N, f.Kind, err)
		}
		f.Ended = time.Now()
		healed, err := r.heal(ctx, f)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("fault %d, %s %s, does not heal: %w", f.N, f.Kind, f.Victim, err)
		}
		if owners = healed; owners != nil {
			r.tell(f)
		}
	}
	return nil
}

// heal waits until all clients receive what was made after the fault, and all partitions are owned.
func (r *Run) heal(ctx context.Context, f *Fault) (map[int32]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not within 2 minutes"))
	defer cancel()
	if err := r.crowd.settled(ctx, f.Ended); err != nil {
		return nil, err
	}
	owners, err := r.owned(ctx)
	if err != nil {
		return nil, err
	}
	// What the last move of a partition delays must still fall into the window.
	last := time.Now()
	if err := r.crowd.settledSome(ctx, last); err != nil {
		return nil, err
	}
	for f.Kind == Kafka && f.Probe.IsZero() {
		if f.Probe = r.probe.after(f.stopped); f.Probe.IsZero() && !pause(ctx, 10*time.Millisecond) {
			return nil, fmt.Errorf("the probe receives nothing: %w", context.Cause(ctx))
		}
	}
	f.Healed = time.Now()
	return owners, nil
}

func (r *Run) add(f *Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f)
}

// choose finds whom the fault meets; false when there is nobody.
func (r *Run) choose(f *Fault) bool {
	pick := func(n int) int { return int(f.Pick * float64(n)) }
	switch f.Kind { //nolint:exhaustive // the others meet everybody
	case Kill, Crash, Drain, Leave, Freeze, Cut, Hole:
		var ids []string
		for _, n := range r.stack.Nodes() {
			mortal := f.Kind != Freeze && f.Kind != Cut && f.Kind != Hole
			if r.busy.free(n.ID) && (!mortal || !r.opts.Spare || n.ID != r.spare) {
				ids = append(ids, n.ID)
			}
		}
		if len(ids) == 0 || f.Kind == Leave && len(ids) < 2 {
			return false
		}
		slices.Sort(ids)
		f.Victim = ids[pick(len(ids))]
		f.nodes = []string{f.Victim}
	case Rolling:
		for _, n := range r.stack.Nodes() {
			if r.busy.free(n.ID) && (!r.opts.Spare || n.ID != r.spare) {
				f.nodes = append(f.nodes, n.ID)
			}
		}
		slices.Sort(f.nodes)
		return len(f.nodes) > 0
	case RouterTerm, RouterKill:
		var names []string
		for i, x := range r.stack.Routers() {
			if r.busy.free(x.Name) && x.PID != 0 && (!r.opts.Spare || i > 0 || r.opts.Routers == 1) {
				names = append(names, x.Name)
			}
		}
		if len(names) == 0 {
			return false
		}
		f.router = names[pick(len(names))]
		f.Victim = f.router
	}
	return true
}

func (r *Run) close() error {
	var errs []error
	if r.halt != nil {
		r.halt()
		r.producing.Wait()
	}
	if r.crowd != nil {
		r.crowd.fleet.Close() // before the stack ends: its exit breaks nothing that counts
	}
	if r.probe != nil {
		r.probe.close()
	}
	if r.producer != nil {
		r.producer.Close()
	}
	if r.admin != nil {
		r.admin.Close()
	}
	if r.sample != nil {
		r.sample.close()
	}
	if r.stack != nil {
		errs = append(errs, r.stack.Close())
	}
	if r.opts.Dir == "" && r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// settledSome waits a moment: until a few hundred records that were made after t have arrived somewhere.
func (c *crowd) settledSome(ctx context.Context, t time.Time) error {
	enough := max(1, len(c.all)/50)
	for {
		if n, _ := c.behind(t); len(c.all)-n >= enough {
			return nil
		}
		if !pause(ctx, 5*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// tell prints how one fault went.
func (r *Run) tell(f *Fault) {
	w := r.windowOf(f)
	var all []int64
	for _, l := range r.crowd.all {
		if l.slow {
			continue
		}
		l.mu.Lock()
		// Only what arrived since the fault began can be charged to it.
		i := len(l.marks)
		for i > 0 && l.marks[i-1].at() >= w.from {
			i--
		}
		got, _ := charge(l.marks[i:], []window{w}, r.felt)
		l.mu.Unlock()
		if len(got) > 0 {
			all = append(all, got[0].longest)
		}
	}
	slices.Sort(all)
	p99 := int64(0)
	if len(all) > 0 {
		f.Worst = all[len(all)-1]
		p99 = all[len(all)*99/100]
	}
	r.logf("%4.0fs  %2d %-13s %-10s lasted %6s, healed after %6s; p99 %7s, longest %7s of %d clients, probe %s",
		f.Began.Sub(r.began).Seconds(), f.N, f.Kind, f.Victim, short(f.Ended.Sub(f.Began)), short(f.Healed.Sub(f.Ended)),
		short(micro(p99)), short(micro(f.Worst)), len(all), short(r.probe.longest(f.Began, f.Healed)))
}

func (r *Run) windowOf(f *Fault) window {
	at := func(t time.Time) int64 { return t.UnixMicro() - r.crowd.epoch*1000 }
	w := window{from: at(f.Began), until: at(f.Healed)}
	if !f.Probe.IsZero() {
		w.probe = at(f.Probe)
	}
	return w
}

func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// Check says what is wrong with the options.
func (o *Options) Check() error {
	switch {
	case o.Seconds < 10:
		return errors.New("a run has 10 seconds or more")
	case o.Quiet < 1 || o.Quiet >= o.Seconds:
		return errors.New("the quiet seconds are at least one, and fewer than all")
	case o.Clients < 1 || o.Clients > 18_000:
		return errors.New("1 to 18,000 clients: this process has a socket for each")
	case o.Rate <= 0 || o.Size < 1:
		return errors.New("a rate and a size above 0 are needed")
	case o.Routers < 1 || o.Nodes < 1 || o.Partitions < 1 || o.Partitions > 1000:
		return errors.New("at least one router, one node and one partition are needed, and at most 1,000 partitions")
	case o.Spare && o.Nodes < 2:
		return errors.New("with a spare node at least two nodes are needed")
	case len(o.Kinds) == 0:
		return errors.New("no kind of fault is asked for")
	}
	return nil
}
