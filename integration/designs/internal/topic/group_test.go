package topic

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/IBM/sarama"
	"go.uber.org/zap"
)

// session notes what a member tells its group.
type session struct {
	sarama.ConsumerGroupSession
	ctx  context.Context //nolint:containedctx // a session has one
	said []string
}

func (s *session) Context() context.Context { return s.ctx }
func (s *session) GenerationID() int32      { return 1 }
func (s *session) Commit()                  { s.said = append(s.said, "commit") }

func (s *session) MarkOffset(_ string, _ int32, next int64, _ string) {
	s.said = append(s.said, fmt.Sprint("mark ", next))
}

type claim struct {
	sarama.ConsumerGroupClaim
	offset int64
}

func (claim) Topic() string                            { return "t" }
func (claim) Partition() int32                         { return 0 }
func (c claim) InitialOffset() int64                   { return c.offset }
func (claim) Messages() <-chan *sarama.ConsumerMessage { return nil }

type silentMember struct{ sarama.ConsumerGroup }

func (silentMember) Pause(map[string][]int32) {}

// owner tells of two places and gives up.
type owner struct{ end context.CancelFunc }

func (o owner) Own(_ context.Context, _, _ int32, _ int64, commit func(int64)) {
	commit(7)
	commit(8)
	o.end()
}

func TestTheFirstOffsetOfAPartitionIsCommittedAtOnce(t *testing.T) {
	for committed, want := range map[int64][]string{
		-1: {"mark 7", "commit", "mark 8"},
		5:  {"mark 7", "mark 8"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &session{ctx: ctx}
		m := &membership{cfg: GroupConfig{Owner: owner{cancel}, Logger: zap.NewNop()}, member: silentMember{}}
		if err := m.ConsumeClaim(s, claim{offset: committed}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.said, want) {
			t.Errorf("committed %d: said %v, want %v", committed, s.said, want)
		}
	}
}
