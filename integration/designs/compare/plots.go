package compare

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/pointsmanhq/pointsman/integration/internal/chart"
)

func hue(i int) color.NRGBA {
	all := []color.NRGBA{
		{200, 60, 50, 255}, {220, 150, 30, 255}, {50, 130, 60, 255}, {120, 170, 60, 255}, {60, 90, 190, 255}, {120, 90, 180, 255}, {20, 20, 20, 255},
	}
	return all[i%len(all)]
}

// draw writes one SVG for each figure that grows: what was measured, and the fitted line broken beyond it.
func (r *Report) draw(dir string) error {
	for _, f := range Figures() {
		if f.Name != "ingest" && f.Name != "cpu" {
			continue
		}
		var row []*plot.Plot
		for _, clients := range r.clients() {
			p, err := r.plot(f, clients)
			if err != nil {
				return fmt.Errorf("draw %s: %w", f.Name, err)
			}
			row = append(row, p)
		}
		var out bytes.Buffer
		if _, err := chart.Tile([][]*plot.Plot{row}, vg.Points(460)*vg.Length(len(row)), vg.Points(330)).WriteTo(&out); err != nil {
			return fmt.Errorf("draw %s: %w", f.Name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name+".svg"), out.Bytes(), 0o644); err != nil { //nolint:gosec // for everybody to read
			return err
		}
	}
	return nil
}

func (r *Report) plot(f Figure, clients int) (*plot.Plot, error) {
	p := plot.New()
	chart.Small(p)
	p.Title.Text = fmt.Sprintf("%s, %d clients (broken: fitted, beyond what was measured)", f.Title, clients)
	p.X.Label.Text, p.Y.Label.Text = "servers", f.Unit
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker = plot.ConstantTicks([]plot.Tick{{Value: 1, Label: "1"}, {Value: 2, Label: "2"}, {Value: 4, Label: "4"}, {Value: 8, Label: "8"}, {Value: 100, Label: "100"}})
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	top, bottom := 0.0, math.Inf(1)
	for i, d := range r.designs() {
		var xy, beyond plotter.XYs
		for _, one := range r.series(f, d, clients) {
			if one.Y > 0 {
				xy = append(xy, plotter.XY(one))
			}
		}
		if len(xy) == 0 {
			continue
		}
		for j := range r.Fits {
			if fit := &r.Fits[j]; fit.Figure == f.Name && fit.Design == d && fit.Clients == clients && fit.None == "" {
				for x := xy[len(xy)-1].X; x <= 100; x *= 1.1 {
					if y := fit.at(x); y > 0 {
						beyond = append(beyond, plotter.XY{X: x, Y: y})
					}
				}
			}
		}
		line, points, err := plotter.NewLinePoints(xy)
		if err != nil {
			return nil, err
		}
		line.Color, points.Color, line.Width = hue(i), hue(i), vg.Points(1.2)
		points.Shape = draw.CircleGlyph{}
		p.Add(line, points)
		p.Legend.Add(d, line)
		if len(beyond) > 1 {
			dashed, err := plotter.NewLine(beyond)
			if err != nil {
				return nil, err
			}
			dashed.Color, dashed.Dashes = hue(i), []vg.Length{vg.Points(3), vg.Points(3)}
			p.Add(dashed)
		}
		for _, one := range append(xy, beyond...) {
			top, bottom = max(top, one.Y), min(bottom, one.Y)
		}
	}
	p.X.Min, p.X.Max = 1, 100
	p.Y.Min, p.Y.Max = bottom/1.3, top*8 // room for the legend
	p.Legend.Top, p.Legend.Left = true, true
	return p, nil
}
