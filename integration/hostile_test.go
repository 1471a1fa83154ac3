package integration

import (
	"os"
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

// TestHostile needs a machine for itself: make hostile.
func TestHostile(t *testing.T) {
	if os.Getenv("POINTSMAN_HOSTILE") == "" {
		t.Skip("make hostile runs it")
	}
	scenario.Hostile(t)
}

// TestAttacker is the process that TestHostile starts.
func TestAttacker(t *testing.T) {
	if os.Getenv(scenario.AttackerEnv) == "" {
		t.Skip("TestHostile starts it")
	}
	scenario.Attack(t, os.Stdin, os.Stdout)
}
