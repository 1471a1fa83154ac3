package etcdmap

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

var testKeys = directory.Keys{Prefix: "/p", Topic: "t"}

// bubble is a map over a fake etcd in simulated time, and a watch on it.
type bubble struct {
	*fakeEtcd
	m    *Map
	logs *observer.ObservedLogs

	seen sync.Mutex
	pics []*Picture
}

func inBubble(t *testing.T, f func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		b := &bubble{fakeEtcd: newFakeEtcd(testKeys.Base()), logs: logs}
		b.m = newMap(Config{Prefix: testKeys.Prefix, Topic: testKeys.Topic, Logger: zap.New(core), RelistEvery: 10 * time.Minute}, b.fakeEtcd)
		f(t, b)
		if err := b.m.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, e := range logs.All() {
				t.Log(e.Time.Sub(logs.All()[0].Time), e.Level, e.Message, e.ContextMap())
			}
		}
	})
}

func (b *bubble) follow() {
	go func() {
		_ = b.m.Watch(context.Background(), func(p *Picture) {
			b.seen.Lock()
			defer b.seen.Unlock()
			b.pics = append(b.pics, p)
		})
	}()
	synctest.Wait()
}

// pass lets simulated time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (b *bubble) last() *Picture {
	b.seen.Lock()
	defer b.seen.Unlock()
	if len(b.pics) == 0 {
		return &Picture{}
	}
	return b.pics[len(b.pics)-1]
}

func claimValue(instance string, generation int32) string {
	v, err := directory.Marshal(directory.Claim{Node: "n-" + instance, Instance: instance, Incarnation: 1, Generation: generation})
	if err != nil {
		panic(err)
	}
	return string(v)
}

func (b *bubble) want(t *testing.T, part int32, instance string) {
	t.Helper()
	if got := b.last().Claims[part].Instance; got != instance {
		t.Errorf("partition %d is claimed by %q, want %q", part, got, instance)
	}
}

func (b *bubble) logged(message string) int { return b.logs.FilterMessage(message).Len() }

func TestIdleMapIsLeftAlone(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		b.put(testKeys.Claim(0), claimValue("a", 1), 0)
		b.follow()
		pass(9 * time.Minute / 2)
		b.put("/elsewhere", "", 0) // from now on etcd answers when asked for progress
		pass(time.Minute)
		if s := b.m.Stats(); s.Lists != 1 || s.WatchRestarts != 0 || s.Changes != 1 {
			t.Errorf("got %+v, want one list and one picture", s)
		}
		b.want(t, 0, "a")
		if b.begun[0] != b.last().Revision+1 {
			t.Errorf("watch from %d, want the list's revision %d + 1", b.begun[0], b.last().Revision)
		}
	})
}

func TestPeriodicListMendsWhatNobodyNoticed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		b.put(testKeys.Claim(0), claimValue("a", 1), 0)
		b.put(testKeys.Claim(1), claimValue("a", 1), 0)
		b.follow()
		b.lossy = true
		b.put(testKeys.Claim(0), claimValue("b", 2), 0) // the probe asks for claim 1, which stays
		pass(time.Minute)
		b.want(t, 0, "a")
		pass(16 * time.Minute)
		b.want(t, 0, "b")
	})
}

func TestSilentWatchIsBegunAgain(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*bubble){
		"no sign of life": func(b *bubble) { b.mute = true },
		"events are lost": func(b *bubble) { b.lossy = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, b *bubble) {
				b.put(testKeys.Claim(0), claimValue("a", 1), 0)
				b.follow()
				fault(b)
				b.put(testKeys.Claim(0), claimValue("b", 2), 0)
				pass(10 * time.Second)
				b.want(t, 0, "b")
				if s := b.m.Stats(); s.Hangs == 0 || s.Wipes != 0 || s.Outages != 0 {
					t.Errorf("got %+v, want a hang", s)
				}
				b.mu.Lock()
				b.mute, b.lossy = false, false
				b.mu.Unlock()
				pass(10 * time.Second)
				lists := b.m.Stats().Lists
				b.put(testKeys.Claim(0), claimValue("c", 3), 0)
				pass(time.Minute)
				b.want(t, 0, "c")
				if again := b.m.Stats().Lists; again != lists {
					t.Errorf("%d more lists after the watch was well", again-lists)
				}
			})
		})
	}
}

func TestCompactedWatchListsAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		b.put(testKeys.Claim(0), claimValue("a", 1), 0)
		b.follow()
		b.lossy = true
		b.put(testKeys.Claim(0), claimValue("b", 2), 0)
		b.lossy = false
		b.endWatches(errCompacted)
		pass(time.Second)
		b.want(t, 0, "b")
		b.put(testKeys.Claim(0), claimValue("c", 3), 0)
		pass(time.Second)
		b.want(t, 0, "c")
		if s := b.m.Stats(); s.Compactions != 1 || s.Lists != 2 {
			t.Errorf("got %+v, want one compaction and two lists", s)
		}
	})
}

func TestWatchThatEndsAtOnceIsNoStormOfLists(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		b.breakAt = errors.New("no")
		b.follow()
		pass(time.Minute)
		if b.lists < 30 || b.lists > 200 {
			t.Errorf("%d lists in a minute, want about one a second", b.lists)
		}
		if n := b.logged("the watch ended, listing the map again"); n > 13 {
			t.Errorf("logged %d times in a minute", n)
		}
	})
}

func TestOtherHistoryIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	for name, refill := range map[string]struct {
		cluster uint64
		claims  []string
	}{
		"emptied":                        {1, nil},
		"lower revision":                 {1, []string{"b"}},
		"same revision, another owner":   {1, []string{"b", "b"}},
		"higher revision, other cluster": {2, []string{"b", "b", "b", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, b *bubble) {
				b.put(testKeys.Claim(0), claimValue("a", 1), 1)
				b.put(testKeys.Claim(1), claimValue("a", 1), 1)
				b.follow()
				b.wipe(refill.cluster)
				for i, c := range refill.claims {
					b.put(testKeys.Claim(int32(i)), claimValue(c, 1), 2)
				}
				pass(2 * time.Second)
				if got := len(b.last().Claims); got != len(refill.claims) {
					t.Errorf("%d claims, want %d", got, len(refill.claims))
				}
				if len(refill.claims) > 0 {
					b.want(t, 0, "b")
				}
				if w := b.m.Stats().Wipes; w != 1 {
					t.Errorf("%d wipes, want 1", w)
				}
				b.put(testKeys.Claim(7), claimValue("c", 1), 2)
				pass(time.Second)
				b.want(t, 7, "c")
			})
		})
	}
}

func TestOutageIsLoggedOnceWithReminders(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		b.put(testKeys.Claim(0), claimValue("a", 1), 0)
		b.follow()
		pass(10 * time.Second)
		b.setDown(true)
		pass(10*time.Minute + 10*time.Second)
		err, since := b.m.Health()
		if err == nil || time.Since(since) < 10*time.Minute {
			t.Errorf("Health = %v since %v", err, time.Since(since))
		}
		b.setDown(false)
		pass(10 * time.Second)
		if err, since := b.m.Health(); err != nil || time.Since(since) > 10*time.Second {
			t.Errorf("Health = %v since %v after the outage", err, time.Since(since))
		}
		away, still, back := b.logged("etcd cannot be used, what is known stays in force"),
			b.logged("etcd still cannot be used, what is known stays in force"), b.logged("etcd can be used again")
		if away != 1 || still < 9 || still > 10 || back != 1 {
			t.Errorf("an outage of ten minutes: %d warnings, %d reminders, %d ends", away, still, back)
		}
		if len(b.pics) != 1 {
			t.Errorf("%d pictures, want the first alone", len(b.pics))
		}
	})
}

func TestPicturesAreNotChangedLater(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		for p := range int32(4) {
			b.put(testKeys.Claim(p), claimValue("a", 1), 0)
		}
		b.follow()
		first := b.last()
		b.put(testKeys.Claim(0), claimValue("b", 2), 0)
		b.put(testKeys.Claim(9), claimValue("b", 2), 0)
		synctest.Wait()
		if len(b.pics) != 3 {
			t.Fatalf("%d pictures, want 3", len(b.pics))
		}
		if len(first.Claims) != 4 || first.Claims[0].Instance != "a" {
			t.Errorf("the first picture became %+v", first.Claims)
		}
		if revs := []int64{b.pics[0].Revision, b.pics[1].Revision, b.pics[2].Revision}; !slices.IsSorted(revs) {
			t.Errorf("revisions %v", revs)
		}
		b.want(t, 0, "b")
	})
}

func TestPublisherFindsOutThatHistoryWasRewritten(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		p := b.m.NewPublisher(PublisherConfig{NodeID: "n", Node: directory.Node{Instance: "me", Addr: "h:1"}})
		ran := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ran <- p.Run(ctx) }()
		<-p.Registered()
		mine := func(generation int32) directory.Claim {
			return directory.Claim{Node: "n", Instance: "me", Incarnation: 1, Generation: generation}
		}
		p.SetClaim(0, mine(1))
		synctest.Wait()
		p.SetClaim(1, mine(1))
		synctest.Wait()
		b.mu.Lock() // what no probe asks about
		b.keys[testKeys.Claim(0)] = entry{key: testKeys.Claim(0), value: []byte(claimValue("x", 1)), rev: 2, lease: 9}
		b.mu.Unlock()
		p.SetClaim(0, mine(2))
		pass(5 * time.Second)
		b.mu.Lock()
		got, err := directory.ParseClaim(b.keys[testKeys.Claim(0)].value)
		b.mu.Unlock()
		if err != nil || got.Generation != 2 || got.Instance != "me" {
			t.Errorf("claim 0 is %+v (%v), want generation 2 of this instance", got, err)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestLeaseIsKeptAndItsLossNoticed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, b *bubble) {
		p := b.m.NewPublisher(PublisherConfig{NodeID: "n", Node: directory.Node{Instance: "me", Addr: "h:1"}})
		ran := make(chan error, 1)
		go func() { ran <- p.Run(t.Context()) }()
		<-p.Registered()
		pass(time.Hour)
		b.mu.Lock()
		clear(b.leases) // without a trace in the keys: a restored backup
		b.mu.Unlock()
		pass(2 * time.Second)
		if s := b.m.Stats(); s.LeasesGranted != 2 || s.LeasesLost != 1 {
			t.Errorf("got %+v, want one lease lost and two granted", s)
		}
		if got := b.keys[testKeys.Node("n")].lease; got != 2 {
			t.Errorf("the node is under lease %d, want 2", got)
		}
		if err := p.Revoke(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if len(b.keys) != 0 {
			t.Errorf("left behind: %v", b.keys)
		}
	})
}
