package etcdmap

import (
	"context"
	"errors"
	"fmt"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// EnsureTopic writes want if the topic key is absent and returns what is there. It waits for etcd while it is merely
// late; an error means that ctx ended, that etcd refuses, or that the value there is malformed (directory.ErrMalformed).
func (m *Map) EnsureTopic(ctx context.Context, want directory.Topic) (directory.Topic, error) {
	t, err := m.topicTxn(ctx, func(found *directory.Topic) (directory.Topic, bool, error) {
		if found != nil {
			return *found, false, nil
		}
		return want, true, nil
	})
	if err != nil {
		return directory.Topic{}, fmt.Errorf("ensure topic in etcd: %w", err)
	}
	return t, nil
}

// UpdateTopic replaces the topic's value by what change makes of it, and calls change again if another process was
// faster. When change returns false nothing is written and the current value is returned. It waits for etcd like
// EnsureTopic. If the key was lost in a wipe, change is given the value that this map knew last; ErrNoTopic if there is none.
func (m *Map) UpdateTopic(ctx context.Context, change func(cur directory.Topic) (next directory.Topic, ok bool)) (directory.Topic, error) {
	t, err := m.topicTxn(ctx, func(found *directory.Topic) (directory.Topic, bool, error) {
		cur := found
		if cur == nil {
			if cur = m.knownTopic(); cur == nil {
				return directory.Topic{}, false, ErrNoTopic
			}
		}
		next, ok := change(*cur)
		if !ok {
			return *cur, false, nil
		}
		return next, true, nil
	})
	if err != nil {
		return directory.Topic{}, fmt.Errorf("update topic in etcd: %w", err)
	}
	return t, nil
}

// topicTxn calls decide with what is in the topic key (nil: absent) until the write that it asks for was not overtaken.
func (m *Map) topicTxn(ctx context.Context, decide func(found *directory.Topic) (directory.Topic, bool, error)) (directory.Topic, error) {
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return directory.Topic{}, err
	}
	defer leave()
	delay := firstRetry
	for {
		t, again, err := m.tryTopic(ctx, decide)
		var refused *refusedError
		switch {
		case err == nil && !again:
			m.rememberTopic(t)
			return t, nil
		case err == nil:
			continue // overtaken: somebody else made progress
		case ctx.Err() != nil:
			if _, last := m.health.state(); last != nil {
				return directory.Topic{}, fmt.Errorf("%w (last: %w)", context.Cause(ctx), last)
			}
			return directory.Topic{}, context.Cause(ctx)
		case errors.As(err, &refused), errors.Is(err, directory.ErrMalformed), errors.Is(err, ErrNoTopic):
			return directory.Topic{}, err
		}
		pause(ctx, delay)
		delay = min(2*delay, longestRetry)
	}
}

func (m *Map) tryTopic(ctx context.Context, decide func(*directory.Topic) (directory.Topic, bool, error)) (t directory.Topic, again bool, err error) {
	key := m.keys.TopicKey()
	var p probe
	err = m.try(ctx, reading, func(ctx context.Context) (err error) {
		p, err = m.store.probe(ctx, key)
		return err
	})
	if err != nil {
		return t, false, err
	}
	var found *directory.Topic
	if p.newest.rev != 0 {
		was, err := directory.ParseTopic(p.newest.value)
		if err != nil {
			return t, false, fmt.Errorf("%s cannot be read by this program; look at it with etcdctl get, delete it if it is damaged: %w", key, err)
		}
		found = &was
	}
	t, needed, err := decide(found)
	if err != nil || !needed {
		return t, false, err
	}
	value, err := directory.Marshal(t)
	if err != nil {
		return t, false, err
	}
	if t.V == 0 {
		t.V = directory.Version
	}
	var res commitResult
	err = m.try(ctx, writing, func(ctx context.Context) (err error) {
		res, err = m.store.commit(ctx, []write{{key: key, value: value, ifRev: p.newest.rev}})
		return err
	})
	return t, err == nil && !res.done, err
}

// mergeTopic returns what the key should hold when have is there and known was there before: after a restore from an
// old backup neither the incarnation nor the partition count may go back, and what is known of growth is not forgotten. false: have is good.
func mergeTopic(have, known directory.Topic) (directory.Topic, bool) {
	if have.TopicID != known.TopicID {
		return have, false
	}
	next, differs := have, false
	if known.Incarnation > have.Incarnation {
		next.Incarnation, differs = known.Incarnation, true
	}
	if known.Partitions > have.Partitions {
		next.Partitions, differs = known.Partitions, true
	}
	if growth := directory.MergeGrowth(have.Growth, known.Growth); !directory.SameGrowth(growth, have.Growth) {
		next.Growth, differs = growth, true
	}
	return next, differs
}

// rememberTopic keeps the newest value seen.
func (m *Map) rememberTopic(t directory.Topic) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.topic != nil {
		t, _ = mergeTopic(t, *m.topic)
	}
	m.topic = &t
}

func (m *Map) knownTopic() *directory.Topic {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topic
}

// noteTopic remembers the topic if it is among the events.
func (m *Map) noteTopic(events []event) {
	for _, ev := range events {
		if ev.deleted || ev.key != m.keys.TopicKey() {
			continue
		}
		if t, err := directory.ParseTopic(ev.value); err == nil {
			m.rememberTopic(t)
		}
	}
}
