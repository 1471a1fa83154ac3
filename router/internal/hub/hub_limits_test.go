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

func TestClientsThatTheirRateHoldsBackAreCounted(t *testing.T) {
	r := newRig(t, rigOptions{window: 64 << 10, catchUp: 1 << 10})
	r.claim(r.start("a"))
	for range 20 {
		r.append("alice", `"`+strings.Repeat("x", 8<<10)+`"`)
	}
	c := r.connect("alice", "from", "earliest")
	c.next(clientmsg.TypeHello)
	waitFor(t, "one to be held back", func() bool { return r.hub.Paced() == 1 && r.hub.Full() == 0 })
	r.several([]string{"alice"}, "from", "earliest")
	waitFor(t, "the one with several keys to be, too", func() bool { return r.hub.Paced() == 2 && r.hub.Full() == 0 })
}

func TestClientsThatUseUpTheirWindowAreCounted(t *testing.T) {
	r := newRig(t, rigOptions{window: 64 << 10})
	r.claim(r.start("a"))
	slow, quick := r.connect("slow"), r.connect("quick")
	slow.next(clientmsg.TypeHello)
	quick.next(clientmsg.TypeHello)
	value := strings.Repeat("x", 64<<10)
	var read int
	waitFor(t, "the kernel to take no more", func() bool {
		r.append("slow", value)
		read++
		return r.hub.Full() == 1
	})
	quick.record(r.append("quick", `"still there"`), `"still there"`)
	for offset := range read {
		if m := slow.next(clientmsg.TypeRecord); m.Offset != int64(offset) {
			t.Fatalf("record %d, want %d", m.Offset, offset)
		}
	}
	waitFor(t, "nobody to be held back", func() bool { return r.hub.Full() == 0 && r.hub.Paced() == 0 })
}
