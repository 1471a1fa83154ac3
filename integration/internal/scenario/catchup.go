package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// What catch-up may cost. The memory decides everywhere over real parts, the others only where somebody measures on purpose.
const (
	mostPasses = 1.2      // reads of a partition's backlog for all clients that come together
	mostMemory = 96 << 20 // what a node may gain over processes, resident, in bytes: less than a backlog of a million records
	mostBare   = 3.0      // times a bare read, where 1 % of the records are the clients'
	leastBurst = 0.7      // of the rate of a plain burst, where all are
)

// judgesFigures reports whether times decide: only where they are asked for (make catchup).
func (w *world) judgesFigures() bool { return w.real() && os.Getenv("POINTSMAN_FIGURES") != "" }

// CatchUp lets many clients come back together, far behind: once where all records are theirs, beside a plain burst of
// as many, and once where one in a hundred is, beside a bare read of as many, while others receive live. They share
// one read of each partition, the node's memory stays bounded, and nobody misses anything. Over real parts with
// POINTSMAN_FIGURES set the times have to be good, too.
func CatchUp(t testing.TB) {
	// The ring holds a whole burst; the node that serves a catch-up is new and has nothing in it.
	s := beginStorm(t, "--ring=536870912", size(rough(t), "--scan-rate=-1", "--scan-rate=0"))
	rounds, all, few := 1, size(s.world, 12_000, 200_000), size(s.world, 12_000, 1_000_000)
	if s.judgesFigures() {
		rounds, all = 5, few
	}
	var burst, full, bare, sparse []recovery
	for i := range min(rounds, 2) {
		burst = append(burst, s.burst(fmt.Sprint("burst-", i), all))
	}
	b := s.miss(all, 1)
	for i := range min(rounds, 2) {
		full = append(full, s.round(b, i == min(rounds, 2)-1))
	}

	b = s.miss(few, 100)
	for i := range rounds {
		if s.real() {
			bare = append(bare, s.readBare(b))
		}
		sparse = append(sparse, s.round(b, i == rounds-1))
	}
	s.finish()
	for _, r := range append(full, sparse...) {
		s.bounded(r)
	}
	if s.real() {
		s.compare(all, burst, full, bare, sparse)
	}
}

// LiveBesideCatchUp lets clients come back, far behind, while others receive live, with the limits that a node has by
// default: nobody misses anything, and over real parts with POINTSMAN_FIGURES set nobody is late.
func LiveBesideCatchUp(t testing.TB) {
	s := beginStorm(t)
	rounds, n := 1, size(s.world, 12_000, 200_000)
	if s.judgesFigures() {
		rounds, n = 5, 1_000_000
	}
	s.watch()
	b := s.miss(n, 100)
	var calm, storms []recovery
	for i := range rounds {
		quiet := recovery{from: time.Now()}
		s.at(quiet.from, size(s.world, 200*time.Millisecond, time.Second))
		quiet.to = time.Now()
		calm, storms = append(calm, quiet), append(storms, s.round(b, i == rounds-1))
	}
	s.must(s.flowing())
	s.finish()
	for _, r := range storms {
		s.bounded(r)
	}
	if s.real() {
		s.compareLive(calm, storms)
	}
}

// round is one of several catch-ups with the same backlog.
func (s *storm) round(b *backlog, last bool) recovery {
	s.t.Helper()
	if last {
		return s.comeBack(b)
	}
	return s.rehearse(b)
}

// bounded judges what a catch-up cost beside time.
func (s *storm) bounded(r recovery) {
	s.t.Helper()
	if most := s.allowed(r); r.passes > most {
		s.t.Errorf("the backlog of a partition was read %.2f times for %d clients, want at most %.1f", r.passes, len(s.clients), most)
	}
	if r.passes < 0.9 {
		s.t.Errorf("the backlog of every partition was read %.2f times at most: the clients had it from elsewhere, and this proves nothing", r.passes)
	}
	if r.memory > mostMemory {
		s.t.Errorf("the node gained %d MB, above %d", r.memory>>20, mostMemory>>20)
	}
}

// allowed is how often a partition's backlog may be read: once for those that came together and once for those that came
// late, which on a busy machine is a matter of chance, and again for each second that they took to come.
func (s *storm) allowed(r recovery) float64 { return mostPasses + 1 + float64(r.hello/time.Second) }

// compare prints how long things took, and judges that where it is asked for.
func (s *storm) compare(n int, burst, full, bare, sparse []recovery) {
	s.t.Helper()
	ratio := median(burst).Seconds() / median(full).Seconds()
	times := median(sparse).Seconds() / median(bare).Seconds()
	slices.SortFunc(sparse, func(a, b recovery) int { return cmp.Compare(a.passes, b.passes) })
	passes := sparse[len(sparse)/2].passes
	s.t.Logf(`medians of %d and %d rounds, %d clients, %d partitions
%-52s %9s
burst of %8d records, all theirs                  %9s  %7.0f/s
catch-up with as many, all theirs                     %9s  %7.0f/s  %.2f of the burst's rate (want %.1f)
bare read with sarama's consumer                      %9s
catch-up with as many, 1 %% theirs                     %9s  %.2f times the bare read (want at most %.1f)
reads of a partition's backlog, at most               %9.2f  (want at most %.1f)`,
		len(full), len(sparse), len(s.keys), s.Partitions(), "", "took",
		n, show(median(burst)), float64(n)/median(burst).Seconds(),
		show(median(full)), float64(n)/median(full).Seconds(), ratio, leastBurst,
		show(median(bare)), show(median(sparse)), times, mostBare, passes, mostPasses)
	if !s.judgesFigures() {
		return
	}
	if ratio < leastBurst {
		s.t.Errorf("catch-up where all is theirs runs at %.2f of a burst's rate, want %.1f", ratio, leastBurst)
	}
	if passes > mostPasses {
		s.t.Errorf("the backlog of a partition was read %.2f times, want one read for all clients: at most %.1f", passes, mostPasses)
	}
	if times > mostBare {
		s.t.Errorf("catch-up where little is theirs takes %.2f times a bare read, want at most %.1f", times, mostBare)
	}
}

func show(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func median(rs []recovery) time.Duration {
	var all []time.Duration
	for i := range rs {
		all = append(all, rs[i].took())
	}
	slices.Sort(all)
	return checker.Quantile(all, 0.5)
}

// compareLive holds what clients felt that stayed, while others caught up, against the time before each round. A round
// in which a plain consumer was late as well says something about the machine, and is left out. So is the moment in
// which the others connect, which is printed: it costs the same wherever they begin.
func (s *storm) compareLive(calm, rounds []recovery) {
	s.t.Helper()
	seen := s.fleet.Histories()
	var before, during []time.Duration
	for i := range rounds {
		q, r := calm[i], rounds[i]
		connected := r.from.Add(r.hello)
		was, is := checker.Between(seen, q.from, q.to).P99, checker.Between(seen, connected, r.to).P99
		plain, plainIs := s.probe.P99(q.from, q.to), s.probe.P99(connected, r.to)
		s.t.Logf("p99 of live clients: %s, while others connect %s, while they catch up %s (a plain consumer: %s, %s, %s)",
			show(was), show(checker.Between(seen, r.from, connected).P99), show(is), show(plain), show(s.probe.P99(r.from, connected)), show(plainIs))
		if plainIs <= plain+busy {
			before, during = append(before, was), append(during, is)
		}
	}
	if len(before) == 0 {
		const busyAlways = "the machine was too busy in every round to judge live delays"
		if s.judgesFigures() {
			s.t.Error(busyAlways) // whoever asked for figures has none
		} else {
			s.t.Log(busyAlways)
		}
		return
	}
	slices.Sort(before)
	slices.Sort(during)
	was, is := checker.Quantile(before, 0.5), checker.Quantile(during, 0.5)
	s.t.Logf("p99 of live clients, medians of %d rounds: %s before, %s while others catch up", len(before), show(was), show(is))
	if s.judgesFigures() && is > max(was*5/4, was+busy) {
		s.t.Errorf("p99 of live clients rose from %s to %s", was, is)
	}
}

// ReplayLimit lets clients come back from further behind than the operator allows: each is told once, and gets the
// rest.
func ReplayLimit(t testing.TB) {
	const limit = 500
	s := beginStorm(t, fmt.Sprintf("--replay-limit=%d", limit))
	b := s.miss(size(s.world, 10_000, 100_000), 10)
	s.comeBack(b)
	s.finish(checker.Gaps)
	if s.t.Failed() {
		return
	}
	for _, c := range s.clients {
		h := c.History()
		if err := toldOnce(&h.Sessions[1], limit, b); err != nil {
			t.Fatalf("client %s: %v", c.Key(), err)
		}
	}
}

// toldOnce judges a session that could not be resumed in full.
func toldOnce(s *checker.Session, limit int64, b *backlog) error {
	if !s.Resumed || s.Complete {
		return fmt.Errorf("came with a cursor: %v, hello.resumed %v; want true and false", s.Resumed, s.Complete)
	}
	gaps := 0
	for i, e := range s.Events {
		if e.Kind != checker.Gap {
			continue
		}
		gaps++
		if e.Reason != "replay_limit" {
			return fmt.Errorf("gap with reason %q, want replay_limit", e.Reason)
		}
		if behind := b.to[e.Partition] - e.Next; behind > limit || behind < 0 {
			return fmt.Errorf("gap to %d, %d behind the end, want at most the limit %d", e.Next, behind, limit)
		}
		if i > 0 && s.Events[i-1].Kind == checker.Record {
			return errors.New("a record came before the gap")
		}
	}
	if gaps != 1 {
		return fmt.Errorf("%d gaps, want exactly 1", gaps)
	}
	return nil
}

// TricklingClient lets one client of those that come back read slowly: the others do not wait for it, and it does not
// make the node read the log again and again.
func TricklingClient(t testing.TB) {
	s := beginStorm(t)
	slowest := s.clients[len(s.clients)-1]
	s.trickler = slowest.Key()
	slowest.SetPace(5 * time.Millisecond)
	b := s.miss(size(s.world, 16_000, 300_000), 10)
	r := s.comeBack(b)
	slow := slowest.History()
	got, due := len(recordsOf(&slow)), b.count[s.trickler]
	t.Logf("the others had everything after %s, when the slow one had %d of its %d records", show(r.took()), got, due)
	if got > due/2 {
		t.Errorf("the slow client had %d of %d records when the others were done: they waited for it", got, due)
	}
	lane := s.home(s.trickler)
	for p, passes := range r.each {
		most := s.allowed(r)
		if p == lane {
			most++ // what is read for the slow one alone, as far as it came
		}
		if passes > most {
			t.Errorf("the backlog of partition %d was read %.2f times, want at most %.1f", p, passes, most)
		}
	}
	slowest.SetPace(0)
	s.finish()
	if again, most := s.passesSince(r.before, b)[lane], s.allowed(r)+2; again > most {
		t.Errorf("with the slow client's end the backlog of its partition was read %.2f times, want at most %.1f", again, most)
	}
}
