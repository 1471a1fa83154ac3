package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// Directory is etcd's description of the topic.
type Directory interface {
	EnsureTopic(ctx context.Context, want directory.Topic) (directory.Topic, error)
	UpdateTopic(ctx context.Context, change func(cur directory.Topic) (next directory.Topic, ok bool)) (directory.Topic, error)
}

// Config is a Keeper's.
type Config struct {
	Group, Partitioner string
	Key                string // etcd's key of the topic, for messages

	// Topic asks Kafka, fresh.
	Topic func(ctx context.Context) (id [16]byte, partitions int32, err error)
	// Missing tells the error of Topic that says that Kafka has no such topic; nil: none does.
	Missing func(error) bool
	// Ends asks Kafka where the first so many partitions end.
	Ends      func(ctx context.Context, topic [16]byte, partitions int32) ([]int64, error)
	Directory Directory
	// StaleAfter is how long producers may go on with the partition count from before a growth.
	StaleAfter time.Duration
	// Incarnation is the highest that this node knows; etcd never says less for long.
	Incarnation func() int64

	// Changed says that the topic was recreated, before anything read later is vouched for; Grown that it has more
	// partitions, or that more is known of that.
	Changed func(View)
	Grown   func(View)

	Every  time.Duration // between checks; default 1 s
	Logger *zap.Logger
}

const (
	// checkTimeout bounds one question to Kafka.
	checkTimeout = 5 * time.Second
	// disagreeFor is how long etcd may name another topic id than Kafka before this node corrects it: long
	// enough for every broker to know the newest one.
	disagreeFor = 10 * time.Second
	// remindEvery is how often the log repeats what is wrong in etcd.
	remindEvery = time.Minute
)

// Keeper checks the topic's identity once a second and whenever somebody doubts it.
type Keeper struct {
	cfg  Config
	log  *zap.Logger
	poke chan struct{}
	due  chan struct{} // Kafka was asked: etcd may have to be told

	mu       sync.Mutex
	view     View          // guarded by mu
	began    time.Time     // guarded by mu; start of the last good check
	next     chan struct{} // guarded by mu; closed by the next good check
	err      error         // guarded by mu; why the last check failed
	errSince time.Time     // guarded by mu

	// What etcd said last, for the next reconciliation.
	seen    *directory.Topic // guarded by mu; nil: no key
	seenAny bool             // guarded by mu
	etcdErr error            // guarded by mu

	past map[[16]byte]bool // guarded by mu; ids that the topic had before: they never come back

	// Owned by Run. Only its checks replace the view.
	failing   bool
	rounds    []round   // oldest first
	confirmed time.Time // start of the last check that found no growth

	// Owned by tell.
	disagreeSince time.Time
	etcdSaid      time.Time // when etcdErr was logged
}

// New returns a keeper that starts from v.
func New(cfg Config, v View) *Keeper {
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Keeper{
		cfg: cfg, log: cfg.Logger, view: v,
		poke: make(chan struct{}, 1), due: make(chan struct{}, 1), next: make(chan struct{}), past: map[[16]byte]bool{},
	}
}

// View is what is known of the topic now.
func (k *Keeper) View() View {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.view
}

// Verified is when the last good check began, and a channel that is closed by the next one.
func (k *Keeper) Verified() (began time.Time, next <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.began, k.next
}

// Recheck asks for a check now.
func (k *Keeper) Recheck() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// Seen says what etcd holds; nil for no key.
func (k *Keeper) Seen(t *directory.Topic) {
	k.mu.Lock()
	odd := t == nil || t.TopicID != directory.FormatTopicID(k.view.ID) || t.Partitions != k.view.Partitions ||
		!directory.SameGrowth(t.Growth, k.view.Growth)
	k.seen, k.seenAny = t, true
	k.mu.Unlock()
	if odd {
		k.Recheck()
	}
}

// Health says why the topic cannot be vouched for, and since when; nil while it can.
func (k *Keeper) Health() (error, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err, k.errSince
	}
	if k.began.IsZero() {
		return errors.New("the topic was not checked yet"), time.Time{}
	}
	return nil, time.Time{}
}

// Described says what is wrong with etcd's description of the topic, nil for nothing.
func (k *Keeper) Described() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.etcdErr
}

// Run checks until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	told := make(chan struct{})
	go func() { defer close(told); k.tell(ctx) }()
	defer func() { <-told }()
	t := time.NewTicker(k.cfg.Every)
	defer t.Stop()
	for {
		began := time.Now()
		k.check(ctx)
		checked := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-k.poke:
		}
		// A check may take its time, but not the machine: the monotonic clock stands still while it sleeps, and
		// the wall clock does not.
		slept := max(time.Since(checked), wallSince(checked), checked.Round(0).Sub(began.Round(0))-checked.Sub(began))
		if slept > k.cfg.Every+time.Second {
			k.log.Info("this process did not run for a while; checking the topic before anything else", zap.Duration("paused", slept))
			k.mu.Lock()
			k.began = time.Time{}
			k.mu.Unlock()
		}
	}
}

// tell keeps etcd's description true after every check, and apart from the checks: a write waits for etcd while it is
// away, and records must not wait with it.
func (k *Keeper) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.due:
			k.reconcile(ctx, k.View())
		}
	}
}

func wallSince(t time.Time) time.Duration { return time.Now().Round(0).Sub(t.Round(0)) }

// check asks Kafka once and acts on the answer.
func (k *Keeper) check(ctx context.Context) {
	began := time.Now()
	ask, cancel := context.WithTimeout(ctx, checkTimeout)
	id, partitions, err := k.cfg.Topic(ask)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if err == nil && k.gone(id) {
		err = errors.New("a broker still describes the deleted topic")
	}
	if err != nil {
		k.fail(err)
		return
	}
	if k.failing {
		k.failing = false
		k.log.Info("topic is described by Kafka again")
	}
	v := k.View()
	switch {
	case id != v.ID:
		k.log.Warn("topic was recreated", zap.String("topic_id", directory.FormatTopicID(id)),
			zap.String("old_topic_id", directory.FormatTopicID(v.ID)), zap.Int32("partitions", partitions))
		k.mu.Lock()
		k.past[v.ID] = true
		k.mu.Unlock()
		k.rounds = nil
		v = View{ID: id, Partitions: partitions}
		k.set(v)
		k.cfg.Changed(v)
	}
	k.mu.Lock()
	k.began, k.err = began, nil
	close(k.next)
	k.next = make(chan struct{})
	k.mu.Unlock()
	k.history(ctx, v, began, partitions)
	select {
	case k.due <- struct{}{}:
	default:
	}
}

func (k *Keeper) gone(id [16]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.past[id]
}

func (k *Keeper) fail(err error) {
	k.mu.Lock()
	if k.err == nil {
		k.errSince = time.Now()
	}
	k.err = fmt.Errorf("ask kafka for the topic: %w", err)
	k.mu.Unlock()
	if !k.failing {
		k.failing = true
		k.log.Warn("topic cannot be checked; records wait until it can", zap.Error(err))
	}
}

func (k *Keeper) set(v View) {
	k.mu.Lock()
	k.view = v
	k.mu.Unlock()
}

// reconcile makes etcd say what Kafka says.
func (k *Keeper) reconcile(ctx context.Context, v View) {
	k.mu.Lock()
	seen, any := k.seen, k.seenAny
	k.mu.Unlock()
	if !any {
		return // etcd has not been read yet
	}
	var err error
	incarnation := k.cfg.Incarnation()
	switch {
	case seen == nil:
		// The key is absent, or there and malformed: then the directory writes nothing and says so.
		if _, err = k.ensure(ctx, v.describe(k.cfg.Group, k.cfg.Partitioner, incarnation)); err == nil {
			k.log.Info("etcd did not describe the topic; it does again")
		}
	default:
		if err = settings(k.cfg.Key, *seen, k.cfg.Group, k.cfg.Partitioner); err != nil {
			break
		}
		if !k.mayMend(*seen, v) {
			break
		}
		err = k.mend(ctx, v, *seen, incarnation)
	}
	if ctx.Err() == nil {
		k.noteDescribed(err)
	}
}

// noteDescribed keeps what is wrong with etcd's description of the topic. Trouble that goes on is said once a
// minute: only a person may be able to end it.
func (k *Keeper) noteDescribed(err error) {
	k.mu.Lock()
	changed := err != nil && (k.etcdErr == nil || k.etcdErr.Error() != err.Error())
	mended := err == nil && k.etcdErr != nil
	k.etcdErr = err
	k.mu.Unlock()
	switch {
	case mended:
		k.log.Info("etcd's description of the topic is as it should be again")
	case err != nil && (changed || time.Since(k.etcdSaid) >= remindEvery):
		k.etcdSaid = time.Now()
		k.log.Warn("etcd's description of the topic is not what it should be", zap.String("key", k.cfg.Key), zap.Error(err))
	}
}

// mayMend reports whether this node can prove that it knows better than etcd.
func (k *Keeper) mayMend(seen directory.Topic, v View) bool {
	id, err := directory.ParseTopicID(seen.TopicID)
	if err != nil || id == v.ID || k.gone(id) {
		k.disagreeSince = time.Time{}
		return true
	}
	// Another node may have heard of a recreation that our brokers have not: give them time.
	if k.disagreeSince.IsZero() {
		k.disagreeSince = time.Now()
		k.log.Warn("etcd names another topic id than Kafka", zap.String("etcd", seen.TopicID),
			zap.String("kafka", directory.FormatTopicID(v.ID)))
	}
	return time.Since(k.disagreeSince) > disagreeFor
}

func (k *Keeper) mend(ctx context.Context, v View, seen directory.Topic, incarnation int64) error {
	if _, needed := v.mend(seen, incarnation); !needed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cur, err := k.cfg.Directory.UpdateTopic(ctx, func(cur directory.Topic) (directory.Topic, bool) {
		if cur.TopicID != seen.TopicID || settings(k.cfg.Key, cur, k.cfg.Group, k.cfg.Partitioner) != nil {
			return cur, false // somebody was faster; look again
		}
		return v.mend(cur, incarnation)
	})
	if err != nil {
		return fmt.Errorf("update the topic in etcd: %w", err)
	}
	k.remember(cur)
	return nil
}

func (k *Keeper) ensure(ctx context.Context, want directory.Topic) (directory.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cur, err := k.cfg.Directory.EnsureTopic(ctx, want)
	if err != nil {
		return cur, fmt.Errorf("describe the topic in etcd: %w", err)
	}
	k.remember(cur)
	return cur, nil
}

// remember notes what etcd holds after a write, so that nobody writes again before the watch has told. The next check
// takes over the history of growth that another node wrote first.
func (k *Keeper) remember(cur directory.Topic) {
	k.Seen(&cur)
}

// Raise raises the topic's incarnation in etcd if it still is from, and returns what it is then.
func (k *Keeper) Raise(ctx context.Context, from int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cur, err := k.cfg.Directory.UpdateTopic(ctx, func(cur directory.Topic) (directory.Topic, bool) {
		if cur.Incarnation > from {
			return cur, false
		}
		cur.Incarnation = from + 1
		return cur, true
	})
	if err != nil {
		return 0, fmt.Errorf("raise the incarnation in etcd: %w", err)
	}
	return cur.Incarnation, nil
}
