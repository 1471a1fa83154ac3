package redistributor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

const (
	// entryLife is how long an entry of a server outlives it, and refreshEvery how often a living one renews it: twice may
	// go wrong. It is also how long a loss of the cache may go unnoticed.
	entryLife    = 10 * time.Second
	refreshEvery = 3 * time.Second
	// pipelined bounds how many commands are sent at once.
	pipelined = 1000
)

// cacheNames are the names in Redis of one topic. A client key has a sorted set of places, scored by when each expires;
// joins are announced on a channel for each partition.
type cacheNames struct{ topic string }

func (n cacheNames) key(key string) string { return n.topic + ":where:" + key }

func (n cacheNames) joins(p int32) string {
	return n.topic + ":joins:" + strconv.FormatInt(int64(p), 10)
}

// cachePresence is a server's side of the cache.
type cachePresence struct {
	cacheNames
	place Place
	rdb   *redis.Client
	log   *zap.Logger
	kick  chan struct{}

	mu      sync.Mutex
	pending []command // guarded by mu

	// Owned by Run.
	known   map[string]bool // keys whose entry was written, and not taken back since
	renewed time.Time       // when all entries were last renewed
}

// command is something to be said to the cache about a key.
type command struct {
	key   string
	leave bool
	say   func(context.Context, redis.Pipeliner) (added *redis.IntCmd) // added is of a join
}

// NewCachePresence announces the clients of a place in Redis.
func NewCachePresence(addr, topic string, place Place, log *zap.Logger) Presence {
	return &cachePresence{cacheNames: cacheNames{topic}, place: place, rdb: openRedis(addr), log: log, kick: make(chan struct{}, 1), known: make(map[string]bool)}
}

func openRedis(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, DialTimeout: time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, MaxRetries: -1})
}

type wireJoin struct {
	ID    uint64 `json:"id"`
	Place string `json:"place"`
	Key   []byte `json:"key"`
	From  int64  `json:"from"`
}

func (c *cachePresence) Join(p int32, j Join) {
	said, err := json.Marshal(wireJoin{j.ID, c.place.String(), j.Key, j.From})
	if err != nil {
		return // numbers and bytes always marshal
	}
	key := c.key(string(j.Key))
	c.queue(command{key: string(j.Key), say: func(ctx context.Context, pipe redis.Pipeliner) *redis.IntCmd {
		// The entry comes before the word: whoever hears the word finds the entry.
		added := pipe.ZAdd(ctx, key, c.entry())
		pipe.PExpire(ctx, key, entryLife)
		pipe.Publish(ctx, c.joins(p), said)
		return added
	}})
}

func (c *cachePresence) entry() redis.Z {
	return redis.Z{Score: float64(time.Now().Add(entryLife).UnixMilli()), Member: c.place.String()}
}

func (c *cachePresence) Leave(_ int32, key []byte) {
	name := c.key(string(key))
	c.queue(command{key: string(key), leave: true, say: func(ctx context.Context, pipe redis.Pipeliner) *redis.IntCmd {
		pipe.ZRem(ctx, name, c.place.String())
		return nil
	}})
}

func (c *cachePresence) queue(f command) {
	c.mu.Lock()
	c.pending = append(c.pending, f)
	c.mu.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *cachePresence) Run(ctx context.Context, h Holder) error {
	t := time.NewTicker(refreshEvery)
	defer t.Stop()
	c.renewed = time.Now()
	for ctx.Err() == nil {
		select {
		case <-c.kick:
			c.flush(ctx, h)
		case <-t.C:
			c.refresh(ctx, h)
		case <-ctx.Done():
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	c.flush(end, h)
	return c.rdb.Close()
}

// flush sends what is queued, as one pipeline. What is lost on the way is joined again by who waits for it. An entry that
// a join writes although it had been there was lost meanwhile: the key's other clients have a hole that nothing else
// would show any more.
func (c *cachePresence) flush(ctx context.Context, h Holder) {
	for {
		c.mu.Lock()
		some := c.pending[:min(len(c.pending), pipelined)]
		c.pending = c.pending[len(some):]
		c.mu.Unlock()
		if len(some) == 0 {
			return
		}
		added := make([]*redis.IntCmd, len(some))
		_, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i := range some {
				added[i] = some[i].say(ctx, pipe)
			}
			return nil
		})
		if err != nil {
			c.log.Warn("could not tell the cache", zap.Error(err))
			return
		}
		var missing []string
		for i := range some {
			key := some[i].key
			if some[i].leave {
				delete(c.known, key)
				continue
			}
			if added[i].Val() > 0 && c.known[key] {
				missing = append(missing, key)
			}
			c.known[key] = true
		}
		c.lost(h, missing)
	}
}

func (c *cachePresence) lost(h Holder, keys []string) {
	if len(keys) > 0 {
		c.log.Warn("the cache has lost entries", zap.Int("keys", len(keys)))
		h.Lost(keys)
	}
}

// refresh renews all entries. One that is not there any more was lost, and with it whatever was looked up since.
func (c *cachePresence) refresh(ctx context.Context, h Holder) {
	began, all := time.Now(), h.Held()
	c.flush(ctx, h) // a join that is still on its way is not a loss
	var missing []string
	for len(all) > 0 && ctx.Err() == nil {
		some := all[:min(len(all), pipelined)]
		all = all[len(some):]
		renewed := make([]*redis.IntCmd, len(some))
		_, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, one := range some {
				renewed[i] = pipe.ZAddArgs(ctx, c.key(one.Key), redis.ZAddArgs{XX: true, Ch: true, Members: []redis.Z{c.entry()}})
				pipe.PExpire(ctx, c.key(one.Key), entryLife)
			}
			return nil
		})
		if err != nil {
			c.log.Warn("could not refresh the cache", zap.Error(err))
			return
		}
		for i := range some {
			if renewed[i].Val() == 0 {
				missing = append(missing, some[i].Key)
				delete(c.known, some[i].Key)
			}
		}
	}
	if began.Sub(c.renewed) > entryLife { // they had expired, whoever keeps their keys alive
		c.log.Warn("the cache could not be refreshed for too long")
		h.Lost(nil)
	} else {
		c.lost(h, missing)
	}
	c.renewed = began
	h.Proven()
}

// cacheLocator is a redistributor's side of the cache: it is asked for every batch of records.
type cacheLocator struct {
	cacheNames
	rdb     *redis.Client
	log     *zap.Logger
	lookups func(n int)
}

// NewCacheLocator looks clients up in Redis.
func NewCacheLocator(addr, topic string, log *zap.Logger, lookups func(n int)) Locator {
	return &cacheLocator{cacheNames: cacheNames{topic}, rdb: openRedis(addr), log: log, lookups: lookups}
}

func (c *cacheLocator) Close() error { return c.rdb.Close() }

func (c *cacheLocator) Follow(ctx context.Context, p int32, ready func(), _ func(func()), joined func(Join)) error {
	sub := c.rdb.Subscribe(ctx, c.joins(p))
	defer sub.Close()
	words := sub.Channel(redis.WithChannelSize(10_000))
	ready()
	for {
		select {
		case m, ok := <-words:
			if !ok {
				return errors.New("the subscription has ended")
			}
			var w wireJoin
			if err := json.Unmarshal([]byte(m.Payload), &w); err != nil {
				c.log.Warn("malformed join", zap.Error(err))
				continue
			}
			if place, ok := parsePlace(w.Place); ok {
				joined(Join{ID: w.ID, Place: place, Key: w.Key, From: w.From})
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *cacheLocator) Where(ctx context.Context, _ int32, keys []string) ([][]Place, error) {
	c.lookups(len(keys))
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	found := make([]*redis.StringSliceCmd, len(keys))
	_, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, k := range keys {
			found[i] = pipe.ZRangeArgs(ctx, redis.ZRangeArgs{Key: c.key(k), Start: now, Stop: "+inf", ByScore: true})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up %d keys: %w", len(keys), err)
	}
	out := make([][]Place, len(keys))
	for i := range keys {
		for _, text := range found[i].Val() {
			if place, ok := parsePlace(text); ok {
				out[i] = append(out[i], place)
			}
		}
	}
	return out, nil
}
