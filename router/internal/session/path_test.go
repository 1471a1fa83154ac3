package session

import (
	"slices"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// home is a path's last stage.
func home(partition int32, from int64) Stage {
	return Stage{Partition: partition, From: from, Until: Done, Closed: -1}
}

func cursorAt(v int64) link.Start { return link.Start{Kind: link.StartCursor, Value: v} }

func TestCursorsOfEveryAgeGoOnWhereTheyStopped(t *testing.T) {
	moved := []Stage{{Partition: 3, Until: 100, Closed: -1}, home(11, 0)}
	over := []Stage{{Partition: 3, Until: 100, Closed: 120}, home(11, 0)}
	twice := []Stage{{Partition: 3, Until: 100, Closed: 120}, {Partition: 7, From: 40, Until: 90, Closed: -1}, home(15, 0)}
	back := []Stage{{Partition: 0, Until: 100, Closed: 120}, {Partition: 8, Until: 50, Closed: 60}, home(0, 130)}
	again := []Stage{back[0], back[1], {Partition: 0, From: 130, Until: 155, Closed: 160}, home(8, 70)}
	for _, tc := range []struct {
		name    string
		path    []Stage
		at      []Position
		lanes   []Lane
		reached int
		done    []int32
	}{
		{"from before the growth", moved, []Position{{3, 90}}, []Lane{{3, cursorAt(90)}}, 0, nil},
		{"both", moved, []Position{{3, 110}, {11, 5}}, []Lane{{3, cursorAt(110)}, {11, cursorAt(5)}}, 1, nil},
		{"the last one only", moved, []Position{{11, 5}}, []Lane{{11, cursorAt(5)}}, 1, nil},
		{"from before the growth, all producers know", over, []Position{{3, 90}}, []Lane{{3, cursorAt(90)}}, 0, nil},
		{"the old one is over", over, []Position{{3, 120}, {11, 5}}, []Lane{{11, cursorAt(5)}}, 1, nil},
		{"the old one is over before the new one began", over, []Position{{3, 120}}, []Lane{{11, cursorAt(0)}}, 1, nil},
		{"two growths ago", twice, []Position{{3, 90}}, []Lane{{3, cursorAt(90)}}, 0, nil},
		{"two growths ago, the first is over", twice, []Position{{3, 500}}, []Lane{{7, cursorAt(40)}}, 1, nil},
		{"in the middle", twice, []Position{{3, 110}, {7, 80}}, []Lane{{3, cursorAt(110)}, {7, cursorAt(80)}}, 1, nil},
		{"back again, from the first stay", back, []Position{{0, 110}}, []Lane{{0, cursorAt(110)}}, 0, nil},
		{"back again, between", back, []Position{{0, 125}, {8, 20}}, []Lane{{0, cursorAt(125)}, {8, cursorAt(20)}}, 2, nil},
		{"back again, from the last stay", back, []Position{{0, 150}, {8, Done}}, []Lane{{0, cursorAt(150)}}, 2, []int32{8}},
		{"back again, the middle is over", back, []Position{{0, 150}, {8, 60}}, []Lane{{0, cursorAt(150)}}, 2, []int32{8}},
		{"back again when the middle is over", back, []Position{{8, 60}}, []Lane{{0, cursorAt(130)}}, 2, []int32{8}},
		{"there and back twice, from the second stay", again, []Position{{0, 150}, {8, Done}}, []Lane{{0, cursorAt(150)}}, 2, []int32{8}},
		{"there and back twice, the second stay is over", again, []Position{{0, 160}, {8, Done}}, []Lane{{8, cursorAt(70)}}, 3, []int32{0}},
		{"made up: done where it has not been", over, []Position{{3, 90}, {11, Done}}, []Lane{{3, cursorAt(90)}}, 0, nil},
	} {
		plan, ok := Resume(tc.path, tc.at)
		if !ok || !slices.Equal(plan.Lanes, tc.lanes) || plan.Reached != tc.reached || !slices.Equal(plan.Done, tc.done) {
			t.Errorf("%s: got %+v, %t", tc.name, plan, ok)
		}
	}
	for _, at := range [][]Position{{{4, 7}}, {{3, Done}}, {{3, Done}, {11, Done}}, {{4, Done}}, nil} {
		if plan, ok := Resume(moved, at); ok {
			t.Errorf("resumed from %v: %+v", at, plan)
		}
	}
}

func TestFreshStartsOnAPath(t *testing.T) {
	latest, earliest := link.Start{Kind: link.StartLatest}, link.Start{Kind: link.StartEarliest}
	at, offset := link.Start{Kind: link.StartTime, Value: 5}, link.Start{Kind: link.StartOffset, Value: 7}
	open := []Stage{{Partition: 3, Until: 100, Closed: -1}, home(11, 0)}
	over := []Stage{{Partition: 3, Until: 100, Closed: 120}, home(11, 0)}
	back := []Stage{{Partition: 0, Until: 100, Closed: 120}, {Partition: 8, Until: 50, Closed: 60}, home(0, 130)}
	for _, tc := range []struct {
		name  string
		path  []Stage
		start link.Start
		lanes []Lane
		done  []int32
	}{
		{"latest", open, latest, []Lane{{3, latest}, {11, latest}}, nil},
		{"latest, all producers know", over, latest, []Lane{{11, latest}}, nil},
		{"latest, back again", back, latest, []Lane{{0, latest}}, []int32{8}},
		{"offset", open, offset, []Lane{{3, latest}, {11, offset}}, nil},
		{"earliest", over, earliest, []Lane{{3, earliest}}, nil},
		{"time", over, at, []Lane{{3, at}, {11, at}}, nil},
		{"time, back again", back, at, []Lane{{8, at}, {0, at}}, nil},
	} {
		if plan := Begin(tc.path, tc.start); !slices.Equal(plan.Lanes, tc.lanes) || !slices.Equal(plan.Done, tc.done) {
			t.Errorf("%s: got %+v", tc.name, plan)
		}
	}
}

func TestPartitionThatTheHistoryForgotIsReadOn(t *testing.T) {
	o := Open{Partition: 11}
	o.At(nil, []Position{{3, 90}, {11, 5}})
	if !o.Resumed || o.Gap != link.GapNone || !slices.Equal(o.Plan.Lanes, []Lane{{3, cursorAt(90)}, {11, cursorAt(5)}}) {
		t.Errorf("got %+v", o)
	}
	o = Open{Partition: 11}
	o.At(nil, []Position{{3, 90}})
	if o.Resumed || o.Gap != link.GapMoved || o.Path != nil {
		t.Errorf("got %+v", o)
	}
	o = Open{Partition: 11}
	o.At(nil, []Position{{11, 5}})
	if !o.Resumed || o.Start != cursorAt(5) || o.Path != nil {
		t.Errorf("got %+v", o)
	}
}

func TestStrangePartitionsOfACursorAreBounded(t *testing.T) {
	at := []Position{{11, 5}}
	for p := int32(100); p < 100+maxStrange; p++ {
		at = append(at, Position{p, 1}, Position{p + 1000, Done})
	}
	o := Open{Partition: 11}
	if o.At(nil, at); !o.Resumed || len(o.Plan.Lanes) != maxStrange+1 {
		t.Errorf("got %+v", o)
	}
	o = Open{Partition: 11}
	if o.At(nil, append(at, Position{7, 1})); o.Resumed || o.Gap != link.GapMoved || o.Path != nil {
		t.Errorf("got %+v", o)
	}
}
