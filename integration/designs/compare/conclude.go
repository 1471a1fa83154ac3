package compare

import (
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
		{"ingest", "bytes from Kafka per process that reads the topic", "KB/s", func(s *Sample) float64 { return s.Ingest / 1000 }},
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
	for _, d := range r.designs() {
		for _, clients := range r.clients() {
			r.Fits = append(r.Fits, r.fit("ingest", d, clients), r.fit("cpu", d, clients))
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
