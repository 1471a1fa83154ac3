package compare

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

func sampled(design string, round, servers int, cpu, ingest float64) Sample {
	return Sample{Design: design, Round: round, Servers: servers, Clients: 1000, CPU: cpu, Ingest: ingest, Produced: 100, Delivered: 100, P50: 2, Outcome: Outcome{Due: 1}}
}

func TestOnlyOrderingsThatHeldInEverySampleAreStated(t *testing.T) {
	r := &Report{}
	for round := 1; round <= 2; round++ {
		for _, servers := range []int{1, 2, 4} {
			r.Samples = append(r.Samples,
				sampled("a", round, servers, 10, 1000),
				sampled("b", round, servers, 20, 1000/float64(servers)),
				sampled("c", round, servers, 10.5, 5))
		}
	}
	r.Samples[len(r.Samples)-2].CPU = 9 // b, once
	r.conclude()
	got := make(map[string]bool)
	for _, o := range r.Orderings {
		got[o.Figure+" "+o.Less+"<"+o.More] = true
	}
	for name, want := range map[string]bool{
		"cpu a<b": false, "cpu b<a": false, "cpu c<b": false, "cpu a<c": false, // once not, and too little
		"ingest c<a": true, "ingest c<b": true, "ingest b<a": false, // equal at one server
	} {
		if got[name] != want {
			t.Errorf("%s: stated %v, want %v", name, got[name], want)
		}
	}
}

// TestTheBarCountsEverything has each kind of finding fail the bar by itself.
func TestTheBarCountsEverything(t *testing.T) {
	good := Outcome{Due: 100_000}
	for name, tt := range map[string]struct {
		outcome Outcome
		bad     bool
	}{
		"good":      {good, false},
		"too few":   {Outcome{Due: 99_999}, true},
		"lost":      {Outcome{Due: 100_000, Lost: 1}, true},
		"repeated":  {Outcome{Due: 100_000, Repeated: 1}, true},
		"reordered": {Outcome{Due: 100_000, Reordered: 1}, true},
		"other":     {Outcome{Due: 100_000, Other: 1}, true},
		"broken":    {Outcome{Due: 100_000, Broken: 1}, true},
		"unopened":  {Outcome{Due: 100_000, Unopened: 1}, true},
		"failed":    {Outcome{Due: 100_000, Failed: "it did"}, true},
	} {
		r := &Report{Samples: []Sample{{Design: "a", Outcome: good}, {Design: "b", Outcome: tt.outcome}}}
		if err := r.Bar([]string{"a", "b"}); (err != nil) != tt.bad {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := &Report{Samples: []Sample{{Design: "a", Outcome: good}}}
	if err := r.Bar([]string{"a", "b"}); err == nil {
		t.Error("a design that was not measured passes")
	}
}

func TestEveryFindingOfTheCheckerCounts(t *testing.T) {
	one := func(what string) checker.Verdict { return checker.Verdict{Count: 1, First: what} }
	for _, tt := range []struct {
		rep  checker.Report
		want Outcome
	}{
		{checker.Report{Expected: 7}, Outcome{Due: 7}},
		{checker.Report{Lost: one("a"), Repeated: one("b"), Reordered: one("c")}, Outcome{Lost: 1, Repeated: 1, Reordered: 1, First: "lost: a"}},
		{checker.Report{Foreign: one("a")}, Outcome{Other: 1, First: "foreign: a"}},
		{checker.Report{Corrupt: one("a"), Gaps: one("b"), Cursors: one("c")}, Outcome{Other: 3, First: "corrupt: a"}},
		{checker.Report{Broken: one("a"), Unopened: one("b")}, Outcome{Broken: 1, Unopened: 1, FirstBroken: "broken: a"}},
	} {
		if got := outcome(&tt.rep); got != tt.want {
			t.Errorf("got %+v, want %+v", got, tt.want)
		}
	}
}

func TestWhatNeverCameIsNoShortPause(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	truth := checker.NewTruth(map[int32]*checker.Partition{2: {End: 3, Records: []checker.TopicRecord{
		{Offset: 0, Timestamp: at(0).UnixMilli(), Key: "k"}, {Offset: 1, Timestamp: at(3).UnixMilli(), Key: "k"}, {Offset: 2, Timestamp: at(4).UnixMilli(), Key: "k"},
	}}})
	got := func(offset int64, stamped, came int) checker.Event {
		return checker.Event{Kind: checker.Record, Partition: 2, Offset: offset, Timestamp: at(stamped).UnixMilli(), At: at(came).UnixNano()}
	}
	for _, tt := range []struct {
		name   string
		events []checker.Event
		want   time.Duration
		who    string
	}{
		{"all came", []checker.Event{got(0, 0, 1), got(1, 3, 5), got(2, 4, 5)}, 2 * time.Second, "client x, partition 2, offset 1 came late"},
		{"nothing came any more", []checker.Event{got(0, 0, 1)}, 27 * time.Second, "client x, partition 2, offset 1 never came"},
		{"the last did not", []checker.Event{got(0, 0, 1), got(1, 3, 5)}, 26 * time.Second, "client x, partition 2, offset 2 never came"},
		{"late before the fault", []checker.Event{got(0, -60, 1), got(1, 3, 3), got(2, 4, 4)}, 0, ""},
	} {
		c := &checker.Client{Name: "x", Key: "k", Sessions: []checker.Session{{Events: tt.events}}}
		if pause, who := pauseOf(c, truth, at(2), at(30)); pause != tt.want || who != tt.who {
			t.Errorf("%s: %s by %q, want %s by %q", tt.name, pause, who, tt.want, tt.who)
		}
	}
}

func TestFiguresOfFaultsAreExplained(t *testing.T) {
	r := &Report{Faults: []Fault{
		{Design: "plainrouter", Fault: KillServer, Pause: 7000, Latest: "client 1"},
		{Design: "plainrouter", Fault: KillServer, Pause: 9000, Latest: "client 2", Outcome: Outcome{Broken: 3}},
		{Design: "everyone", Fault: KillServer, Pause: 4000, Latest: "client 3"},
		{Design: "pointsman", Fault: KillServer, Pause: 900, Outcome: Outcome{Broken: 1, FirstBroken: "broken: client 4"}},
		{Design: "everyone", Fault: AddServer, Pause: 300},
	}}
	got := r.why()
	for _, want := range []string{
		"plainrouter, pause: the consumer group", "plainrouter, broken: a connection", "everyone, pause: not explained; the first finding is client 3",
		"pointsman, broken: not explained; the first finding is broken: client 4",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	for _, no := range []string{"pointsman, pause", AddServer} {
		if strings.Contains(got, no) {
			t.Errorf("says %q:\n%s", no, got)
		}
	}
}

func TestThePageShowsFiguresAndSaysWhatIsExtrapolated(t *testing.T) {
	r := &Report{Quick: true, Rounds: 1, Faults: []Fault{{Design: "plainrouter", Fault: KillServer, Clients: 10, Outcome: Outcome{Broken: 5, Lost: 1, First: "lost: one"}}}}
	for _, servers := range []int{1, 2, 4} {
		r.Samples = append(r.Samples, sampled("a", 1, servers, 10, 1000))
	}
	r.conclude()
	page, err := r.page("designs")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5 of 10", "**extrapolated**", "quick run", "not explained; the first finding is lost: one", "designs/ingest.svg", "| a | 4 |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestFailuresAreNeitherGoodFiguresNorGone has one sample of one design fail, once.
func TestFailuresAreNeitherGoodFiguresNorGone(t *testing.T) {
	r := &Report{Rounds: 2}
	for round := 1; round <= 2; round++ {
		for _, servers := range []int{1, 2, 4} {
			r.Samples = append(r.Samples, sampled("a", round, servers, 10, 1000), sampled("b", round, servers, 20, 2000), sampled("c", round, servers, 40, 4000))
		}
		r.Faults = append(r.Faults, Fault{Design: "a", Round: round, Fault: KillServer, Clients: 10, Outcome: Outcome{Broken: 5}})
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	failed := sampled("a", 2, 4, 0, 0)
	failed.Outcome = Outcome{Failed: "too many | open files\nand a log"}
	r.Samples[len(r.Samples)-3] = failed
	r.Faults[1].Outcome = Outcome{Failed: "nobody connects"}
	r.conclude()
	for _, o := range r.Orderings {
		if o.Less == "a" || o.More == "a" {
			t.Errorf("an ordering over a failure: %+v", o)
		}
	}
	if !slices.ContainsFunc(r.Orderings, func(o Ordering) bool { return o.Less == "b" && o.More == "c" }) {
		t.Error("what is not concerned is not stated either")
	}
	page, err := r.page("designs")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| a | 4 | failed: too many / open files | - |", "failed: nobody connects | - |", "it failed, so nothing is known: nobody connects"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "too many") || !strings.Contains(err.Error(), "nobody connects") {
		t.Errorf("the report's error is %v", err)
	}
	dir := filepath.Join(t.TempDir(), "designs")
	if err := r.Publish(dir); err == nil {
		t.Error("a report with failures was published")
	}
	if _, err := os.Stat(dir + ".md"); !os.IsNotExist(err) {
		t.Errorf("the page is there: %v", err)
	}
}
