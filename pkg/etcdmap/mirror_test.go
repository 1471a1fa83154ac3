package etcdmap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func kv(key, value string, rev, lease int64) entry {
	return entry{key: key, value: []byte(value), rev: rev, lease: lease}
}

func mirrored(s snapshot) *mirror {
	m := newMirror()
	m.replace(s, false)
	return m
}

func TestForeignHistoryIsRecognised(t *testing.T) {
	t.Parallel()
	have := snapshot{clusterID: 1, revision: 10, entries: []entry{kv("a", "1", 5, 7), kv("b", "1", 9, 7)}}
	for name, c := range map[string]struct {
		list snapshot
		want bool
	}{
		"the same":             {have, false},
		"later":                {snapshot{1, 12, []entry{kv("a", "2", 11, 7), kv("b", "1", 9, 7), kv("c", "1", 12, 7)}}, false},
		"all deleted":          {snapshot{1, 12, nil}, false},
		"another cluster":      {snapshot{2, 12, have.entries}, true},
		"lower revision":       {snapshot{1, 9, have.entries}, true},
		"a key went back":      {snapshot{1, 12, []entry{kv("a", "1", 4, 7), kv("b", "1", 9, 7)}}, true},
		"same key, other text": {snapshot{1, 12, []entry{kv("a", "2", 5, 7)}}, true},
		"same key, new lease":  {snapshot{1, 12, []entry{kv("a", "1", 5, 8)}}, true},
	} {
		if got := mirrored(have).foreign(c.list); got != c.want {
			t.Errorf("%s: foreign = %v, want %v", name, got, c.want)
		}
	}
	if newMirror().foreign(have) {
		t.Error("the first list was called foreign")
	}
}

func TestReplaceTellsTheDifference(t *testing.T) {
	t.Parallel()
	m := mirrored(snapshot{1, 10, []entry{kv("a", "1", 5, 7), kv("b", "1", 9, 7), kv("c", "1", 3, 7)}})
	m.apply([]event{{entry: kv("late", "1", 14, 7)}, {entry: kv("b", "3", 13, 7)}}) // a transaction's answer
	got := m.replace(snapshot{1, 12, []entry{kv("a", "2", 11, 7), kv("b", "2", 12, 7)}}, false)
	want := []event{{entry: kv("a", "2", 11, 7)}, {entry: entry{key: "c", rev: 12}, deleted: true}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if m.entries["b"].rev != 13 || m.entries["late"].rev != 14 {
		t.Errorf("what was written after the list was lost: %v", m.entries)
	}
	got = m.replace(snapshot{1, 2, []entry{kv("b", "9", 2, 1)}}, true)
	if len(got) != 3 || len(m.entries) != 1 || string(m.entries["b"].value) != "9" || m.revision != 2 {
		t.Errorf("after a foreign list: %v, mirror %v at %d", got, m.entries, m.revision)
	}
}

// TestOrderOfAnswersDoesNotMatter: events of different keys come from the watch and from transactions, each in order,
// interleaved anyhow, some twice.
func TestOrderOfAnswersDoesNotMatter(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var history []event
		want := map[string]string{}
		for rev := int64(2); rev < 40; rev++ {
			key := string(rune('a' + rng.IntN(5)))
			value := fmt.Sprint(rev)
			history = append(history, event{entry: kv(key, value, rev, 1)})
			want[key] = value
		}
		var own []event // of these a transaction has told before
		for _, ev := range history {
			if rng.IntN(3) == 0 {
				own = append(own, ev)
			}
		}
		m := mirrored(snapshot{clusterID: 1, revision: 1})
		for watch := history; len(watch)+len(own) > 0; {
			if len(own) > 0 && (len(watch) == 0 || rng.IntN(2) == 0) {
				m.apply(own[:1])
				own = own[1:]
			} else {
				m.apply(watch[:1])
				watch = watch[1:]
			}
		}
		got := map[string]string{}
		for k, e := range m.entries {
			got[k] = string(e.value)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v", seed, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	entries := []entry{kv("a", "1", 5, 7), kv("b", "1", 9, 7)}
	m := mirrored(snapshot{1, 10, entries})
	q := m.ask()
	if q.newest.key != "b" || q.count != 2 || q.revision != 10 {
		t.Fatalf("asked %+v", q)
	}
	b := entries[1]
	for name, c := range map[string]struct {
		probe
		want verdict
	}{
		"the same":            {probe{1, 10, 2, b}, current},
		"elsewhere changed":   {probe{1, 50, 2, b}, current},
		"one more key":        {probe{1, 11, 3, b}, behind},
		"the key changed":     {probe{1, 11, 2, kv("b", "2", 11, 7)}, behind},
		"the key was deleted": {probe{1, 11, 1, entry{}}, behind},
		"vanished":            {probe{1, 10, 1, entry{}}, foreign},
		"lower revision":      {probe{1, 9, 2, b}, foreign},
		"another cluster":     {probe{2, 10, 2, b}, foreign},
		"the key went back":   {probe{1, 11, 2, kv("b", "1", 8, 7)}, foreign},
		"another lease":       {probe{1, 11, 2, kv("b", "1", 9, 8)}, foreign},
		"another value":       {probe{1, 11, 2, kv("b", "2", 9, 7)}, foreign},
	} {
		if got := m.judge(q, c.probe); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	// The watch was faster than the probe's answer.
	m.apply([]event{{entry: kv("b", "2", 11, 7)}})
	if got := m.judge(q, probe{1, 10, 2, b}); got != current {
		t.Errorf("an answer from before the last event: %v, want current", got)
	}
	empty := mirrored(snapshot{clusterID: 1, revision: 3})
	if got := empty.judge(empty.ask(), probe{clusterID: 1, revision: 3}); got != current {
		t.Errorf("an empty map: %v, want current", got)
	}
}

func TestApplyReturnsOnlyNews(t *testing.T) {
	t.Parallel()
	m := mirrored(snapshot{1, 10, []entry{kv("a", "1", 5, 7)}})
	news := m.apply([]event{
		{entry: kv("a", "1", 5, 7)},
		{entry: kv("b", "1", 11, 7)},
		{entry: kv("b", "1", 11, 7)},
		{entry: entry{key: "gone", rev: 12}, deleted: true},
		{entry: entry{key: "a", rev: 4}, deleted: true},
		{entry: entry{key: "a", rev: 13}, deleted: true},
	})
	var got []string
	for _, ev := range news {
		got = append(got, fmt.Sprintf("%s %d %v", ev.key, ev.rev, ev.deleted))
	}
	if want := []string{"b 11 false", "a 13 true"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if m.revision != 13 {
		t.Errorf("revision %d, want 13", m.revision)
	}
}
