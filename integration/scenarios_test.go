// Package integration holds the tests over whole clusters. Their bodies are in internal/scenario; POINTSMAN_STACK
// says what they run on: by default everything in one process, with "real" the built programs over Apache Kafka
// and etcd (make test-kafka).
package integration

import (
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

func TestFirstRecord(t *testing.T) { scenario.FirstRecord(t) }

func TestNodeKilledMidStreamLosesNothing(t *testing.T) {
	scenario.NodeKilledMidStreamLosesNothing(t)
}

func TestJoinDrainKillFreeze(t *testing.T) { scenario.JoinDrainKillFreeze(t) }

func TestSlowClient(t *testing.T) { scenario.SlowClient(t) }

func TestSlowClientIsChecked(t *testing.T) { scenario.SlowClientIsChecked(t) }

func TestAllNodesDownSocketsStay(t *testing.T) { scenario.AllNodesDownSocketsStay(t) }

func TestRouterStartsFirst(t *testing.T) { scenario.RouterStartsFirst(t) }

func TestTokensRenewedWhileNodeIsKilled(t *testing.T) { scenario.TokensRenewedWhileNodeIsKilled(t) }

func TestKeysOfTokensComeLate(t *testing.T) { scenario.KeysOfTokensComeLate(t) }

func TestRouterRestartResumes(t *testing.T) { scenario.RouterRestartResumes(t) }

func TestResumeOnOtherRouter(t *testing.T) { scenario.ResumeOnOtherRouter(t) }

func TestCursorOlderThanLogStart(t *testing.T) { scenario.CursorOlderThanLogStart(t) }

func TestForeignCursorRefused(t *testing.T) { scenario.ForeignCursorRefused(t) }

func TestCommittedReads(t *testing.T) { scenario.CommittedReads(t) }

func TestFollowUpgrade(t *testing.T) { scenario.FollowUpgrade(t) }

func TestEtcdOutage(t *testing.T) { scenario.EtcdOutage(t) }

func TestEtcdWiped(t *testing.T) { scenario.EtcdWiped(t) }

func TestKafkaRestart(t *testing.T) { scenario.KafkaRestart(t) }

func TestRefusals(t *testing.T) { scenario.Refusals(t) }

func TestLateDependencies(t *testing.T) { scenario.LateDependencies(t) }

func TestCheckerIsChecked(t *testing.T) { scenario.CheckerIsChecked(t) }

func TestForeignClients(t *testing.T) { scenario.ForeignClients(t) }

func TestClientLibraries(t *testing.T) { scenario.ClientLibraries(t) }

func TestPythonExample(t *testing.T) { scenario.PythonExample(t) }

func TestTypesOfJavaScriptClient(t *testing.T) { scenario.TypesOfJavaScriptClient(t) }

func TestRandomFaults(t *testing.T) { scenario.RandomFaults(t) }

func TestSeveralKeys(t *testing.T) { scenario.SeveralKeys(t) }

func TestRollingDeploy(t *testing.T) { scenario.RollingDeploy(t) }

func TestBadRequests(t *testing.T) { scenario.BadRequests(t) }

func TestRawSubprotocol(t *testing.T) { scenario.RawSubprotocol(t) }

func TestStartPositions(t *testing.T) { scenario.StartPositions(t) }

func TestRetentionOvertakesSlowClient(t *testing.T) { scenario.RetentionOvertakesSlowClient(t) }

func TestRetentionOvertakesFrozenNode(t *testing.T) { scenario.RetentionOvertakesFrozenNode(t) }

func TestTopicRecreated(t *testing.T) { scenario.TopicRecreated(t) }

func TestHangingTransaction(t *testing.T) { scenario.HangingTransaction(t) }

func TestCompactedRange(t *testing.T) { scenario.CompactedRange(t) }

func TestLaggingHighWatermark(t *testing.T) { scenario.LaggingHighWatermark(t) }

func TestTruncatedLog(t *testing.T) { scenario.TruncatedLog(t) }

func TestIdleClient(t *testing.T) { scenario.IdleClient(t) }

func TestDoctor(t *testing.T) { scenario.Doctor(t) }

func TestOperatorCommands(t *testing.T) { scenario.OperatorCommands(t) }

func TestPartitionsAdded(t *testing.T) { scenario.PartitionsAdded(t) }

func TestPartitionsLetGo(t *testing.T) { scenario.PartitionsLetGo(t) }
