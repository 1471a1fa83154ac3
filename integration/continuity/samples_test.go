package continuity

import (
	"math"
	"testing"
)

func TestSlopeIsPercentAnHourAndBurstsAreNone(t *testing.T) {
	var at, grows, still, burst, unanswered []float64
	for s := 0.0; s < 600; s++ {
		noise := float64(int(s)%7) - 3
		at = append(at, 1000+s)
		grows = append(grows, 1e6*(1+0.06*(s-300)/3600)+noise)
		still = append(still, 1e6+noise)
		swollen := 1e6 + noise
		if s >= 560 && s < 585 {
			swollen *= 1.5
		}
		burst = append(burst, swollen)
		v := 200.0
		if int(s)%10 < 3 {
			v = 0
		}
		unanswered = append(unanswered, v)
	}
	for _, c := range []struct {
		name   string
		values []float64
		want   float64
	}{{"six percent", grows, 6}, {"still", still, 0}, {"a burst near the end", burst, 0}, {"frozen at times", unanswered, 0}, {"nothing", nil, 0}} {
		if got := perHour(at, c.values); math.Abs(got-c.want) > 0.05 {
			t.Errorf("%s: %.3f %% an hour, want %.1f", c.name, got, c.want)
		}
	}
}

func TestOnlyLongLivesAreJudged(t *testing.T) {
	life := func(from, to float64) Process {
		p := Process{Name: "node-1"}
		for s := from; s <= to; s++ {
			v := int64(1000)
			if s < settling {
				v = int64(s) // growing into its work
			}
			p.Samples = append(p.Samples, Sample{At: s, RSS: v * 1000, Goroutines: 10})
		}
		return p
	}
	if s, ok := slopeOf(life(0, 1800), 1800); !ok || !s.Judged || s.From != settling || s.RSS != 0 {
		t.Errorf("a long life: %+v, %v", s, ok)
	}
	broker := life(0, 1800)
	broker.Name = "kafka"
	if s, ok := slopeOf(broker, 1800); !ok || s.Judged || s.From != settling {
		t.Errorf("somebody else's long life: %+v, %v, want it told and not judged", s, ok)
	}
	if s, ok := slopeOf(life(0, 590), 600); !ok || s.Judged || s.From != 295 {
		t.Errorf("a whole run of ten minutes: %+v, %v, want it told and not judged", s, ok)
	}
	if s, ok := slopeOf(life(100, 400), 600); ok {
		t.Errorf("half a run of ten minutes: %+v, want nothing", s)
	}
}
