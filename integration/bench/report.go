package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Report is what a run amounts to. Nothing in it names a machine or a path.
type Report struct {
	Command string    `json:"command"`
	Version string    `json:"version"` // of the programs, from git
	Machine string    `json:"machine"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Began   time.Time `json:"began"`
	Took    float64   `json:"took_seconds"`
	Full    bool      `json:"full"`
	Partial bool      `json:"partial,omitempty"` // it was stopped early
	Rounds  int       `json:"rounds"`
	Seconds float64   `json:"seconds"` // of a steady measurement
	Scale   float64   `json:"scale"`
	Results []*Result `json:"results"`
	Bars    []Bar     `json:"bars"`
}

// Result is all samples of one scenario.
type Result struct {
	Scenario Scenario `json:"scenario"`
	Samples  []Sample `json:"samples"`
	Again    string   `json:"again,omitempty"` // how it was measured, if not in the report's own run
}

// Sample is one measurement of one subject.
type Sample struct {
	Subject string             `json:"subject"`
	Round   int                `json:"round"`
	Failed  string             `json:"failed,omitempty"` // a sample that failed counts for nothing else
	Figures map[string]float64 `json:"figures"`
}

// Spread is a figure over all rounds.
type Spread struct{ Median, Least, Most float64 }

func spreadOf(values []float64) Spread {
	slices.Sort(values)
	n := len(values)
	s := Spread{Median: values[n/2], Least: values[0], Most: values[n-1]}
	if n%2 == 0 {
		s.Median = (values[n/2-1] + values[n/2]) / 2
	}
	return s
}

func (s Spread) String() string {
	if s.Least == s.Most {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s-%s)", number(s.Median), number(s.Least), number(s.Most))
}

// spread is a figure of one subject; false when no sample has it.
func (r *Result) spread(subject, name string) (Spread, bool) {
	var values []float64
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Subject == subject && s.Failed == "" {
			if v, ok := s.Figures[name]; ok {
				values = append(values, v)
			}
		}
	}
	if len(values) == 0 {
		return Spread{}, false
	}
	return spreadOf(values), true
}

// pairs makes one value of the product's and the floor's samples of each round.
func (r *Result) pairs(name string, of func(product, floor float64) float64) (Spread, bool) {
	var values []float64
	for i := range r.Samples {
		for j := range r.Samples {
			p, f := &r.Samples[i], &r.Samples[j]
			if p.Subject != product || f.Subject != floorProgram || p.Round != f.Round || p.Failed != "" || f.Failed != "" {
				continue
			}
			a, has := p.Figures[name]
			if b, both := f.Figures[name]; has && both {
				values = append(values, of(a, b))
			}
		}
	}
	if len(values) == 0 {
		return Spread{}, false
	}
	return spreadOf(values), true
}

func ratio(product, floor float64) float64 {
	if floor == 0 {
		return 0
	}
	return product / floor
}

func difference(product, floor float64) float64 { return product - floor }

// result finds a scenario; nil when it was not run.
func (rep *Report) result(name string) *Result {
	for _, r := range rep.Results {
		if r.Scenario.Name == name {
			return r
		}
	}
	return nil
}

func (rep *Report) median(scenario, subject, name string) (float64, bool) {
	if r := rep.result(scenario); r != nil {
		s, ok := r.spread(subject, name)
		return s.Median, ok
	}
	return 0, false
}

// Failures are what went wrong, one line each.
func (rep *Report) Failures() (out []string) {
	for _, r := range rep.Results {
		for i := range r.Samples {
			if s := &r.Samples[i]; s.Failed != "" {
				out = append(out, fmt.Sprintf("%s, %s, round %d: %s", r.Scenario.Name, s.Subject, s.Round+1, s.Failed))
			}
		}
	}
	return out
}

// noisy is the share of the machine that others may use before figures mean little.
const noisy = 0.1

// others is the largest share of the machine that others used during a sample.
func (rep *Report) others() (worst float64) {
	for _, r := range rep.Results {
		for i := range r.Samples {
			worst = max(worst, r.Samples[i].Figures["others_share"])
		}
	}
	return worst
}

// behind is true when the product or the floor did not keep up with what was written: what they cost then is the cost
// of larger pieces, and not to be compared.
func (r *Result) behind() bool {
	for _, subject := range []string{product, floorProgram} {
		if s, ok := r.spread(subject, "kept_up"); ok && s.Median < 0.97 {
			return true
		}
	}
	return false
}

// brief is a sample in a line.
func (s *Sample) brief(of *Scenario) string {
	if s.Failed != "" {
		return "FAILED: " + s.Failed
	}
	var words []string
	for _, f := range figures() {
		if v, ok := s.Figures[f.name]; ok && of.shown(&f) && len(words) < 6 && !strings.HasPrefix(f.text, " ") {
			words = append(words, f.name+" "+number(v))
		}
	}
	return strings.Join(words, "  ")
}

// String is the table.
func (rep *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s; Linux %s, %s; version %s; medians of %d rounds (least-most), %s s each\n",
		rep.Command, rep.Machine, rep.Kernel, rep.Go, rep.Version, rep.Rounds, number(rep.Seconds))
	for _, r := range rep.Results {
		if len(r.Samples) > 0 {
			r.table(&b)
		}
	}
	b.WriteString("\n")
	if worst := rep.others(); worst > noisy {
		fmt.Fprintf(&b, "NOISY: other programs used up to %.0f %% of the machine; these figures say little\n", worst*100)
	}
	for _, bar := range rep.Bars {
		fmt.Fprintf(&b, "%s\n", bar)
	}
	for _, f := range rep.Failures() {
		fmt.Fprintf(&b, "FAILED: %s\n", f)
	}
	if rep.Partial {
		b.WriteString("stopped early\n")
	}
	return b.String()
}

func (r *Result) table(b *strings.Builder) {
	s := &r.Scenario
	fmt.Fprintf(b, "\n%s: %s (%d bytes, %d routers, %d nodes)\n", s.Name, s.About, s.Size, s.Routers, s.Nodes)
	if s.RouterFlags != "" {
		fmt.Fprintf(b, "  routers with %s\n", s.RouterFlags)
	}
	if r.Again != "" {
		fmt.Fprintf(b, "  measured again by %s\n", r.Again)
	}
	fmt.Fprintf(b, "  %-37s %24s %24s %16s\n", "", product, floorProgram, "ratio")
	for _, f := range figures() {
		if !s.shown(&f) {
			continue
		}
		own, ok := r.spread(product, f.name)
		if !ok {
			continue
		}
		floor, times := "", ""
		if sp, ok := r.spread(floorProgram, f.name); ok {
			floor = sp.String()
			if q, ok := r.pairs(f.name, ratio); ok && f.name != "others_share" {
				times = q.String()
			}
		}
		fmt.Fprintf(b, "  %-37s %24s %24s %16s\n", f.text, own, floor, times)
	}
}

// Write puts the report into a file.
func (rep *Report) Write(path string) error {
	text, err := rep.encode()
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// encode writes one line for each sample, so that changes can be read.
func (rep *Report) encode() ([]byte, error) {
	var out bytes.Buffer
	head := *rep
	head.Results = nil
	text, err := json.MarshalIndent(&head, "", " ")
	if err != nil {
		return nil, err
	}
	before, after, _ := bytes.Cut(text, []byte(`"results": null`))
	out.Write(before)
	out.WriteString(`"results": [`)
	for i, r := range rep.Results {
		scenario, err := json.Marshal(&r.Scenario)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%s\n  {\"scenario\": %s,", comma(i), scenario)
		if r.Again != "" {
			fmt.Fprintf(&out, "\n   \"again\": %q,", r.Again)
		}
		out.WriteString("\n   \"samples\": [")
		for j := range r.Samples {
			sample, err := json.Marshal(&r.Samples[j])
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&out, "%s\n    %s", comma(j), sample)
		}
		out.WriteString("]}")
	}
	out.WriteString("\n ]")
	out.Write(after)
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func comma(i int) string {
	if i > 0 {
		return ","
	}
	return ""
}

// Amend puts what a later run has measured again in the place of what was there, and judges anew.
func (rep *Report) Amend(later *Report) {
	for _, r := range later.Results {
		again := *r
		again.Again = fmt.Sprintf("%s, version %s, %d rounds of %s s", later.Command, later.Version, later.Rounds, number(later.Seconds))
		if was := rep.result(r.Scenario.Name); was != nil {
			*was = again
		} else {
			rep.Results = append(rep.Results, &again)
		}
	}
	rep.judge()
}

// Load reads a report.
func Load(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load a report: %w", err)
	}
	rep := new(Report)
	if err := json.Unmarshal(text, rep); err != nil {
		return nil, fmt.Errorf("load report %s: %w", path, err)
	}
	return rep, nil
}
