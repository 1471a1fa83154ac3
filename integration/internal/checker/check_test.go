package checker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The topic of these tests: key a has offsets 0, 2, 4, 6, 8 of partition 0, key b has 1, 3, 5, 7, 9; record n is
// stamped n*10 ms after the epoch of the test.
var epoch = time.UnixMilli(1_700_000_000_000)

func stamp(offset int64) int64 { return epoch.UnixMilli() + offset*10 }

func topic() *Truth {
	part := &Partition{End: 10}
	for o := int64(9); o >= 0; o-- { // the order of insertion does not matter
		part.Records = append(part.Records, TopicRecord{Offset: o, Timestamp: stamp(o), Key: keyOf(o), Sum: sumOf(o)})
	}
	return NewTruth(map[int32]*Partition{0: part})
}

func keyOf(offset int64) string {
	if offset%2 == 0 {
		return "a"
	}
	return "b"
}

func sumOf(offset int64) uint32 { return Sum([]byte(fmt.Sprint(offset)), nil) }

func received(offset int64, after time.Duration) Event {
	return Event{
		Kind: Record, Partition: 0, Offset: offset, Next: offset + 1, Timestamp: stamp(offset), Sum: sumOf(offset),
		At: stamp(offset)*int64(time.Millisecond) + int64(after),
	}
}

func session(start int64, events ...Event) Session {
	return Session{
		Router: "r1", HelloAt: epoch.Add(-time.Second), Start: []Position{{Partition: 0, Next: start}}, Complete: true, Events: events,
	}
}

func clientA(sessions ...Session) []Client {
	return []Client{{Name: "1", Key: "a", Sessions: sessions}}
}

func inOrder(offsets ...int64) []Event {
	var out []Event
	for _, o := range offsets {
		out = append(out, received(o, time.Millisecond))
	}
	return out
}

func TestVerdicts(t *testing.T) {
	with := func(s Session, change func(*Session)) Session {
		change(&s)
		return s
	}
	tests := []struct {
		name    string
		clients []Client
		want    map[Kind]int64
		first   string // a part of the first offence's text
	}{
		{"everything once", clientA(session(0, inOrder(0, 2, 4, 6, 8)...)), nil, ""},
		{"a record missing", clientA(session(0, inOrder(0, 2, 6, 8)...)), map[Kind]int64{Lost: 1}, "offset 4"},
		{"the last ones missing", clientA(session(0, inOrder(0, 2, 4)...)), map[Kind]int64{Lost: 2}, "offset 6"},
		{"a record twice", clientA(session(0, inOrder(0, 2, 2, 4, 6, 8)...)), map[Kind]int64{Repeated: 1}, "offset 2"},
		{"swapped", clientA(session(0, inOrder(0, 4, 2, 6, 8)...)), map[Kind]int64{Reordered: 1}, "offset 2: after offset 4"},
		{"another key's", clientA(session(0, inOrder(0, 1, 2, 4, 6, 8)...)), map[Kind]int64{Foreign: 1}, "its key is b"},
		{"an offset that is not there", clientA(session(0, inOrder(0, 2, 4, 6, 8, 12)...)), map[Kind]int64{Foreign: 1}, "no committed record"},
		{"a wrong value", clientA(with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Events[1].Sum++ })), map[Kind]int64{Corrupt: 1}, "offset 2: value"},
		{"a wrong timestamp", clientA(with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Events[1].Timestamp++ })), map[Kind]int64{Corrupt: 1}, "timestamp"},
		{"a cursor behind its record", clientA(with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Events[1].Next = 2 })), map[Kind]int64{Cursors: 1}, "points at 2"},
		{"a cursor that skips the next record", clientA(with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Events[1].Next = 5 })), map[Kind]int64{Cursors: 1}, "beyond offset 4"},
		{
			"a checkpoint up to the next record",
			clientA(session(0, append(inOrder(0, 2), append([]Event{{Kind: Checkpoint, Next: 4}}, inOrder(4, 6, 8)...)...)...)), nil, "",
		},
		{
			"a checkpoint that covers a record under way",
			clientA(session(0, append(inOrder(0, 2), append([]Event{{Kind: Checkpoint, Next: 5}}, inOrder(4, 6, 8)...)...)...)), map[Kind]int64{Cursors: 1}, "covers offset 4",
		},
		{
			"a checkpoint before the first record",
			clientA(session(0, append([]Event{{Kind: Checkpoint, Next: 1}}, inOrder(0, 2, 4, 6, 8)...)...)), map[Kind]int64{Cursors: 1}, "covers offset 0",
		},
		{
			"announced by a gap",
			clientA(session(0, append([]Event{{Kind: Gap, Next: 4, Reason: "retention"}}, inOrder(4, 6, 8)...)...)), map[Kind]int64{Gaps: 1}, "retention",
		},
		{"latest", clientA(with(session(3, inOrder(4, 6, 8)...), func(s *Session) { s.HelloAt = epoch.Add(25 * time.Millisecond) })), nil, ""},
		{
			"latest that begins too late",
			clientA(with(session(5, inOrder(6, 8)...), func(s *Session) { s.HelloAt = epoch.Add(25 * time.Millisecond) })), map[Kind]int64{Lost: 1}, "offset 4",
		},
		{
			"below the start",
			clientA(with(session(3, inOrder(2, 4, 6, 8)...), func(s *Session) { s.HelloAt = epoch.Add(25 * time.Millisecond) })), map[Kind]int64{Repeated: 1}, "below the start 3",
		},
		{
			"broken",
			clientA(with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Ended = &Close{Code: 1011, Reason: "why"} })), map[Kind]int64{Broken: 1}, `1011 "why"`,
		},
		{
			"closed by the test",
			clientA(with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Ended = &Close{Expected: true} })), nil, "",
		},
		{"no hello", clientA(session(0, inOrder(0, 2, 4, 6, 8)...), Session{Router: "r2"}), map[Kind]int64{Unopened: 1}, "r2"},
		{
			"resumed exactly there",
			clientA(session(0, inOrder(0, 2)...), with(session(3, inOrder(4, 6, 8)...), func(s *Session) { s.Resumed = true })), nil, "",
		},
		{
			"resumed and a record missing between",
			clientA(session(0, inOrder(0, 2)...), with(session(5, inOrder(6, 8)...), func(s *Session) { s.Resumed = true })), map[Kind]int64{Lost: 1}, "offset 4",
		},
		{
			"resumed and a record repeated",
			clientA(session(0, inOrder(0, 2)...), with(session(1, inOrder(2, 4, 6, 8)...), func(s *Session) { s.Resumed = true })), map[Kind]int64{Repeated: 1}, "offset 2",
		},
		{
			"resumed and told that it is not complete",
			clientA(session(0, inOrder(0, 2)...), with(session(5, append([]Event{{Kind: Gap, Next: 6}}, inOrder(6, 8)...)...), func(s *Session) { s.Resumed, s.Complete = true, false })),
			map[Kind]int64{Gaps: 2}, "hello.resumed is false",
		},
		{
			"a fresh start owes nothing of the time between",
			clientA(
				with(session(0, inOrder(0, 2, 4, 6, 8)...), func(s *Session) { s.Ended = &Close{Expected: true} }),
				with(session(7, inOrder(8)...), func(s *Session) { s.HelloAt = epoch.Add(65 * time.Millisecond) }),
			), nil, "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Check(topic(), tt.clients, nil)
			for _, v := range r.Verdicts() {
				if v.Count != tt.want[v.Kind] {
					t.Errorf("%s: got %d, want %d\n%s", v.Kind, v.Count, tt.want[v.Kind], r)
				}
			}
			if tt.first != "" && !strings.Contains(r.String(), tt.first) {
				t.Errorf("the report does not say %q:\n%s", tt.first, r)
			}
			if err := r.Err(); (err != nil) != (len(tt.want) > 0) {
				t.Errorf("Err() = %v", err)
			}
		})
	}
}

func TestRunWithoutRecordsProvesNothing(t *testing.T) {
	r := Check(NewTruth(nil), clientA(session(0)), nil)
	if r.Err() == nil {
		t.Error("a run in which nothing was due passes")
	}
}

func TestAllowedKindsAreNoError(t *testing.T) {
	r := Check(topic(), clientA(session(0, append([]Event{{Kind: Gap, Next: 4}}, inOrder(4, 6, 8)...)...)), nil)
	if r.Err() == nil || r.Err(Gaps) != nil || r.Excused != 2 {
		t.Errorf("Err() = %v, Err(Gaps) = %v, excused %d", r.Err(), r.Err(Gaps), r.Excused)
	}
}

func TestSumTellsTombstoneHeadersAndValuesApart(t *testing.T) {
	sums := map[uint32]string{}
	for name, sum := range map[string]uint32{
		"tombstone": Sum(nil, nil), "empty": Sum([]byte{}, nil), "value": Sum([]byte("v"), nil),
		"header": Sum([]byte("v"), []Header{{Key: "k", Value: []byte("1")}}), "other header": Sum([]byte("v"), []Header{{Key: "k1"}}),
		"two headers": Sum([]byte("v"), []Header{{Key: "k"}, {Key: "1"}}),
	} {
		if other, seen := sums[sum]; seen {
			t.Errorf("%s and %s have the same sum", name, other)
		}
		sums[sum] = name
	}
}

func TestDelaysAndPauses(t *testing.T) {
	events := []Event{
		received(0, time.Millisecond), received(2, 2*time.Millisecond), received(4, 300*time.Millisecond),
		received(6, 281*time.Millisecond), received(8, 3*time.Millisecond),
	}
	slow := Client{Name: "slow", Key: "b", Lagging: true, Sessions: []Session{session(0, received(1, time.Minute))}}
	old := received(1, time.Hour)
	old.Backlog = true
	clients := append(clientA(session(0, events...)), slow, Client{Name: "3", Key: "b", Sessions: []Session{session(0, old, received(9, 4*time.Millisecond))}})
	r := Check(topic(), clients, []Fault{
		{Name: "kill", From: epoch.Add(35 * time.Millisecond), Until: epoch.Add(400 * time.Millisecond)},
		{Name: "healed early", From: epoch.Add(45 * time.Millisecond), Until: epoch.Add(200 * time.Millisecond)},
		{Name: "later", From: epoch.Add(time.Hour), Until: epoch.Add(2 * time.Hour)},
	})
	if r.Delay.Count != 6 || r.Delay.Max != 300*time.Millisecond || r.Delay.P50 != 4*time.Millisecond {
		t.Errorf("delay %+v", r.Delay)
	}
	kill := r.Faults[0]
	if kill.Clients != 2 || kill.Max != 300*time.Millisecond || kill.Silence != 300*time.Millisecond || !strings.Contains(kill.Who, "offset 4") {
		t.Errorf("kill: %+v", kill)
	}
	if early := r.Faults[1]; early.Max != 155*time.Millisecond {
		t.Errorf("a pause is longer than the window it is looked for in: %+v", early)
	}
	if later := r.Faults[2]; later.Clients != 0 || later.Max != 0 {
		t.Errorf("later: %+v", later)
	}
	if d := Between(clients, epoch.Add(75*time.Millisecond), epoch.Add(time.Hour)); d.Count != 2 || d.Max != 4*time.Millisecond {
		t.Errorf("between: %+v", d)
	}
}

func TestBehind(t *testing.T) {
	truth := topic()
	for _, tt := range []struct {
		name   string
		client Client
		behind bool
	}{
		{"all received", clientA(session(0, inOrder(0, 2, 4, 6, 8)...))[0], false},
		{"the last one missing", clientA(session(0, inOrder(0, 2, 4, 6)...))[0], true},
		{"a checkpoint covers it", clientA(session(0, Event{Kind: Checkpoint, Next: 9}))[0], false},
		{"starts behind it", clientA(session(9))[0], false},
		{"no hello yet", clientA(Session{})[0], true},
		{"a key without records", Client{Key: "c", Sessions: []Session{session(0)}}, false},
	} {
		if _, _, behind := Behind(truth, &tt.client); behind != tt.behind {
			t.Errorf("%s: behind = %v", tt.name, behind)
		}
	}
}
