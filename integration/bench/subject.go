package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/machine"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// The subjects of every measurement, and so the names of their samples.
const (
	product      = "pointsman"
	floorProgram = "floor"
)

// The roles that processes have.
const (
	roleRouter = "router"
	roleNode   = "node"
	roleFloor  = "floor"
	roleKafka  = "kafka"
	roleEtcd   = "etcd"
	roleLoad   = "load"
	roleBench  = "bench"
)

// subject is what is measured, in fresh processes.
type subject struct {
	name    string
	topic   string
	targets []string // host:port
	path    string
	hello   bool
	stack   stack.Stack // nil for the floor
	floors  []*procs.Process
	ports   procs.Ports
}

// openSubject starts the programs of a scenario.
func (b *bench) openSubject(ctx context.Context, name string, s *Scenario) (*subject, error) {
	b.runs++
	x := &subject{name: name, topic: fmt.Sprintf("bench-%d-%s", b.runs, s.Name)}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not ready within 2 minutes"))
	defer cancel()
	if err := b.back.CreateTopic(ctx, x.topic, partitions); err != nil {
		return nil, err
	}
	var err error
	if name == product {
		x.path, x.hello = "/v1/ws?key=", true
		x.stack, err = stack.Open(ctx, stack.External, stack.Options{
			Routers: s.Routers, Nodes: s.Nodes, Partitions: partitions, Topic: x.topic, EtcdPrefix: "/" + x.topic, RouterFlags: strings.Fields(s.RouterFlags),
			Bin: b.opts.Bin, Dir: filepath.Join(b.dir, x.topic), KafkaAddrs: b.back.Kafka(), EtcdAddrs: b.back.Etcd(),
		})
		if err != nil {
			return nil, err
		}
		for _, r := range x.stack.Routers() {
			x.targets = append(x.targets, strings.TrimPrefix(r.URL, "ws://"))
		}
		return x, nil
	}
	x.path = "/?key="
	for i := range s.Routers {
		addr, err := x.ports.Take()
		if err != nil {
			return nil, errors.Join(err, x.close())
		}
		p, err := procs.Start(procs.Spec{
			Name: "floor", Path: filepath.Join(b.opts.Bin, "floor"), Log: filepath.Join(b.dir, fmt.Sprintf("%s-floor-%d.log", x.topic, i)),
			Args: []string{"-listen", addr, "-kafka", strings.Join(b.back.Kafka(), ","), "-topic", x.topic},
		})
		if err != nil {
			return nil, errors.Join(err, x.close())
		}
		x.floors, x.targets = append(x.floors, p), append(x.targets, addr)
		if err := p.WaitTCP(ctx, addr); err != nil {
			return nil, errors.Join(err, x.close())
		}
	}
	return x, nil
}

// processes lists the subject's processes by role.
func (x *subject) processes() map[string][]int {
	out := make(map[string][]int)
	for _, p := range x.floors {
		out[roleFloor] = append(out[roleFloor], p.PID())
	}
	if x.stack != nil {
		for _, r := range x.stack.Routers() {
			out[roleRouter] = append(out[roleRouter], r.PID)
		}
		for _, n := range x.stack.Nodes() {
			out[roleNode] = append(out[roleNode], n.PID)
		}
	}
	return out
}

func (x *subject) close() error {
	var errs []error
	if x.stack != nil {
		errs = append(errs, x.stack.Close())
	}
	for _, p := range x.floors {
		errs = append(errs, p.Kill())
	}
	return errors.Join(append(errs, x.ports.Close())...)
}

// own reports whether a role belongs to what is measured.
func own(role string) bool { return role == roleRouter || role == roleNode || role == roleFloor }

// meter adds up what processes use, those that have ended too as far as they were looked at.
type meter struct {
	processes func() map[string][]int
	cpu       map[string]map[int]float64 // by role and process
}

// reading is one look at all processes.
type reading struct {
	at    time.Time
	cpu   map[string]float64 // seconds since each process began, by role
	rss   map[string]int64   // bytes, by role
	total float64            // CPU seconds of the machine
}

func (m *meter) look() reading {
	r := reading{at: time.Now(), cpu: make(map[string]float64), rss: make(map[string]int64), total: machine.Seconds()}
	for role, pids := range m.processes() {
		if m.cpu[role] == nil {
			m.cpu[role] = make(map[int]float64)
		}
		for _, pid := range pids {
			if rss, cpu, ok := machine.Usage(pid); ok {
				m.cpu[role][pid] = cpu
				r.rss[role] += rss
			}
		}
	}
	for role, pids := range m.cpu {
		for _, cpu := range pids {
			r.cpu[role] += cpu
		}
	}
	return r
}

// since is the CPU time of what is measured between two readings, in seconds.
func (r *reading) since(before *reading) (sum float64) {
	for role, cpu := range r.cpu {
		if own(role) {
			sum += cpu - before.cpu[role]
		}
	}
	return sum
}

// memory is what is measured and resident, in bytes.
func (r *reading) memory() (sum int64) {
	for role, rss := range r.rss {
		if own(role) {
			sum += rss
		}
	}
	return sum
}

// scrape reads metrics, summed over their labels.
func scrape(ctx context.Context, admin string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	return parseMetrics(io.LimitReader(resp.Body, 8<<20))
}

func parseMetrics(r io.Reader) (map[string]float64, error) {
	out := make(map[string]float64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		name, _, _ := strings.Cut(line[:max(at, 0)], "{")
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metrics: %q: %w", line, err)
		}
		out[name] += v
	}
	return out, lines.Err()
}

// counters are metrics of all routers, summed, and of each node by its id.
type counters struct {
	routers map[string]float64
	nodes   map[string]map[string]float64
}

func (x *subject) counters(ctx context.Context) (counters, error) {
	c := counters{routers: make(map[string]float64), nodes: make(map[string]map[string]float64)}
	if x.stack == nil {
		return c, nil
	}
	for _, r := range x.stack.Routers() {
		got, err := scrape(ctx, r.Admin)
		if err != nil {
			return c, err
		}
		for name, v := range got {
			c.routers[name] += v
		}
	}
	for _, n := range x.stack.Nodes() {
		got, err := scrape(ctx, n.Admin)
		if err != nil {
			return c, err
		}
		c.nodes[n.ID] = got
	}
	return c, nil
}
