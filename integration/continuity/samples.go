package continuity

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/machine"
)

// Process is what one process used over its life. One that is started again is another one.
type Process struct {
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Samples []Sample `json:"samples"` // every second while the run goes on, thinned out in files
}

// Sample is one look at a process.
type Sample struct {
	At         float64 `json:"at"`  // seconds since the run began
	RSS        int64   `json:"rss"` // bytes
	CPU        float64 `json:"cpu"` // cores, since the look before
	Goroutines int     `json:"goroutines,omitempty"`
}

// Slope is how a process's memory and goroutines grow after the first ten minutes, in percent an hour.
type Slope struct {
	Process    string  `json:"process"`
	From       float64 `json:"from"` // seconds since the run began
	To         float64 `json:"to"`
	RSS        float64 `json:"rss_percent_per_hour"`
	Goroutines float64 `json:"goroutines_percent_per_hour"`
	Judged     bool    `json:"judged"` // it lived long enough after the first ten minutes
}

// Steep is what a judged slope may not reach.
const Steep = 5.0

// Busy says who used the machine, in shares of all its cores.
type Busy struct {
	Product float64   `json:"product"` // routers and nodes
	Clients float64   `json:"clients"` // this process: clients, producers, bridges, probe
	Backend float64   `json:"backend"` // Kafka and etcd
	Others  float64   `json:"others"`  // who has nothing to do with the run
	Loads   []float64 `json:"load_averages"`
	Seconds []float32 `json:"others_by_second"`
}

// between is what others used on average between two moments of the run.
func (b *Busy) between(from, to time.Duration) float64 {
	sum, n := 0.0, 0
	for s := max(0, int(from.Seconds())); s <= int(to.Seconds()) && s < len(b.Seconds); s++ {
		sum += float64(b.Seconds[s])
		n++
	}
	return float64(int(100*sum/float64(max(1, n))+0.5)) / 100
}

const (
	roleRouter  = "router"
	roleNode    = "node"
	roleBackend = "backend"
	roleClients = "clients"
)

// sampler looks at all processes once a second.
type sampler struct {
	run  *Run
	stop context.CancelFunc
	done chan struct{}

	// Owned by the goroutine until done is closed.
	processes map[string]*Process // by name and process id
	ticks     map[int]float64     // CPU seconds by process id
	total     float64             // CPU seconds of the machine, idle ones left out
	at        time.Time
	busy      Busy
	count     int
}

func startSampler(r *Run) *sampler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sampler{run: r, stop: cancel, done: make(chan struct{}), processes: map[string]*Process{}, ticks: map[int]float64{}}
	s.busy.Loads = append(s.busy.Loads, machine.LoadAverage())
	go func() {
		defer close(s.done)
		for pause(ctx, time.Second) {
			s.look(ctx)
		}
	}()
	return s
}

// close ends the looking and fills the report in.
func (s *sampler) close() {
	s.stop()
	<-s.done
}

func (s *sampler) finish(rep *Report) {
	s.close()
	n := float64(max(1, s.count))
	s.busy.Product, s.busy.Clients, s.busy.Backend, s.busy.Others = s.busy.Product/n, s.busy.Clients/n, s.busy.Backend/n, s.busy.Others/n
	s.busy.Loads = append(s.busy.Loads, machine.LoadAverage())
	rep.Busy = s.busy
	for _, p := range s.processes {
		rep.Processes = append(rep.Processes, *p)
	}
	slices.SortFunc(rep.Processes, func(a, b Process) int {
		return strings.Compare(a.Role+fmt.Sprintf("%09.0f", a.Samples[0].At)+a.Name, b.Role+fmt.Sprintf("%09.0f", b.Samples[0].At)+b.Name)
	})
	for _, p := range rep.Processes {
		if p.Role == roleClients {
			continue // it keeps what its clients received: it grows by its nature
		}
		if slope, ok := slopeOf(p, rep.Took); ok {
			rep.Slopes = append(rep.Slopes, slope)
		}
	}
}

type target struct {
	name, role, admin string
	pid               int
}

func (s *sampler) look(ctx context.Context) {
	r := s.run
	var targets []target
	for _, x := range r.stack.Routers() {
		targets = append(targets, target{x.Name, roleRouter, x.Admin, x.PID})
	}
	for _, x := range r.stack.Nodes() {
		targets = append(targets, target{x.ID, roleNode, x.Admin, x.PID})
	}
	for name, pid := range r.stack.Backend() {
		targets = append(targets, target{name, roleBackend, "", pid})
	}
	targets = append(targets, target{"clients", roleClients, "", os.Getpid()})

	now, total := time.Now(), machine.Seconds()
	past := now.Sub(s.at).Seconds()
	first := s.at.IsZero()
	shares := map[string]float64{}
	goroutines := s.goroutines(ctx, targets)
	for i, t := range targets {
		rss, used, ok := machine.Usage(t.pid)
		if !ok {
			continue
		}
		cores := 0.0
		if before, known := s.ticks[t.pid]; known && !first {
			cores = max(0, used-before) / past
		}
		s.ticks[t.pid] = used
		shares[t.role] += cores
		id := fmt.Sprintf("%s/%d", t.name, t.pid)
		p := s.processes[id]
		if p == nil {
			p = &Process{Name: t.name, Role: t.role}
			s.processes[id] = p
		}
		p.Samples = append(p.Samples, Sample{At: now.Sub(r.began).Seconds(), RSS: rss, CPU: cores, Goroutines: goroutines[i]})
	}
	if !first && total > 0 {
		cores := float64(runtime.NumCPU())
		ours := shares[roleRouter] + shares[roleNode] + shares[roleClients] + shares[roleBackend]
		others := max(0, (total-s.total)/past-ours) / cores
		s.busy.Product += (shares[roleRouter] + shares[roleNode]) / cores
		s.busy.Clients += shares[roleClients] / cores
		s.busy.Backend += shares[roleBackend] / cores
		s.busy.Others += others
		s.busy.Seconds = append(s.busy.Seconds, float32(int(others*100+0.5))/100)
		s.count++
	}
	s.at, s.total = now, total
}

// goroutines asks all at once: a frozen one answers nobody.
func (s *sampler) goroutines(ctx context.Context, targets []target) []int {
	out := make([]int, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		switch t.role {
		case roleClients:
			out[i] = runtime.NumGoroutine()
		case roleRouter, roleNode:
			if t.pid != 0 {
				wg.Go(func() { out[i] = askGoroutines(ctx, t.admin) })
			}
		}
	}
	wg.Wait()
	return out
}

// askGoroutines reads one number of a process's /metrics; 0 when it does not answer.
func askGoroutines(ctx context.Context, admin string) int {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Accept-Encoding", "identity") // packing an answer every second would be much of a small process's memory
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 4<<20))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			n, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				return 0
			}
			return int(n)
		}
	}
	return 0
}

// settling is how long a process may grow into its work.
const settling = 600.0

// slopeOf fits a line to what a process used after the first ten minutes, if that was ten minutes or more, and to the
// second half of its life otherwise, which is told and not judged. Kafka and etcd are not judged either.
func slopeOf(p Process, took float64) (Slope, bool) {
	first, last := p.Samples[0].At, p.Samples[len(p.Samples)-1].At
	s := Slope{Process: p.Name, From: max(first, settling), To: last}
	long := last-first > 900 && last-s.From >= 600
	if !long {
		s.From = first + (last-first)/2
	}
	s.Judged = long && (strings.HasPrefix(p.Name, "router-") || strings.HasPrefix(p.Name, "node-"))
	if last-first < took*0.9 && !long {
		return s, false // too short to say anything
	}
	var at, rss, goroutines []float64
	for _, x := range p.Samples {
		if x.At >= s.From {
			at, rss = append(at, x.At), append(rss, float64(x.RSS))
			goroutines = append(goroutines, float64(x.Goroutines))
		}
	}
	s.RSS, s.Goroutines = perHour(at, rss), perHour(at, goroutines)
	return s, true
}

// perHour is how values grow, in percent of their median, an hour: the median of the slopes between any two minutes,
// each of which counts with its own median (Theil and Sen's estimator). What is kept moves every minute's median; what
// a burst of work or a starved collector adds for some seconds moves none. Values of 0 are looks that were not answered.
func perHour(at, values []float64) float64 {
	minutes := map[int][]float64{}
	for i, y := range values {
		if y != 0 {
			m := int(at[i] / 60)
			minutes[m] = append(minutes[m], y)
		}
	}
	var xs, ys, slopes []float64
	for _, m := range slices.Sorted(maps.Keys(minutes)) {
		xs, ys = append(xs, float64(m)), append(ys, median(minutes[m]))
	}
	for i := range xs {
		for j := i + 1; j < len(xs); j++ {
			slopes = append(slopes, (ys[j]-ys[i])/(xs[j]-xs[i])*60)
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	return median(slopes) / median(ys) * 100
}

// median orders its argument.
func median(v []float64) float64 {
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// version is what the programs say that they are.
func (r *Run) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, filepath.Join(r.dir, "bin", "router"), "--version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
