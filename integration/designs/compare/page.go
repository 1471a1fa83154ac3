package compare

import (
	_ "embed" // the page's text
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed page.md
var text string

// Publish writes compare.json and the plots into a folder, and the page beside it. A full report in which something went
// wrong is not for the page: whoever reads it would compare what went well.
func (r *Report) Publish(dir string) error {
	if err := r.publishable(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("publish the comparison: %w", err)
	}
	if err := r.Write(filepath.Join(dir, "compare.json")); err != nil {
		return err
	}
	return Page(dir)
}

func (r *Report) publishable() error {
	if err := r.Err(); err != nil && !r.Quick {
		return fmt.Errorf("the comparison is not published: %w", err)
	}
	return nil
}

// Page draws the plots and writes the page of the compare.json in a folder: docs/designs.md for docs/designs.
func Page(dir string) error {
	r, err := Read(filepath.Join(dir, "compare.json"))
	if err != nil {
		return err
	}
	if err := r.publishable(); err != nil {
		return err
	}
	r.conclude()
	if err := r.draw(dir); err != nil {
		return err
	}
	page, err := r.page(filepath.Base(dir))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Clean(dir)+".md", []byte(page), 0o644) //nolint:gosec // for everybody to read
}

func (r *Report) page(folder string) (string, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"table": r.table, "faults": r.faultTable, "why": r.why, "orderings": r.orderingList, "fits": r.fitTable, "clients": r.clients,
		"summary": r.summary, "claim": r.claim, "few": r.few, "small": r.smallText, "large": r.largeText,
	}).Parse(text)
	if err != nil {
		return "", fmt.Errorf("write the page: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, struct {
		*Report
		Folder string
	}{r, folder}); err != nil {
		return "", fmt.Errorf("write the page: %w", err)
	}
	return b.String(), nil
}

// String is the tables, for a terminal.
func (r *Report) String() string {
	var b strings.Builder
	for _, n := range r.clients() {
		fmt.Fprintf(&b, "%d clients\n%s\n", n, r.table(n))
	}
	if len(r.Faults) > 0 {
		b.WriteString(r.faultTable())
	}
	return b.String()
}

// number has as many digits as it is worth.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// table has a row for each design and number of servers; medians over the rounds.
func (r *Report) table(clients int) string {
	var b strings.Builder
	b.WriteString("| design | servers |")
	for _, f := range Figures() {
		fmt.Fprintf(&b, " %s, %s |", f.Title, f.Unit)
	}
	b.WriteString(" delivered of produced | lost | repeated | reordered |\n|---|---|" + strings.Repeat("---|", len(Figures())+4) + "\n")
	for _, d := range r.designs() {
		for _, n := range r.servers(d, clients) {
			fmt.Fprintf(&b, "| %s | %d |", d, n)
			cell := Cell{n, clients}
			for i, f := range Figures() {
				v, why := r.value(f, d, cell)
				switch {
				case why == "":
					fmt.Fprintf(&b, " %s |", number(v))
				case i == 0:
					fmt.Fprintf(&b, " %s |", why)
				default:
					b.WriteString(" - |")
				}
			}
			var o Outcome
			share := 1.0
			for _, s := range r.at(d, cell) {
				if s.Produced > 0 { // reports of before it was counted have none
					share = min(share, float64(s.Delivered)/float64(s.Produced))
				}
				if s.Failed != "" {
					o.Failed = s.Failed
				}
				o.Lost, o.Repeated, o.Reordered = o.Lost+s.Lost, o.Repeated+s.Repeated, o.Reordered+s.Reordered
			}
			if o.Failed != "" {
				b.WriteString(" - | - | - | - |\n") // what was not looked at is not zero
				continue
			}
			behind := ""
			if share < kept {
				behind = " **behind**"
			}
			fmt.Fprintf(&b, " %.1f %%%s | %d | %d | %d |\n", 100*share, behind, o.Lost, o.Repeated, o.Reordered)
		}
	}
	return b.String()
}

// worst is the worst of all rounds of a fault, figure by figure; one that failed is as bad as it gets. ok is false
// where there was none.
func (r *Report) worst(design, fault string) (w Fault, ok bool) {
	for i := range r.Faults {
		g := &r.Faults[i]
		if g.Fault != fault || g.Design != design {
			continue
		}
		if !ok {
			w, ok = *g, true
			continue
		}
		w.Broken, w.Lost, w.Repeated, w.Reordered = max(w.Broken, g.Broken), max(w.Lost, g.Lost), max(w.Repeated, g.Repeated), max(w.Reordered, g.Reordered)
		w.Other, w.P99 = max(w.Other, g.Other), max(w.P99, g.P99)
		if g.Pause > w.Pause {
			w.Pause, w.Latest = g.Pause, g.Latest
		}
		if w.Failed == "" {
			w.Failed = g.Failed
		}
		if w.First == "" {
			w.First = g.First
		}
		if w.FirstBroken == "" {
			w.FirstBroken = g.FirstBroken
		}
	}
	return w, ok
}

// faultDesigns are the designs to which a fault was done.
func (r *Report) faultDesigns(fault string) (out []string) {
	for i := range r.Faults {
		if f := &r.Faults[i]; f.Fault == fault && !slices.Contains(out, f.Design) {
			out = append(out, f.Design)
		}
	}
	return out
}

// faultTable has the worst of all rounds.
func (r *Report) faultTable() string {
	var b strings.Builder
	b.WriteString("| fault | design | sockets broken | lost | repeated | reordered | other findings | longest pause | p99 of clients' longest |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, fault := range AllFaults() {
		for _, d := range r.faultDesigns(fault) {
			f, _ := r.worst(d, fault)
			if f.Failed != "" {
				fmt.Fprintf(&b, "| %s | %s | failed: %s | - | - | - | - | - | - |\n", fault, d, line(f.Failed))
				continue
			}
			fmt.Fprintf(&b, "| %s | %s | %d of %d | %d | %d | %d | %d | %.1f s | %.1f s |\n", fault, d, f.Broken, f.Clients, f.Lost, f.Repeated, f.Reordered, f.Other, f.Pause/1000, f.P99/1000)
		}
	}
	return b.String()
}

func (r *Report) orderingList() string {
	if r.Quick {
		return "A quick run orders nothing.\n"
	}
	var b strings.Builder
	for _, f := range Figures() {
		var lines []string
		for _, less := range r.designs() {
			var more []string
			for _, o := range r.Orderings {
				if o.Figure == f.Name && o.Less == less {
					more = append(more, fmt.Sprintf("%s (%.1f to %.1f times, %d of %d pairs)", o.More, o.Least, o.Most, o.Held, o.Held))
				}
			}
			if len(more) > 0 {
				lines = append(lines, fmt.Sprintf("  - %s below %s\n", less, strings.Join(more, ", ")))
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(&b, "- **%s** (`%s`)\n%s", f.Title, f.Name, strings.Join(lines, ""))
		}
	}
	if b.Len() == 0 {
		return "None held in every sample.\n"
	}
	return b.String()
}

func (r *Report) fitTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| figure | design | clients | fitted | why that form | left out | relative error | **extrapolated** to 100 servers, still %.0f records/s |\n|---|---|---|---|---|---|---|---|\n", r.Rate)
	for i := range r.Fits {
		f := &r.Fits[i]
		left := "-"
		if len(f.LeftOut) > 0 {
			left = strings.Trim(fmt.Sprint(f.LeftOut), "[]") + " servers: saturated"
		}
		fmt.Fprintf(&b, "| %s, %s | %s | %d | %s |", f.Figure, figure(f.Figure).Unit, f.Design, f.Clients, f)
		if f.None != "" {
			fmt.Fprintf(&b, " %s | %s | - | - |\n", f.Reason, left)
			continue
		}
		at := number(f.At100)
		if n := readers(f.Design, 100); f.Form == shared && n > float64(r.Partitions) {
			at += fmt.Sprintf(" (with %.0f partitions or more, not %d)", n, r.Partitions)
		}
		fmt.Fprintf(&b, " %s | %s | %.0f %% | %s |\n", f.Reason, left, 100*f.Error, at)
	}
	b.WriteString("\n| design | memory that one more client takes, KB | between | **extrapolated** to 1,000,000 clients, GB |\n|---|---|---|---|\n")
	for _, d := range r.designs() {
		m, from, to, ok := r.slope(d)
		if !ok {
			fmt.Fprintf(&b, "| %s | not measured at two numbers of clients | - | - |\n", d)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %d and %d clients | %s |\n", d, number(m/1024), from, to, number(m*1e6/(1<<30)))
	}
	return b.String()
}
