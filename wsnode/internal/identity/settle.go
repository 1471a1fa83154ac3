package identity

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	// settleChecks is how often Kafka must confirm a topic id that etcd does not know before a starting node
	// believes it, settleEvery apart.
	settleChecks = 3
	settleEvery  = time.Second
	// missingTries is how often Kafka must say that the topic is missing: a broker that just started may not
	// have heard of it yet.
	missingTries = 4
	missingEvery = 100 * time.Millisecond
)

// Settle is the start of a node: it compares what Kafka says with what etcd says, writes etcd's description if
// there is none, and returns the view to start from and the incarnation. living is the number of nodes that
// etcd lists. A node that must not join gets a *Refusal.
//
// Only a node that saw the id change while it ran can prove which of two ids is newer. A starting node
// believes Kafka against etcd only where no node lives that would have seen it.
func Settle(ctx context.Context, cfg Config, living func() int) (View, int64, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	v, err := askUntilTold(ctx, cfg)
	if err != nil {
		return View{}, 0, err
	}
	for check := 0; ; check++ {
		cur, err := cfg.Directory.EnsureTopic(ctx, v.describe(cfg.Group, cfg.Partitioner, 1))
		if err != nil {
			return View{}, 0, fmt.Errorf("describe the topic in etcd: %w", err)
		}
		if err := settings(cfg.Key, cur, cfg.Group, cfg.Partitioner); err != nil {
			return View{}, 0, err
		}
		if cur.TopicID == directory.FormatTopicID(v.ID) {
			if cur.Partitions > v.Partitions {
				return View{}, 0, refuse("etcd (%s) says that the topic has %d partitions, and Kafka says %d: "+
					"the broker that this node asked is behind, or --kafka leads to another cluster; try again in a moment",
					cfg.Key, cur.Partitions, v.Partitions)
			}
			// Growth that happened while no node ran is written by the first check: see Keeper.check.
			return View{ID: v.ID, Partitions: cur.Partitions, Growth: cur.Growth}, max(cur.Incarnation, 1), nil
		}
		if n := living(); n > 0 {
			return View{}, 0, refuse("etcd (%s) says that the topic's id is %s, %d living nodes agree, and Kafka tells this node %s: "+
				"--kafka leads to another cluster than theirs, or its broker is behind; try again in a moment",
				cfg.Key, cur.TopicID, n, directory.FormatTopicID(v.ID))
		}
		if check >= settleChecks {
			cfg.Logger.Warn("topic was recreated while no node ran", zap.String("old_topic_id", cur.TopicID),
				zap.String("topic_id", directory.FormatTopicID(v.ID)))
			old := cur.TopicID
			if _, err = cfg.Directory.UpdateTopic(ctx, func(cur directory.Topic) (directory.Topic, bool) {
				if cur.TopicID != old {
					return cur, false
				}
				return v.mend(cur, 1)
			}); err != nil {
				return View{}, 0, fmt.Errorf("update the topic in etcd: %w", err)
			}
			continue
		}
		cfg.Logger.Info("etcd names another topic id than Kafka; asking again", zap.String("etcd", cur.TopicID),
			zap.String("kafka", directory.FormatTopicID(v.ID)))
		if err := pause(ctx, settleEvery); err != nil {
			return View{}, 0, err
		}
		if v, err = askUntilTold(ctx, cfg); err != nil {
			return View{}, 0, err
		}
	}
}

// askUntilTold asks Kafka for the topic and waits while it does not answer, until ctx ends. A topic that does
// not exist is an error.
func askUntilTold(ctx context.Context, cfg Config) (View, error) {
	missing, said := 0, false
	for {
		ask, cancel := context.WithTimeout(ctx, checkTimeout)
		id, partitions, err := cfg.Topic(ask)
		cancel()
		switch {
		case err == nil:
			return View{ID: id, Partitions: partitions}, nil
		case ctx.Err() != nil:
			return View{}, fmt.Errorf("ask kafka for the topic: %w", context.Cause(ctx))
		case cfg.Missing != nil && cfg.Missing(err):
			if missing++; missing == missingTries {
				return View{}, fmt.Errorf("%w: create it first (pointsman never creates topics)", err)
			}
			err = pause(ctx, missingEvery)
		default:
			missing = 0
			if !said {
				said = true
				cfg.Logger.Warn("kafka does not answer, waiting for it", zap.Error(err))
			}
			err = pause(ctx, settleEvery)
		}
		if err != nil {
			return View{}, fmt.Errorf("ask kafka for the topic: %w", err)
		}
	}
}

// pause waits; its error says why ctx ended before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
