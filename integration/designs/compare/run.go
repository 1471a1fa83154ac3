package compare

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/machine"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// Cell is a size at which every design is measured.
type Cell struct{ Servers, Clients int }

// Cells are sizes with so many clients.
func Cells(clients int, servers ...int) []Cell {
	out := make([]Cell, 0, len(servers))
	for _, n := range servers {
		out = append(out, Cell{Servers: n, Clients: clients})
	}
	return out
}

// Options say what to compare.
type Options struct {
	Designs []string // empty: all
	Cells   []Cell
	Faults  []string // empty: none
	Rounds  int
	// FaultClients and FaultRate are the work under faults, which has two servers.
	FaultClients int
	FaultRate    float64
	Rate         float64
	Size         int
	Seconds      float64
	Quick        bool
	Bin          string // folder with router, wsnode and designs
	Dir          string // for data and logs
	Logf         func(format string, args ...any)
}

// partitions of every topic: each of eight servers has two.
const partitions = 16

// faultServers is how many servers there are when something is done to one.
const faultServers = 2

// The faults.
const (
	KillServer  = "server killed"
	DrainServer = "server drained"
	AddServer   = "server added"
	KillOther   = "router or redistributor killed"
	LoseCache   = "cache lost"
)

// AllFaults lists them.
func AllFaults() []string { return []string{KillServer, DrainServer, AddServer, KillOther, LoseCache} }

type comparison struct {
	Options
	back  *stack.Backend
	cache *Cache
	runs  int
}

// Do compares. Rounds and sizes follow each other, and the designs in turn within each, so that all saw the same machine; who
// comes first changes from round to round. When ctx ends after the first round, the whole ones are reported.
func Do(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return nil, err
	}
	if len(o.Designs) == 0 {
		o.Designs = arena.Names()
	}
	began := time.Now()
	rep := &Report{
		Began: began, Quick: o.Quick, Machine: machine.Describe(), Kernel: machine.Kernel(), Go: runtime.Version(), Version: version(ctx, o.Bin),
		Load: machine.LoadAverage(), Rounds: o.Rounds, Rate: o.Rate, Size: o.Size, Seconds: o.Seconds, Partitions: partitions,
	}
	c := &comparison{Options: o}
	if c.back, err = stack.OpenBackend(ctx, stack.Real, filepath.Join(o.Dir, "backend")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.back.Close()) }()
	if c.cache, err = OpenCache(ctx, o.Dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.cache.Close()) }()
	for round := range o.Rounds {
		if samples, faults := c.round(ctx, round); ctx.Err() == nil {
			rep.Samples, rep.Faults = append(rep.Samples, samples...), append(rep.Faults, faults...)
			continue
		}
		if round == 0 {
			return nil, context.Cause(ctx)
		}
		o.Logf("stopped early: %d whole rounds count", round)
		rep.Rounds = round
		break
	}
	rep.conclude()
	rep.Took = time.Since(began).Seconds()
	return rep, nil
}

// round measures everything once, or until ctx ends.
func (c *comparison) round(ctx context.Context, round int) (samples []Sample, faults []Fault) {
	designs := turn(c.Designs, round, c.Rounds)
	for _, cell := range c.Cells {
		for _, name := range designs {
			s := c.sample(ctx, name, cell)
			if ctx.Err() != nil {
				return samples, faults
			}
			s.Round = round + 1
			samples = append(samples, s)
			c.Logf("round %d: %s", s.Round, &s)
		}
	}
	for _, fault := range c.Faults {
		for _, name := range designs {
			f, ok := c.fault(ctx, name, fault)
			if ctx.Err() != nil {
				return samples, faults
			}
			if !ok {
				continue
			}
			f.Round = round + 1
			faults = append(faults, f)
			c.Logf("round %d: %s", f.Round, &f)
		}
	}
	return samples, faults
}

func version(ctx context.Context, bin string) string {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "wsnode"), "version").Output() //nolint:gosec // our own program
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func (s *Sample) String() string {
	return fmt.Sprintf("%-30s %d servers %5d clients: %5.1f us CPU, ingest %7.0f B/s per reader, %5.1f KB/client, p50 %.1f p99 %.1f ms, lost %d repeated %d reordered %d %s%s",
		s.Design, s.Servers, s.Clients, s.CPU, s.Ingest, s.Memory/1024, s.P50, s.P99, s.Lost, s.Repeated, s.Reordered, s.First, s.Failed)
}

func (f *Fault) String() string {
	return fmt.Sprintf("%-30s %s: broken %d, lost %d, repeated %d, reordered %d, longest pause %.0f ms %s%s", f.Design, f.Fault, f.Broken, f.Lost, f.Repeated, f.Reordered, f.Pause, f.First, f.Failed)
}

// run is one design with its clients.
type run struct {
	c      *comparison
	design *arena.Design
	arena  arena.Arena
	topic  string
	fleet  *load.Fleet
	keys   []string
}

func (c *comparison) open(ctx context.Context, name string, servers, clients int) (*run, error) {
	c.runs++
	d, err := arena.Find(name)
	if err != nil {
		return nil, err
	}
	r := &run{c: c, design: d, topic: fmt.Sprintf("%s-%d", name, c.runs), fleet: load.NewFleet()}
	if err := c.back.CreateTopic(ctx, r.topic, partitions); err != nil {
		return nil, err
	}
	r.arena, err = arena.Open(ctx, arena.Options{
		Design: name, Servers: servers, Others: d.OthersFor(servers, clients), Kafka: c.back.Kafka(), Etcd: c.back.Etcd(), Redis: c.cache.addr, Topic: r.topic, Partitions: partitions,
		Launch: arena.Processes{Bin: c.Bin}, Bin: c.Bin, Dir: filepath.Join(c.Dir, r.topic),
	})
	for i := range clients {
		r.keys = append(r.keys, fmt.Sprintf("client-%d", i))
	}
	return r, err
}

func (r *run) close() error {
	r.fleet.Close()
	var err error
	if r.arena != nil {
		err = r.arena.Close()
	}
	return errors.Join(err, deleteTopics(r.c.back.Kafka(), r.topic))
}

func (r *run) where(i int) load.Target {
	all := r.arena.Entrances()
	if len(all) == 0 { // the only one was killed; who asks tries again
		return load.Target{Name: "nobody", URL: "ws://127.0.0.1:1"}
	}
	return all[i%len(all)]
}

// connect brings the clients, each of which goes to the next entrance when its connection ends.
func (r *run) connect(ctx context.Context) error {
	_, err := r.fleet.Add(ctx, len(r.keys), func(i int) load.Options {
		at := i
		return load.Options{Key: r.keys[i], Reconnect: func(checker.Close) (load.Target, bool) {
			at++
			return r.where(at), true
		}}
	}, r.where)
	return err
}

// processes are the members, and the cache where the design has one.
func (r *run) usage() (rss int64, cpu float64) {
	var pids []int
	for _, m := range r.arena.Members() {
		pids = append(pids, m.PID)
	}
	if r.design.Cache {
		pids = append(pids, r.c.cache.pid())
	}
	for _, pid := range pids {
		m, s, _ := machine.Usage(pid)
		rss, cpu = rss+m, cpu+s
	}
	return rss, cpu
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sample measures a design at one size.
func (c *comparison) sample(ctx context.Context, name string, cell Cell) (s Sample) {
	s = Sample{Design: name, Servers: cell.Servers, Clients: cell.Clients}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r, err := c.open(ctx, name, cell.Servers, cell.Clients)
	if err == nil {
		err = r.steady(ctx, &s)
	}
	if r != nil {
		err = errors.Join(err, r.close())
	}
	if err != nil {
		s.Failed = err.Error()
	}
	return s
}

func (r *run) steady(ctx context.Context, s *Sample) error {
	for _, m := range r.arena.Members() {
		if m.Role != arena.Server {
			s.Others++
		}
	}
	rss, cpu := r.usage()
	if err := r.connect(ctx); err != nil {
		return err
	}
	rssAfter, cpuAfter := r.usage()
	s.Memory, s.Connect = float64(rssAfter-rss)/float64(s.Clients), (cpuAfter-cpu)*1e6/float64(s.Clients)

	p, err := load.NewProducer(r.arena.Brokers(), r.topic)
	if err != nil {
		return err
	}
	defer p.Close()
	producing, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.Run(producing, r.keys, r.c.Rate, r.c.Size) }()
	const warm = 1500 * time.Millisecond
	if err := wait(ctx, warm); err != nil {
		return errors.Join(err, stopped(stop, done))
	}
	before, err := r.look(ctx, p, false)
	if err == nil {
		err = wait(ctx, time.Duration(r.c.Seconds*float64(time.Second)))
	}
	var after *snapshot
	if err == nil {
		after, err = r.look(ctx, p, true)
	}
	if err := errors.Join(err, stopped(stop, done)); err != nil {
		return err
	}
	v, err := r.judge(ctx)
	if err != nil {
		return err
	}
	s.Outcome = outcome(v.report)
	return r.figures(s, before, after, v.histories)
}

// snapshot is what processes and sockets had done, each as of its own time.
type snapshot struct {
	cpu, kafka, sent, said stamped
	sockets                traffic
	socketsAt              time.Time
}

type stamped struct {
	value float64
	at    time.Time
}

func now(value float64) stamped { return stamped{value, time.Now()} }

// rate is by how much a value grew in a second.
func rate(from, to stamped) float64 { return (to.value - from.value) / to.at.Sub(from.at).Seconds() }

// look takes a snapshot. At the start CPU comes last and at the end first, so that asking for sockets is not in it.
func (r *run) look(ctx context.Context, p *load.Producer, end bool) (*snapshot, error) {
	s := &snapshot{}
	var err error
	parts := []func(){
		func() {
			began := time.Now()
			s.sockets, err = sockets(ctx)
			s.socketsAt = began.Add(time.Since(began) / 2) // it looks at one after the other
		},
		func() { s.said = now(r.said(ctx)) },
		func() {
			_, cpu, _ := machine.Usage(r.c.back.PIDs()["kafka"])
			s.kafka = now(cpu)
		},
		func() { s.sent = now(float64(p.Sent())) },
		func() {
			_, cpu := r.usage()
			s.cpu = now(cpu)
		},
	}
	if end {
		slices.Reverse(parts)
	}
	for _, part := range parts {
		part()
	}
	return s, err
}

// figures are what two snapshots and the clients' histories say. Each divides by what clients received in the very time
// that it covers.
func (r *run) figures(s *Sample, before, after *snapshot, histories []checker.Client) error {
	cache := ""
	if r.design.Cache {
		cache = r.c.cache.addr
	}
	members := r.arena.Members()
	readers := 0
	for _, m := range members {
		if m.Role == r.design.Reader() {
			readers++
		}
	}
	f := during(before.sockets, after.sockets, members, r.design.Reader(), r.arena.Brokers(), cache)
	seconds := after.socketsAt.Sub(before.socketsAt).Seconds()
	s.Ingest, s.Reads, s.Between = float64(f.ingest)/seconds/float64(readers), float64(f.reads)/seconds, float64(f.between)/seconds
	s.Backchannel = float64(f.backchannel)/seconds + rate(before.said, after.said)

	s.Delivered = received(histories, before.cpu.at, after.cpu.at)
	s.Produced = int64(rate(before.sent, after.sent) * after.cpu.at.Sub(before.cpu.at).Seconds())
	meanwhile := received(histories, before.kafka.at, after.kafka.at)
	if s.Delivered == 0 || meanwhile == 0 {
		return errors.New("nothing was delivered while it was measured")
	}
	s.CPU = (after.cpu.value - before.cpu.value) * 1e6 / float64(s.Delivered)
	s.KafkaCPU = (after.kafka.value - before.kafka.value) * 1e6 / float64(meanwhile)
	d := checker.Between(histories, before.cpu.at, after.cpu.at)
	s.P50, s.P99 = milliseconds(d.P50), milliseconds(d.P99)
	return nil
}

// received counts the records that clients received in [from, until).
func received(histories []checker.Client, from, until time.Time) (n int64) {
	lo, hi := from.UnixNano(), until.UnixNano()
	for i := range histories {
		for j := range histories[i].Sessions {
			for k := range histories[i].Sessions[j].Events {
				if e := &histories[i].Sessions[j].Events[k]; e.Kind == checker.Record && e.At >= lo && e.At < hi {
					n++
				}
			}
		}
	}
	return n
}

func stopped(stop func(), done <-chan error) error {
	stop()
	return <-done
}

// said is what the programs say of the backchannel that lies in Kafka, where sockets carry other things too.
func (r *run) said(ctx context.Context) (sum float64) {
	if r.design.Cache || r.design.Other() != arena.Redistributor {
		return 0
	}
	for _, m := range r.arena.Members() {
		sum += metric(ctx, m.Admin, "design_backchannel_bytes_total")
	}
	return sum
}

// judge waits until every client has what is due, for a while, and asks the checker.
func (r *run) judge(ctx context.Context) (*verdict, error) {
	truth, err := load.ReadTopic(ctx, r.arena.Brokers(), r.topic)
	if err != nil {
		return nil, err
	}
	patient, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_ = r.fleet.WaitCaughtUp(patient, truth) // who is still behind then has lost something, and the checker says so
	v := &verdict{truth: truth, until: time.Now(), histories: r.fleet.Histories()}
	v.report = checker.Check(truth, v.histories, nil)
	return v, r.fleet.Faults()
}

// verdict is what was found of a run, and of what.
type verdict struct {
	report    *checker.Report
	truth     *checker.Truth
	histories []checker.Client
	until     time.Time // when nothing was waited for any more
}

func outcome(rep *checker.Report) Outcome {
	o := Outcome{Due: rep.Expected}
	for _, v := range rep.Verdicts() {
		first := &o.First
		switch v.Kind {
		case checker.Lost:
			o.Lost = v.Count
		case checker.Repeated:
			o.Repeated = v.Count
		case checker.Reordered:
			o.Reordered = v.Count
		case checker.Broken:
			o.Broken, first = v.Count, &o.FirstBroken
		case checker.Unopened:
			o.Unopened, first = v.Count, &o.FirstBroken
		case checker.Foreign, checker.Corrupt, checker.Cursors, checker.Gaps:
			o.Other += v.Count
		}
		if v.Count > 0 && *first == "" {
			*first = string(v.Kind) + ": " + v.First
		}
	}
	return o
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// fault does one thing to a design of two servers; ok is false where the design has nothing to do it to.
func (c *comparison) fault(ctx context.Context, name, fault string) (f Fault, ok bool) {
	f = Fault{Design: name, Fault: fault, Clients: c.FaultClients}
	d, err := arena.Find(name)
	if err == nil && (fault == LoseCache && !d.Cache || fault == KillOther && d.Other() == "") {
		return f, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r, err := c.open(ctx, name, faultServers, c.FaultClients)
	if err == nil {
		err = r.suffer(ctx, &f)
	}
	if r != nil {
		err = errors.Join(err, r.close())
	}
	if err != nil {
		f.Failed = err.Error()
	}
	return f, true
}

func (r *run) suffer(ctx context.Context, f *Fault) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	p, err := load.NewProducer(r.arena.Brokers(), r.topic)
	if err != nil {
		return err
	}
	defer p.Close()
	producing, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.Run(producing, r.keys, r.c.FaultRate, r.c.Size) }()
	// At no fixed place between two of a design's own rounds, such as those in which servers refresh the cache.
	err = wait(ctx, 2*time.Second+rand.N(3*time.Second)) //nolint:gosec // a choice of a test
	at := time.Now()
	if err == nil {
		err = r.do(ctx, f.Fault)
	}
	// The group notices a killed member after six seconds, and clients must be seen to recover from that.
	if rest := 10*time.Second - time.Since(at); err == nil && rest > 0 {
		err = wait(ctx, rest)
	}
	if err := errors.Join(err, stopped(stop, done)); err != nil {
		return err
	}
	v, err := r.judge(ctx)
	if err != nil {
		return err
	}
	f.Outcome = outcome(v.report)
	var longest []time.Duration
	for i := range v.histories {
		pause, who := pauseOf(&v.histories[i], v.truth, at, v.until)
		if longest = append(longest, pause); pause == slices.Max(longest) {
			f.Latest = who
		}
	}
	slices.Sort(longest)
	f.Pause, f.P99 = milliseconds(longest[len(longest)-1]), milliseconds(checker.Quantile(longest, 0.99))
	return nil
}

// pauseOf is the longest time that a record which was due after the fault, or under way then, took to reach the client,
// by whatever connection. One that never came takes as long as it was waited for.
func pauseOf(c *checker.Client, truth *checker.Truth, at, until time.Time) (longest time.Duration, who string) {
	type place struct {
		partition int32
		offset    int64
	}
	got := make(map[place]bool)
	note := func(p place, pause time.Duration, how string) {
		if pause > longest {
			longest, who = pause, fmt.Sprintf("client %s, partition %d, offset %d %s", c.Name, p.partition, p.offset, how)
		}
	}
	for i := range c.Sessions {
		for j := range c.Sessions[i].Events {
			e := &c.Sessions[i].Events[j]
			if e.Kind != checker.Record {
				continue
			}
			p := place{e.Partition, e.Offset}
			got[p] = true
			if e.At >= at.UnixNano() {
				note(p, time.Duration(e.At-e.Timestamp*int64(time.Millisecond)), "came late")
			}
		}
	}
	for partition, records := range truth.Of(c.Key) {
		for _, rec := range records {
			if p := (place{partition, rec.Offset}); !got[p] {
				note(p, until.Sub(time.UnixMilli(rec.Timestamp)), "never came")
			}
		}
	}
	return longest, who
}

func (r *run) do(ctx context.Context, fault string) error {
	switch fault {
	case KillServer:
		return r.arena.KillServer(ctx)
	case DrainServer:
		return r.arena.DrainServer(ctx)
	case AddServer:
		return r.arena.AddServer(ctx)
	case KillOther:
		return r.arena.KillOther(ctx)
	case LoseCache:
		return r.c.cache.lose(ctx)
	}
	return fmt.Errorf("there is no fault %q; there are %s", fault, strings.Join(AllFaults(), ", "))
}

// Temporary makes a folder for a comparison.
func Temporary() (string, error) { return os.MkdirTemp("", "pointsman-designs-") }
