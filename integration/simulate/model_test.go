package simulate

import (
	"slices"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// bare is a world in which nothing happens by itself.
func bare() *world {
	w := newWorld(Options{Seed: 1})
	w.net = network{w: w, cuts: map[way]int{}, slow: map[way]int64{}}
	w.kafka.w, w.etcd.w, w.group.w = w, w, w
	w.set = settings{partitions: 1, latency: 10 * ms, leaseTTL: 3 * sec, valueMost: 10}
	return w
}

func (w *world) until(end int64) {
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := w.pop()
		w.now = e.at
		e.fn()
	}
	w.now = end
}

func TestPipeKeepsOrderAcrossCutsAndFreezes(t *testing.T) {
	w := bare()
	to := &proc{w: w}
	p := w.pipe("a", "b", to)
	var got []int
	sent := 0
	send := func() {
		n := sent
		sent++
		p.send(1, func() { got = append(got, n) })
	}
	for range 5 {
		send()
	}
	w.net.sever("a", "b", 200*ms)
	w.after(50*ms, func() { send(); send() })
	w.after(150*ms, send)
	w.until(190 * ms)
	if len(got) != 0 || p.bytes != 8 {
		t.Fatalf("got %v through a cut, %d bytes under way, want none and 8", got, p.bytes)
	}
	w.after(15*ms, func() { send(); to.freeze() })
	w.after(100*ms, send)
	w.until(390 * ms)
	before := len(got)
	to.thaw()
	w.until(sec)
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(got, want) || before == len(want) {
		t.Fatalf("got %v (%d before the thaw), want %v", got, before, want)
	}
	if p.bytes != 0 {
		t.Fatalf("%d bytes are said to be under way", p.bytes)
	}
}

func TestNothingHappensInADeadProcess(t *testing.T) {
	w := bare()
	p := &proc{w: w}
	p.after(ms, func() { t.Error("a dead process acted") })
	p.freeze()
	w.until(2 * ms)
	p.dead = true
	p.thaw()
	p.do(func() { t.Error("a dead process acted") })
}

func TestLogShowsWhatCommittedReadersSee(t *testing.T) {
	w := bare()
	w.kafka.create(1)
	p := w.kafka.topic.parts[0]
	o := p.start
	p.produce("a", false, nil, 1) // o
	open := p.begin()
	p.produce("a", false, open, 1) // o+1
	p.produce("b", false, nil, 1)  // o+2
	p.advance()
	if p.lso() != o+1 || p.stable != o+1 || p.missing("b", o, o+9) != -1 {
		t.Fatalf("last stable offset %d, want %d: a transaction is open", p.lso(), o+1)
	}
	p.finish(open, false) // marker at o+3
	if p.lso() != o+4 || p.missing("a", o+1, o+9) != -1 || p.missing("b", o, o+9) != o+2 {
		t.Fatalf("last stable offset %d, want %d; b's record is at %d", p.lso(), o+4, p.missing("b", o, o+9))
	}
	if b := p.fetch(o+1, 2); b.Next != o+3 || len(b.Records) != 1 || b.Records[0].Offset != o+2 {
		t.Fatalf("fetched %+v", b)
	}
	p.produce("a", false, nil, 1) // o+4
	p.advance()
	p.compact(p.end)
	if p.missing("a", o, o+4) != -1 || p.missing("a", o, o+9) != o+4 {
		t.Fatal("compaction takes all but a key's last record, and nothing else")
	}
	p.lag = 2
	if p.lso() != o+3 || p.stable != o+5 {
		t.Fatalf("last stable offset %d, ever %d: a new leader's high watermark lags", p.lso(), p.stable)
	}
	p.retain(o + 2)
	if p.start != o+2 || p.missing("b", o, o+9) != o+2 {
		t.Fatalf("the log begins at %d, want %d", p.start, o+2)
	}
}

func TestLeasesEndAloneAndNotDuringAnOutage(t *testing.T) {
	w := bare()
	w.etcd.begin()
	id := w.etcd.grant(3 * sec)
	next := w.etcd.now.change()
	next.nodes["n"] = nodeKey{Node: directory.Node{Instance: "i"}, lease: id, rev: next.rev}
	w.etcd.put(next)
	w.after(2*sec, func() { w.etcd.outage(10 * sec) })
	w.until(14 * sec)
	if len(w.etcd.now.nodes) != 1 {
		t.Fatal("a lease ended while etcd was away, or right after")
	}
	w.until(16 * sec)
	if len(w.etcd.now.nodes) != 0 {
		t.Fatal("a lease that nobody keeps alive did not end")
	}
}

// A moved partition is given up in one generation and given away in a later one.
func TestGroupTakesAPartitionBeforeItGivesItAway(t *testing.T) {
	w := bare()
	w.group.begin()
	var members []*member
	for range 2 {
		n := &nodeProc{w: w, proc: &proc{w: w}, loops: make([]*loop, 1), marks: []int64{-1}, draining: true}
		m := &member{n: n, began: map[int32]int32{}, ready: true, heard: w.now}
		n.member = m
		members = append(members, m)
	}
	g := &w.group
	g.members = slices.Clone(members)
	g.preparing = true
	members[0].assigned = []int32{0}
	g.moving, g.movingTo = 0, members[1]
	g.assign()
	if len(members[0].assigned) != 0 || !slices.Equal(members[0].leaving, []int32{0}) || len(members[1].assigned) != 0 {
		t.Fatalf("first %+v, second %+v: given away before it was given up", members[0], members[1])
	}
	g.assign()
	if !slices.Equal(members[1].assigned, []int32{0}) || g.owner(0) != members[1].n {
		t.Fatalf("first %+v, second %+v: not given away", members[0], members[1])
	}
}
