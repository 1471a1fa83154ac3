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
	id, partitions, err := cfg.Topic(ctx)
	if err != nil {
		return View{}, 0, fmt.Errorf("ask kafka for the topic: %w", err)
	}
	v := View{ID: id, Partitions: partitions}
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
		t := time.NewTimer(settleEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return View{}, 0, context.Cause(ctx)
		}
		if v.ID, v.Partitions, err = cfg.Topic(ctx); err != nil {
			return View{}, 0, fmt.Errorf("ask kafka for the topic: %w", err)
		}
	}
}
