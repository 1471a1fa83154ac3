package continuity

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/pointsmanhq/pointsman/integration/internal/chart"
)

// hue is the colour of a family of faults in a timeline.
type hue struct {
	name  string
	kinds []Kind
	color color.NRGBA
}

func hues() []hue {
	return []hue{
		{"node killed", []Kind{Kill, Crash}, color.NRGBA{200, 40, 40, 120}},
		{"node drained, restarted, joined, left", []Kind{Drain, Rolling, Join, Leave}, color.NRGBA{60, 150, 60, 110}},
		{"node frozen, cut off, in a black hole", []Kind{Freeze, Cut, Hole}, color.NRGBA{70, 90, 200, 110}},
		{"etcd killed, frozen, wiped", []Kind{EtcdKill, EtcdOutage, EtcdFreeze, EtcdWipe}, color.NRGBA{230, 170, 40, 110}},
		{"Kafka restarted", []Kind{Kafka}, color.NRGBA{40, 40, 40, 110}},
		{"group emptied, deleted", []Kind{GroupEmpty, GroupDelete}, color.NRGBA{150, 80, 170, 110}},
		{"router ended", []Kind{RouterTerm, RouterKill}, color.NRGBA{40, 170, 180, 110}},
	}
}

// draw writes the plots of a report into a folder.
func (rep *Report) draw(dir string) error {
	for _, name := range plotsOf(rep) {
		var c *vgsvg.Canvas
		var err error
		switch name {
		case "pauses":
			c, err = rep.drawPauses()
		case "timeline":
			c, err = rep.drawTimeline()
		default:
			c, err = rep.drawMemory()
		}
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if _, err := c.WriteTo(&out); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, rep.Name()+"-"+name+".svg"), out.Bytes(), 0o644); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	return nil
}

// drawPauses is one histogram for each kind of fault, all over the same axis of time.
func (rep *Report) drawPauses() (*vgsvg.Canvas, error) {
	const cols = 4
	var rows [][]*plot.Plot
	for i, pauses := range rep.Pauses {
		p, err := pauses.plot()
		if err != nil {
			return nil, err
		}
		if i%cols == 0 {
			rows = append(rows, make([]*plot.Plot, cols))
		}
		rows[i/cols][i%cols] = p
	}
	if len(rows) == 0 {
		rows = [][]*plot.Plot{{plot.New()}}
	}
	return chart.Tile(rows, vg.Points(900), vg.Points(140)*vg.Length(len(rows))), nil
}

func (p *Pauses) plot() (*plot.Plot, error) {
	out := plot.New()
	chart.Small(out)
	out.Title.Text = fmt.Sprintf("%s (%d): p99 %s, max %s", p.Kind, p.Faults, short(p.P99), short(p.Max))
	out.X.Scale, out.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks(pauseTicks())
	out.X.Min, out.X.Max = 0.5, 40_000
	out.Y.Min, out.Y.Label.Text = 0, "share"
	edges, bins := Edges(), []plotter.HistogramBin{}
	for i, n := range p.Buckets {
		bin := plotter.HistogramBin{Min: 0.5, Max: 40_000, Weight: float64(n) / float64(max(1, p.Affected))}
		if i > 0 {
			bin.Min = milliseconds(edges[i-1])
		}
		if i < len(edges) {
			bin.Max = milliseconds(edges[i])
		}
		bins = append(bins, bin)
	}
	h := &plotter.Histogram{Bins: bins, FillColor: color.NRGBA{70, 110, 180, 255}, LineStyle: draw.LineStyle{Width: 0}}
	out.Add(h)
	out.Y.Min = 0
	for _, l := range []struct {
		at    time.Duration
		color color.Color
	}{{p.P99, color.NRGBA{0, 0, 0, 255}}, {p.Bound, color.NRGBA{200, 30, 30, 255}}} {
		if l.at > 0 {
			out.Add(&rule{x: milliseconds(l.at), style: draw.LineStyle{Color: l.color, Width: vg.Points(1), Dashes: []vg.Length{vg.Points(3), vg.Points(2)}}})
		}
	}
	return out, nil
}

func pauseTicks() []plot.Tick {
	var ticks []plot.Tick
	for _, t := range []struct {
		ms   float64
		text string
	}{{1, "1 ms"}, {10, "10 ms"}, {100, "100 ms"}, {1000, "1 s"}, {10000, "10 s"}} {
		ticks = append(ticks, plot.Tick{Value: t.ms, Label: t.text})
	}
	return ticks
}

// rule is a line across a plot at one x.
type rule struct {
	x     float64
	style draw.LineStyle
}

// Plot draws it.
func (r *rule) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	c.StrokeLine2(r.style, x(r.x), c.Min.Y, x(r.x), c.Max.Y)
}

// band is a time of a fault.
type band struct {
	from, to float64
	color    color.Color
}

// Plot draws it over the whole height.
func (b *band) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	from, to := x(b.from), max(x(b.to), x(b.from)+vg.Points(1))
	c.FillPolygon(b.color, []vg.Point{{X: from, Y: c.Min.Y}, {X: to, Y: c.Min.Y}, {X: to, Y: c.Max.Y}, {X: from, Y: c.Max.Y}})
}

// Thumbnail is its place in the legend.
func (b *band) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(b.color, []vg.Point{{X: c.Min.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Max.Y}, {X: c.Min.X, Y: c.Max.Y}})
}

// marked is a plot over the run's time with its faults behind.
func (rep *Report) marked(title, unit string) *plot.Plot {
	p := plot.New()
	chart.Small(p)
	p.Title.Text, p.Y.Label.Text, p.X.Label.Text = title, unit, "seconds"
	for _, f := range rep.Faults {
		for _, h := range hues() {
			for _, k := range h.kinds {
				if k == f.Kind {
					ended := f.Ended
					if ended.IsZero() {
						ended = f.Began
					}
					p.Add(&band{from: f.Began.Sub(rep.Began).Seconds(), to: ended.Sub(rep.Began).Seconds(), color: h.color})
				}
			}
		}
	}
	p.X.Min, p.X.Max = 0, rep.Took
	return p
}

// drawTimeline shows how many records arrived in each second, and the longest delay among them.
func (rep *Report) drawTimeline() (*vgsvg.Canvas, error) {
	rate := rep.marked(fmt.Sprintf("records delivered to %d clients", rep.Options.Clients), "records per second")
	late := rep.marked("longest delay of a record that arrived in the second", "milliseconds")
	var records, longest plotter.XYs
	top := 100.0
	for s, one := range rep.Timeline {
		records = append(records, plotter.XY{X: float64(s), Y: float64(one.Records)})
		longest = append(longest, plotter.XY{X: float64(s), Y: math.Max(1, one.Longest)})
		top = math.Max(top, one.Longest)
	}
	for _, one := range []struct {
		p    *plot.Plot
		data plotter.XYs
	}{{rate, records}, {late, longest}} {
		line, err := plotter.NewLine(one.data)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = color.NRGBA{20, 20, 60, 255}, vg.Points(0.7)
		one.p.Add(line)
	}
	rate.Y.Min = 0
	late.Y.Scale, late.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	late.Y.Min, late.Y.Max = 1, top*1.2
	for _, h := range hues() {
		rate.Legend.Add(h.name, &band{color: h.color})
	}
	rate.Legend.Top, rate.Legend.Left, rate.Legend.XOffs = true, true, vg.Points(6)
	rate.Y.Max *= 1.8 // room for the legend
	return chart.Tile([][]*plot.Plot{{rate}, {late}}, vg.Points(1100), vg.Points(520)), nil
}

// drawMemory shows each process's memory and goroutines.
func (rep *Report) drawMemory() (*vgsvg.Canvas, error) {
	colors := map[string]color.NRGBA{roleRouter: {20, 120, 140, 255}, roleNode: {40, 90, 40, 255}}
	memory := rep.marked("resident memory of each router and node", "MB")
	routines := rep.marked("goroutines", "")
	named := make(map[string]bool)
	for _, proc := range rep.Processes {
		if proc.Role != roleRouter && proc.Role != roleNode {
			continue
		}
		var rss, g plotter.XYs
		for _, s := range proc.Samples {
			rss = append(rss, plotter.XY{X: s.At, Y: float64(s.RSS) / (1 << 20)})
			if s.Goroutines > 0 {
				g = append(g, plotter.XY{X: s.At, Y: float64(s.Goroutines)})
			}
		}
		for _, one := range []struct {
			p    *plot.Plot
			data plotter.XYs
		}{{memory, rss}, {routines, g}} {
			if len(one.data) == 0 {
				continue
			}
			line, err := plotter.NewLine(one.data)
			if err != nil {
				return nil, err
			}
			line.Color, line.Width = colors[proc.Role], vg.Points(0.9)
			one.p.Add(line)
			if one.p == memory && !named[proc.Role] {
				named[proc.Role] = true
				memory.Legend.Add(proc.Role, line)
			}
		}
	}
	memory.Y.Min, routines.Y.Min = 0, 0
	memory.Legend.Top = true
	return chart.Tile([][]*plot.Plot{{memory}, {routines}}, vg.Points(1100), vg.Points(420)), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
