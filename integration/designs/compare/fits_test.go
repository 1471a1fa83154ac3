package compare

import (
	"math"
	"strings"
	"testing"
)

// grown are samples of two rounds whose figures are functions of the number of servers.
func grown(design string, cpu, ingest func(servers float64) float64) []Sample {
	var out []Sample
	for round := 1; round <= 2; round++ {
		for _, n := range []int{1, 2, 4, 8} {
			out = append(out, sampled(design, round, n, cpu(float64(n)), 1000*ingest(float64(n))))
		}
	}
	return out
}

func flat(v float64) func(float64) float64 { return func(float64) float64 { return v } }

func TestFitsHaveTheFormOfTheirDesign(t *testing.T) {
	line := func(n float64) float64 { return 10 + 3*n }
	for _, tt := range []struct {
		name, design, figure string
		samples              []Sample
		form                 string
		at100                float64
		left                 int
	}{
		{"everyone reads all", "everyone", "ingest", grown("everyone", line, func(n float64) float64 { return 50 - n }), constant, 46.25, 0},
		{"partitions are shared", "plainrouter", "ingest", grown("plainrouter", line, func(n float64) float64 { return 2 + 40/n }), shared, 2.4, 0},
		{"and not by the servers", "redistributor-cache-http", "ingest", grown("redistributor-cache-http", line, func(n float64) float64 { return 2 + 40/max(1, math.Floor(n/2)) }), shared, 2.8, 0},
		{"cpu grows", "everyone", "cpu", grown("everyone", line, flat(1)), grows, 310, 0},
		{"cpu does not grow", "pointsman", "cpu", grown("pointsman", flat(20), flat(1)), constant, 20, 0},
		{"cpu grows by less than rounds differ", "pointsman", "cpu", func() []Sample {
			all := grown("pointsman", func(n float64) float64 { return 20 + n/10 }, flat(1))
			for i := range all[:4] {
				all[i].CPU += 2
			}
			return all
		}(), constant, 21.375, 0},
		{"saturated by delay", "everyone", "cpu", func() []Sample {
			all := grown("everyone", line, flat(1))
			all[7].CPU, all[7].P50 = 5, 800
			return all
		}(), grows, 310, 1},
		{"saturated by what was not delivered", "everyone", "cpu", func() []Sample {
			all := grown("everyone", line, flat(1))
			all[3].CPU, all[3].Delivered = 5, 98
			return all
		}(), grows, 310, 1},
	} {
		r := &Report{Samples: tt.samples}
		f := r.fit(tt.figure, tt.design, 1000)
		if f.None != "" || f.Form != tt.form || math.Abs(f.At100-tt.at100) > 0.01 || len(f.LeftOut) != tt.left || f.Reason == "" {
			t.Errorf("%s: %+v, want %s with %g at 100 and %d left out", tt.name, f, tt.form, tt.at100, tt.left)
		}
	}
}

func TestTooLittleIsNotFitted(t *testing.T) {
	r := &Report{Samples: grown("everyone", flat(1), flat(1))[:4]}
	r.Samples[2].Delivered, r.Samples[3].Delivered = 5, 5
	if f := r.fit("cpu", "everyone", 1000); f.None == "" || len(f.LeftOut) != 2 {
		t.Errorf("of two sizes: %+v", f)
	}
	r.Samples[1].Outcome = Outcome{Failed: "it did"}
	if f := r.fit("ingest", "everyone", 1000); !strings.Contains(f.String(), "2 servers failed: it did") {
		t.Errorf("of a failure: %s", &f)
	}
}

func TestMemoryGrowsByWhatMoreClientsTake(t *testing.T) {
	var r Report
	for round := 1; round <= 2; round++ {
		for _, c := range append(Cells(1000, 1, 2), Cells(10_000, 1, 2)...) {
			s := sampled("everyone", round, c.Servers, 1, 1)
			s.Clients = c.Clients
			s.Memory = 5000 + 20e6/float64(c.Clients) // 20 MB however many there are
			r.Samples = append(r.Samples, s)
		}
	}
	if got, from, to, ok := r.slope("everyone"); !ok || math.Abs(got-5000) > 1 || from != 1000 || to != 10_000 {
		t.Errorf("one more client takes %.0f bytes (%d to %d, %v), want 5,000", got, from, to, ok)
	}
	r.Samples = r.Samples[:2]
	if _, _, _, ok := r.slope("everyone"); ok {
		t.Error("a slope of one number of clients")
	}
}
