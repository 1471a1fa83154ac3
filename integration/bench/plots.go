package bench

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/pointsmanhq/pointsman/integration/internal/chart"
)

// picture is one plot: a figure of several scenarios, the product's beside the floor's.
type picture struct {
	file, title, unit string
	figures           []string // drawn below each other
	of                func(s *Scenario) bool
}

func pictures() []picture {
	steady := func(s *Scenario) bool { return s.Work == pace && !s.OneKey && s.Floor }
	return []picture{
		{"cpu", "CPU per delivered message", "us", []string{"cpu_us"}, func(s *Scenario) bool { return s.Floor && s.Work != idle && s.Work != unheard }},
		{"delays", "delay of a record, from the producer to the client", "ms", []string{"p50_ms", "p99_ms"}, steady},
		{"clients", "what a client costs", "", []string{"rss_kb", "accept_us"}, func(s *Scenario) bool { return s.Work == idle }},
	}
}

// Publish writes the report, its plots and a README.md into a folder.
func (rep *Report) Publish(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("publish the report: %w", err)
	}
	if err := rep.Write(filepath.Join(dir, "bench.json")); err != nil {
		return err
	}
	var drawn []string
	for _, p := range pictures() {
		svg, err := p.draw(rep)
		if err != nil {
			return fmt.Errorf("draw %s: %w", p.file, err)
		}
		if svg == nil {
			continue
		}
		drawn = append(drawn, p.file)
		if err := os.WriteFile(filepath.Join(dir, p.file+".svg"), svg, 0o644); err != nil { //nolint:gosec // for everybody to read
			return fmt.Errorf("publish the report: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(rep.page(drawn)), 0o644); err != nil { //nolint:gosec // as above
		return fmt.Errorf("publish the report: %w", err)
	}
	return nil
}

func (rep *Report) page(drawn []string) string {
	var b strings.Builder
	b.WriteString(`# What Pointsman costs

Made by the command below, which ran Apache Kafka, etcd, routers and nodes as processes with their default settings, and in
turn with them, round by round, the *floor*: [the cheapest program](../../integration/cmd/floor/main.go) that could do the
same work without any guarantee. Read the ratios; the figures themselves are this machine's, which the clients, the producer
and Kafka share.

- CPU is user and system time of the measured processes by the kernel's count, over the messages that arrived.
- A delay runs from the moment at which the producer was given the record to the one at which the client's kernel had it.
- Memory is what routers and nodes gained, resident, from before the first client to some time after the last.
- Every client checks the sequence of what it receives; a sample with anything lost, repeated or out of order has failed.
- A burst becomes visible at once, by the end of a transaction. A handover runs from a claim's appearance in etcd to the
  moment at which the last session has left its old stream.

`)
	fmt.Fprintf(&b, "```sh\n%s\n```\n\n%s; Linux %s, %s; version %s; %s; %d rounds of %s s.\n\n", rep.Command, rep.Machine, rep.Kernel, rep.Go, rep.Version,
		rep.Began.UTC().Format("2006-01-02"), rep.Rounds, number(rep.Seconds))
	for _, name := range drawn {
		fmt.Fprintf(&b, "![%s](%s.svg)\n", name, name)
	}
	fmt.Fprintf(&b, "\n```\n%s```\n", rep)
	return b.String()
}

// draw makes the picture; nil when nothing of it was measured.
func (p *picture) draw(rep *Report) ([]byte, error) {
	var rows [][]*plot.Plot
	for _, name := range p.figures {
		one, err := p.plot(rep, name)
		if err != nil {
			return nil, err
		}
		if one != nil {
			rows = append(rows, []*plot.Plot{one})
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	if _, err := chart.Tile(rows, vg.Points(800), vg.Points(220)*vg.Length(len(rows))).WriteTo(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (p *picture) plot(rep *Report, name string) (*plot.Plot, error) {
	var labels []string
	bars := map[string]plotter.Values{}
	for _, r := range rep.Results {
		own, ok := r.spread(product, name)
		if !ok || !p.of(&r.Scenario) {
			continue
		}
		floor, _ := r.spread(floorProgram, name) // none is drawn as nothing
		labels = append(labels, strings.Replace(r.Scenario.Name, "-over-", "\nover-", 1))
		bars[product], bars[floorProgram] = append(bars[product], own.Median), append(bars[floorProgram], floor.Median)
	}
	if len(labels) == 0 {
		return nil, nil
	}
	out := plot.New()
	chart.Small(out)
	out.Title.Text = p.title
	for _, f := range figures() {
		if f.name == name {
			out.Title.Text += ": " + strings.TrimSpace(f.text)
		}
	}
	out.Y.Min, out.Y.Label.Text = 0, p.unit
	width := vg.Points(min(18, 500/float64(len(labels))/3))
	for i, subject := range []string{product, floorProgram} {
		chart, err := plotter.NewBarChart(bars[subject], width)
		if err != nil {
			return nil, err
		}
		chart.LineStyle.Width = 0
		chart.Color = []color.NRGBA{{40, 90, 170, 255}, {170, 170, 170, 255}}[i]
		chart.Offset = width * (vg.Length(i) - 0.5)
		out.Add(chart)
		out.Legend.Add(subject, chart)
	}
	// Its text is to the right of its colour: fonts differ, and there is room for longer ones.
	out.Legend.Top, out.Legend.Left, out.Legend.XOffs = true, true, vg.Points(620)
	out.Y.Max = slices.Max(append(slices.Clone(bars[product]), bars[floorProgram]...))*1.3 + 1e-9 // room for the legend
	out.NominalX(labels...)
	out.X.Min, out.X.Max = -0.5, float64(len(labels))-0.5
	return out, nil
}
