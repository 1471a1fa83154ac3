package integration

import (
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
)

func TestConformance(t *testing.T) { scenario.Conformance(t) }

func TestSeveralKeysInNode(t *testing.T) { scenario.SeveralKeysInNode(t) }

func TestSeveralKeysInGo(t *testing.T) { scenario.SeveralKeysInGo(t) }

func TestFewDescriptors(t *testing.T) { scenario.FewDescriptors(t) }
