package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

var (
	idA = [16]byte{0xa}
	idB = [16]byte{0xb}
)

// world is a Kafka and an etcd.
type world struct {
	mu         sync.Mutex
	id         [16]byte
	partitions int32
	err        error
	asked      int
	written    int64 // to each partition
	topic      *directory.Topic
	broken     error // of the topic key
	updates    int
	heard      []string
}

func (w *world) ask(context.Context) ([16]byte, int32, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.id, w.partitions, w.err
}

func (w *world) ends(_ context.Context, _ [16]byte, partitions int32) ([]int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ends := make([]int64, partitions)
	for p := range ends {
		ends[p] = 100 + int64(p) + w.written
	}
	return ends, nil
}

func (w *world) EnsureTopic(_ context.Context, want directory.Topic) (directory.Topic, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return directory.Topic{}, w.broken
	}
	if w.topic == nil {
		w.topic = &want
		w.updates++
	}
	return *w.topic, nil
}

func (w *world) UpdateTopic(_ context.Context, change func(directory.Topic) (directory.Topic, bool)) (directory.Topic, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.topic == nil {
		return directory.Topic{}, errors.New("no topic")
	}
	if next, ok := change(*w.topic); ok {
		w.topic = &next
		w.updates++
	}
	return *w.topic, nil
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) config() Config {
	hear := func(what string) func(View) {
		return func(v View) {
			w.set(func() { w.heard = append(w.heard, what+" "+directory.FormatTopicID(v.ID)[:2]) })
		}
	}
	return Config{
		Group: "g", Partitioner: "murmur2", Key: "/p/t/topic", Topic: w.ask, Directory: w,
		Ends:        w.ends,
		StaleAfter:  time.Minute,
		Incarnation: func() int64 { return 3 },
		Changed:     hear("changed"), Grown: hear("grown"),
	}
}

// run starts a keeper inside a bubble; it ends with the test.
func (w *world) run(t *testing.T, v View) *Keeper {
	t.Helper()
	return w.runWith(t, w.config(), v)
}

func (w *world) runWith(t *testing.T, cfg Config, v View) *Keeper {
	t.Helper()
	k := New(cfg, v)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

func verified(k *Keeper) time.Time {
	at, _ := k.Verified()
	return at
}

func TestTopicIsVouchedForEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 4}
		k := w.run(t, View{ID: idA, Partitions: 4})
		synctest.Wait()
		first := verified(k)
		if first.IsZero() {
			t.Fatal("not verified after the first check")
		}
		_, next := k.Verified()
		<-next
		if got := verified(k).Sub(first); got != time.Second {
			t.Errorf("checks are %v apart, want 1s", got)
		}
		w.set(func() { w.err = errors.New("no broker") })
		at := verified(k)
		<-time.After(3500 * time.Millisecond)
		synctest.Wait()
		if verified(k).After(at) {
			t.Error("verified although Kafka does not answer")
		}
		if err, _ := k.Health(); err == nil {
			t.Error("healthy although Kafka does not answer")
		}
		w.set(func() { w.err = nil })
		_, next = k.Verified()
		k.Recheck()
		<-next
		if err, _ := k.Health(); err != nil {
			t.Errorf("got %v after Kafka is back", err)
		}
	})
}

func TestRecreatedTopicIsToldBeforeItIsVouchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 4}
		cfg := w.config()
		var k *Keeper
		var before, during time.Time
		cfg.Changed = func(v View) {
			during = verified(k)
			w.set(func() { w.heard = append(w.heard, "changed") })
		}
		k = New(cfg, View{ID: idA, Partitions: 4})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); k.Run(ctx) }()
		defer func() { cancel(); <-done }()
		synctest.Wait()
		before = verified(k)
		w.set(func() { w.id, w.partitions = idB, 2 })
		_, next := k.Verified()
		<-next
		if during != before {
			t.Errorf("the new topic was vouched for at %v before loops heard of it", during)
		}
		if v := k.View(); v.ID != idB || v.Partitions != 2 {
			t.Errorf("got view %+v", v)
		}
		// A broker that is behind describes the deleted topic again: that is no change, and vouches for nothing.
		w.set(func() { w.id = idA })
		at := verified(k)
		<-time.After(2500 * time.Millisecond)
		synctest.Wait()
		if verified(k).After(at) || k.View().ID != idB || len(w.heard) != 1 {
			t.Errorf("the deleted topic came back: verified %v (was %v), view %+v, heard %q", verified(k), at, k.View(), w.heard)
		}
	})
}

func TestEtcdLearnsOfANewTopicAndOfGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 2}
		v := View{ID: idA, Partitions: 2}
		topic := v.describe("g", "murmur2", 3)
		w.topic = &topic
		k := w.run(t, v)
		synctest.Wait()
		k.Seen(w.topic)
		w.set(func() { w.partitions = 3 })
		<-time.After(1500 * time.Millisecond)
		synctest.Wait()
		w.set(func() {
			g := w.topic.Growth
			if w.topic.Partitions != 3 || len(g) != 1 || g[0].Partitions != 2 || len(g[0].Ends) != 2 || g[0].Ends[1] != 101 {
				t.Errorf("after the growth etcd says %+v", *w.topic)
			}
			w.id, w.partitions = idB, 5
		})
		<-time.After(1500 * time.Millisecond)
		synctest.Wait()
		w.set(func() {
			if w.topic.TopicID != directory.FormatTopicID(idB) || w.topic.Partitions != 5 || len(w.topic.Growth) != 0 {
				t.Errorf("after the recreation etcd says %+v", *w.topic)
			}
			if w.updates != 2 {
				t.Errorf("etcd was written %d times, want 2", w.updates)
			}
		})
	})
}

func TestGrowthSaysFromWhereToWhereKeysMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 2}
		v := View{ID: idA, Partitions: 2}
		topic := v.describe("g", "murmur2", 3)
		w.topic = &topic
		k := w.run(t, v)
		k.Seen(w.topic)
		growth := func(i int) directory.Growth {
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.topic.Growth) <= i {
				t.Fatalf("etcd says %+v", *w.topic)
			}
			return w.topic.Growth[i]
		}
		// The first round was noted at once; what is written since lies between it and the end.
		<-time.After(11 * time.Second)
		w.set(func() { w.written, w.partitions = 50, 3 })
		<-time.After(1500 * time.Millisecond)
		if g := growth(0); len(g.From) != 2 || g.From[1] != 101 || g.Ends[1] != 151 || g.Closed != nil {
			t.Errorf("after the growth: %+v", g)
		}
		// Nobody looked long enough before this one.
		w.set(func() { w.partitions = 4 })
		<-time.After(1500 * time.Millisecond)
		if g := growth(1); g.From != nil || len(g.Ends) != 3 {
			t.Errorf("after the next growth: %+v", g)
		}
		w.set(func() { w.written = 80 })
		<-time.After(30 * time.Second)
		if g := growth(0); g.Closed != nil {
			t.Errorf("closed while producers may not have heard: %+v", g)
		}
		<-time.After(31 * time.Second)
		synctest.Wait()
		if g := growth(0); len(g.Closed) != 2 || g.Closed[1] != 181 {
			t.Errorf("when all producers have heard: %+v", g)
		}
		if !directory.SameGrowth(k.View().Growth, w.topic.Growth) {
			t.Errorf("the node says %+v, etcd %+v", k.View().Growth, w.topic.Growth)
		}
		// A node that is behind takes over what stands in etcd.
		other := w.run(t, v)
		other.Seen(w.topic)
		<-time.After(1500 * time.Millisecond)
		synctest.Wait()
		if got := other.View(); got.Partitions != 4 || !directory.SameGrowth(got.Growth, w.topic.Growth) {
			t.Errorf("the other node says %+v, etcd %+v", got, *w.topic)
		}
	})
}

func TestEtcdIsMendedAfterAWipeAndARestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 2}
		v := View{ID: idA, Partitions: 2}
		k := w.run(t, v)
		synctest.Wait()
		k.Seen(nil)
		synctest.Wait()
		w.set(func() {
			if w.topic == nil || w.topic.Incarnation != 3 {
				t.Fatalf("after a wipe etcd says %+v, want the topic with incarnation 3", w.topic)
			}
			old := v.describe("g", "murmur2", 1)
			w.topic = &old
		})
		k.Seen(w.topic)
		k.Recheck()
		synctest.Wait()
		w.set(func() {
			if w.topic.Incarnation != 3 {
				t.Errorf("after a restore the incarnation is %d, want 3", w.topic.Incarnation)
			}
		})
	})
}

func TestAnotherNodesTopicIdIsNotOverwrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 2}
		v := View{ID: idA, Partitions: 2}
		k := w.run(t, v)
		synctest.Wait()
		// Another node heard of the recreation before our broker did.
		newer := View{ID: idB, Partitions: 2}.describe("g", "murmur2", 3)
		w.set(func() { w.topic = &newer })
		k.Seen(&newer)
		<-time.After(5 * time.Second)
		synctest.Wait()
		w.set(func() {
			if w.topic.TopicID != directory.FormatTopicID(idB) {
				t.Error("a node whose broker is behind wrote the old id back")
			}
			w.id = idB
		})
		<-time.After(time.Second)
		synctest.Wait()
		if k.View().ID != idB || len(w.heard) != 1 {
			t.Errorf("view %+v, heard %q", k.View(), w.heard)
		}
	})
}

func TestStartRefusesWhatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := View{ID: idA, Partitions: 4}.describe("g", "murmur2", 7)
		for _, tc := range []struct {
			name   string
			etcd   func(*directory.Topic)
			living int
			word   string
		}{
			{"another group", func(d *directory.Topic) { d.Group = "x" }, 0, "--group=x"},
			{"another partitioner", func(d *directory.Topic) { d.Partitioner = "crc32" }, 0, "--partitioner=crc32"},
			{"fewer partitions than etcd says", func(d *directory.Topic) { d.Partitions = 8 }, 1, "has 8 partitions"},
			{"another topic while nodes live", func(d *directory.Topic) { d.TopicID = directory.FormatTopicID(idB) }, 2, "2 living nodes"},
		} {
			topic := good
			tc.etcd(&topic)
			w := &world{id: idA, partitions: 4, topic: &topic}
			_, _, err := Settle(t.Context(), w.config(), func() int { return tc.living })
			var refusal *Refusal
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), tc.word) {
				t.Errorf("%s: got %v, want a refusal with %q", tc.name, err, tc.word)
			}
			if w.updates != 0 {
				t.Errorf("%s: etcd was written", tc.name)
			}
		}
	})
}

func TestStartTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 4}
		v, inc, err := Settle(t.Context(), w.config(), func() int { return 0 })
		if err != nil || v.ID != idA || v.Partitions != 4 || inc != 1 {
			t.Errorf("empty etcd: got %+v, incarnation %d, %v", v, inc, err)
		}
		// Recreated while nobody ran.
		w.id, w.partitions, w.topic.Incarnation = idB, 2, 6
		v, inc, err = Settle(t.Context(), w.config(), func() int { return 0 })
		if err != nil || v.ID != idB || v.Partitions != 2 || inc != 6 {
			t.Errorf("recreated: got %+v, incarnation %d, %v", v, inc, err)
		}
		// Grown while nobody ran: the first check of the keeper writes the history.
		w.partitions = 5
		v, _, err = Settle(t.Context(), w.config(), func() int { return 0 })
		if err != nil || v.Partitions != 2 {
			t.Errorf("grown: got %+v, %v; want the view to begin with what etcd says", v, err)
		}
	})
}

func TestIncarnationIsRaisedOnce(t *testing.T) {
	w := &world{id: idA}
	topic := View{ID: idA, Partitions: 1}.describe("g", "murmur2", 4)
	w.topic = &topic
	k := New(w.config(), View{ID: idA, Partitions: 1})
	for range 2 { // two nodes saw the same reset
		if n, err := k.Raise(t.Context(), 4); n != 5 || err != nil {
			t.Errorf("got %d, %v; want 5", n, err)
		}
	}
	if w.updates != 1 {
		t.Errorf("etcd was written %d times, want once", w.updates)
	}
}

func TestMalformedDescriptionIsSaidOnceAMinuteAndNeverOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		w := &world{id: idA, partitions: 2, broken: fmt.Errorf("topic key: %w", directory.ErrMalformed)}
		cfg := w.config()
		cfg.Logger = zap.New(core)
		k := w.runWith(t, cfg, View{ID: idA, Partitions: 2})
		k.Seen(nil)
		<-time.After(150 * time.Second)
		synctest.Wait()
		if n := logs.Len(); n != 3 || logs.FilterMessageSnippet("is not what it should be").Len() != 3 {
			t.Errorf("said %d times in 150 s, want 3: %v", n, logs.All())
		}
		if err, _ := k.Health(); err != nil {
			t.Errorf("kafka is blamed: %v", err)
		}
		if err := k.Described(); !errors.Is(err, directory.ErrMalformed) {
			t.Errorf("etcd's description: got %v, want malformed", err)
		}
		w.set(func() {
			if w.updates != 0 {
				t.Error("the malformed key was written")
			}
			w.broken = nil
		})
		<-time.After(2 * time.Second)
		synctest.Wait()
		if err := k.Described(); err != nil || w.updates != 1 {
			t.Errorf("after the key was deleted: %v, %d writes", err, w.updates)
		}
	})
}

func TestSlowCheckIsNoSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		w := &world{id: idA, partitions: 2}
		cfg := w.config()
		cfg.Logger = zap.New(core)
		cfg.Topic = func(ctx context.Context) ([16]byte, int32, error) {
			<-ctx.Done()
			return [16]byte{}, 0, context.Cause(ctx)
		}
		w.runWith(t, cfg, View{ID: idA, Partitions: 2})
		<-time.After(20 * time.Second)
		synctest.Wait()
		if logs.FilterMessageSnippet("did not run").Len() != 0 || logs.FilterMessageSnippet("cannot be checked").Len() != 1 {
			t.Errorf("said %v", logs.All())
		}
	})
}

func TestStartWaitsForKafka(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		away, missing := errors.New("no broker"), errors.New("no such topic")
		w := &world{id: idA, partitions: 4, err: away}
		cfg := w.config()
		cfg.Logger = zap.New(core)
		cfg.Missing = func(err error) bool { return errors.Is(err, missing) }
		// Kafka also goes away between the two questions that a start may ask.
		newer := View{ID: idB, Partitions: 4}.describe("g", "murmur2", 1)
		w.topic = &newer
		living := func() int { w.err = away; return 0 }
		done := make(chan error, 1)
		go func() {
			_, _, err := Settle(t.Context(), cfg, living)
			done <- err
		}()
		for range 1 + settleChecks {
			<-time.After(10*time.Second + time.Millisecond)
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("the start did not wait for Kafka: %v", err)
			default:
			}
			w.set(func() { w.err = nil })
			<-time.After(time.Second)
			synctest.Wait()
		}
		if err := <-done; err != nil {
			t.Errorf("got %v after Kafka was back", err)
		}
		if n := logs.FilterMessageSnippet("waiting").Len(); n != 1+settleChecks {
			t.Errorf("said %d times that it waits, want once each time", n)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped")
		w.set(func() { w.err = away })
		time.AfterFunc(5*time.Second, func() { cancel(stop) })
		if _, _, err := Settle(ctx, cfg, living); !errors.Is(err, stop) {
			t.Errorf("stopped while it waited: got %v", err)
		}
		w.set(func() { w.err = missing })
		began := time.Now()
		if _, _, err := Settle(t.Context(), cfg, living); !errors.Is(err, missing) || time.Since(began) > time.Second {
			t.Errorf("missing topic: got %v after %v", err, time.Since(began))
		}
	})
}
