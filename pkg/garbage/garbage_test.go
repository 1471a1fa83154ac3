package garbage

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
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

// A collection is due at rest only, and only for garbage that is worth it.
func TestDue(t *testing.T) {
	const mb = 1 << 20
	var look tidy
	for i, c := range []struct {
		state state
		want  bool
	}{
		{state{live: 10 * mb, objects: 60 * mb, made: 100 * mb}, false}, // was made just now
		{state{live: 10 * mb, objects: 61 * mb, made: 101 * mb}, true},
		{state{live: 10 * mb, objects: 66 * mb, made: 106 * mb}, false}, // it goes on
		{state{live: 10 * mb, objects: 13 * mb, made: 106 * mb}, false}, // too little
		{state{live: 1000 * mb, objects: 1100 * mb, made: 106 * mb}, false},
		{state{live: 1000 * mb, objects: 1200 * mb, made: 107 * mb}, true},
	} {
		if got := look.due(c.state); got != c.want {
			t.Errorf("look %d: due = %v, want %v", i, got, c.want)
		}
	}
}

// Tend puts the collector off while the heap is small, follows its growth, and leaves the setting as it was.
func TestTend(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set, so that the collector is left alone")
	}
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	stop := Tend()
	defer stop()
	setting := func() int { // as it is; there is no other way to ask
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	for setting() == 100 {
		runtime.Gosched()
	}
	held := make([]byte, 2*small)
	for setting() != 100 {
		runtime.GC()
	}
	runtime.KeepAlive(held)
	stop()
	if p := setting(); p != 100 {
		t.Errorf("GC percent %d after the end, was 100", p)
	}
}

// GOGC has the last word.
func TestLeavesGOGCAlone(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "77")
	Tend()()
	if p := debug.SetGCPercent(77); p != 77 {
		t.Errorf("GC percent %d, want 77", p)
	}
}
