package compare

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Figure is something that was measured of each sample; less is better in all of them.
type Figure struct {
	Name, Title, Unit string
	of                func(*Sample) float64
}

// Figures lists them.
func Figures() []Figure {
	return []Figure{
		{"cpu", "CPU per delivered record", "us", func(s *Sample) float64 { return s.CPU }},
		{"kafka_cpu", "the broker's CPU per delivered record", "us", func(s *Sample) float64 { return s.KafkaCPU }},
		{"ingest", "bytes that a server ingests", "KB/s", func(s *Sample) float64 { return s.Ingest / 1000 }},
		{"reads", "bytes read from Kafka by all", "KB/s", func(s *Sample) float64 { return s.Reads / 1000 }},
		{"between", "bytes between the tiers", "KB/s", func(s *Sample) float64 { return s.Between / 1000 }},
		{"backchannel", "bytes of the backchannel or cache", "KB/s", func(s *Sample) float64 { return s.Backchannel / 1000 }},
		{"memory", "memory per client, all processes", "KB", func(s *Sample) float64 { return s.Memory / 1024 }},
		{"connect", "CPU per connect", "us", func(s *Sample) float64 { return s.Connect }},
		{"p50", "delay, median", "ms", func(s *Sample) float64 { return s.P50 }},
		{"p99", "delay, 99th percentile", "ms", func(s *Sample) float64 { return s.P99 }},
	}
}

// Ordering says that a figure of one design was below that of another in every sample of every size and round.
type Ordering struct {
	Figure string  `json:"figure"`
	Less   string  `json:"less"`
	More   string  `json:"more"`
	Held   int     `json:"held"`     // in how many pairs of samples, which is all there are
	Least  float64 `json:"least"`    // the smallest factor between the two
	Most   float64 `json:"greatest"` // the greatest
}

// Fit is how a figure grew with the number of servers: the closer one of two forms, neither of which can go below zero, or
// a constant.
type Fit struct {
	Design  string  `json:"design"`
	Figure  string  `json:"figure"`
	Clients int     `json:"clients"`
	Form    string  `json:"form"`
	A       float64 `json:"a"`
	B       float64 `json:"b"`
	Error   float64 `json:"error"` // root mean square, relative
	// At100 is the formula at 100 servers: an extrapolation, not a measurement.
	At100 float64 `json:"extrapolated_to_100_servers"`
}

// The forms of a Fit.
const (
	shrinks = "a + b / servers"
	grows   = "a + b * servers"
)

func (f *Fit) at(servers float64) float64 {
	if f.Form == shrinks {
		return f.A + f.B/servers
	}
	return f.A + f.B*servers
}

func (r *Report) designs() []string {
	var out []string
	for i := range r.Samples {
		if !slices.Contains(out, r.Samples[i].Design) {
			out = append(out, r.Samples[i].Design)
		}
	}
	return out
}

// conclude derives everything that follows from samples.
func (r *Report) conclude() {
	r.Fits, r.Orderings = nil, nil
	for _, f := range Figures() {
		for _, less := range r.designs() {
			for _, more := range r.designs() {
				if o, ok := r.order(f, less, more); ok {
					r.Orderings = append(r.Orderings, o)
				}
			}
		}
	}
	for _, f := range Figures() {
		if f.Name != "ingest" && f.Name != "cpu" {
			continue
		}
		for _, d := range r.designs() {
			for _, clients := range r.clients() {
				if fit, ok := r.fit(f, d, clients); ok {
					r.Fits = append(r.Fits, fit)
				}
			}
		}
	}
}

func (r *Report) clients() []int {
	var out []int
	for i := range r.Samples {
		if !slices.Contains(out, r.Samples[i].Clients) {
			out = append(out, r.Samples[i].Clients)
		}
	}
	sort.Ints(out)
	return out
}

// order compares two designs in every round and size. It says nothing where one of the two failed even once: the
// comparison would be of what went well.
func (r *Report) order(f Figure, less, more string) (Ordering, bool) {
	o := Ordering{Figure: f.Name, Less: less, More: more, Least: math.Inf(1)}
	if r.failed(less) || r.failed(more) {
		return o, false
	}
	for i := range r.Samples {
		a := &r.Samples[i]
		if a.Design != less {
			continue
		}
		for j := range r.Samples {
			b := &r.Samples[j]
			if b.Design != more || b.Round != a.Round || b.Servers != a.Servers || b.Clients != a.Clients {
				continue
			}
			x, y := f.of(a), f.of(b)
			if x >= y || x <= 0 {
				return o, false
			}
			o.Held++
			o.Least, o.Most = min(o.Least, y/x), max(o.Most, y/x)
		}
	}
	// Less than a tenth is within what the same design differs from itself.
	return o, o.Held > 0 && o.Least > 1.1
}

// failed reports whether something was wrong in any of a design's samples.
func (r *Report) failed(design string) bool {
	return slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Design == design && s.wrong() != "" })
}

// at is what was measured of a design at one size, in every round.
func (r *Report) at(design string, c Cell) (all []*Sample) {
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Design == design && s.Servers == c.Servers && s.Clients == c.Clients {
			all = append(all, s)
		}
	}
	return all
}

// servers are the numbers of servers that a design was measured with at so many clients.
func (r *Report) servers(design string, clients int) (out []int) {
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Design == design && s.Clients == clients && !slices.Contains(out, s.Servers) {
			out = append(out, s.Servers)
		}
	}
	sort.Ints(out)
	return out
}

// value is the median over the rounds; why is set instead where something went wrong in any of them.
func (r *Report) value(f Figure, design string, c Cell) (v float64, why string) {
	var all []float64
	for _, s := range r.at(design, c) {
		if why := s.wrong(); why != "" {
			return 0, why
		}
		all = append(all, f.of(s))
	}
	if len(all) == 0 {
		return 0, "not measured"
	}
	return median(all), ""
}

// fit is least squares of both forms over the medians of each size.
func (r *Report) fit(f Figure, design string, clients int) (Fit, bool) {
	by := r.series(f, design, clients)
	if len(by) < 3 {
		return Fit{}, false
	}
	var best Fit
	for _, form := range []string{shrinks, grows} {
		fit := Fit{Design: design, Figure: f.Name, Clients: clients, Form: form}
		var n, sx, sy, sxx, sxy float64
		for _, p := range by {
			x := p.X
			if form == shrinks {
				x = 1 / p.X
			}
			n, sx, sy, sxx, sxy = n+1, sx+x, sy+p.Y, sxx+x*x, sxy+x*p.Y
		}
		fit.B = (n*sxy - sx*sy) / (n*sxx - sx*sx)
		fit.A = (sy - fit.B*sx) / n
		switch {
		case fit.B < 0:
			fit.A, fit.B = sy/n, 0
		case fit.A < 0:
			fit.A, fit.B = 0, sxy/sxx
		}
		for _, p := range by {
			d := (fit.at(p.X) - p.Y) / p.Y
			fit.Error += d * d / n
		}
		fit.Error = math.Sqrt(fit.Error)
		fit.At100 = fit.at(100)
		if best.Form == "" || fit.Error < best.Error {
			best = fit
		}
	}
	return best, true
}

// point is a figure at a number of servers.
type point struct{ X, Y float64 }

// series is the median over the rounds at each number of servers where nothing went wrong.
func (r *Report) series(f Figure, design string, clients int) (out []point) {
	for _, n := range r.servers(design, clients) {
		if v, why := r.value(f, design, Cell{n, clients}); why == "" {
			out = append(out, point{float64(n), v})
		}
	}
	return out
}

func median(all []float64) float64 {
	sort.Float64s(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// String is how the page tells it.
func (f *Fit) String() string {
	form := "%.3g + %.3g / servers"
	switch {
	case f.B == 0:
		return fmt.Sprintf("%.3g", f.A)
	case f.Form == grows:
		form = "%.3g + %.3g x servers"
	}
	return fmt.Sprintf(form, f.A, f.B)
}
