package compare

import (
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// stage is an arena with members and a Kafka, where nothing runs.
type stage struct {
	arena.Arena
	members []arena.Member
}

func (s stage) Members() []arena.Member { return s.members }
func (s stage) Brokers() []string       { return []string{"127.0.0.1:9092"} }

// TestFiguresDivideByTheirOwnInterval has CPU, sockets and the backchannel measured over 10, 20 and 5 seconds, in which
// clients receive 10 records a second.
func TestFiguresDivideByTheirOwnInterval(t *testing.T) {
	d, err := arena.Find("redistributor-backchannel-kafka")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_700_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	var histories []checker.Client
	for name := range 2 { // half a second apart, and one of them over two connections
		c := checker.Client{Sessions: make([]checker.Session, 2)}
		for i := range 200 {
			got := at(-5 + float64(i)/5 + float64(name)/10)
			c.Sessions[i%2].Events = append(c.Sessions[i%2].Events,
				checker.Event{Kind: checker.Record, At: got.UnixNano(), Timestamp: got.UnixMilli() - 7}, checker.Event{Kind: checker.Checkpoint, At: got.UnixNano()})
		}
		histories = append(histories, c)
	}
	member := func(role string, pid int) arena.Member { return arena.Member{Role: role, PID: pid} }
	r := &run{c: &comparison{}, design: d, arena: stage{members: []arena.Member{
		member(arena.Server, 1), member(arena.Server, 2), member(arena.Server, 3), member(arena.Server, 4), member(arena.Redistributor, 5), member(arena.Redistributor, 6),
	}}}
	kafka := func(pid int, port string, received int64) (pair, socket) {
		return pair{"127.0.0.1:" + port, "127.0.0.1:9092"}, socket{pid, received}
	}
	before, after := make(traffic), make(traffic)
	for pid, port := range map[int]string{1: "1001", 2: "1002", 3: "1003", 4: "1004", 5: "1005", 6: "1006"} {
		at, s := kafka(pid, port, 500)
		before[at] = s
		s.received += 1000
		if pid >= 5 {
			s.received += 3000
		}
		after[at] = s
	}
	s := &Sample{}
	err = r.figures(s,
		&snapshot{cpu: stamped{2, at(0)}, kafka: stamped{1, at(0)}, sent: stamped{100, at(0)}, said: stamped{100, at(0)}, sockets: before, socketsAt: at(-5)},
		&snapshot{cpu: stamped{3, at(10)}, kafka: stamped{1.5, at(5)}, sent: stamped{350, at(20)}, said: stamped{600, at(5)}, sockets: after, socketsAt: at(15)}, histories)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name      string
		got, want float64
	}{
		{"delivered", float64(s.Delivered), 100},
		{"produced", float64(s.Produced), 125},
		{"CPU of 1 s over 100 records", s.CPU, 10_000},
		{"Kafka's CPU of 0.5 s over 50 records", s.KafkaCPU, 10_000},
		{"ingest of 4,000 bytes for each of two readers in 20 s", s.Ingest, 200},
		{"reads of 12,000 bytes in 20 s", s.Reads, 600},
		{"between the tiers, 4,000 bytes in 20 s", s.Between, 200},
		{"backchannel of 500 bytes in 5 s", s.Backchannel, 100},
		{"p50", s.P50, 7},
	} {
		if f.got != f.want {
			t.Errorf("%s: %g, want %g", f.name, f.got, f.want)
		}
	}
	if !s.Behind() {
		t.Error("100 of 125 is not called behind")
	}
	if s.Delivered = 124; s.Behind() {
		t.Error("124 of 125 is called behind")
	}
	nobody := &snapshot{cpu: stamped{9, at(500)}, sent: stamped{9, at(500)}, said: stamped{9, at(500)}, socketsAt: at(500)}
	if err := r.figures(&Sample{}, nobody, nobody, histories); err == nil {
		t.Error("figures of nothing")
	}
}
