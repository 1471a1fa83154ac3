package continuity

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

func drawn(seed uint64, kinds []Kind, length time.Duration, overlap bool, n int) []Draw {
	p := NewPlan(seed, kinds, length, overlap)
	out := make([]Draw, n)
	for i := range out {
		out[i] = p.Next()
	}
	return out
}

func TestTheSameSeedDrawsTheSameFaults(t *testing.T) {
	for _, overlap := range []bool{false, true} {
		a, b := drawn(7, Kinds(), 10*time.Minute, overlap, 300), drawn(7, Kinds(), 10*time.Minute, overlap, 300)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("overlap %v: two plans of one seed differ", overlap)
		}
		if c := drawn(8, Kinds(), 10*time.Minute, overlap, 300); reflect.DeepEqual(a, c) {
			t.Errorf("overlap %v: two seeds drew the same", overlap)
		}
	}
}

func TestEveryKindIsDrawnWithinItsBounds(t *testing.T) {
	for seed := range uint64(50) {
		nodes, outages := 0, 0
		seen := make(map[Kind]int)
		for _, d := range drawn(seed, Kinds(), 10*time.Minute, false, 100) {
			seen[d.Kind]++
			switch d.Kind {
			case Join:
				nodes++
			case Leave:
				nodes--
			case EtcdOutage:
				outages++
			case Freeze:
				if d.Lasts < 2*time.Second || d.Lasts > 10*time.Second {
					t.Errorf("seed %d: a freeze of %s, want 2 to 10 s", seed, d.Lasts)
				}
			}
			if nodes < 0 || nodes > most {
				t.Fatalf("seed %d: %d nodes more than in the beginning, want 0 to %d", seed, nodes, most)
			}
			if d.Pick < 0 || d.Pick >= 1 || d.Lasts < 0 || d.Wait < 0 {
				t.Errorf("seed %d: %+v", seed, d)
			}
		}
		for _, kind := range Kinds() {
			if seen[kind] == 0 {
				t.Errorf("seed %d: no %s in 100 faults", seed, kind)
			}
		}
		if outages != 1 {
			t.Errorf("seed %d: %d outages of a minute, want one in ten minutes", seed, outages)
		}
	}
}

func TestOnlyTheKindsAskedForAreDrawn(t *testing.T) {
	kinds, err := ParseKinds("freeze,black-hole")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drawn(1, kinds, time.Minute, true, 50) {
		if !slices.Contains(kinds, d.Kind) {
			t.Errorf("drew %s of %v", d.Kind, kinds)
		}
	}
	if all, err := ParseKinds("all"); err != nil || !slices.Equal(all, Kinds()) {
		t.Errorf("all is %v, %v", all, err)
	}
	if _, err := ParseKinds("freeze,thaw"); err == nil {
		t.Error("an unknown kind was taken")
	}
}
