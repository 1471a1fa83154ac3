package compare

import (
	"fmt"
	"math"
	"slices"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
)

// Fit is how a figure of a design grew with the number of servers, in the form that the design gives it.
type Fit struct {
	Design  string  `json:"design"`
	Figure  string  `json:"figure"`
	Clients int     `json:"clients"`
	Form    string  `json:"form,omitempty"`
	Reason  string  `json:"reason,omitempty"` // of the form
	A       float64 `json:"a"`
	B       float64 `json:"b"`
	Error   float64 `json:"error"` // root mean square, relative
	// LeftOut are the numbers of servers at which the design was saturated: what a record costs then says how far behind
	// it is.
	LeftOut []int `json:"left_out,omitempty"`
	// None is why nothing was fitted.
	None string `json:"none,omitempty"`
	// At100 is the formula at 100 servers: an extrapolation, not a measurement.
	At100 float64 `json:"extrapolated_to_100_servers"`
}

// The forms of a Fit. Readers are the processes that read the topic.
const (
	constant = "a"
	shared   = "a + b / readers"
	grows    = "a + b x servers"
)

// form is what a figure of a design must look like, and why.
func form(design, figure string) (form, reason string) {
	d, err := arena.Find(design)
	if err != nil {
		return constant, "an unknown design"
	}
	switch {
	case figure == "ingest" && d.Shares():
		return shared, "readers share the partitions; a is what one asks and is answered without any"
	case figure == "ingest":
		return constant, "every server reads the whole topic"
	case !d.Shares():
		return grows, "every further server reads every record again"
	}
	return grows, "every process has work of its own (fetches, heartbeats, links), whatever it delivers"
}

// spreadLeast is the least that a figure is taken to differ between rounds: nobody measures twice the same.
const spreadLeast = 0.05

// saturated reports whether a design could not do the work of a sample: what came late was not counted, or waited.
func (r *Report) saturated(s *Sample) bool {
	if s.Wrong() || s.Behind() {
		return true
	}
	least := math.Inf(1)
	for i := range r.Samples {
		if o := &r.Samples[i]; o.Design == s.Design && !o.Wrong() {
			least = min(least, o.P50)
		}
	}
	return s.P50 > explodedAt && s.P50 > exploded*least
}

// A median delay has exploded when it is that many milliseconds and that many times the design's least.
const (
	explodedAt = 50
	exploded   = 10
)

func figure(name string) Figure {
	all := Figures()
	return all[slices.IndexFunc(all, func(f Figure) bool { return f.Name == name })]
}

// fit is least squares of the design's form over the medians of each size.
func (r *Report) fit(name, design string, clients int) Fit {
	f := figure(name)
	fit := Fit{Design: design, Figure: name, Clients: clients}
	fit.Form, fit.Reason = form(design, name)
	var points []point
	spread, mean := 0.0, 0.0
	for _, n := range r.servers(design, clients) {
		cell := Cell{n, clients}
		v, why := r.value(f, design, cell)
		if why != "" {
			fit.None = fmt.Sprintf("%d servers %s", n, why)
			return fit
		}
		if name == "cpu" && slices.ContainsFunc(r.at(design, cell), r.saturated) {
			fit.LeftOut = append(fit.LeftOut, n)
			continue
		}
		low, high := math.Inf(1), math.Inf(-1)
		for _, s := range r.at(design, cell) {
			low, high = min(low, f.of(s)), max(high, f.of(s))
		}
		spread = max(spread, high-low)
		points = append(points, point{float64(n), v})
		mean += v
	}
	if len(points) < 3 {
		fit.None = fmt.Sprintf("%d sizes are too few", len(points))
		return fit
	}
	mean /= float64(len(points))
	spread = max(spread, spreadLeast*mean)
	if fit.Form != constant {
		fit.line(points)
		first, last := fit.at(points[0].X), fit.at(points[len(points)-1].X)
		if fit.B < 0 || math.Abs(last-first) <= spread {
			fit.Form, fit.Reason = constant, "what it changes by is within what rounds differ by"
			if fit.B < 0 {
				fit.Reason = "it does not grow"
			}
		}
	}
	if fit.Form == constant {
		fit.A, fit.B = mean, 0
	}
	for _, p := range points {
		d := (fit.at(p.X) - p.Y) / p.Y
		fit.Error += d * d / float64(len(points))
	}
	fit.Error, fit.At100 = math.Sqrt(fit.Error), fit.at(100)
	return fit
}

// line sets A and B by least squares; A is not below zero.
func (f *Fit) line(points []point) {
	var n, sx, sy, sxx, sxy float64
	for _, p := range points {
		x := f.x(p.X)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+p.Y, sxx+x*x, sxy+x*p.Y
	}
	if det := n*sxx - sx*sx; det > 0 {
		f.B = (n*sxy - sx*sy) / det
	}
	if f.A = (sy - f.B*sx) / n; f.A < 0 {
		f.A, f.B = 0, sxy/sxx
	}
}

// x is what B is multiplied by.
func (f *Fit) x(servers float64) float64 {
	switch f.Form {
	case shared:
		return 1 / readers(f.Design, servers)
	case grows:
		return servers
	}
	return 0
}

// readers is how many processes read the topic beside so many servers.
func readers(design string, servers float64) float64 {
	if d, err := arena.Find(design); err == nil && d.Reader() != arena.Server {
		return float64(d.Others(int(servers)))
	}
	return servers
}

func (f *Fit) at(servers float64) float64 { return f.A + f.B*f.x(servers) }

// String is how the page tells it.
func (f *Fit) String() string {
	switch {
	case f.None != "":
		return "not fitted: " + f.None
	case f.Form == constant:
		return fmt.Sprintf("%.3g", f.A)
	case f.Form == grows:
		return fmt.Sprintf("%.3g + %.3g x servers", f.A, f.B)
	}
	return fmt.Sprintf("%.3g + %.3g / readers", f.A, f.B)
}

// slope is the memory in bytes that one more client takes: between the fewest and the most clients at the same number of
// servers, the median over the numbers of servers. What processes take that have few clients is not in it.
func (r *Report) slope(design string) (bytes float64, from, to int, ok bool) {
	all := r.clients()
	if len(all) < 2 {
		return 0, 0, 0, false
	}
	from, to = all[0], all[len(all)-1]
	var slopes []float64
	for _, n := range r.servers(design, to) {
		few, whyFew := r.value(figure("memory"), design, Cell{n, from})
		many, whyMany := r.value(figure("memory"), design, Cell{n, to})
		if whyFew == "" && whyMany == "" {
			slopes = append(slopes, 1024*(many*float64(to)-few*float64(from))/float64(to-from))
		}
	}
	if len(slopes) == 0 {
		return 0, from, to, false
	}
	return median(slopes), from, to, true
}
