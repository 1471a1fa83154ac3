package bench

import (
	"fmt"
	"strings"
)

// Bar is a bound that the product is to keep.
type Bar struct {
	Number int    `json:"number"`
	About  string `json:"about"`
	Figure string `json:"figure"` // what was measured, or why nothing was
	Bound  string `json:"bound"`
	Known  bool   `json:"known"`
	Met    bool   `json:"met"`
}

const fellBehind = "one of the two fell behind"

func (b Bar) String() string {
	verdict := "not measured"
	if b.Known {
		verdict = "missed"
		if b.Met {
			verdict = "met"
		}
	}
	return fmt.Sprintf("bar %d: %-62s %-34s %-34s %s", b.Number, b.About, b.Figure, b.Bound, verdict)
}

// judge draws up the bars.
func (rep *Report) judge() {
	rep.Bars = nil
	if rep.Scale != 1 {
		return // a trial of the benchmark proves nothing
	}
	for _, name := range []string{"pace-5000", "pace-10000"} {
		rep.ratioBar(1, "CPU per message, times the floor's, "+name, name, "cpu_us", 1.5)
	}
	rep.figureBar(2, "memory per idle client, idle-10000, KB", "idle-10000", "rss_kb", 10)
	rep.allBar(2, "50,000 idle clients stay and receive", "idle-50000", "answered")
	for _, name := range []string{"pace-5000", "pace-half"} {
		rep.addedBar(name)
	}
	rep.acceptBar()
	for _, w := range []work{join, drain, kill} {
		name := "handover-" + string(w)
		rep.figureBar(5, "claim to last client attached, "+name+", ms", name, "handover_ms", 200)
		rep.figureBar(5, "p99 added meanwhile, "+name+", ms", name, "p99_added_ms", 50)
		// A client receives too little in that time to have a p99 of its own: its longest delay stands for it.
		rep.figureBar(5, "longest delay added, "+name+", ms", name, "worst_added_ms", 50)
	}
	rep.burstBar()
	rep.figureBar(7, "records on the link per record written, fan-out", "fan-out", "link_records", 1)
	rep.ratioBar(7, "CPU per delivery, times the floor's, fan-out", "fan-out", "cpu_us", 1.2)
	rep.halvingBar("nodes-1", "nodes-2")
	rep.halvingBar("nodes-2", "nodes-4")
	// At lower rates it is the cost of a fetch that is measured, shared by few records.
	rep.figureBar(8, "node's CPU per record nobody wants, us", "unheard-200000", "unheard_us", 2)
}

func (rep *Report) add(b Bar) {
	if !b.Known && b.Figure == "" {
		b.Figure = "-"
	}
	rep.Bars = append(rep.Bars, b)
}

// measured is the scenario, if it has samples and none of the product's failed: a fast wrong answer is no answer.
func (rep *Report) measured(name string) *Result {
	r := rep.result(name)
	if r == nil || len(r.Samples) == 0 {
		return nil
	}
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Subject == product && s.Failed != "" {
			return nil
		}
	}
	return r
}

func (rep *Report) figureBar(n int, about, scenario, name string, most float64) {
	b := Bar{Number: n, About: about, Bound: "<= " + number(most)}
	if r := rep.measured(scenario); r != nil {
		if s, ok := r.spread(product, name); ok {
			b.Known, b.Met, b.Figure = true, s.Median <= most, s.String()
		}
	}
	rep.add(b)
}

func (rep *Report) ratioBar(n int, about, scenario, name string, most float64) {
	b := Bar{Number: n, About: about, Bound: "<= " + number(most)}
	if r := rep.measured(scenario); r != nil && r.behind() {
		b.Figure = fellBehind
	} else if r != nil {
		if s, ok := r.pairs(name, ratio); ok {
			b.Known, b.Met, b.Figure = true, s.Median <= most, s.String()
		}
	}
	rep.add(b)
}

// allBar asks that a figure is the number of clients in every round.
func (rep *Report) allBar(n int, about, scenario, name string) {
	b := Bar{Number: n, About: about, Bound: "all"}
	if r := rep.measured(scenario); r != nil {
		if s, ok := r.spread(product, name); ok {
			b.Known, b.Met, b.Figure = true, s.Least == float64(r.Scenario.Clients), s.String()
		}
	}
	rep.add(b)
}

func (rep *Report) addedBar(scenario string) {
	const most = 2.0
	b := Bar{Number: 3, About: "delay p99 less the floor's, " + scenario + ", ms", Bound: "<= " + number(most)}
	if r := rep.measured(scenario); r != nil && r.behind() {
		b.Figure = fellBehind
	} else if r != nil {
		if s, ok := r.pairs("p99_ms", difference); ok {
			b.Known, b.Met, b.Figure = true, s.Median <= most, s.String()
			b.About = strings.Replace(b.About, scenario, fmt.Sprintf("%s (%.0f/s)", scenario, r.Scenario.Rate), 1)
		}
	}
	rep.add(b)
}

func (rep *Report) acceptBar() {
	const least, share, most = 5000.0, 1.5, 3.0
	const scenario = "connect-10000"
	rate := Bar{Number: 4, About: "connects per second, " + scenario, Bound: fmt.Sprintf(">= %.0f, or the floor's / %.1f", least, share)}
	if r := rep.measured(scenario); r != nil {
		s, ok := r.spread(product, "accepts_per_s")
		q, paired := r.pairs("accepts_per_s", ratio)
		if ok {
			rate.Known, rate.Figure = true, s.String()
			rate.Met = s.Median >= least || paired && q.Median >= 1/share
			if paired {
				rate.Figure += fmt.Sprintf(", %s of it", number(q.Median))
			}
		}
	}
	rep.add(rate)
	rep.ratioBar(4, "CPU per connect, times the floor's, "+scenario, scenario, "accept_us", most)
}

func (rep *Report) burstBar() {
	const least = 0.7
	b := Bar{Number: 6, About: "burst, share of the floor's rate", Bound: ">= " + number(least)}
	if r := rep.measured("burst"); r != nil {
		if s, ok := r.pairs("burst_rate", ratio); ok {
			b.Known, b.Met, b.Figure = true, s.Median >= least, s.String()
		}
	}
	rep.add(b)
	// The ring of a node, 256 MiB, and what its garbage collector lets it have beside: budgets that the programs
	// are run with.
	rep.figureBar(6, "memory gained in the burst, MB", "burst", "burst_gain_mb", 512+128)
}

// halvingBar compares what the busiest node consumes with the double of nodes.
func (rep *Report) halvingBar(few, many string) {
	b := Bar{Number: 8, About: "busiest node's ingest, " + many + " of " + few, Bound: "<= 0.55"}
	a, c := rep.measured(few), rep.measured(many)
	if a != nil && c != nil {
		x, ok := a.spread(product, "ingest_most_kb_s")
		y, both := c.spread(product, "ingest_most_kb_s")
		if ok && both && x.Median > 0 {
			q := y.Median / x.Median
			b.Known, b.Met, b.Figure = true, q <= 0.55, number(q)
		}
	}
	rep.add(b)
}
