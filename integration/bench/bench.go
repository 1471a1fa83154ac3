// Package bench measures what Pointsman costs: real Kafka, etcd, routers and nodes under lean clients, each measurement
// beside the same one of a floor program, the cheapest that could do the work (command floor), so that every figure is
// also a ratio. Every client checks what it receives: a fast wrong answer is a failure.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/machine"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// partitions of every topic.
const partitions = 16

// Options says what to measure.
type Options struct {
	Scenarios []Scenario
	Full      bool
	Rounds    int     // of every scenario
	Seconds   float64 // of every steady measurement
	Scale     float64 // of clients, rates and records; 1 but in tests of the benchmark
	Kind      stack.Kind
	Bin       string                           // folder with router, wsnode, floor and bench
	Dir       string                           // for data and logs, kept; empty for a temporary one
	Logf      func(format string, args ...any) // progress
}

// bench is one run of the benchmark.
type bench struct {
	opts   Options
	dir    string
	back   *stack.Backend
	report *Report
	runs   int
	epochs int64
}

// Do measures all scenarios, round after round, and the floor beside the product in each. What failed is in the report;
// an error means that there is none.
func Do(ctx context.Context, opts Options) (_ *Report, err error) {
	if opts.Bin, err = filepath.Abs(opts.Bin); err != nil {
		return nil, err
	}
	b := &bench{opts: opts, dir: opts.Dir}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "pointsman-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.back, err = stack.OpenBackend(ctx, opts.Kind, b.dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.back.Close()) }()
	b.report = &Report{
		Began: time.Now(), Full: opts.Full, Rounds: opts.Rounds, Seconds: opts.Seconds, Scale: opts.Scale,
		Version: b.version(ctx), Machine: machine.Describe(), Kernel: machine.Kernel(), Go: runtime.Version(),
	}
	for _, s := range opts.Scenarios {
		s.scale(opts.Scale)
		b.report.Results = append(b.report.Results, &Result{Scenario: s})
	}
	// All rounds of a scenario follow each other, so that each pair of samples saw the same machine.
	for _, r := range b.report.Results {
		if ctx.Err() != nil {
			break
		}
		if r.Scenario.Half {
			r.Scenario.Rate = b.half(r.Scenario.Rate)
		}
		for round := range opts.Rounds {
			subjects := []string{product}
			if r.Scenario.Floor {
				subjects = [][]string{{floorProgram, product}, {product, floorProgram}}[round%2]
			}
			for _, name := range subjects {
				b.sample(ctx, r, name, round)
			}
		}
	}
	b.report.Took = time.Since(b.report.Began).Seconds()
	b.report.judge()
	if ctx.Err() != nil {
		b.report.Partial = true
	}
	return b.report, nil
}

// half is half of the highest rate that the product sustained, if that was measured.
func (b *bench) half(without float64) float64 {
	if found, ok := b.report.median("max", product, "max_rate"); ok && found > 0 {
		return float64(int(found / 2))
	}
	return without
}

// sample measures one subject once.
func (b *bench) sample(ctx context.Context, r *Result, name string, round int) {
	if ctx.Err() != nil {
		return
	}
	begun := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not done within 5 minutes"))
	defer cancel()
	one := Sample{Subject: name, Round: round, Figures: make(map[string]float64)}
	if err := b.measure(limited, &r.Scenario, name, &one); err != nil {
		if ctx.Err() != nil {
			return
		}
		one.Failed = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	r.Samples = append(r.Samples, one)
	b.opts.Logf("%-20s %-9s %d/%d  %4.0fs  %s", r.Scenario.Name, name, round+1, b.opts.Rounds, time.Since(begun).Seconds(), one.brief(&r.Scenario))
}

// version is what the programs say that they are.
func (b *bench) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, filepath.Join(b.opts.Bin, "router"), "--version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// pause waits for d; it is false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// measurement is one subject under one scenario.
type measurement struct {
	*bench
	s       *Scenario
	x       *subject
	crowd   *crowd
	meter   *meter
	figures map[string]float64
}

func (b *bench) measure(ctx context.Context, s *Scenario, name string, out *Sample) (err error) {
	x, err := b.openSubject(ctx, name, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.discard(ctx, x)) }()
	c, err := b.gather(ctx, x.topic, s)
	if err != nil {
		return err
	}
	// Before the subject ends: its exit breaks nothing that counts.
	defer func() { err = errors.Join(err, c.close()) }()
	m := &measurement{bench: b, s: s, x: x, crowd: c, figures: out.Figures}
	m.meter = &meter{cpu: make(map[string]map[int]float64), processes: func() map[string][]int {
		all := x.processes()
		for _, p := range c.procs {
			all[roleLoad] = append(all[roleLoad], p.PID())
		}
		all[roleBench] = []int{os.Getpid()} // with the producer
		for name, pid := range b.back.PIDs() {
			all[name] = append(all[name], pid)
		}
		return all
	}}
	if err := m.connect(ctx); err != nil {
		return err
	}
	from := m.meter.look()
	switch s.Work {
	case pace, deafness:
		err = m.pace(ctx)
	case ramp:
		err = m.ramp(ctx)
	case burst:
		err = m.burst(ctx)
	case idle:
		err = m.idle(ctx)
	case join, drain, kill:
		err = m.handover(ctx)
	case unheard:
		err = m.unheard(ctx)
	default:
		err = fmt.Errorf("there is no work %q", s.Work)
	}
	m.others(&from)
	if err != nil {
		return err
	}
	seen, err := c.look(ctx)
	if err == nil && seen.Open != s.Clients {
		err = fmt.Errorf("%d of %d clients are connected at the end", seen.Open, s.Clients)
	}
	return errors.Join(err, complain(&seen))
}

// others notes what share of the machine was used by whom the benchmark does not know.
func (m *measurement) others(from *reading) {
	to := m.meter.look()
	ours := 0.0
	for role, cpu := range to.cpu {
		ours += cpu - from.cpu[role]
	}
	cores := to.at.Sub(from.at).Seconds() * float64(runtime.NumCPU())
	m.figures["others_share"] = max(0, to.total-from.total-ours) / cores
}
