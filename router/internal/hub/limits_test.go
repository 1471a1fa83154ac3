package hub

import (
	"testing"
	"time"
)

func TestAllowanceGivesBackWhatTheRateAllows(t *testing.T) {
	const rate = 1 << 20
	var a allowance
	now := time.Now()
	if got := a.pass(now, rate, rate/2); got != rate/2 {
		t.Errorf("half a second's worth: %d at once", got)
	}
	if got := a.pass(now, rate, rate); got != rate/2 || a.owed != rate/2 {
		t.Errorf("one and a half: %d at once, %d owed", got, a.owed)
	}
	if got := a.pass(now.Add(time.Millisecond), rate, 0); got != rate/1000 {
		t.Errorf("a millisecond later %d", got)
	}
	if got := a.pass(now.Add(time.Hour), rate, 0); got != rate/2-rate/1000 || a.owed != 0 {
		t.Errorf("an hour later %d, %d owed", got, a.owed)
	}
	var total int64
	for i := range 10000 { // ten seconds of all that can be had
		total += a.pass(now.Add(time.Hour+time.Duration(i)*time.Millisecond), rate, rate/100)
	}
	if total < 9*rate || total > 12*rate {
		t.Errorf("%d bytes in ten seconds at %d per second", total, rate)
	}
	var free allowance
	if got := free.pass(now, 0, 1<<40); got != 1<<40 {
		t.Errorf("without a rate %d", got)
	}
}
