package runner

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

func TestAttachStartsALoopThatDelivers(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 3, 7, "k", latest)
		b.expect(l, "attached 7 at 0")
		b.log.sink(3).Batch(batch(0, "k", 2))
		b.expect(l, "record 0 to [7]", "record 1 to [7]")
		b.log.sink(3).Batch(batch(2, "other", 2))
		b.expect(l)
	})
}

func TestAllFramesOfABatchGoOutTogether(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		synctest.Wait()
		l.mu.Lock()
		before := l.flushes
		l.mu.Unlock()
		b.log.sink(0).Batch(batch(0, "k", 500))
		synctest.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		if got := l.flushes - before; len(l.offsets) != 500 || got != 1 {
			b.t.Errorf("%d records in %d flushes, want 500 in 1", len(l.offsets), got)
		}
	})
}

func TestIdleLoopEndsAndStartsAgain(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		for stream := range uint64(3) {
			b.attach(l, 2, stream+1, "k", latest)
			synctest.Wait()
			b.r.Deliver(l, 2, []Event{{Kind: Detach, Stream: stream + 1}})
			synctest.Wait()
			if all, _ := b.r.Status(); len(all) != 1 {
				b.t.Fatalf("%d loops while the partition lingers, want 1", len(all))
			}
			<-time.After(10 * time.Second)
			synctest.Wait()
			if all, _ := b.r.Status(); len(all) != 0 {
				b.t.Fatalf("%d loops after the linger, want 0", len(all))
			}
			if got := b.reads(); !slices.Equal(got, []string{"read 2 from 0", "stop 2"}) {
				b.t.Fatalf("round %d: got %q", stream, got)
			}
		}
	})
}

func TestWithoutLingerAReadStopsWithTheLastStream(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		for stream := range uint64(3) {
			b.attach(l, 2, stream+1, "k", latest)
			synctest.Wait()
			b.r.Deliver(l, 2, []Event{{Kind: Detach, Stream: stream + 1}})
			synctest.Wait() // no time passes
			if got := b.reads(); !slices.Equal(got, []string{"read 2 from 0", "stop 2"}) {
				b.t.Fatalf("round %d: got %q", stream, got)
			}
		}
	}, func(cfg *Config) { cfg.Loop.Linger = 0 })
}

func TestAssignedPartitionStaysAndIsReadable(t *testing.T) {
	heard := make(claimsHeard, 4)
	inBubble(t, true, func(b *bench) {
		b.r.SetClaims(heard)
		b.r.Assign(5, -1)
		<-time.After(time.Minute)
		if p := <-heard; p != 5 {
			b.t.Errorf("partition %d is readable, want 5", p)
		}
		all, _ := b.r.Status()
		if len(all) != 1 || !all[0].Readable {
			b.t.Fatalf("got %+v", all)
		}
		b.r.Revoke(5)
		<-time.After(time.Minute)
		synctest.Wait()
		if all, _ := b.r.Status(); len(all) != 0 {
			b.t.Errorf("the loop outlived its claim")
		}
	})
}

type claimsHeard chan int32

func (c claimsHeard) Readable(p int32) { c <- p }

func TestOnlyAssignedPartitionsAreMarked(t *testing.T) {
	var mu sync.Mutex
	marks := map[int32]int64{}
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.r.Assign(1, -1)
		synctest.Wait()
		b.log.sink(0).Batch(batch(0, "k", 3))
		b.log.sink(1).Batch(batch(0, "k", 4))
		synctest.Wait()
		b.r.Revoke(1)
		b.attach(l, 1, 2, "k", latest) // still read, by a plain read
		synctest.Wait()
		b.log.sink(1).Batch(batch(4, "k", 4))
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(marks) != 1 || marks[1] != 4 {
			b.t.Errorf("marked %v, want only partition 1 at 4", marks)
		}
	}, func(c *Config) {
		c.Mark = func(p int32, next int64) { mu.Lock(); marks[p] = next; mu.Unlock() }
	})
}

func TestUnknownPartitionIsRefused(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 8, 1, "k", latest)
		b.expect(l, "closed 1 partition")
		b.r.Grow(9)
		b.attach(l, 8, 2, "k", latest)
		b.expect(l, "attached 2 at 0")
	})
}

func TestRecordsWaitUntilTheTopicIsVouchedFor(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.expect(l)
		b.id.verify()
		b.expect(l, "attached 1 at 0")

		<-time.After(10 * time.Second) // a freeze: the last check is old
		b.log.sink(0).Batch(batch(0, "k", 1))
		b.expect(l)
		if b.id.rechecks() == 0 {
			b.t.Error("nobody asked for a check")
		}
		b.id.verify()
		b.expect(l, "record 0 to [1]")
	})
}

func TestNobodyIsGreetedInTheNameOfATopicThatIsGone(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l, gone := &fakeLink{id: 1}, &fakeLink{id: 2}
		b.attach(l, 0, 1, "k", latest)
		b.id.verify()
		b.expect(l, "attached 1 at 0")
		<-time.After(10 * time.Second) // a freeze: the last check is old
		b.r.Deliver(l, 0, []Event{attachEvent(0, 2, "other", latest)})
		b.r.Deliver(l, 0, []Event{{Kind: Detach, Stream: 2}, attachEvent(0, 3, "other", latest)})
		b.attach(gone, 0, 1, "k", latest)
		b.r.Gone(gone, []int32{0})
		b.expect(l)
		if b.id.rechecks() == 0 {
			b.t.Error("nobody asked for a check")
		}
		b.r.TopicChanged(topicB, 8)
		b.id.verify()
		b.expect(l, "closed 1 topic", "closed 2 topic", "closed 3 topic")
		b.expect(gone, "closed 1 topic")
	})
}

func TestRoutersAreServedWhileKafkaCannotBeAsked(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.id.verify()
		b.expect(l, "attached 1 at 0")
		<-time.After(10 * time.Second)
		b.attach(l, 0, 2, "k", latest)
		b.expect(l)
		<-time.After(greetWait)
		b.expect(l, "attached 2 at 0")
		b.attach(l, 0, 3, "k", latest) // one wait is enough
		b.expect(l, "attached 3 at 0")
	})
}

func TestRecordsOfARecreatedTopicAreNeverDelivered(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.id.verify()
		b.expect(l, "attached 1 at 0")
		old := b.log.sink(0)
		<-time.After(10 * time.Second)
		old.Batch(batch(0, "k", 3)) // of the new topic, which has grown past our head
		b.expect(l)
		b.r.TopicChanged(topicB, 8)
		b.id.verify()
		b.expect(l, "closed 1 topic")
		old.Batch(batch(3, "k", 3)) // its reader has ended: this must not hang either
		b.expect(l)
		b.attach(l, 0, 2, "k", latest) // by a router that does not know yet
		b.expect(l, "closed 2 topic")
		e := attachEvent(0, 3, "k", latest)
		e.Attach.TopicID = topicB
		b.r.Deliver(l, 0, []Event{e})
		b.expect(l, "attached 3 at 0")
	})
}

func TestOffsetOutsideTheLogIsNotBelievedBeforeACheck(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l := &fakeLink{id: 1}
		b.log.bounds[0] = source.Bounds{Start: 0, Stable: 10, High: 10}
		b.attach(l, 0, 1, "k", latest)
		b.id.verify()
		b.expect(l, "attached 1 at 10")
		b.log.sink(0).OutOfRange(source.Bounds{Start: 20, Stable: 30, High: 30}) // retention, or another topic
		b.expect(l)
		<-time.After(time.Millisecond)
		b.id.verify()
		b.expect(l, "gap 1 to 20")
	})
}

func TestFailedReaderMakesTheTopicDoubtful(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.id.verify()
		b.expect(l, "attached 1 at 0")
		<-time.After(time.Millisecond)
		b.log.sink(0).Failed(errors.New("leader moved"))
		b.log.sink(0).Batch(batch(0, "k", 1))
		b.expect(l)
		b.log.sink(0).Failed(errors.New("again")) // who tells so does not wait behind what is on hold
		<-time.After(time.Millisecond)
		b.id.verify()
		b.expect(l, "record 0 to [1]")
	})
}

func TestReaderThatStoppedIsStartedAgain(t *testing.T) {
	inBubble(t, false, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.id.verify()
		b.expect(l, "attached 1 at 0")
		b.log.sink(0).Batch(batch(0, "k", 2))
		b.expect(l, "record 0 to [1]", "record 1 to [1]")
		b.reads()
		<-time.After(time.Millisecond)
		b.log.sink(0).Failed(ErrStopped)
		synctest.Wait()
		<-time.After(time.Millisecond)
		b.id.verify()
		synctest.Wait()
		if got := b.reads(); !slices.Equal(got, []string{"read 0 from 2"}) {
			b.t.Errorf("got %q, want the reader to go on at 2", got)
		}
	})
}

func TestStartTimeIsAskedUntilKafkaAnswers(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.log.bounds[0] = source.Bounds{Stable: 3, High: 3}
		b.log.records = []source.Record{{Offset: 1, Timestamp: 500, Key: []byte("k"), HasKey: true}}
		b.attach(l, 0, 1, "other", latest)
		b.expect(l, "attached 1 at 3")
		b.log.mu.Lock()
		b.log.failing = true
		b.log.mu.Unlock()
		b.attach(l, 0, 2, "k", link.Start{Kind: link.StartTime, Value: 400})
		<-time.After(3 * time.Second)
		b.expect(l)
		b.log.mu.Lock()
		b.log.failing = false
		b.log.mu.Unlock()
		<-time.After(3 * time.Second)
		b.expect(l, "attached 2 at 1", "record 1 to [2]")
	})
}

func TestQuestionsAboutATopicThatIsGoneEnd(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "other", latest)
		b.expect(l, "attached 1 at 0")
		b.log.mu.Lock()
		b.log.failing = true
		b.log.mu.Unlock()
		b.attach(l, 0, 2, "k", link.Start{Kind: link.StartTime, Value: 400})
		<-time.After(time.Second)
		b.r.TopicChanged(topicB, 8)
		b.expect(l, "closed 1 topic", "closed 2 topic")
		b.log.mu.Lock()
		b.log.failing = false
		b.log.bounds[0] = source.Bounds{Stable: 3, High: 3}
		b.log.records = []source.Record{{Offset: 1, Timestamp: 500, Key: []byte("k"), HasKey: true}}
		b.log.mu.Unlock()
		e := attachEvent(0, 3, "k", link.Start{Kind: link.StartTime, Value: 400})
		e.Attach.TopicID = topicB
		b.r.Deliver(l, 0, []Event{e})
		<-time.After(3 * time.Second)
		b.expect(l, "attached 3 at 1", "record 1 to [3]")
	})
}

func TestLinkThatIsGoneKeepsNothing(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.attach(l, 0, 1, "k", latest)
		b.expect(l, "attached 1 at 0")
		b.attach(l, 1, 2, "k", latest)
		b.expect(l, "attached 2 at 0")
		b.r.Gone(l, []int32{0, 1})
		b.log.sink(0).Batch(batch(0, "k", 1))
		b.expect(l)
		b.r.Writable(l, 0) // the writer's last word
		<-time.After(time.Minute)
		synctest.Wait()
		if all, _ := b.r.Status(); len(all) != 0 {
			b.t.Errorf("%d loops are left", len(all))
		}
	})
}

func TestSlowScanDelaysNeitherLiveRecordsNorTheEnd(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		b.log.bounds[0] = source.Bounds{Stable: 100, High: 100}
		b.log.scanning = make(chan struct{})
		b.attach(l, 0, 1, "k", latest)
		b.expect(l, "attached 1 at 100")
		b.attach(l, 0, 2, "k", link.Start{Kind: link.StartEarliest})
		b.expect(l, "attached 2 at 0")
		b.log.sink(0).Batch(batch(100, "k", 1))
		b.expect(l, "record 100 to [1]")
		// Close, by inBubble, must end the scan that waits.
	})
}

func TestRingBudgetIsShared(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		l := &fakeLink{id: 1}
		for p := range int32(4) {
			b.attach(l, p, uint64(p)+1, "k", latest)
		}
		synctest.Wait()
		for p := range int32(4) {
			for from := int64(0); from < 4000; from += 100 {
				b.log.sink(p).Batch(batch(from, "other", 100))
			}
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		all, _ := b.r.Status()
		var sum int64
		for _, s := range all {
			sum += s.RingBytes
		}
		if limit := int64(1 << 20); sum > limit || sum < limit/2 {
			b.t.Errorf("rings hold %d bytes, want at most and near %d", sum, limit)
		}
	})
}

func TestScanRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1000)
		began := time.Now()
		for range 50 {
			l.wait(t.Context())
			l.spend(200)
		}
		// 10,000 bytes less what was saved up and what the last one still owes.
		if took := time.Since(began); took < 9500*time.Millisecond || took > 10500*time.Millisecond {
			t.Errorf("10,000 bytes at 1,000 a second took %v", took)
		}
		free := newLimiter(0)
		free.spend(1 << 40)
		free.wait(t.Context())
	})
}

// TestManyHandsAtOnce lets everything that may feed a runner do so together, for the race detector and against
// deadlocks: with too little room anywhere, everybody must come to an end.
func TestManyHandsAtOnce(t *testing.T) {
	inBubble(t, true, func(b *bench) {
		var wg sync.WaitGroup
		links := []*fakeLink{{id: 1}, {id: 2}, {id: 3}}
		for i, l := range links {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := range uint64(300) {
					p := int32(n % 4)
					b.r.Deliver(l, p, []Event{
						attachEvent(p, 3*n+uint64(i)+1, "k", latest), {Kind: Credit, Stream: 3*n + uint64(i) + 1, Bytes: 10},
					})
					if n%3 == 0 {
						b.r.Deliver(l, p, []Event{{Kind: Detach, Stream: 3*n + uint64(i) + 1}})
					}
					b.r.Writable(l, p)
				}
				b.r.Gone(l, []int32{0, 1, 2, 3})
			}()
		}
		stop := make(chan struct{})
		feeding := make(chan struct{})
		go func() {
			defer close(feeding)
			next := map[Sink]int64{}
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Microsecond):
				}
				for p := range int32(4) {
					if s := b.log.sink(p); s != nil {
						s.Batch(batch(next[s], "k", 5))
						next[s] += 5
					}
				}
			}
		}()
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range 200 {
				p := int32(n % 4)
				b.r.Assign(p, -1)
				b.r.Status()
				b.r.Revoke(p)
				if n%50 == 0 {
					b.r.TopicChanged([16]byte{byte(n), 1}, 8)
				}
			}
		}()
		wg.Wait()
		close(stop)
		<-feeding
	})
}
