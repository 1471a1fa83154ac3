package hub_test

import (
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

func TestShedGivesUpWhoCostsTheMost(t *testing.T) {
	r := newRig(t, rigOptions{window: 8 << 20})
	r.claim(r.start("a"))
	quick, slow := r.connect("quick"), r.connect("slow")
	quick.next(clientmsg.TypeHello)
	slow.next(clientmsg.TypeHello)
	if n, _ := r.hub.Shed(1, false); n != 0 {
		t.Errorf("%d clients given up for nothing", n)
	}
	value := strings.Repeat("x", 8<<10)
	for range 1500 {
		r.append("slow", value)
	}
	waitFor(t, "much to be queued for the one that does not read", func() bool {
		list, _ := r.hub.Clients([]byte("slow"), 1)
		return len(list) == 1 && list[0].Queued > 1<<20
	})
	n, freed := r.hub.Shed(1, true)
	if n != 1 || freed < 1<<20 {
		t.Errorf("%d clients and %d bytes, want one that has much", n, freed)
	}
	if code, _ := slow.closed(); code != closecode.Shed {
		t.Errorf("it is closed with %d", code)
	}
	quick.record(r.append("quick", `"still there"`), `"still there"`)
	r.consistent()
	if row, _ := closecode.Lookup(closecode.Shed); !row.Retry {
		t.Error("clients that are given up are told not to come back")
	}
}

func TestCatchUpRateHoldsAClientBackAndLosesNothing(t *testing.T) {
	r := newRig(t, rigOptions{window: 64 << 10, catchUp: 512 << 10})
	r.claim(r.start("a"))
	value := `"` + strings.Repeat("x", 8<<10) + `"`
	const records = 150 // 1.2 MB: more than one second's worth
	for range records {
		r.append("alice", value)
	}
	c := r.connect("alice", "from", "earliest")
	c.next(clientmsg.TypeHello)
	for i := range records {
		c.record(int64(i), value)
	}
	waitFor(t, "all credit to be back", func() bool { return len(r.hub.Consistency().Problems) == 0 })
}
