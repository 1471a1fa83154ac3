package continuity

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	Quiet       Kind = "quiet"        // nothing is done: what the machine itself costs
	Kill        Kind = "kill"         // SIGKILL of a node, and a new one started
	Crash       Kind = "crash"        // SIGKILL of a node, and the same one started again at once
	Drain       Kind = "drain"        // SIGTERM of a node, and a new one started
	Rolling     Kind = "rolling"      // every node in turn: SIGTERM, and the same one started again
	Freeze      Kind = "freeze"       // SIGSTOP of a node for 2 to 10 s
	Join        Kind = "join"         // one node more
	Leave       Kind = "leave"        // SIGTERM of a node, and none in its place
	Cut         Kind = "cut"          // all links to a node broken, and refused for a moment
	Hole        Kind = "black hole"   // links to a node stay open and carry nothing
	EtcdKill    Kind = "etcd killed"  // SIGKILL of etcd, started again after a while
	EtcdOutage  Kind = "etcd outage"  // the same for a minute
	EtcdFreeze  Kind = "etcd frozen"  // SIGSTOP of etcd
	EtcdWipe    Kind = "etcd wiped"   // etcd starts again without its data
	Kafka       Kind = "kafka"        // the broker stopped and started
	GroupEmpty  Kind = "group empty"  // LeaveGroup on behalf of all members
	GroupDelete Kind = "group delete" // the same, and the group deleted
	RouterTerm  Kind = "router term"  // SIGTERM of a router, and started again
	RouterKill  Kind = "router kill"  // SIGKILL of a router, and started again
)

// deck is how often each kind comes in a round. Short faults come often: a run of ten minutes should see sixty and
// more, one after the other. Every kind comes in every round.
var deck = []struct {
	kind  Kind
	times int
}{
	{Quiet, 4}, {Kill, 3}, {Crash, 2}, {Drain, 3}, {Rolling, 1}, {Freeze, 3}, {Join, 3}, {Leave, 3}, {Cut, 5}, {Hole, 3},
	{EtcdKill, 2}, {EtcdFreeze, 2}, {EtcdWipe, 3}, {Kafka, 2}, {GroupEmpty, 3}, {GroupDelete, 3}, {RouterTerm, 2}, {RouterKill, 2},
}

// Kinds lists all kinds of faults, without Quiet.
func Kinds() []Kind {
	kinds := []Kind{EtcdOutage}
	for _, d := range deck {
		if d.kind != Quiet {
			kinds = append(kinds, d.kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// ParseKinds reads "all" or a list with commas; a dash may stand for a blank.
func ParseKinds(text string) ([]Kind, error) {
	if text == "all" {
		return Kinds(), nil
	}
	var out []Kind
	for word := range strings.SplitSeq(text, ",") {
		kind := Kind(strings.ReplaceAll(strings.TrimSpace(word), "-", " "))
		if !slices.Contains(Kinds(), kind) {
			var names []string
			for _, k := range Kinds() {
				names = append(names, strings.ReplaceAll(string(k), " ", "-"))
			}
			return nil, fmt.Errorf("there is no kind of fault %q: want all, or some of %s", word, strings.Join(names, ","))
		}
		if !slices.Contains(out, kind) {
			out = append(out, kind)
		}
	}
	return out, nil
}

// Draw is one fault as the seed has it. Whom it meets is a share: of those that can be met when it happens.
type Draw struct {
	N     int           `json:"n"` // from 1 on
	Kind  Kind          `json:"kind"`
	Pick  float64       `json:"pick"`     // in [0, 1)
	Lasts time.Duration `json:"lasts_ns"` // how long what is stopped stays so
	Wait  time.Duration `json:"wait_ns"`  // after the fault before, or its healing
}

// Plan draws faults. The same seed, kinds and length give the same faults.
type Plan struct {
	rng     *rand.Rand
	kinds   []Kind
	overlap bool
	hand    []Kind
	drawn   int
	extra   int // nodes that joined and have not left
	length  time.Duration
	outages int
}

// most is how many nodes may be there beyond those of the beginning.
const most = 2

// NewPlan draws from the given kinds for a run of the given length.
func NewPlan(seed uint64, kinds []Kind, length time.Duration, overlap bool) *Plan {
	return &Plan{rng: rand.New(rand.NewPCG(seed, 0x706f696e7473)), kinds: kinds, length: length, overlap: overlap} //nolint:gosec // choices of a test
}

// Next draws one more.
func (p *Plan) Next() Draw {
	if len(p.hand) == 0 {
		p.deal()
	}
	kind := p.hand[0]
	p.hand = p.hand[1:]
	// Joins and leaves come in any order, but the number of nodes has its bounds.
	switch {
	case kind == Join && p.extra == most && slices.Contains(p.kinds, Leave):
		kind = Leave
	case kind == Leave && p.extra == 0 && slices.Contains(p.kinds, Join):
		kind = Join
	}
	switch kind {
	case Join:
		p.extra++
	case Leave:
		p.extra--
	}
	p.drawn++
	d := Draw{N: p.drawn, Kind: kind, Pick: p.rng.Float64(), Lasts: p.lasts(kind)}
	if p.overlap {
		d.Wait = min(time.Duration(p.rng.ExpFloat64()*float64(3*time.Second)), 12*time.Second)
	} else {
		d.Wait = p.between(200*time.Millisecond, 900*time.Millisecond)
	}
	return d
}

func (p *Plan) deal() {
	for _, d := range deck {
		if d.kind != Quiet && !slices.Contains(p.kinds, d.kind) || d.kind == Quiet && p.overlap {
			continue
		}
		for range d.times {
			p.hand = append(p.hand, d.kind)
		}
	}
	if len(p.hand) == 0 { // only the outage was asked for
		p.hand = append(p.hand, EtcdOutage)
	}
	// A minute without etcd has its place in a run of five minutes and more, once in ten.
	if slices.Contains(p.kinds, EtcdOutage) && p.length >= 5*time.Minute && p.outages*int(10*time.Minute) < int(p.length) {
		p.outages++
		p.hand = append(p.hand, EtcdOutage)
	}
	p.rng.Shuffle(len(p.hand), func(i, j int) { p.hand[i], p.hand[j] = p.hand[j], p.hand[i] })
}

func (p *Plan) lasts(kind Kind) time.Duration {
	switch kind { //nolint:exhaustive // the others last as long as they take
	case Quiet:
		return p.between(time.Second, 2*time.Second)
	case Freeze:
		// 2 to 10 s, and short ones more often than long ones.
		return 2*time.Second + time.Duration(8*math.Pow(p.rng.Float64(), 2.5)*float64(time.Second))
	case Hole:
		return p.between(2*time.Second, 5500*time.Millisecond)
	case Cut:
		return p.between(0, 1500*time.Millisecond)
	case EtcdKill, EtcdFreeze:
		return 500*time.Millisecond + time.Duration(8*math.Pow(p.rng.Float64(), 2)*float64(time.Second))
	case EtcdOutage:
		return time.Minute
	}
	return 0
}

func (p *Plan) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(p.rng.Int64N(int64(hi-lo)))
}
