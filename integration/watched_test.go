package integration

import (
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

func TestDashboardOfARunningStack(t *testing.T) { scenario.Watched(t) }
