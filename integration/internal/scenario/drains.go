package scenario

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// unevenness is how many times an even share of the reconnects one second may hold.
const unevenness = 3

// crowd is how many clients a rollout is watched by: POINTSMAN_CLIENTS, or ten thousand.
func crowd(t testing.TB) int {
	text := os.Getenv("POINTSMAN_CLIENTS")
	if text == "" {
		return 10_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("POINTSMAN_CLIENTS=%s: want a number of clients", text)
	}
	return n
}

// routerDrained stops a router in order and starts it again. Its clients go to another one meanwhile, over the whole time
// of its drain: with judged, no second may hold more of them than unevenness times an even share.
func (w *world) routerDrained(i int, judged bool) {
	w.t.Helper()
	began := time.Now()
	name := w.target(i).Name
	w.routerReplaced(i)

	var gone, back []time.Duration
	for _, h := range w.fleet.Histories() {
		for k := range h.Sessions {
			end := h.Sessions[k].Ended
			if h.Sessions[k].Router != name || end == nil || end.At.Before(began) {
				continue
			}
			if end.Code != closecode.GoingAway || h.Sessions[k].GoAways == 0 {
				w.t.Errorf("client %s was closed with %d %q after %d goaways, want 1001 after one", h.Key, end.Code, end.Reason, h.Sessions[k].GoAways)
			}
			gone = append(gone, end.At.Sub(began))
			if k+1 < len(h.Sessions) {
				back = append(back, h.Sessions[k+1].HelloAt.Sub(began))
			}
		}
	}
	if len(back) != len(gone) {
		w.t.Errorf("%d of %d clients came back", len(back), len(gone))
	}
	if len(back) == 0 {
		w.t.Logf("%s had no clients", name)
		return
	}
	w.t.Logf("%d clients were sent away by %s and came back, by second:\n%s", len(back), name, histogram(back))
	first, last := slices.Min(gone), slices.Max(gone)
	share := float64(len(gone)) / max((last-first).Seconds(), 1)
	for second, n := range perSecond(back) {
		if judged && float64(n) > unevenness*share {
			w.t.Errorf("%d clients came back in second %d, more than %d times an even share of %.0f", n, second, unevenness, share)
		}
	}
}

// perSecond counts how many times lie in each second.
func perSecond(times []time.Duration) []int {
	counts := make([]int, int(slices.Max(times)/time.Second)+1)
	for _, d := range times {
		counts[max(d, 0)/time.Second]++
	}
	return counts
}

func histogram(times []time.Duration) string {
	counts := perSecond(times)
	most := max(slices.Max(counts), 1)
	var b strings.Builder
	for second, n := range counts {
		if n > 0 {
			fmt.Fprintf(&b, "%3d s %5d %s\n", second, n, strings.Repeat("#", (n*50+most-1)/most))
		}
	}
	return b.String()
}

// drainedLine is what a node says of its drain: how many streams it moved, how long that took.
var drainedLine = regexp.MustCompile(`"msg":"drained".*`)

// tellsDrain prints what a drained node's log says, and wants it to have left nothing.
func (w *world) tellsDrain(id, log string) {
	w.t.Helper()
	text, err := os.ReadFile(log) //nolint:gosec // the stack's own file
	w.must(err)
	line := drainedLine.FindString(string(text))
	if line == "" {
		w.t.Errorf("%s does not tell of its drain", id)
		return
	}
	w.t.Logf("%s: %s", id, line)
	if strings.Contains(line, `"streams_left":`) && !strings.Contains(line, `"streams_left":0`) {
		w.t.Errorf("%s left streams behind: %s", id, line)
	}
}
