package redistributor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/alicebob/miniredis/v2"
	"go.uber.org/zap"
)

// ending is a broker that knows where the backchannel ends.
type ending struct {
	sarama.Client
	end int64
}

func (e ending) GetOffset(string, int32, int64) (int64, error) { return e.end, nil }

// history is a backchannel with one partition.
type history struct {
	sarama.Consumer
	messages chan *sarama.ConsumerMessage
}

func (h *history) ConsumePartition(string, int32, int64) (sarama.PartitionConsumer, error) {
	return part{messages: h.messages}, nil
}

type part struct {
	sarama.PartitionConsumer
	messages chan *sarama.ConsumerMessage
}

func (p part) Messages() <-chan *sarama.ConsumerMessage { return p.messages }
func (p part) Close() error                             { return nil }

// TestALongBackchannelIsReadToItsEnd has a history come for longer than silence may last.
func TestALongBackchannelIsReadToItsEnd(t *testing.T) {
	for name, end := range map[string]int64{"whole": 10, "its last event compacted": 11} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &history{messages: make(chan *sarama.ConsumerMessage)}
				b := &backchannelLocator{topic: "w", cl: ending{end: end}, cons: h, log: zap.NewNop(), look: func(int) {}, read: func(int) {}, tables: make(map[int32]*table)}
				ctx, cancel := context.WithCancel(t.Context())
				var following sync.WaitGroup
				ready := make(chan struct{})
				following.Go(func() {
					if err := b.Follow(ctx, 0, func() { close(ready) }, func(f func()) { f() }, func(Join) {}); err != nil {
						t.Error(err)
					}
				})
				place := Place{Instance: "i", Addr: "a"}
				for i := range int64(10) {
					select {
					case <-ready:
						t.Fatalf("ready after %d of 10 events", i)
					default:
					}
					pause(ctx, silent*3/4)
					key := fmt.Sprint("client-", i)
					value, err := json.Marshal(backchannelEvent{Place: place.String(), Key: []byte(key)})
					if err != nil {
						t.Fatal(err)
					}
					h.messages <- &sarama.ConsumerMessage{Offset: i, Key: []byte(place.String() + "|" + key), Value: value, Timestamp: time.Now()}
				}
				<-ready
				where, err := b.Where(ctx, 0, []string{"client-9", "nobody"})
				if err != nil || !slices.Equal(where[0], []Place{place}) || len(where[1]) != 0 {
					t.Errorf("found %v, %v", where, err)
				}
				cancel()
				following.Wait()
			})
		})
	}
}

// holder is a server that has clients of some keys.
type holder struct {
	lost chan []string
}

func (h holder) Held() []Held       { return []Held{{0, "k"}, {0, "other"}} }
func (h holder) Lost(keys []string) { h.lost <- keys }
func (h holder) Proven()            {}

// TestASecondClientDoesNotHideTheFirstOnesHole loses an entry that a second client of the key writes again before the
// refresh looks for it.
func TestASecondClientDoesNotHideTheFirstOnesHole(t *testing.T) {
	cache := miniredis.RunT(t)
	place := Place{Instance: "i", Addr: "a"}
	p := NewCachePresence(cache.Addr(), "t", place, zap.NewNop())
	h := holder{make(chan []string, 16)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx, h); err != nil {
			t.Error(err)
		}
	})
	l := NewCacheLocator(cache.Addr(), "t", zap.NewNop(), func(int) {})
	entry := func(key string) bool {
		where, err := l.Where(ctx, 0, []string{key})
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(where[0], []Place{place})
	}
	until := func(key string) {
		for !entry(key) {
			pause(ctx, time.Millisecond)
		}
	}
	p.Join(0, Join{ID: 1, Key: []byte("k")})
	until("k")
	p.Join(0, Join{ID: 2, Key: []byte("k")}) // nothing is lost: another client of the key
	p.Join(0, Join{ID: 3, Key: []byte("other")})
	until("other")
	cache.FlushAll()
	p.Join(0, Join{ID: 4, Key: []byte("k")})
	if keys := <-h.lost; !slices.Contains(keys, "k") {
		t.Errorf("%v are lost, want k", keys)
	}
	cancel()
	running.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for len(h.lost) > 0 {
		if keys := <-h.lost; slices.Contains(keys, "k") {
			t.Errorf("%v are lost again", keys)
		}
	}
}

func TestAnOwnerBeginsWhereNothingIsLost(t *testing.T) {
	for _, tt := range []struct{ committed, oldest, end, want int64 }{
		{-1, 0, 10, 10},  // a fresh group
		{4, 0, 10, 4},    //
		{10, 0, 10, 10},  //
		{4, 6, 10, 6},    // the rest is gone
		{11, 0, 10, 10},  // of another topic
		{-1, 10, 10, 10}, //
	} {
		if got := begin(tt.committed, tt.oldest, tt.end); got != tt.want {
			t.Errorf("committed %d in [%d, %d): begins at %d, want %d", tt.committed, tt.oldest, tt.end, got, tt.want)
		}
	}
}
