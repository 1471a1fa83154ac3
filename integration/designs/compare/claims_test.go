package compare

import (
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
)

// claimed is a report whose figures bear every claim.
func claimed() *Report {
	r := &Report{Rounds: 1, Rate: 5000, Size: 128, Partitions: 16}
	for _, d := range arena.Designs() {
		for _, c := range append(Cells(1000, 1, 2, 4), Cells(10_000, 1, 2, 4)...) {
			s := sampled(d.Name, 1, c.Servers, 20, 90_000)
			s.Clients, s.Memory, s.Between, s.KafkaCPU = c.Clients, 5000, 7000, 60
			switch {
			case d.Shares():
				s.Ingest /= float64(c.Servers)
			default:
				s.CPU = 8 + 2*float64(c.Servers)
			}
			r.Samples = append(r.Samples, s)
		}
		for _, fault := range []string{KillServer, DrainServer, AddServer} {
			f := Fault{Design: d.Name, Fault: fault, Clients: 1000, Pause: 7000}
			if d.Name != "pointsman" {
				f.Broken = 400
			}
			r.Faults = append(r.Faults, f)
		}
		if d.Other() != "" {
			f := Fault{Design: d.Name, Fault: KillOther, Clients: 1000, Pause: 300}
			f.Broken = 1000
			r.Faults = append(r.Faults, f)
		}
	}
	r.conclude()
	return r
}

func TestClaimsStandOnlyOnTheirFigures(t *testing.T) {
	if page, err := claimed().page("designs"); err != nil || strings.Contains(page, "this run") {
		t.Errorf("the page doubts a claim that the figures bear: %v", err)
	}
	samples := func(design string, change func(*Sample)) func(*Report) {
		return func(r *Report) {
			for i := range r.Samples {
				if r.Samples[i].Design == design {
					change(&r.Samples[i])
				}
			}
		}
	}
	faults := func(design, fault string, change func(*Fault)) func(*Report) {
		return func(r *Report) {
			for i := range r.Faults {
				if r.Faults[i].Design == design && r.Faults[i].Fault == fault {
					change(&r.Faults[i])
				}
			}
		}
	}
	for id, changes := range map[string][]func(*Report){
		"everyone-ingest":       {samples("everyone", func(s *Sample) { s.Ingest /= float64(s.Servers) })},
		"plainrouter-ingest":    {samples("plainrouter", func(s *Sample) { s.Ingest = 5 })},
		"plainrouter-breaks":    {faults("plainrouter", AddServer, func(f *Fault) { f.Broken = 0 })},
		"redistributor-between": {samples("redistributor-cache-http", func(s *Sample) { s.Between = 0 })},
		"pointsman-breaks-none": {
			faults("pointsman", DrainServer, func(f *Fault) { f.Broken = 1 }), faults("pointsman", KillServer, func(f *Fault) { f.Failed = "it did" }),
			func(r *Report) { r.Faults = nil },
		},
		"pointsman-router": {
			faults("pointsman", KillOther, func(f *Fault) { f.Broken = 0 }), faults("pointsman", KillOther, func(f *Fault) { f.Failed = "it did" }),
		},
		"everyone-cheapest": {samples("everyone", func(s *Sample) { s.CPU = 500 }), samples("pointsman", func(s *Sample) { s.Failed = "it did" })},
	} {
		for i, change := range changes {
			r := claimed()
			change(r)
			r.conclude()
			if text, err := r.claim(id); err != nil || !strings.Contains(text, "*this run does not show") {
				t.Errorf("%s stands after change %d: %q, %v", id, i, text, err)
			}
			if page, err := r.page("designs"); err != nil || !strings.Contains(page, "*this run does not show") {
				t.Errorf("%s: the page does not say so: %v", id, err)
			}
		}
	}
	for _, c := range claims() {
		if text, err := claimed().claim(c.id); err != nil || !strings.HasSuffix(text, ")") {
			t.Errorf("%s names no figure: %q, %v", c.id, text, err)
		}
		if !strings.Contains(text, `{{claim "`+c.id+`"}}`) {
			t.Errorf("the page does not make the claim %s", c.id)
		}
	}
}

func TestTheSummaryHasARowForEachDesign(t *testing.T) {
	r := claimed()
	got := r.summary()
	for _, want := range []string{
		"2 servers, 1000 clients, 5000 records/s", "| **everyone** | 12 | 72 | 90 | 4.9 | 400 of 1000 | 7.0 s | has none | servers |",
		"| **pointsman** | 20 | 80 | 45 | 4.9 | 0 of 1000 | 7.0 s | 1000 of 1000, 0.3 s | nodes, routers, etcd |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the summary lacks %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n| **"); n != len(arena.Names()) {
		t.Errorf("%d rows for %d designs", n, len(arena.Names()))
	}
	for _, tt := range []struct{ name, got, want string }{
		{"few", r.few(), "210,000 clients"},
		{"small", r.smallText(), "50,000 records/s"},
		{"large", r.largeText(), "500,000 records/s"},
	} {
		if !strings.HasPrefix(tt.got, tt.want) {
			t.Errorf("%s is %q, want %s", tt.name, tt.got, tt.want)
		}
	}
	for i := range r.Faults {
		r.Faults[i].Failed = "it did"
	}
	if got := r.summary(); strings.Count(got, "| failed | - |") != len(arena.Names()) {
		t.Errorf("failed kills are not shown:\n%s", got)
	}
}
