// Package compose runs scenario bodies against the containers of deploy/compose.yaml (make test-compose), and against
// a stack that somebody else runs (make test-cluster).
package compose

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// containers makes the scenario run on containers, or skips it.
func containers(t *testing.T) {
	t.Helper()
	if os.Getenv("POINTSMAN_COMPOSE") == "" {
		t.Skip("needs a container engine and images: make test-compose sets POINTSMAN_COMPOSE and builds them")
	}
	t.Setenv("POINTSMAN_STACK", "compose")
}

func TestContainersAreObserved(t *testing.T) {
	containers(t)
	scenario.Observed(t)
}

func TestEveryContainerFaultBreaksNothing(t *testing.T) {
	containers(t)
	scenario.EveryContainerFault(t)
}

func TestPodLifecycle(t *testing.T) {
	containers(t)
	scenario.PodLifecycle(t)
}

// TestExistingCluster needs a topic that nobody else writes to; the variables are explained in deploy/README.md.
func TestExistingCluster(t *testing.T) {
	list := func(name string) []string {
		return strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' || r == ' ' })
	}
	number := func(name string, otherwise int) int {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			t.Fatalf("%s=%s: want a number above 0", name, text)
		}
		return n
	}
	routers := list("POINTSMAN_TEST_ROUTERS")
	if len(routers) == 0 {
		t.Skip("needs a running cluster: POINTSMAN_TEST_ROUTERS, POINTSMAN_TEST_KAFKA, POINTSMAN_TEST_TOPIC")
	}
	var faults []string
	for line := range strings.Lines(os.Getenv("POINTSMAN_TEST_FAULTS")) {
		if line = strings.TrimSpace(line); line != "" {
			faults = append(faults, line)
		}
	}
	scenario.OnExisting(t, stack.Options{
		Topic: os.Getenv("POINTSMAN_TEST_TOPIC"), RouterURLs: routers, RouterAdmins: list("POINTSMAN_TEST_ADMINS"), KafkaAddrs: list("POINTSMAN_TEST_KAFKA"),
	}, number("POINTSMAN_TEST_CLIENTS", 100), float64(number("POINTSMAN_TEST_RATE", 200)), faults, os.Getenv("POINTSMAN_TEST_ROUTERS_END") != "")
}
