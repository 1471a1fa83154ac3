// Package checker judges a run: it compares what every client received with the topic itself, read
// independently afterwards, and measures how long records were on their way. It is pure: histories in, a
// report out.
package checker

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Fault is one thing done to the stack, and how long its effects are looked for.
type Fault struct {
	Name  string
	From  time.Time
	Until time.Time
}

// Verdict counts one kind of offence and names the first one.
type Verdict struct {
	Count int64
	First string
}

func (v *Verdict) add(format string, args ...any) {
	if v.Count == 0 {
		v.First = fmt.Sprintf(format, args...)
	}
	v.Count++
}

// Report is what a run amounts to.
type Report struct {
	Clients  int
	Sessions int
	Topic    int64 // records in the topic
	Expected int64 // deliveries due
	Received int64 // records received, wrong ones included

	Lost      Verdict // due and never received, and not announced by a gap
	Repeated  Verdict // received again, or below the cursor the client came with
	Reordered Verdict // received after a later one of the same partition
	Foreign   Verdict // another key's record, or one that the topic does not hold
	Corrupt   Verdict // value, headers or timestamp differ from the topic's
	Cursors   Verdict // a cursor that would skip a record not yet received, or lies behind its own record
	Gaps      Verdict // gap messages, and resumes that were not complete
	Broken    Verdict // connections that ended without the test asking for it
	Unopened  Verdict // connections that never got a hello

	Excused int64 // records that a gap announced
	Delay   Delays
	Faults  []FaultDelays
}

// Check judges a run.
func Check(truth *Truth, clients []Client, faults []Fault) *Report {
	j := NewJudge(truth)
	for i := range clients {
		j.Add(&clients[i])
	}
	r := j.Report()
	measure(r, clients, faults)
	return r
}

// Judge is Check for histories that do not fit into memory all at once: client by client, and without delays.
type Judge struct {
	truth  *Truth
	report Report
}

// NewJudge judges by the topic as it was read.
func NewJudge(truth *Truth) *Judge { return &Judge{truth: truth, report: Report{Topic: truth.Len()}} }

// Add judges one client and returns the kinds of offences that it added to.
func (j *Judge) Add(c *Client) []Kind {
	var before [16]int64
	for i, v := range j.report.Verdicts() {
		before[i] = v.Count
	}
	j.report.Clients++
	checkClient(&j.report, j.truth, c)
	var found []Kind
	for i, v := range j.report.Verdicts() {
		if v.Count > before[i] {
			found = append(found, v.Kind)
		}
	}
	return found
}

// Report is the verdict so far.
func (j *Judge) Report() *Report {
	r := j.report
	return &r
}

// checkClient walks one client's sessions. A session that resumed with a cursor continues the chain of the one
// before; one that did not starts a chain of its own.
func checkClient(r *Report, truth *Truth, c *Client) {
	var chain *chain
	for i := range c.Sessions {
		s := &c.Sessions[i]
		r.Sessions++
		if s.Ended != nil && !s.Ended.Expected {
			r.Broken.add("client %s (key %s) on %s: closed with %d %q at %s", c.Name, c.Key, s.Router, s.Ended.Code, s.Ended.Reason, s.Ended.At.Format("15:04:05.000"))
		}
		if s.HelloAt.IsZero() {
			// A connection that the test or a router's exit ended early may have had no time for it.
			if s.Ended == nil || !s.Ended.Expected {
				r.Unopened.add("client %s (key %s) on %s: no hello", c.Name, c.Key, s.Router)
			}
			continue
		}
		if s.Resumed && !s.Complete {
			r.Gaps.add("client %s (key %s) on %s: hello.resumed is false", c.Name, c.Key, s.Router)
		}
		if chain == nil || !s.Resumed {
			chain.finish(r)
			chain = newChain(truth, c, s)
		}
		chain.session(r, s)
	}
	chain.finish(r)
}

// chain is what a client is owed from one fresh start over all the resumes that follow it.
type chain struct {
	truth  *Truth
	client *Client
	lanes  map[int32]*lane
}

// lane is the part of a chain in one partition: the records due, in order.
type lane struct {
	partition int32
	start     int64
	due       []TopicRecord
	got       []bool
	excused   []bool
	newest    int // index of the latest record received, -1 for none
}

func newChain(truth *Truth, c *Client, s *Session) *chain {
	ch := &chain{truth: truth, client: c, lanes: make(map[int32]*lane)}
	stamped := s.HelloAt.UnixMilli()
	for p, records := range truth.Of(c.Key) {
		start := int64(-1)
		for _, pos := range s.Start {
			if pos.Partition == p {
				start = pos.Next
			}
		}
		if start < 0 {
			// The cursor does not name this partition. When a later one does (the key moved there), its records are due
			// from its beginning; else those that were made since.
			start = math.MaxInt64
			if named(c, p) {
				start = 0
			}
		}
		// Whatever hello's cursor says, a record made after hello arrived was appended behind it and is due. The
		// producer's clock is the clients' own.
		for _, rec := range records {
			if rec.Timestamp > stamped {
				start = min(start, rec.Offset)
				break
			}
		}
		first, _ := slices.BinarySearchFunc(records, start, func(t TopicRecord, o int64) int { return compare(t.Offset, o) })
		due := records[first:]
		ch.lanes[p] = &lane{partition: p, start: start, due: due, got: make([]bool, len(due)), excused: make([]bool, len(due)), newest: -1}
	}
	return ch
}

// named reports whether any cursor of the client names the partition.
func named(c *Client, p int32) bool {
	for i := range c.Sessions {
		for _, pos := range c.Sessions[i].Start {
			if pos.Partition == p {
				return true
			}
		}
		for j := range c.Sessions[i].Events {
			if c.Sessions[i].Events[j].Partition == p {
				return true
			}
		}
	}
	return false
}

func (ch *chain) session(r *Report, s *Session) {
	for i := range s.Events {
		e := &s.Events[i]
		switch e.Kind {
		case Record:
			ch.record(r, s, e)
		case Checkpoint:
			ch.checkpoint(r, s, e)
		case Gap:
			r.Gaps.add("client %s (key %s) on %s: gap %q, goes on at partition %d offset %d", ch.client.Name, ch.client.Key, s.Router, e.Reason, e.Partition, e.Next)
			if l := ch.lanes[e.Partition]; l != nil {
				l.excuse(e.Next)
			}
		}
	}
}

func (ch *chain) record(r *Report, s *Session, e *Event) {
	r.Received++
	who := func() string {
		return fmt.Sprintf("client %s (key %s) on %s: partition %d offset %d", ch.client.Name, ch.client.Key, s.Router, e.Partition, e.Offset)
	}
	part := ch.truth.Partitions[e.Partition]
	if part == nil {
		r.Foreign.add("%s: the topic has no such partition", who())
		return
	}
	if e.Offset < part.Start {
		return // retention took it since: nothing to compare with
	}
	rec, ok := part.at(e.Offset)
	if !ok {
		r.Foreign.add("%s: the topic holds no committed record there", who())
		return
	}
	if rec.Key != ch.client.Key {
		r.Foreign.add("%s: its key is %s", who(), rec.Key)
		return
	}
	if rec.Sum != e.Sum {
		r.Corrupt.add("%s: value or headers differ", who())
	}
	if rec.Timestamp != e.Timestamp {
		r.Corrupt.add("%s: timestamp %d, in the topic %d", who(), e.Timestamp, rec.Timestamp)
	}
	if e.Next <= e.Offset {
		r.Cursors.add("%s: its cursor points at %d", who(), e.Next)
	}
	l := ch.lanes[e.Partition]
	if l == nil {
		return // the key's records are elsewhere; judged as foreign above if it was not the client's key
	}
	i, ok := slices.BinarySearchFunc(l.due, e.Offset, func(t TopicRecord, o int64) int { return compare(t.Offset, o) })
	switch {
	case !ok:
		r.Repeated.add("%s: below the start %d", who(), l.start)
		return
	case l.got[i]:
		r.Repeated.add("%s", who())
		return
	case i < l.newest:
		r.Reordered.add("%s: after offset %d", who(), l.due[l.newest].Offset)
	default:
		l.newest = i
	}
	l.got[i] = true
	// The record's own cursor must not skip the next one.
	if i+1 < len(l.due) && e.Next > l.due[i+1].Offset {
		r.Cursors.add("%s: its cursor points at %d, beyond offset %d", who(), e.Next, l.due[i+1].Offset)
	}
}

func (ch *chain) checkpoint(r *Report, s *Session, e *Event) {
	l := ch.lanes[e.Partition]
	if l == nil {
		return
	}
	for i := max(l.newest, 0); i < len(l.due) && l.due[i].Offset < e.Next; i++ {
		if !l.got[i] && !l.excused[i] {
			r.Cursors.add("client %s (key %s) on %s: checkpoint %d of partition %d covers offset %d, which was not received", ch.client.Name, ch.client.Key, s.Router, e.Next, e.Partition, l.due[i].Offset)
			return
		}
	}
}

func (l *lane) excuse(next int64) {
	for i := range l.due {
		if l.due[i].Offset >= next {
			return
		}
		l.excused[i] = true
	}
}

func (ch *chain) finish(r *Report) {
	if ch == nil {
		return
	}
	for _, p := range sortedKeys(ch.lanes) {
		l := ch.lanes[p]
		r.Expected += int64(len(l.due))
		for i := range l.due {
			switch {
			case l.got[i]:
			case l.excused[i]:
				r.Excused++
			default:
				r.Lost.add("client %s (key %s): partition %d offset %d, stamped %s", ch.client.Name, ch.client.Key, p, l.due[i].Offset, time.UnixMilli(l.due[i].Timestamp).Format("15:04:05.000"))
			}
		}
	}
}

// Behind names the first client that has not received the last record of its key yet, for waiting until all
// have; ok=false when none is behind. It only looks at the newest records, so it is cheap.
func Behind(truth *Truth, c *Client) (partition int32, offset int64, behind bool) {
	last := truth.Lasts(c.Key)
	if len(last) == 0 || len(c.Sessions) == 0 {
		return 0, 0, false
	}
	newest := &c.Sessions[len(c.Sessions)-1]
	for _, p := range sortedKeys(last) {
		rec := last[p]
		if newest.HelloAt.IsZero() {
			return p, rec.Offset, true
		}
		if !c.passed(p, rec.Offset) && (named(c, p) || rec.Timestamp > c.Sessions[0].HelloAt.UnixMilli()) {
			return p, rec.Offset, true
		}
	}
	return 0, 0, false
}

// passed reports whether the client was told of a place behind an offset.
func (c *Client) passed(p int32, offset int64) bool {
	for i := len(c.Sessions) - 1; i >= 0; i-- {
		s := &c.Sessions[i]
		for j := len(s.Events) - 1; j >= 0; j-- {
			if s.Events[j].Partition == p && s.Events[j].Next > offset {
				return true
			}
		}
		for _, pos := range s.Start {
			if pos.Partition == p && pos.Next > offset {
				return true
			}
		}
	}
	return false
}

func sortedKeys[V any](m map[int32]V) []int32 {
	keys := make([]int32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
