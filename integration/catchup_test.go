package integration

import (
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

func TestCatchUp(t *testing.T) { scenario.CatchUp(t) }

func TestLiveClientsBesideCatchUp(t *testing.T) { scenario.LiveBesideCatchUp(t) }

func TestReplayLimit(t *testing.T) { scenario.ReplayLimit(t) }

func TestTricklingClient(t *testing.T) { scenario.TricklingClient(t) }
