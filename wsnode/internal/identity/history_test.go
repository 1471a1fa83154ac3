package identity

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// awayEtcd waits for etcd until the caller gives up, as pkg/etcdmap does.
type awayEtcd struct {
	*world
	away bool // guarded by world.mu
}

func (a *awayEtcd) gone() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.away
}

func (a *awayEtcd) EnsureTopic(ctx context.Context, want directory.Topic) (directory.Topic, error) {
	if a.gone() {
		<-ctx.Done()
		return directory.Topic{}, context.Cause(ctx)
	}
	return a.world.EnsureTopic(ctx, want)
}

func (a *awayEtcd) UpdateTopic(ctx context.Context, change func(directory.Topic) (directory.Topic, bool)) (directory.Topic, error) {
	if a.gone() {
		<-ctx.Done()
		return directory.Topic{}, context.Cause(ctx)
	}
	return a.world.UpdateTopic(ctx, change)
}

// While etcd is away it cannot be told of a growth, of its end, or of a new topic; the checks that records wait for go on.
func TestChecksGoOnWhileEtcdIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 4}
		etcd := &awayEtcd{world: w}
		cfg := w.config()
		cfg.Directory = etcd
		v := View{ID: idA, Partitions: 4}
		topic := v.describe("g", "murmur2", 3)
		w.topic = &topic
		k := w.runWith(t, cfg, v)
		k.Seen(&topic)
		<-time.After(11 * time.Second)
		checksGoOn := func(when string, during time.Duration) {
			t.Helper()
			for end := time.Now().Add(during); time.Now().Before(end); {
				<-time.After(100 * time.Millisecond)
				synctest.Wait()
				if age := time.Since(verified(k)); age > 1100*time.Millisecond {
					t.Fatalf("%s: the last good check is %v old, want at most 1.1s", when, age)
				}
			}
		}
		w.set(func() { etcd.away, w.partitions = true, 6 })
		checksGoOn("after a growth", 20*time.Second)
		checksGoOn("when the old count is closed", cfg.StaleAfter)
		if g := k.View().Growth; len(g) != 1 || g[0].Closed == nil {
			t.Fatalf("the node knows %+v", g)
		}
		w.set(func() {
			if w.updates != 0 {
				t.Errorf("etcd was written %d times while it was away", w.updates)
			}
			etcd.away = false
		})
		<-time.After(checkTimeout + time.Second)
		synctest.Wait()
		w.set(func() {
			if w.topic.Partitions != 6 || !directory.SameGrowth(w.topic.Growth, k.View().Growth) {
				t.Errorf("when etcd is back it says %+v", *w.topic)
			}
			etcd.away, w.id = true, idB
		})
		<-time.After(time.Second)
		checksGoOn("after a recreation", 20*time.Second)
		w.set(func() { etcd.away = false })
		<-time.After(checkTimeout + time.Second)
		synctest.Wait()
		w.set(func() {
			if w.topic.TopicID != directory.FormatTopicID(idB) {
				t.Errorf("after the recreation etcd says %+v", *w.topic)
			}
		})
		k.Seen(nil)
		w.set(func() { etcd.away, w.topic = true, nil })
		k.Recheck()
		checksGoOn("after a wipe", 20*time.Second)
	})
}

// Leaders that are new may know less of the end than others told before; what was told counts.
func TestPartitionsAreNotClosedBelowWhatWasSeen(t *testing.T) {
	for _, tc := range []struct {
		name    string
		noticed int64 // ends when the growth is noticed, beyond 100
		rounds  []int64
		closing int64
		want    int64
	}{
		{"the end at last", 50, []int64{60, 70}, 90, 190},
		{"below the end at the growth", 50, []int64{10, 20}, 30, 150},
		{"below the last round", 50, []int64{60, 70}, 30, 170},
		{"below an earlier round", 50, []int64{80, 20}, 30, 180},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{id: idA, partitions: 1}
				// Every check's place in time is known here: at full seconds.
				<-time.After(100 * time.Millisecond)
				k := w.run(t, View{ID: idA, Partitions: 1})
				<-time.After(1500 * time.Millisecond)
				w.set(func() { w.partitions, w.written = 2, tc.noticed })
				<-time.After(time.Second) // the growth is noticed, and a second later the first round is read
				w.set(func() { w.written = tc.rounds[0] })
				<-time.After(roundEvery) // and the next
				w.set(func() { w.written = tc.rounds[1] })
				<-time.After(2 * time.Second)
				w.set(func() { w.written = tc.closing })
				<-time.After(time.Minute)
				synctest.Wait()
				g := k.View().Growth
				if len(g) != 1 || g[0].Ends[0] != 100+tc.noticed || !slices.Equal(g[0].Closed, []int64{tc.want}) {
					t.Errorf("got %+v, want closed at %d", g, tc.want)
				}
			})
		})
	}
}

// Nothing is noted while a leader does not answer.
func TestGrowthWaitsForTheEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 1}
		var failing bool // guarded by w.mu
		cfg := w.config()
		cfg.Ends = func(ctx context.Context, id [16]byte, n int32) ([]int64, error) {
			w.mu.Lock()
			fail := failing
			w.mu.Unlock()
			if fail {
				return nil, errors.New("no leader")
			}
			return w.ends(ctx, id, n)
		}
		k := w.runWith(t, cfg, View{ID: idA, Partitions: 1})
		<-time.After(1500 * time.Millisecond)
		w.set(func() { failing, w.partitions = true, 2 })
		<-time.After(5 * time.Second)
		synctest.Wait()
		if v := k.View(); v.Partitions != 1 || len(v.Growth) != 0 {
			t.Errorf("without ends: %+v", v)
		}
		w.set(func() { failing = false })
		<-time.After(time.Second)
		w.set(func() { failing = true })
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if v := k.View(); v.Partitions != 2 || len(v.Growth) != 1 || v.Growth[0].Closed != nil {
			t.Errorf("closed without ends: %+v", v)
		}
	})
}

// What another node wrote first is handed on like what this node finds: records are judged by it.
func TestTheHistoryOfAnotherNodeIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{id: idA, partitions: 1}
		theirs := View{ID: idA, Partitions: 2, Growth: []directory.Growth{{Partitions: 1, Ends: []int64{77}, Since: time.Now()}}}
		ours := View{ID: idA, Partitions: 1}.describe("g", "murmur2", 3)
		var told View // guarded by w.mu
		cfg := w.config()
		cfg.Grown = func(v View) { w.set(func() { told = v }) }
		k := w.runWith(t, cfg, View{ID: idA, Partitions: 1})
		k.Seen(&ours)
		synctest.Wait()
		// etcd has it, and the watch has not told yet.
		topic := theirs.describe("g", "murmur2", 3)
		w.set(func() { w.topic, w.partitions, w.written = &topic, 2, 5 })
		<-time.After(1500 * time.Millisecond)
		synctest.Wait()
		w.set(func() {
			if !directory.SameGrowth(told.Growth, theirs.Growth) || !directory.SameGrowth(k.View().Growth, theirs.Growth) {
				t.Errorf("handed on %+v, known %+v, want %+v", told.Growth, k.View().Growth, theirs.Growth)
			}
		})
	})
}

func TestGrowthBeforeTheStartIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		w := &world{id: idA, partitions: 8}
		cfg := w.config()
		cfg.Logger = zap.New(core)
		w.runWith(t, cfg, View{ID: idA, Partitions: 4})
		said := func() int { return logs.FilterMessageSnippet("before this node ran").Len() }
		<-time.After(1500 * time.Millisecond)
		synctest.Wait()
		if said() != 1 {
			t.Errorf("said %v", logs.All())
		}
		w.set(func() { w.partitions = 9 })
		<-time.After(1500 * time.Millisecond)
		synctest.Wait()
		if said() != 1 {
			t.Errorf("a growth while it runs: said %v", logs.All())
		}
	})
}
