package load

import (
	"testing"
	"time"
)

func TestExpectedEndsAreThoseOfConnectionsOpenedBefore(t *testing.T) {
	f := NewFleet()
	before := time.Now()
	if f.expects("r1", before) {
		t.Error("expected without being told")
	}
	f.ExpectEnds("r1", true)
	if !f.expects("r1", before) || !f.expects("r1", time.Now()) || f.expects("r2", before) {
		t.Error("while the router is stopped, the ends of all its connections are expected, and no others")
	}
	f.ExpectEnds("r1", false)
	if !f.expects("r1", before) || f.expects("r1", time.Now().Add(time.Millisecond)) {
		t.Error("afterwards only those of connections from before are")
	}
}
