package integration

import (
	"os"
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

// It needs POINTSMAN_STACK=secured, over which all other scenarios can run, too; make test-kafka runs some.
func TestSecured(t *testing.T) { scenario.Secured(t) }

// TestSecuredAtLength runs the scenarios that take two minutes over it.
func TestSecuredAtLength(t *testing.T) {
	if os.Getenv("POINTSMAN_STACK") != "secured" || os.Getenv("POINTSMAN_SECURED") != "all" {
		t.Skip("two minutes over TLS of what runs without TLS too, and pauses that a busy machine lengthens: POINTSMAN_SECURED=all make test-kafka")
	}
	t.Run("EtcdOutage", func(t *testing.T) { scenario.EtcdOutage(t) })
	t.Run("JoinDrainKillFreeze", func(t *testing.T) { scenario.JoinDrainKillFreeze(t) })
}
