// Package compose runs scenario bodies against the containers of deploy/compose.yaml (make test-compose).
package compose

import (
	"os"
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

// containers makes the scenario run on containers, or skips it.
func containers(t *testing.T) {
	t.Helper()
	if os.Getenv("POINTSMAN_COMPOSE") == "" {
		t.Skip("needs a container engine and images: make test-compose sets POINTSMAN_COMPOSE and builds them")
	}
	t.Setenv("POINTSMAN_STACK", "compose")
}

func TestFirstRecord(t *testing.T) {
	containers(t)
	scenario.FirstRecord(t)
}

func TestNodeContainerKilledMidStreamLosesNothing(t *testing.T) {
	containers(t)
	scenario.NodeKilledMidStreamLosesNothing(t)
}

func TestContainersJoinDrainDieAndPause(t *testing.T) {
	containers(t)
	scenario.JoinDrainKillFreeze(t)
}
