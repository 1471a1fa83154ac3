// Package garbage fits Go's collector to processes that many clients come to at once and then hang on.
//
// While the heap is small the collector runs for every few megabytes: of ten thousand clients that connect, each would
// pay for the stacks of those before it, several times over. So it waits for a heap that is worth the walk. And what a
// rush leaves behind would stay until the heap has doubled, which may be never: when a process has come to rest, it
// collects once and gives the memory back.
package garbage

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// small is what the heap may grow to before it is collected, in bytes, however little of it is in use; somewhat
	// more with many goroutines, whose stacks Go counts, too. A memory limit goes before it.
	small = 64 << 20
	// usual is the growth, in percent, from which on a heap is collected that is not small: Go's own.
	usual = 100
	// looksEvery is how often it is seen whether the process is at rest.
	looksEvery = 5 * time.Second
	// rush is how much is made between two looks, in bytes, by what counts as one; or a quarter of what is in use.
	rush = 16 << 20
	// worth is how much left behind is worth a collection, in bytes, and in parts of what is in use.
	worth     = 4 << 20
	worthPart = 8
)

// Tend fits the collector until stop is called, which waits for it. A process does it once. It does nothing where GOGC
// says how it is to be.
func Tend() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { tend(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func tend(ctx context.Context) {
	collected := make(chan struct{}, 1)
	rearm(collected)
	now := percent(read().live)
	defer debug.SetGCPercent(debug.SetGCPercent(now))
	var t tidy
	ticker := time.NewTicker(looksEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-collected:
			// Only a change that matters is made.
			if p := percent(read().live); p != now && (p == usual || p > now+now/4 || p < now-now/4) {
				debug.SetGCPercent(p)
				now = p
			}
			rearm(collected)
		case <-ticker.C:
			if t.due(read()) {
				debug.FreeOSMemory()
			}
		}
	}
}

// rearm has the channel hear of the next collection, by something that it finds dead.
func rearm(collected chan struct{}) {
	dead := new([16]byte)
	runtime.AddCleanup(dead, func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}, collected)
}

// percent is by how much a heap may grow of which so much is in use.
func percent(live int64) int {
	const most = 1600 // what Go begins with is 4 MB
	return int(min(most, max(usual, (small-live)*100/max(1, live))))
}

// state is what the runtime says of the heap, in bytes.
type state struct {
	live    int64 // found in use by the last collection
	objects int64 // in use or garbage
	free    int64 // neither, and not given back
	made    int64 // since the process began
}

func read() state {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	at := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
	return state{live: at(0), objects: at(1), free: at(2), made: at(3)}
}

// tidy knows when a process has come to rest after a rush that has left something behind.
type tidy struct {
	made   int64 // at the last look
	rushed bool  // much was made since the last collection of ours
}

// due reports whether to collect and give back: a rush is over, has left memory that nothing uses, and so little is being
// made that it would take a long time to need it again. Without a rush the collector's own time is good enough.
func (t *tidy) due(s state) bool {
	fresh := s.made - t.made
	t.made = s.made
	if fresh > max(rush, s.live/4) {
		t.rushed = true
	}
	left := s.objects - s.live + s.free
	if !t.rushed || left <= max(worth, s.live/worthPart) || fresh >= left/8 {
		return false
	}
	t.rushed = false
	return true
}
