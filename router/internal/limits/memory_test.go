package limits

import (
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMemoryIsShortUntilEnoughIsFree(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	met := new(counts)
	g := NewGate(Config{Count: met.add})
	var asked []int64
	m := NewPressure(MemoryConfig{Budget: 1000, Gate: g, Logger: zap.New(core), Shed: func(n int64, all bool) (int, int64) {
		if all != (n >= 250) {
			t.Errorf("asked for %d, of all %v", n, all)
		}
		asked = append(asked, n)
		return 2, n
	}})
	now := time.Now()
	for _, tt := range []struct {
		used  int64
		after time.Duration
		short bool
		sheds int
	}{
		{740, 0, false, 0},
		{760, 0, true, 1},
		{990, 10 * time.Millisecond, true, 1}, // what was freed may not be seen yet
		{900, time.Hour, true, 2},
		{720, time.Hour, true, 2}, // neither: it stays as it is
		{690, time.Hour, false, 2},
		{740, time.Hour, false, 2},
	} {
		now = now.Add(tt.after)
		m.look(now, tt.used)
		if g.IsShort() != tt.short || len(asked) != tt.sheds {
			t.Fatalf("%d used: short %v, asked for %v; want %v and %d times", tt.used, g.IsShort(), asked, tt.short, tt.sheds)
		}
	}
	if asked[0] != 110 || asked[1] != 250 {
		t.Errorf("asked for %v, want as much as is above 650", asked)
	}
	if met.of(Shed) != 4 || logs.FilterMessage("memory is short").Len() != 1 || logs.FilterMessage("memory is enough again").Len() != 1 {
		t.Errorf("%d counted, log %v", met.of(Shed), logs.All())
	}
}

func TestMeasureSeesWhatIsHeldAndNotWhatIsGarbage(t *testing.T) {
	m := NewPressure(MemoryConfig{})
	const size = 64 << 20
	held := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		held[i] = 1
	}
	runtime.GC()
	with := m.measure()
	runtime.KeepAlive(held)
	runtime.GC()
	if without := m.measure(); with-without < size/2 {
		t.Errorf("%d with %d bytes, %d without", with, size, without)
	}
}

func TestBudgetLeavesRoomForTheKernel(t *testing.T) {
	const limit, here, kernel = 1 << 30, 194, 110 // KB for a client that does not read
	budget := ofGroup(limit)
	if all := budget + budget*high/100*kernel/here; all > limit || budget < limit/2 {
		t.Errorf("with a budget of %d both may have %d of %d", budget, all, limit)
	}
}

func TestBudgetOfControlGroups(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"none", map[string]string{"/proc/self/cgroup": "0::/\n"}, 0},
		{"version 2", map[string]string{
			"/proc/self/cgroup": "0::/pod/container\n", "/sys/fs/cgroup/pod/container/memory.max": "max\n",
			"/sys/fs/cgroup/pod/memory.max": "1000\n", "/sys/fs/cgroup/memory.max": "5000\n",
		}, 1000},
		{"version 2 in its own namespace", map[string]string{"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "512\n"}, 512},
		{"version 1", map[string]string{
			"/proc/self/cgroup": "7:cpu:/a\n4:memory,x:/a/b\n", "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700\n",
		}, 700},
	} {
		if got := groupMemory(func(name string) []byte { return []byte(tt.files[name]) }); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if got := machineMemory(func(string) []byte { return []byte("MemFree: 1 kB\nMemTotal:  24683996 kB\n") }); got != 24683996<<10 {
		t.Errorf("the machine has %d", got)
	}
	if got, why := Budget(123); got != 123 || why != "--memory-limit" {
		t.Errorf("%d because of %s", got, why)
	}
	if got, why := Budget(0); got < 0 || why == "" {
		t.Errorf("%d because of %q", got, why)
	}
}
