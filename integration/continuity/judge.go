package continuity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/machine"
)

// Report is what a run amounts to. Nothing in it names a machine or a path.
type Report struct {
	Command   string    `json:"command"`
	Version   string    `json:"version"` // of the programs, from git
	Machine   string    `json:"machine"`
	Began     time.Time `json:"began"`
	Took      float64   `json:"took_seconds"` // from the first quiet second to the last healing
	Options   Options   `json:"options"`
	Partial   bool      `json:"partial,omitempty"` // it was stopped early
	Failed    []string  `json:"failed,omitempty"`  // why the run is not a success
	Counts    Counts    `json:"counts"`
	Baseline  Delays    `json:"baseline"` // of all records before the first fault
	Delays    Delays    `json:"delays"`   // of all records of the whole run
	Between   Delays    `json:"between"`  // each client's longest outside the faults' windows
	Pauses    []Pauses  `json:"pauses"`
	Faults    []*Fault  `json:"faults"`
	Timeline  []Second  `json:"timeline"`
	Processes []Process `json:"processes,omitempty"`
	Slopes    []Slope   `json:"slopes,omitempty"`
	Busy      Busy      `json:"busy"`

	story string // of one client that something went wrong for
}

// Counts are the checker's verdicts, all of which but the first rows must be 0.
type Counts struct {
	Clients   int              `json:"clients"`
	Sessions  int              `json:"sessions"`
	Topic     int64            `json:"topic"`
	Due       int64            `json:"due"`
	Received  int64            `json:"received"`
	Offences  map[string]int64 `json:"offences"`
	Protocol  int              `json:"against_the_protocol"`
	Reconnect int              `json:"reconnects"` // of clients that read, after their router's exit
}

// Delays are of single records, from their timestamp to their arrival.
type Delays struct {
	Count int64         `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

// Second is what arrived in one second of the run.
type Second struct {
	Records int64   `json:"records"`
	Longest float64 `json:"longest_ms"` // delay of a record that arrived in it
}

// judge reads the topic and compares.
func (r *Run) judge(ctx context.Context, failed error) (*Report, error) {
	rep := &Report{Version: r.version(ctx), Machine: machine.Describe(), Began: r.began, Took: r.ended.Sub(r.began).Seconds(), Options: r.opts, Faults: r.faults}
	r.sample.finish(rep) // before all processes are idle
	r.halt()
	r.producing.Wait()
	r.logf("the producers have stopped after %d records; reading the topic", r.producer.Sent())
	fail := func(err error) {
		if err != nil {
			rep.Failed = append(rep.Failed, err.Error())
		}
	}
	if errors.Is(failed, context.Canceled) {
		rep.Partial = true
	} else {
		fail(failed)
	}
	fail(r.produced)
	if made, want := rep.made(), r.opts.enough(); made < want && !rep.Partial {
		fail(fmt.Errorf("%d faults in %d seconds are too few, %d were to be made: the machine is too busy", made, r.opts.Seconds, want))
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	truth, err := load.ReadTopic(ctx, r.stack.Kafka(), r.stack.Topic())
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	catching, stop := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer stop()
	if err := r.crowd.caughtUp(catching, truth); err != nil {
		fail(fmt.Errorf("not all clients have everything: %w", err))
	}
	fail(r.consistent(ctx))
	r.compare(truth, rep)
	return rep, nil
}

// compare judges client by client: all histories at once would not fit.
func (r *Run) compare(truth *checker.Truth, rep *Report) {
	j := checker.NewJudge(truth)
	m := newMeasure(r)
	for _, l := range r.crowd.all {
		h := l.history()
		if found := j.Add(&h); len(found) > 0 && rep.story == "" {
			rep.story = r.story(truth, &h, found)
		}
		if err := l.Faults(); err != nil {
			rep.Counts.Protocol++
			if rep.Counts.Protocol == 1 {
				rep.Failed = append(rep.Failed, "against the protocol: "+err.Error())
			}
		}
		m.add(l, &h)
	}
	v := j.Report()
	rep.Counts.Clients, rep.Counts.Sessions, rep.Counts.Topic = v.Clients, v.Sessions, v.Topic
	rep.Counts.Due, rep.Counts.Received, rep.Counts.Reconnect = v.Expected, v.Received, m.reconnects
	rep.Counts.Offences = make(map[string]int64)
	for _, one := range v.Verdicts() {
		rep.Counts.Offences[string(one.Kind)] = one.Count
	}
	if err := v.Err(); err != nil {
		rep.Failed = append(rep.Failed, strings.Split(err.Error(), "\n")...)
	}
	m.finish(rep)
	for _, s := range rep.Slopes {
		if s.Judged && max(s.RSS, s.Goroutines) >= Steep {
			rep.Failed = append(rep.Failed, fmt.Sprintf("%s grows: memory %.1f %%, goroutines %.1f %% an hour after the first ten minutes", s.Process, s.RSS, s.Goroutines))
		}
	}
	for _, f := range rep.Faults {
		f.Load = rep.Busy.between(f.Began.Sub(r.began), f.end().Sub(r.began))
	}
	if r.opts.Overlap || r.opts.NoPauses {
		return
	}
	for _, p := range rep.Pauses {
		if p.Missed() {
			rep.Failed = append(rep.Failed, fmt.Sprintf("pause after %s: p99 %s (others %s), at most %s is promised; longest %s at %s; the probe felt %s",
				p.Kind, short(p.P99), short(p.Others), p.Bound, short(p.Max), p.Where, short(p.Probe)))
		}
	}
}

// consistent waits until every router and node finds itself in order.
func (r *Run) consistent(ctx context.Context) error {
	pages := make(map[string]string)
	for _, x := range r.stack.Routers() {
		if x.PID != 0 {
			pages[x.Name] = x.Admin
		}
	}
	for _, n := range r.stack.Nodes() {
		pages[n.ID] = n.Admin
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("not within 20s"))
	defer cancel()
	var errs []error
	for name, admin := range pages {
		for {
			err := inOrder(ctx, admin)
			if err == nil {
				break
			}
			if !pause(ctx, 100*time.Millisecond) {
				errs = append(errs, fmt.Errorf("%s does not find itself in order: %w", name, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

func inOrder(ctx context.Context, admin string) error {
	var v struct {
		Consistency struct {
			Problems []string `json:"problems"`
		} `json:"consistency"`
	}
	if err := fetchJSON(ctx, admin+"/debug/vars", &v); err != nil {
		return err
	}
	if len(v.Consistency.Problems) > 0 {
		return errors.New(strings.Join(v.Consistency.Problems, "; "))
	}
	return nil
}

func fetchJSON(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// measure gathers delays over all clients.
type measure struct {
	run        *Run
	windows    []window
	faults     []*Fault         // of the windows
	affected   map[Kind][]int64 // microseconds
	others     map[Kind][]int64
	worst      map[Kind]worst
	base       []int64 // delays before the first fault
	usual      []int64 // the same, against the plain consumer's
	between    []int64 // each client's longest delay outside all windows
	all        histogram
	seconds    []Second
	reconnects int
}

type worst struct {
	us    int64
	where string
}

func newMeasure(r *Run) *measure {
	m := &measure{run: r, affected: map[Kind][]int64{}, others: map[Kind][]int64{}, worst: map[Kind]worst{}}
	if !r.opts.Overlap {
		for _, f := range r.faults {
			if !f.Healed.IsZero() {
				w := r.windowOf(f)
				w.fault = len(m.faults)
				m.faults = append(m.faults, f)
				m.windows = append(m.windows, w)
			}
		}
	}
	m.seconds = make([]Second, int(r.ended.Sub(r.began).Seconds())+1)
	return m
}

// add measures one client. Those that are slow on purpose have no say.
func (m *measure) add(l *listener, h *checker.Client) {
	r := m.run
	began, quiet := r.began.UnixMicro()-r.crowd.epoch*1000, r.quiet.UnixMicro()-r.crowd.epoch*1000
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.marks {
		k := &l.marks[i]
		if k.kind != checker.Record {
			continue
		}
		at, late := k.at(), int64(k.late)
		if s := (at - began) / 1_000_000; at >= began && s < int64(len(m.seconds)) {
			m.seconds[s].Records++
			if !l.slow {
				m.seconds[s].Longest = max(m.seconds[s].Longest, float64(late)/1000)
			}
		}
		if l.slow || at < began {
			continue
		}
		m.all.add(late)
		if at < quiet {
			m.base = append(m.base, late)
			m.usual = append(m.usual, max(0, late-r.felt(k)))
		}
	}
	if l.slow {
		return
	}
	m.reconnects += len(h.Sessions) - 1
	got, between := charge(l.marks, m.windows, r.felt)
	m.between = append(m.between, between)
	for _, c := range got {
		f := m.faults[c.window]
		if !f.met(l, h) {
			m.others[f.Kind] = append(m.others[f.Kind], c.longest)
			continue
		}
		m.affected[f.Kind] = append(m.affected[f.Kind], c.longest)
		if c.longest > m.worst[f.Kind].us {
			m.worst[f.Kind] = worst{us: c.longest, where: fmt.Sprintf("fault %d, client %s (key %s) partition %d offset %d", f.N, h.Name, h.Key, l.partition, c.offset)}
		}
	}
}

// felt is how late a record reached the plain consumer.
func (r *Run) felt(m *mark) int64 { return r.probe.felt(int32(m.partition), int64(m.offset)) }

// met reports whether the fault met the node or the router of a client. Without a victim it met all.
func (f *Fault) met(l *listener, h *checker.Client) bool {
	if f.router != "" {
		on := ""
		for i := range h.Sessions {
			if !h.Sessions[i].HelloAt.IsZero() && h.Sessions[i].HelloAt.Before(f.Began) {
				on = h.Sessions[i].Router
			}
		}
		return on == f.router
	}
	return f.nodes == nil || slices.Contains(f.nodes, f.owned[l.partition])
}

func (m *measure) finish(rep *Report) {
	slices.Sort(m.base)
	rep.Baseline = delaysOf(m.base)
	rep.Delays = m.all.delays()
	slices.Sort(m.between)
	rep.Between = delaysOf(m.between)
	rep.Timeline = m.seconds
	slices.Sort(m.usual)
	usual := int64(delaysOf(m.usual).P50 / time.Microsecond)
	for _, kind := range append([]Kind{Quiet}, Kinds()...) {
		met, others := added(m.affected[kind], usual), added(m.others[kind], usual)
		if len(met)+len(others) == 0 {
			continue
		}
		p := Pauses{
			Kind: kind, Clients: len(met) + len(others), Affected: len(met), Bound: bound(kind, linkTimeout),
			P50: checker.Quantile(met, 0.5), P99: checker.Quantile(met, 0.99), Max: checker.Quantile(met, 1), Others: checker.Quantile(others, 0.99),
			Where: m.worst[kind].where, Buckets: buckets(met),
		}
		for _, f := range m.faults {
			if f.Kind == kind {
				p.Faults++
				p.Probe = max(p.Probe, m.run.probe.longest(f.Began, f.Healed))
			}
		}
		rep.Pauses = append(rep.Pauses, p)
	}
}

// added takes the usual delay off and sorts.
func added(us []int64, usual int64) []time.Duration {
	out := make([]time.Duration, len(us))
	for i, d := range us {
		out[i] = micro(max(0, d-usual))
	}
	slices.Sort(out)
	return out
}

func delaysOf(sorted []int64) Delays {
	all := make([]time.Duration, len(sorted))
	for i, d := range sorted {
		all[i] = micro(d)
	}
	return Delays{Count: int64(len(all)), P50: checker.Quantile(all, 0.5), P99: checker.Quantile(all, 0.99), Max: checker.Quantile(all, 1)}
}

// histogram keeps delays in steps of a sixteenth.
type histogram struct {
	steps [640]int64
	count int64
	max   int64
}

func (h *histogram) add(us int64) {
	h.count++
	h.max = max(h.max, us)
	h.steps[step(us)]++
}

// step is exact below 16 and has 16 steps to each doubling from there on.
func step(us int64) int {
	if us < 16 {
		return int(us)
	}
	shift := 0
	for us >= 32 {
		us >>= 1
		shift++
	}
	return min(16+16*shift+int(us-16), 639)
}

func unstep(i int) int64 {
	if i < 16 {
		return int64(i)
	}
	i -= 16
	return int64(16+i%16) << (i / 16)
}

func (h *histogram) quantile(q float64) time.Duration {
	want := int64(q * float64(h.count))
	for i, n := range h.steps {
		if want < n {
			return micro(unstep(i))
		}
		want -= n
	}
	return micro(h.max)
}

func (h *histogram) delays() Delays {
	return Delays{Count: h.count, P50: h.quantile(0.5), P99: h.quantile(0.99), Max: micro(h.max)}
}
