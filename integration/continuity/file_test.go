package continuity

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

func sample(seed uint64, overlap bool) *Report {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rep := &Report{
		Command: "make continuity", Version: "v1", Machine: "2 cores", Began: began, Took: 60,
		Options: Options{Seconds: 60, Seed: seed, Kinds: Kinds(), Overlap: overlap, Clients: 10, Rate: 4, Size: 128, Routers: 1, Nodes: 2, Partitions: 4, Quiet: 5},
		Counts:  Counts{Clients: 10, Due: 240, Received: 240, Offences: map[string]int64{"lost": 0}},
		Pauses: []Pauses{{Kind: Kill, Faults: 1, Clients: 10, Affected: 4, P50: 40 * time.Millisecond, P99: 600 * time.Millisecond, Max: 700 * time.Millisecond,
			Bound: 500 * time.Millisecond, Where: "fault 1", Buckets: buckets([]time.Duration{40 * time.Millisecond, 700 * time.Millisecond})}},
		Faults: []*Fault{{Draw: Draw{N: 1, Kind: Kill, Pick: 0.5}, Victim: "node-1", Began: began.Add(10 * time.Second), Ended: began.Add(12 * time.Second), Healed: began.Add(13 * time.Second)}},
		Busy:   Busy{Loads: []float64{0.1, 0.2}, Seconds: []float32{0}},
		Slopes: []Slope{{Process: "node-1", From: 600, To: 1200, RSS: 1.5, Judged: true}},
	}
	for s := range 60 {
		rep.Timeline = append(rep.Timeline, Second{Records: 4, Longest: float64(s)})
	}
	for s := range 31 {
		if rep.Processes == nil {
			rep.Processes = []Process{{Name: "node-1", Role: roleNode}}
		}
		rep.Processes[0].Samples = append(rep.Processes[0].Samples, Sample{At: float64(s), RSS: 1 << 20, CPU: 0.1, Goroutines: 50})
	}
	return rep
}

func TestReportsAreWrittenReadAndDescribed(t *testing.T) {
	dir := t.TempDir()
	in := sample(3, false)
	for _, rep := range []*Report{sample(3, true), in, sample(2, false)} {
		if err := rep.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	out, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, rep := range out {
		names = append(names, rep.Name())
	}
	if got, want := strings.Join(names, " "), "seed-2 seed-3 seed-3-overlap"; got != want {
		t.Fatalf("read %s, want %s", got, want)
	}
	if n := len(out[1].Processes[0].Samples); n != 4 {
		t.Errorf("%d samples are kept of 31, want every tenth", n)
	}
	out[1].Processes, in.Processes = nil, nil
	if !reflect.DeepEqual(in, out[1]) {
		t.Errorf("read\n%+v\nwritten\n%+v", out[1], in)
	}
	page, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## Seed 2, faults in turn", "## Seed 3, overlapping faults", "| kill | 1 | 4 | 40ms | 600ms | 700ms |", "**missed**", "seed-3-overlap-timeline.svg"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("README.md lacks %q", want)
		}
	}
	plots, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(plots) != 8 {
		t.Errorf("%d plots, %v, want 8", len(plots), err)
	}
}

func TestAStoryNamesWhatWentWrong(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	truth := checker.NewTruth(map[int32]*checker.Partition{0: {End: 3, Records: []checker.TopicRecord{
		{Offset: 0, Timestamp: at.Add(time.Second).UnixMilli(), Key: "k"},
		{Offset: 1, Timestamp: at.Add(2 * time.Second).UnixMilli(), Key: "k"},
		{Offset: 2, Timestamp: at.Add(3 * time.Second).UnixMilli(), Key: "k"},
	}}})
	record := func(offset, second int64) checker.Event {
		stamp := at.Add(time.Duration(second) * time.Second)
		return checker.Event{Kind: checker.Record, Offset: offset, Next: offset + 1, Timestamp: stamp.UnixMilli(), At: stamp.UnixNano() + 5e6}
	}
	c := checker.Client{Name: "7", Key: "k", Sessions: []checker.Session{{
		Router: "router-1", HelloAt: at, Start: []checker.Position{{Partition: 0, Next: 0}}, Events: []checker.Event{record(0, 1), record(2, 3), record(2, 3)},
	}}}
	j := checker.NewJudge(truth)
	found := j.Add(&c)
	if len(found) != 2 || found[0] != checker.Lost || found[1] != checker.Repeated {
		t.Errorf("found %v, want lost and repeated", found)
	}
	r := &Run{opts: Options{Seed: 9}, faults: []*Fault{{Draw: Draw{N: 1, Kind: Kill}, Victim: "node-2", Began: at.Add(1500 * time.Millisecond), Ended: at.Add(2500 * time.Millisecond)}}}
	story := r.story(truth, &c, found)
	for _, want := range []string{"seed 9, client 7 (key k)", "fault 1: kill node-2 begins", "record 0/1 was made and NEVER RECEIVED", "record 0/2 stamped", "REPEATED"} {
		if !strings.Contains(story, want) {
			t.Errorf("the story lacks %q:\n%s", want, story)
		}
	}
}
