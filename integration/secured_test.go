package integration

import (
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

// It needs POINTSMAN_STACK=secured, over which all other scenarios can run, too; make test-kafka runs some.
func TestSecured(t *testing.T) { scenario.Secured(t) }
