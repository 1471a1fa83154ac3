package machine

import (
	"os"
	"testing"
)

func TestUsageOfThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	rss, _, ok := Usage(os.Getpid())
	if !ok || rss < 1<<20 || rss > 100<<30 {
		t.Errorf("resident memory %d, %v", rss, ok)
	}
	if Seconds() <= 0 {
		t.Error("the machine has used no time")
	}
}
