package partition

import (
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// archive is a log of numbered records that a loop reads again for one link's streams. It notes what it is asked for.
type archive struct {
	t    *testing.T
	loop *Loop
	now  time.Time
	b    source.Bounds

	size     int64 // records that one scan brings
	scanAt   int64 // -1 if none is under way
	scanned  int64 // records read again
	readAt   int64
	attached []link.Attached
	gaps     []link.Gap
	sent     map[uint64][]int64 // offsets by stream
	room     func() bool        // nil is always
}

// newArchive is a loop at the end of a log of n records, in which the key of a record is its offset modulo 10.
func newArchive(t *testing.T, n int64, cfg Config) *archive {
	a := &archive{
		t: t, now: time.Unix(1000, 0), size: 100, scanAt: -1, sent: make(map[uint64][]int64),
		b: source.Bounds{Stable: n, High: n},
	}
	a.loop = New(cfg, a)
	a.loop.Assign(a.now, n)
	a.loop.Bounds(a.now, a.b)
	return a
}

func (a *archive) Attached(_ LinkID, f link.Attached) { a.attached = append(a.attached, f) }
func (a *archive) Record(_ LinkID, f *link.Record) {
	for _, id := range f.Streams {
		a.sent[id] = append(a.sent[id], f.Offset)
	}
}
func (a *archive) Checkpoint(LinkID, *link.Checkpoint) {}
func (a *archive) Gap(_ LinkID, f link.Gap)            { a.gaps = append(a.gaps, f) }
func (a *archive) Closed(LinkID, link.Closed)          {}
func (a *archive) Room(LinkID) bool                    { return a.room == nil || a.room() }
func (a *archive) FindBounds()                         {}
func (a *archive) FindTime(uint64, int64)              {}
func (a *archive) Read(from int64)                     { a.readAt = from }
func (a *archive) Stop()                               {}
func (a *archive) Scan(from int64, _ int32)            { a.scanAt = from }
func (a *archive) Readable()                           {}
func (a *archive) Head(int64)                          {}

func (a *archive) batch(from, next int64) *source.Batch {
	b := &source.Batch{From: from, Next: next, Bounds: a.b}
	for o := from; o < next; o++ {
		b.Records = append(b.Records, source.Record{Offset: o, HasKey: true, Key: []byte{byte('0' + o%10)}, Value: make([]byte, 10)})
	}
	return b
}

// attach subscribes a stream to the key that is its number modulo 10.
func (a *archive) attach(stream uint64, from, credit int64) {
	a.loop.Attach(a.now, 1, &link.Attach{
		Stream: stream, Key: []byte{byte('0' + stream%10)}, Start: link.Start{Kind: link.StartCursor, Value: from}, Credit: credit,
	})
}

// produce lets the log grow by n records, which the live reader brings.
func (a *archive) produce(n int64) {
	from := a.b.High
	a.b.High, a.b.Stable = from+n, from+n
	a.loop.Batch(a.now, a.batch(from, from+n))
}

// pass lets time go by, a tick a millisecond, in which a scan is answered.
func (a *archive) pass(d time.Duration) {
	for end := a.now.Add(d); a.now.Before(end); {
		a.now = a.now.Add(time.Millisecond)
		if from := a.scanAt; from >= 0 {
			a.scanAt = -1
			next := min(from+a.size, a.b.Stable)
			a.scanned += next - from
			a.loop.Scanned(a.now, a.batch(from, next))
		}
		a.loop.Tick(a.now)
	}
}

// whole fails unless a stream got every record of its key in [from, to), once and in order.
func (a *archive) whole(stream uint64, from, to int64) {
	a.t.Helper()
	want := from + (int64(stream)-from%10+10)%10
	for _, o := range a.sent[stream] {
		if o != want {
			a.t.Fatalf("stream %d was sent %d, want %d", stream, o, want)
		}
		want += 10
	}
	if want < to {
		a.t.Fatalf("stream %d was sent everything below %d, want below %d", stream, want, to)
	}
}

const plenty = 1 << 40

func TestClientsThatComeBackTogetherShareOneRead(t *testing.T) {
	const records, clients = 100_000, 125
	a := newArchive(t, records, Config{Ring: 1000})
	for i := range uint64(clients) { // over a quarter of a second
		a.attach(1+i, int64(i), plenty)
		a.pass(2 * time.Millisecond)
	}
	a.pass(3 * time.Second)
	for i := range uint64(clients) {
		a.sent[(1+i)%10] = a.sent[1+i]
		a.whole((1+i)%10, int64(i), records)
	}
	if a.scanned > records {
		t.Fatalf("%d records were read for %d clients that are %d behind, want each once", a.scanned, clients, records)
	}
}

func TestLoneClientDoesNotWaitForCompanyForLong(t *testing.T) {
	const records = 10_000
	a := newArchive(t, records, Config{Ring: 1000})
	a.attach(1, 0, plenty)
	a.pass(2*company + records/100*time.Millisecond)
	a.whole(1, 0, records)
	b := newArchive(t, longPass, Config{Ring: 1000})
	b.attach(1, 1, plenty)
	b.pass(time.Millisecond)
	if b.scanned == 0 {
		t.Fatal("a short read waits for company, too")
	}
}

func TestClientsThatNeverStopComingDoNotHoldUpThePass(t *testing.T) {
	const records = 100_000
	a := newArchive(t, records, Config{Ring: 1000})
	a.attach(1, 0, plenty)
	stream := uint64(1)
	for end := a.now.Add(companyMost + 2*records/100*time.Millisecond); a.now.Before(end); {
		stream += 10
		a.attach(stream, 0, plenty)
		a.pass(5 * time.Millisecond)
		if n := len(a.sent[1]); n == records/10 {
			break
		}
	}
	a.whole(1, 0, records)
	if most := records + records/turnBack + 10*a.size; a.scanned > most {
		t.Fatalf("%d records were read until the first client had its %d, want at most %d", a.scanned, records, most)
	}
}

// A pass that has hardly begun goes back for those that come a little late: another one would cost more.
func TestPassGoesBackForLatecomers(t *testing.T) {
	const records = 100_000
	a := newArchive(t, records, Config{Ring: 1000})
	a.attach(1, 0, plenty)
	for a.scanned < records/20 {
		a.pass(time.Millisecond)
	}
	a.attach(2, 0, plenty)
	a.pass(3 * time.Second)
	a.whole(1, 0, records)
	a.whole(2, 0, records)
	if most := int64(records + records/turnBack); a.scanned > most {
		t.Fatalf("%d records were read for two clients that are %d behind, want at most %d", a.scanned, records, most)
	}
	// Much later it is cheaper, and kinder to the first one, to read again.
	b := newArchive(t, records, Config{Ring: 1000})
	b.attach(1, 0, plenty)
	for b.scanned < records/2 {
		b.pass(time.Millisecond)
	}
	b.attach(2, 0, plenty)
	b.pass(records / 2 / 100 * time.Millisecond)
	b.whole(1, 0, records)
	b.pass(3 * time.Second)
	b.whole(2, 0, records)
}

// A client that comes for one record at a time goes on in what was read last.
func TestTrickledCreditIsServedFromWhatWasReadLast(t *testing.T) {
	const records = 5000
	a := newArchive(t, records, Config{Ring: 1000})
	a.attach(1, 0, 1)
	a.attach(2, 0, plenty)
	a.pass(time.Second)
	a.whole(2, 0, records)
	if len(a.sent[1]) > 2 {
		t.Fatalf("%d records were sent for one byte of credit", len(a.sent[1]))
	}
	for len(a.sent[1]) < records/10 {
		before := len(a.sent[1])
		for range 200 { // its passes are rare, see passDelayHigh
			a.loop.Credit(a.now, 1, 1, 1)
			a.pass(50 * time.Millisecond)
		}
		if len(a.sent[1]) == before {
			t.Fatal("it is not served any more")
		}
	}
	a.whole(1, 0, records)
	if most := 2*records + a.size; a.scanned > most {
		t.Fatalf("%d records were read, one pass for the others and one for the one that trickles are %d", a.scanned, most)
	}
}

// Clients that trickle credit far apart cannot be served from the same answer. Each makes the node read again, but ever
// more rarely.
func TestTricklingClientsMakeTheNodeReadAgainRarely(t *testing.T) {
	const records, minute = 50_000, 120
	a := newArchive(t, records, Config{Ring: 1000})
	a.attach(1, 0, 1)
	a.attach(2, records/2, 1)
	for range minute {
		a.loop.Credit(a.now, 1, 1, 80)
		a.loop.Credit(a.now, 1, 2, 80)
		a.pass(500 * time.Millisecond)
	}
	if reads, most := a.scanned/a.size, int64(2*(time.Minute/passDelayHigh)+40); reads > most {
		t.Fatalf("%d reads in a minute for two clients that trickle, want at most %d", reads, most)
	}
}

// The partitions of a node fill the same link: there may be room for a record at one moment and none at the next.
func TestLinkThatOthersFillDoesNotMakeThePassReadAgain(t *testing.T) {
	const records = 5000
	a := newArchive(t, records, Config{Ring: 1000})
	asked := 0
	a.room = func() bool { asked++; return asked%2 == 1 }
	a.attach(1, 0, plenty)
	for range 20 * records {
		if len(a.sent[1]) == records/10 {
			break
		}
		a.pass(time.Millisecond)
		a.loop.LinkWritable(a.now, 1)
	}
	a.whole(1, 0, records-a.size)
	if a.scanned > records {
		t.Fatalf("%d records were read for one client that is %d behind", a.scanned, records)
	}
}

func TestReplayLimitAtAttach(t *testing.T) {
	const records, limit = 5000, 1000
	for _, tt := range []struct {
		name string
		from int64
		next int64
		gap  link.GapReason
	}{
		{"at the end", records, records, link.GapNone},
		{"inside", records - 10, records - 10, link.GapNone},
		{"exactly at it", records - limit, records - limit, link.GapNone},
		{"one beyond", records - limit - 1, records - limit, link.GapReplayLimit},
		{"at the beginning", 0, records - limit, link.GapReplayLimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t, records, Config{Ring: 1000, ReplayLimit: limit})
			a.attach(1, tt.from, plenty)
			if got := a.attached[0]; got.Next != tt.next || got.Gap != tt.gap || got.Head != records {
				t.Fatalf("attached %+v, want next %d and gap %v", got, tt.next, tt.gap)
			}
			a.pass(time.Second)
			a.whole(1, tt.next, records)
			if len(a.gaps) != 0 || a.scanned > limit {
				t.Fatalf("%d gaps beside what Attached said, and %d records read, want 0 and at most %d", len(a.gaps), a.scanned, limit)
			}
		})
	}
	// Retention took more than the limit would have: the nearer one is told.
	a := newArchive(t, records, Config{Ring: 1000, ReplayLimit: limit})
	a.b.Start = records - limit/2
	a.loop.Batch(a.now, a.batch(records, records))
	a.attach(1, 0, plenty)
	if got := a.attached[0]; got.Next != a.b.Start || got.Gap != link.GapRetention {
		t.Fatalf("attached %+v, want next %d and gap %v", got, a.b.Start, link.GapRetention)
	}
}

// A client that does not read falls behind. What it missed beyond the limit is told in one gap when it reads again, and
// nothing before: it may come back in time.
func TestReplayLimitForAStreamThatFallsBehind(t *testing.T) {
	const limit = 1000
	for _, tt := range []struct {
		name   string
		missed int64
		gaps   int
	}{
		{"in time", limit, 0},
		{"too late", 3 * limit, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t, 5000, Config{Ring: 1000, ReplayLimit: limit})
			a.attach(1, 5000, 0)
			for range tt.missed / 100 {
				a.produce(100)
				a.pass(time.Millisecond)
			}
			if len(a.gaps) != 0 {
				t.Fatalf("gaps %+v while it does not read", a.gaps)
			}
			a.loop.Credit(a.now, 1, 1, plenty)
			a.pass(time.Second)
			end := a.b.Stable
			if len(a.gaps) != tt.gaps {
				t.Fatalf("gaps %+v, want %d", a.gaps, tt.gaps)
			}
			from := int64(5000)
			if tt.gaps > 0 {
				g := a.gaps[0]
				if g.Reason != link.GapReplayLimit || g.To != end-limit || g.From < 5000 || g.From > 5001 {
					t.Fatalf("gap %+v, want one of the replay limit up to %d", g, end-limit)
				}
				from = g.To
			}
			a.whole(1, from, end)
			if a.loop.Status().Behind != 0 {
				t.Fatal("it is still behind")
			}
		})
	}
}

// A reader that lies beyond the end waits: high watermarks lag after a leader change. Only when that lasts the log was
// truncated, and everybody who is beyond the end is told once; who was behind keeps what there is.
func TestTruncationIsBelievedOnlyAfterAWhile(t *testing.T) {
	const after = 10 * time.Second
	begin := func() *archive {
		a := newArchive(t, 5000, Config{Ring: 1000, TruncatedAfter: after})
		a.attach(1, 5000, plenty) // live
		a.attach(2, 0, 0)         // behind, without credit
		a.attach(3, 4990, 0)      // behind, beyond what will be left
		return a
	}
	outside := func(a *archive, end int64, d time.Duration) {
		for until := a.now.Add(d); !a.now.After(until) && a.loop.Status().Head > end; {
			a.readAt = -1
			a.loop.OutOfRange(a.now, source.Bounds{Stable: end, High: end})
			for a.readAt < 0 && !a.now.After(until) {
				a.pass(10 * time.Millisecond)
			}
		}
	}

	a := begin()
	outside(a, 4900, after-time.Second)
	if len(a.gaps) != 0 || a.loop.Status().Head != 5000 {
		t.Fatalf("gaps %+v, head %d: believed at once", a.gaps, a.loop.Status().Head)
	}
	a.loop.Batch(a.now, a.batch(5000, 5000)) // it was a lagging leader
	outside(a, 4900, after-time.Second)
	if len(a.gaps) != 0 {
		t.Fatalf("gaps %+v: the time before the log was whole again counts", a.gaps)
	}

	a = begin()
	outside(a, 4900, after+time.Second)
	if len(a.gaps) != 2 {
		t.Fatalf("gaps %+v, want one for each stream beyond the end", a.gaps)
	}
	for _, g := range a.gaps {
		if g.Reason != link.GapTruncated || g.To != 4900 || g.Stream == 2 {
			t.Fatalf("gap %+v, want a truncation to 4900 of streams 1 and 3", g)
		}
	}
	if a.readAt != 4900 || a.loop.Status().Head != 4900 {
		t.Fatalf("reader at %d, head %d, want both at the new end", a.readAt, a.loop.Status().Head)
	}
	// Both go on where the log does, and the one behind gets all that is left.
	a.b = source.Bounds{Stable: 4900, High: 4900}
	a.loop.Credit(a.now, 1, 3, plenty)
	a.loop.Credit(a.now, 1, 2, plenty)
	a.pass(time.Second)
	a.produce(100)
	a.pass(time.Second)
	a.whole(1, 4900, 5000)
	a.whole(3, 4900, 5000)
	a.whole(2, 0, 5000)
	if len(a.gaps) != 2 {
		t.Fatalf("gaps %+v, want no further one", a.gaps)
	}
}
