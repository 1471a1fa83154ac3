package claims

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// script records a core's effects as text.
type script struct{ did []string }

func (s *script) Publish(p int32, c directory.Claim) {
	s.did = append(s.did, fmt.Sprintf("publish %d (%d,%d)", p, c.Incarnation, c.Generation))
}
func (s *script) Withdraw(p int32) { s.did = append(s.did, fmt.Sprintf("withdraw %d", p)) }
func (s *script) Raise(from int64) { s.did = append(s.did, fmt.Sprintf("raise %d", from)) }

type run struct {
	t   *testing.T
	out *script
	c   *Core
	now time.Time
}

func start(t *testing.T, incarnation int64) *run {
	out := &script{}
	return &run{t: t, out: out, c: New("n1", "i1", incarnation, out), now: time.Unix(1000, 0)}
}

// expect compares what was done since the last call, in any order within it.
func (r *run) expect(want ...string) {
	r.t.Helper()
	got := slices.Clone(r.out.did)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Fatalf("got  %q\nwant %q", got, want)
	}
	r.out.did = nil
}

func (r *run) assigned(p, generation int32) { r.c.Assigned(r.now, p, generation, generation) }
func (r *run) readable(p int32)             { r.c.Readable(r.now, p) }

// pass lets time go by in the steps of the shell.
func (r *run) pass(d time.Duration, alive bool) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(every)
		r.c.Tick(r.now, alive)
	}
}

func by(node string, incarnation int64, generation int32) directory.Claim {
	return directory.Claim{Node: node, Instance: node, Incarnation: incarnation, Generation: generation}
}

func TestClaimIsPublishedOnlyWhenReadable(t *testing.T) {
	r := start(t, 1)
	r.assigned(3, 17)
	r.expect()
	r.readable(3)
	r.expect("publish 3 (1,17)")
}

func TestClaimKeepsTheGenerationItBeganWith(t *testing.T) {
	r := start(t, 1)
	r.assigned(3, 17)
	r.assigned(4, 18) // the group went on before partition 3 became readable
	r.readable(3)
	r.readable(4)
	r.expect("publish 3 (1,17)", "publish 4 (1,18)")
}

func TestRevokedClaimIsWithdrawnAndNotPublishedLate(t *testing.T) {
	r := start(t, 1)
	r.assigned(3, 17)
	r.c.Revoked(3)
	r.readable(3) // the loop's word was under way
	r.expect("withdraw 3")
	r.c.Revoked(3)
	r.expect()
}

func TestGenerationThatGoesBackRaisesTheIncarnationOnce(t *testing.T) {
	r := start(t, 4)
	r.assigned(1, 17)
	r.readable(1)
	r.expect("publish 1 (4,17)")
	r.c.Revoked(1)
	r.assigned(1, 1)
	r.assigned(2, 1)
	r.readable(1)
	r.expect("withdraw 1", "raise 4") // nothing is published under the old incarnation
	r.c.Raised(5)
	r.expect("publish 1 (5,1)")
	r.readable(2)
	r.expect("publish 2 (5,1)")
	r.pass(10*time.Second, true)
	r.expect()
}

func TestGenerationThatWentBackForAnotherNodeIsNotRaisedAgain(t *testing.T) {
	r := start(t, 4)
	r.assigned(1, 17)
	r.c.Incarnation(5) // another node saw it first, and the watch told us
	r.c.Revoked(1)
	r.assigned(1, 2)
	r.readable(1)
	r.expect("withdraw 1", "publish 1 (5,2)")
}

func TestLateAssignmentIsNotAReset(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 18)
	r.c.Assigned(r.now, 2, 17, 18) // it began under 17 and was told late
	r.readable(2)
	r.expect("publish 2 (1,17)")
}

func TestRaiseIsAskedAgainWhenItFails(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 9)
	r.assigned(2, 1)
	r.expect("raise 1")
	r.c.RaiseFailed(r.now)
	r.pass(again-every, true)
	r.expect()
	r.pass(every, true)
	r.expect("raise 1")
	r.pass(5*time.Second, true) // still under way: not asked twice
	r.expect()
	r.c.Raised(2)
	r.readable(2)
	r.expect("publish 2 (2,1)")
}

func TestLivingClaimThatLosesToAHigherGenerationMeansAReset(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 2)
	r.readable(1)
	r.expect("publish 1 (1,2)")
	r.c.Lost(r.now, 1, by("n9", 1, 40)) // of a node that the new group does not know
	r.pass(settle-every, true)
	r.expect()
	r.pass(2*every, true)
	r.expect("raise 1")
	r.c.Raised(2)
	r.expect("publish 1 (2,2)")
}

// The group was deleted, and the new one has come as far as the old: nobody's numbers went back, and yet the old
// owner's claim is in the way.
func TestLivingClaimThatIsEqualToAnothersMeansAReset(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 2)
	r.readable(1)
	r.expect("publish 1 (1,2)")
	r.c.Lost(r.now, 1, by("n9", 1, 2))
	r.pass(settle+every, true)
	r.expect("raise 1")
	r.c.Raised(2)
	r.expect("publish 1 (2,2)")
}

// etcd was emptied after the incarnation was raised: a claim of the group before is remembered by routers only, so
// that nothing tells ours that it stands behind.
func TestLivingClaimFollowsTheIncarnation(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 2)
	r.readable(1)
	r.expect("publish 1 (1,2)")
	r.c.Incarnation(3)
	r.pass(settle, false) // without Kafka's word it may be a thing of the past
	r.pass(settle-every, true)
	r.expect()
	r.pass(2*every, true)
	r.expect("publish 1 (3,2)")
	r.pass(10*time.Second, true)
	r.expect()
}

func TestGenerationThatGoesBackIsSeenWithoutAnAssignment(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 9)
	r.readable(1)
	r.c.Revoked(1)
	r.expect("publish 1 (1,9)", "withdraw 1")
	r.c.Generation(r.now, 0)
	r.expect()
	r.c.Generation(r.now, 1) // of the new group, which gives us nothing
	r.c.Generation(r.now, 1)
	r.expect("raise 1")
}

func TestClaimLostToARebalanceIsLetGo(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 2)
	r.readable(1)
	r.c.Lost(r.now, 1, by("n2", 1, 3))
	r.pass(settle/2, true)
	r.c.Revoked(1) // as it should be
	r.pass(2*settle, true)
	r.expect("publish 1 (1,2)", "withdraw 1")
}

func TestNodeThatWasFrozenOrCutOffFromKafkaDoesNotRaise(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 2)
	r.readable(1)
	r.expect("publish 1 (1,2)")
	r.c.Lost(r.now, 1, by("n2", 1, 3))
	r.pass(10*time.Second, false) // Kafka does not answer: the assignment may be over
	r.expect()
	r.pass(settle-every, true)
	r.now = r.now.Add(time.Minute) // frozen
	r.c.Tick(r.now, true)
	r.expect()
	r.c.Revoked(1) // the group tells, now that we run
	r.pass(2*settle, true)
	r.expect("withdraw 1")
}

func TestLivingClaimThatLosesToAHigherIncarnationFollows(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 5)
	r.readable(1)
	r.c.Lost(r.now, 1, by("n2", 3, 4))
	r.pass(settle+every, true)
	r.expect("publish 1 (1,5)", "publish 1 (3,5)")
}

func TestLostWordAboutAnEarlierClaimIsPassedOver(t *testing.T) {
	r := start(t, 1)
	r.assigned(1, 9)
	r.readable(1)
	r.c.Lost(r.now, 1, by("n2", 1, 8))
	r.pass(2*settle, true)
	r.expect("publish 1 (1,9)")
}
