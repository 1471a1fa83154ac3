package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// work is what a scenario does once its clients are connected.
type work string

const (
	pace     work = "pace"     // records at a steady rate
	ramp     work = "ramp"     // ever faster, until the clients fall behind
	burst    work = "burst"    // many records that become visible at once
	idle     work = "idle"     // nothing, and then one record for each
	join     work = "join"     // a node joins under a steady rate
	drain    work = "drain"    // one leaves in order
	kill     work = "kill"     // one is killed
	unheard  work = "unheard"  // records that no client wants
	deafness work = "deafness" // a steady rate while some clients do not read
)

// Scenario is one row of the benchmark: everything that differs between two measurements.
type Scenario struct {
	Name    string  `json:"name"`
	About   string  `json:"about"`
	Work    work    `json:"work"`
	Clients int     `json:"clients"`
	OneKey  bool    `json:"one_key,omitempty"`
	Rate    float64 `json:"rate,omitempty"` // records a second
	Half    bool    `json:"half,omitempty"` // half of what the ramp found, in place of Rate
	Records int64   `json:"records,omitempty"`
	Size    int     `json:"size"` // bytes of a value
	Routers int     `json:"routers"`
	Nodes   int     `json:"nodes"`
	Settle  float64 `json:"settle_seconds,omitempty"` // before memory is read
	Slow    int     `json:"slow,omitempty"`           // one client in so many does not read for a while
	Floor   bool    `json:"floor"`                    // the floor program can do it, too
	Short   bool    `json:"short"`                    // part of the short run

	RouterFlags string `json:"router_flags,omitempty"` // what the defaults cannot know, with spaces between
}

// Scenarios is the whole table, in the order in which it is run.
func Scenarios() []Scenario {
	base := Scenario{Work: pace, Clients: 1000, Size: 128, Routers: 1, Nodes: 1, Floor: true}
	with := func(name, about string, change func(s *Scenario)) Scenario {
		s := base
		s.Name, s.About = name, about
		change(&s)
		return s
	}
	var all []Scenario
	for _, clients := range []int{1000, 10_000} {
		for _, rate := range []float64{2000, 5000, 10_000} {
			name := fmt.Sprintf("pace-%.0f", rate)
			if clients != 1000 {
				name += fmt.Sprintf("-over-%d", clients)
			}
			all = append(all, with(name, fmt.Sprintf("%.0f records a second, one client each, over %d clients", rate, clients), func(s *Scenario) {
				s.Rate, s.Clients, s.Short = rate, clients, clients == 1000 && rate > 2000
			}))
		}
	}
	all = append(all,
		with("max", "the highest steady rate that is delivered", func(s *Scenario) { s.Work, s.Rate = ramp, 5000 }),
		with("pace-half", "half of that rate", func(s *Scenario) { s.Half, s.Rate = true, 10_000 }),
		with("fan-out", "one key with 1,000 subscribers, 20 records a second", func(s *Scenario) { s.OneKey, s.Rate, s.Short = true, 20, true }),
		with("burst", "1,000,000 records to 1,000 clients, visible at once", func(s *Scenario) { s.Work, s.Records, s.Short = burst, 1_000_000, true }),
		with("idle-10000", "10,000 clients that receive nothing", func(s *Scenario) { s.Work, s.Clients, s.Settle, s.Short = idle, 10_000, 20, true }),
		with("idle-50000", "50,000 clients that receive nothing, over three routers", func(s *Scenario) {
			s.Work, s.Clients, s.Routers, s.Settle = idle, 50_000, 3, 20
			// A router sets file descriptors aside for connections that send no request: too many, where 20,000 are all
			// that a process may have.
			s.RouterFlags = "--max-handshakes=800"
		}),
		with("connect-10000", "10,000 clients connect at once", func(s *Scenario) { s.Work, s.Clients, s.Short = idle, 10_000, true }),
	)
	for _, w := range []work{join, drain, kill} {
		all = append(all, with("handover-"+string(w), "10,000 clients at 2,000 records a second; a node: "+string(w), func(s *Scenario) {
			s.Work, s.Clients, s.Rate, s.Nodes, s.Floor, s.Short = w, 10_000, 2000, 3, false, w == join
			if w == join {
				s.Nodes = 2
			}
		}))
	}
	for _, nodes := range []int{1, 2, 4} {
		all = append(all, with(fmt.Sprintf("nodes-%d", nodes), fmt.Sprintf("5,000 records a second, %d nodes", nodes), func(s *Scenario) {
			// A node that others came to reads on for a while what they have claimed (--linger): that is over then.
			s.Nodes, s.Rate, s.Floor, s.Short, s.Settle = nodes, 5000, false, nodes < 4, 8
		}))
	}
	for _, rate := range []float64{20_000, 200_000} {
		all = append(all, with(fmt.Sprintf("unheard-%.0f", rate), fmt.Sprintf("%.0f records a second that no client wants", rate), func(s *Scenario) {
			s.Work, s.Clients, s.Rate, s.Short = unheard, 100, rate, true
		}))
	}
	for _, size := range []int{128, 1024, 16_384} {
		all = append(all, with(fmt.Sprintf("payload-%d", size), fmt.Sprintf("2,000 records of %d bytes a second", size), func(s *Scenario) { s.Rate, s.Size = 2000, size }))
	}
	// Few clients and larger records, so that those that do not read are behind by more than any socket holds.
	all = append(all, with("slow", "5,000 records a second over 200 clients, one in ten does not read", func(s *Scenario) {
		s.Work, s.Clients, s.Rate, s.Size, s.Slow, s.Floor = deafness, 200, 5000, 1024, 10, false
	}))
	return all
}

// Choose picks scenarios by name, with commas between; a name that ends with * stands for all that begin so. Empty is
// the whole table, or the short part of it.
func Choose(names string, full bool) ([]Scenario, error) {
	all := Scenarios()
	if names == "" {
		return slices.DeleteFunc(all, func(s Scenario) bool { return !full && !s.Short }), nil
	}
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		prefix, open := strings.CutSuffix(name, "*")
		found := false
		for _, s := range all {
			if s.Name == name || open && strings.HasPrefix(s.Name, prefix) {
				wanted[s.Name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no scenario %q", name)
		}
	}
	return slices.DeleteFunc(all, func(s Scenario) bool { return !wanted[s.Name] }), nil
}

// scale makes a scenario smaller, for tests of the benchmark itself.
func (s *Scenario) scale(by float64) {
	if by == 1 {
		return
	}
	s.Clients = max(20, int(float64(s.Clients)*by))
	s.Rate = max(s.Rate*by, min(s.Rate, 200))
	s.Records = max(int64(float64(s.Records)*by), min(s.Records, 1000))
	s.Settle *= by
}

// perRecord is how many clients receive a record.
func (s *Scenario) perRecord() int {
	if s.OneKey {
		return s.Clients
	}
	return 1
}

// seconds is a float as a duration.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
