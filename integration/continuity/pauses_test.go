package continuity

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// record is a mark stamped and received at the given milliseconds.
func record(offset uint32, stamp, at int64) mark {
	return mark{kind: checker.Record, offset: offset, stamp: int32(stamp), late: uint32((at - stamp) * 1000)}
}

func TestDelaysAreChargedToTheWindowThatCoversThem(t *testing.T) {
	ms := func(n int64) int64 { return n * 1000 }
	windows := []window{{from: ms(1000), until: ms(2000)}, {from: ms(3000), until: ms(4000)}, {from: ms(5000), until: ms(9000), probe: ms(7000)}}
	for _, c := range []struct {
		name  string
		marks []mark
		want  []charged
		quiet int64
		felt  map[uint32]int64
	}{
		{"all quiet", []mark{record(1, 100, 130), record(2, 2500, 2504)}, nil, ms(30), nil},
		{"within", []mark{record(1, 1100, 1600), record(2, 1700, 1710)}, []charged{{window: 0, longest: ms(500), offset: 1}}, 0, nil},
		{"begun before", []mark{record(1, 900, 1250)}, []charged{{window: 0, longest: ms(250), offset: 1}}, ms(100), nil},
		{"over the end", []mark{record(1, 1900, 2600)}, []charged{{window: 0, longest: ms(700), offset: 1}}, 0, nil},
		{"over the next beginning", []mark{record(1, 1900, 3300)}, []charged{{window: 0, longest: ms(1100), offset: 1}, {window: 1, longest: ms(300), offset: 1}}, 0, nil},
		{"quiet until the next", []mark{record(1, 2900, 3300)}, []charged{{window: 1, longest: ms(300), offset: 1}}, ms(100), nil},
		{"two windows", []mark{record(1, 1100, 1200), record(2, 3900, 3950)}, []charged{{window: 0, longest: ms(100), offset: 1}, {window: 1, longest: ms(50), offset: 2}}, 0, nil},
		{"from the probe on", []mark{record(1, 5100, 7300), record(2, 7500, 7600)}, []charged{{window: 2, longest: ms(300), offset: 1}}, 0, nil},
		{"before the probe", []mark{record(1, 5100, 5200)}, []charged{{window: 2, longest: 0, offset: 1}}, 0, nil},
		{"the plain consumer was late too", []mark{record(1, 1100, 1600), record(2, 1700, 1710)}, []charged{{window: 0, longest: ms(80), offset: 1}}, 0, map[uint32]int64{1: ms(420), 2: ms(50)}},
		{"quiet, the plain consumer too", []mark{record(1, 100, 130)}, nil, ms(10), map[uint32]int64{1: ms(20)}},
		{"checkpoints are no records", []mark{{kind: checker.Checkpoint, stamp: 1500}}, nil, 0, nil},
	} {
		got, quiet := charge(c.marks, windows, func(m *mark) int64 { return c.felt[m.offset] })
		if !slices.Equal(got, c.want) || quiet != c.quiet {
			t.Errorf("%s: got %v and %d quiet, want %v and %d", c.name, got, quiet, c.want, c.quiet)
		}
	}
}

func TestMarksKeepWhatTheCheckerNeeds(t *testing.T) {
	epoch := time.Now().UnixMilli()
	l := &listener{epoch: epoch, partition: 3}
	in := []checker.Event{
		{Kind: checker.Record, Partition: 3, Offset: 41, Next: 42, Timestamp: epoch + 1000, At: (epoch+1003)*1e6 + 7000, Sum: 99},
		{Kind: checker.Checkpoint, Partition: 3, Next: 50, At: (epoch+2000)*1e6 + 123000},
		{Kind: checker.Gap, Partition: 3, Next: 60, At: (epoch + 2500) * 1e6, Reason: "retention"},
		{Kind: checker.Record, Partition: 3, Offset: 70, Next: 80, Timestamp: epoch - 5, At: (epoch + 3000) * 1e6, Sum: 1, Backlog: true},
	}
	for i, e := range in {
		l.note(i/3, e)
	}
	var out []checker.Event
	for i := range l.marks {
		out = append(out, l.marks[i].event(l))
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("got\n%+v\nwant\n%+v", out, in)
	}
	if want := []int{0, 3}; !slices.Equal(l.sessions, want) {
		t.Errorf("sessions begin at %v, want %v", l.sessions, want)
	}
	if l.next.Load() != 80 || l.newest.Load() != epoch+1000 {
		t.Errorf("next %d, newest %d", l.next.Load(), l.newest.Load())
	}
}

func TestHistogramIsTrueToASixteenth(t *testing.T) {
	var h histogram
	for us := int64(1); us <= 100_000; us++ {
		h.add(us)
	}
	for _, c := range []struct {
		q    float64
		want int64
	}{{0.5, 50_000}, {0.99, 99_000}, {0.001, 100}} {
		if got := int64(h.quantile(c.q) / time.Microsecond); got > c.want || got < c.want*15/16 {
			t.Errorf("quantile %v is %d, want %d less a sixteenth at most", c.q, got, c.want)
		}
	}
}
