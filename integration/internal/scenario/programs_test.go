package scenario

import "testing"

// ending is a test that notes how it would end.
type ending struct {
	testing.TB
	failed, skipped bool
}

func (e *ending) Helper()      {}
func (e *ending) Fatal(...any) { e.failed = true }
func (e *ending) Skip(...any)  { e.skipped = true }

func TestWhatIsMissingFailsInCI(t *testing.T) {
	t.Setenv("POINTSMAN_CI", "1")
	ci := &ending{TB: t}
	lacks(ci, "prometheus")
	t.Setenv("POINTSMAN_CI", "")
	here := &ending{TB: t}
	lacks(here, "prometheus")
	if !ci.failed || here.failed || !here.skipped {
		t.Errorf("in CI failed %v; elsewhere failed %v, skipped %v", ci.failed, here.failed, here.skipped)
	}
}
