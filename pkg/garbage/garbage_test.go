package garbage

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		live int64
		want int
	}{
		{0, 1600}, {4 << 20, 1500}, {16 << 20, 300}, {31 << 20, 106}, {32 << 20, 100}, {1 << 30, 100},
	} {
		if got := percent(c.live); got != c.want {
			t.Errorf("percent(%d) = %d, want %d", c.live, got, c.want)
		}
	}
}

// A collection is due at rest only, after a rush, and for garbage that is worth it.
func TestDue(t *testing.T) {
	const mb = 1 << 20
	var look tidy
	for i, c := range []struct {
		state state
		want  bool
	}{
		{state{live: 10 * mb, objects: 60 * mb, made: 100 * mb}, false}, // was made just now
		{state{live: 10 * mb, objects: 61 * mb, made: 101 * mb}, true},
		{state{live: 10 * mb, objects: 62 * mb, made: 102 * mb}, false}, // no rush since
		{state{live: 10 * mb, objects: 70 * mb, made: 119 * mb}, false}, // a rush
		{state{live: 10 * mb, objects: 13 * mb, made: 119 * mb}, false}, // too little is left
		{state{live: 10 * mb, objects: 11 * mb, free: 40 * mb, made: 119 * mb}, true},
		{state{live: 1000 * mb, objects: 1200 * mb, made: 219 * mb}, false}, // no rush for a heap of that size
		{state{live: 1000 * mb, objects: 1200 * mb, made: 219 * mb}, false},
		{state{live: 1000 * mb, objects: 1900 * mb, made: 519 * mb}, false}, // one
		{state{live: 1000 * mb, objects: 1100 * mb, made: 519 * mb}, false},
		{state{live: 1000 * mb, objects: 1200 * mb, made: 529 * mb}, true},
	} {
		if got := look.due(c.state); got != c.want {
			t.Errorf("look %d: due = %v, want %v", i, got, c.want)
		}
	}
}

// setting is the collector's, in percent.
func setting() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Tend puts the collector off while the heap is small, follows its growth, and leaves the setting as it was.
func TestTend(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(usual))
	stop := Tend()
	defer stop()
	patience := time.Now().Add(time.Minute)
	for setting() == usual {
		if time.Now().After(patience) {
			t.Fatal("the collection of a small heap is not put off")
		}
		runtime.Gosched()
	}
	held := make([]byte, 2*small)
	for setting() != usual {
		if time.Now().After(patience) {
			t.Fatalf("a heap of %d MB is left alone: %d %%", 2*small>>20, setting())
		}
		runtime.GC()
	}
	runtime.KeepAlive(held)
	for setting() == usual {
		if time.Now().After(patience) {
			t.Fatal("the heap has shrunk, and the collector was not told")
		}
		runtime.GC()
	}
	stop()
	if p := setting(); p != usual {
		t.Errorf("%d %% after the end, was %d", p, usual)
	}
}

// GOGC has the last word.
func TestLeavesGOGCAlone(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(77))
	t.Setenv("GOGC", "77")
	stop := Tend()
	defer stop()
	for range 3 {
		runtime.GC()
		if p := setting(); p != 77 {
			t.Errorf("%d %%, want 77", p)
		}
	}
}
