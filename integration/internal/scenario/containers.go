package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// containers starts a stack of containers.
func containers(t testing.TB, opts stack.Options) (*world, stack.Contained) {
	t.Helper()
	w := begin(t, opts)
	c, ok := w.Stack.(stack.Contained)
	if !ok {
		t.Skipf("a stack of kind %s has no containers", w.Kind())
	}
	return w, c
}

// throughBalancer is where users come in.
func throughBalancer(c stack.Contained) func(int) load.Target {
	b := c.Balancer()
	return func(int) load.Target { return load.Target{Name: b.Name, URL: b.URL} }
}

// EveryContainerFault does to the containers what an engine, compose and their operators can do to them, one after
// another, under clients of both routers and of the balancer. No socket may end.
func EveryContainerFault(t testing.TB) {
	w, c := containers(t, stack.Options{Routers: 2, Nodes: 3, Partitions: 16, NodeFlags: []string{"--drain-timeout=10s"}})
	names := keys("client", 150)
	w.connect(names[:100], load.Options{})
	_, err := w.fleet.Add(w.ctx, 50, func(i int) load.Options { return load.Options{Key: names[100+i]} }, throughBalancer(c))
	w.must(err)
	w.produce(names, 500, 128)
	w.must(w.settled(time.Minute))
	oldest := func() string { return w.Nodes()[0].ID }

	w.fault("docker kill", func() error { return w.KillNode(w.ctx, oldest()) })
	w.fault("docker stop", func() error { return w.DrainNode(w.ctx, oldest()) })
	w.fault("--scale wsnode=5", func() error { return c.ScaleNodes(w.ctx, 5) })
	w.fault("docker pause 5 s", func() error { return stack.Freeze(w.ctx, w, oldest(), 5*time.Second) })
	cut := oldest()
	w.fault("docker network disconnect", func() error { return c.DisconnectNode(w.ctx, cut) })
	w.at(time.Now(), 8*time.Second) // the group and etcd have noticed
	w.fault("docker network connect", func() error { return c.ReconnectNode(w.ctx, cut) })
	w.fault("--scale wsnode=3", func() error { return c.ScaleNodes(w.ctx, 3) })
	w.fault("up --force-recreate, all nodes at once", func() error { return c.RecreateNodes(w.ctx) })
	w.fault("docker kill, all nodes", func() error { return w.nobodyServes(c, names[:20]) })
	w.fault("deploy/roll wsnode", func() error { return c.Roll(w.ctx, "wsnode") })
	w.fault("Kafka restarted", func() error { return errors.Join(w.StopKafka(w.ctx), w.StartKafka(w.ctx)) })
	w.fault("etcd restarted", func() error { return errors.Join(w.StopEtcd(w.ctx), w.StartEtcd(w.ctx)) })
	w.finish()
}

// nobodyServes kills all nodes and starts as many again. No router is ready meanwhile; clients come all the same, stay,
// and are told that they wait.
func (w *world) nobodyServes(c stack.Contained, keys []string) error {
	nodes := w.Nodes()
	for _, n := range nodes {
		if err := w.KillNode(w.ctx, n.ID); err != nil {
			return err
		}
	}
	for _, r := range w.Routers() {
		w.unready(r.Admin)
	}
	w.at(time.Now(), 2*time.Second) // the balancer has noticed
	came := make([]*load.Client, len(keys))
	for i, key := range keys {
		came[i] = w.fleet.New(load.Options{Name: "newcomer " + key, Key: key})
	}
	ctx, cancel := w.within(20 * time.Second)
	defer cancel()
	balancer := throughBalancer(c)
	err := load.Each(came, func(i int, client *load.Client) error {
		if err := client.Connect(ctx, balancer(i)); err != nil {
			return err
		}
		return client.Wait(ctx, func(h *checker.Client) bool { return h.Sessions[0].Waiting > 0 })
	})
	if err != nil {
		return fmt.Errorf("newcomers while no node lives: %w", err)
	}
	return c.ScaleNodes(w.ctx, len(nodes))
}

// PodLifecycle rehearses on containers what an orchestrator does to pods: it starts them, waits for readiness, sends
// SIGTERM and waits for the end within the grace. A node is ready when its claims can be read; a router that drains
// gets nobody new, keeps its clients until balancers have noticed, and closes them one by one.
func PodLifecycle(t testing.TB) {
	const drain, delay = 12 * time.Second, 3 * time.Second
	w, c := containers(t, stack.Options{
		Routers: 2, Nodes: 2, Partitions: 16, RouterFlags: []string{"--drain-timeout=12s", "--drain-delay=3s"}, NodeFlags: []string{"--drain-timeout=12s"},
	})
	names := keys("client", 120)
	balancer := throughBalancer(c)
	again := func(checker.Close) (load.Target, bool) { return balancer(0), true }
	clients := make([]*load.Client, len(names))
	for i, key := range names {
		clients[i] = w.fleet.New(load.Options{Key: key, Reconnect: again})
	}
	w.must(w.fleet.Connect(w.ctx, clients, func(i int) load.Target {
		if i%3 == 2 {
			return balancer(i)
		}
		return w.target(i % 3)
	}))
	w.produce(names, 400, 128)
	w.must(w.settled(time.Minute))

	// A node: ready means that its claims can be read, and are found in etcd.
	w.fault("node joins", func() error {
		n, err := w.AddNode(w.ctx)
		if err != nil {
			return err
		}
		return w.claimsReadable(n)
	})
	w.fault("node ends in order", func() error {
		n := w.Nodes()[0]
		wait, err := c.TerminateNode(w.ctx, n.ID)
		if err != nil {
			return err
		}
		w.unready(n.Admin)
		took, err := wait()
		t.Logf("node gone %s after SIGTERM", took.Round(time.Millisecond))
		if took > drain {
			t.Errorf("the node took %s to end, more than its grace", took)
		}
		return err
	})

	// A router: unready at once, everybody kept while balancers notice, then told and closed one by one.
	router := w.Routers()[0]
	for _, name := range []string{router.Name, c.Balancer().Name} {
		w.fleet.ExpectEnds(name, true)
	}
	asked := time.Now()
	w.fault("router ends in order", func() error {
		wait, err := c.TerminateRouter(w.ctx, 0)
		if err != nil {
			return err
		}
		w.unready(router.Admin)
		// Newcomers do not notice: the balancer gives them to the other router.
		late := keys("newcomer", 20)
		_, err = w.fleet.Add(w.ctx, len(late), func(i int) load.Options { return load.Options{Key: late[i], Reconnect: again} }, balancer)
		if err != nil {
			return fmt.Errorf("newcomers while a router drains: %w", err)
		}
		w.produce(late, 50, 128)
		took, err := wait()
		t.Logf("router gone %s after SIGTERM", took.Round(time.Millisecond))
		if took > drain+5*time.Second {
			t.Errorf("the router took %s to end, more than its grace", took)
		}
		return err
	})
	w.pacedEnds(router.Name, asked, delay)
	w.must(w.StartRouter(w.ctx, 0))
	for _, name := range []string{router.Name, c.Balancer().Name} {
		w.fleet.ExpectEnds(name, false)
	}
	w.must(w.settled(time.Minute))

	// All routers, one after another: everybody moves at least once and misses nothing.
	everywhere := []string{c.Balancer().Name}
	for _, r := range w.Routers() {
		everywhere = append(everywhere, r.Name)
	}
	for _, name := range everywhere {
		w.fleet.ExpectEnds(name, true)
	}
	w.fault("deploy/roll router", func() error { return c.Roll(w.ctx, "router") })
	for _, name := range everywhere {
		w.fleet.ExpectEnds(name, false)
	}
	w.finish()
}

// claimsReadable demands of a node that has just said that it is ready: it reads every partition that the group gave
// to it, and etcd names it.
func (w *world) claimsReadable(n stack.Node) error {
	v, err := w.vars(n.Admin)
	if err != nil {
		return err
	}
	mine := 0
	for _, p := range v.Partitions {
		if !p.Assigned {
			continue
		}
		mine++
		if owner, err := w.owner(p.Partition); err != nil || owner != n.ID || !p.Readable {
			w.t.Errorf("node %s is ready, and partition %d of its own is readable: %v, in etcd: %q (%v)", n.ID, p.Partition, p.Readable, owner, err)
		}
	}
	if mine == 0 {
		w.t.Errorf("node %s is ready without a partition", n.ID)
	}
	return nil
}

// unready demands that a program which has been asked to end says so, or has gone.
func (w *world) unready(admin string) {
	w.t.Helper()
	w.eventually(2*time.Second, "it is unready at once", func() error {
		if status, body := w.get(admin + "/readyz"); status == http.StatusOK {
			return errors.New(body)
		}
		return nil
	})
}

// pacedEnds demands that the clients of a router that ended in order were kept for its --drain-delay, then told, and
// closed one by one: 10 ms from one to the next where they are few.
func (w *world) pacedEnds(router string, asked time.Time, delay time.Duration) {
	w.t.Helper()
	ends, first, last := 0, time.Hour, time.Duration(0)
	for _, h := range w.fleet.Histories() {
		for i := range h.Sessions {
			s := &h.Sessions[i]
			if s.Router != router || s.Ended == nil {
				continue
			}
			ends++
			if s.GoAways != 1 || !retryable(s.Ended) {
				w.t.Errorf("client %s was told to go %d times and closed with %+v", h.Name, s.GoAways, s.Ended)
			}
			after := s.Ended.At.Sub(asked)
			first, last = min(first, after), max(last, after)
		}
	}
	w.t.Logf("%d clients closed between %s and %s after SIGTERM", ends, first.Round(time.Millisecond), last.Round(time.Millisecond))
	if ends < 30 || first < delay || last-first < time.Duration(ends)*5*time.Millisecond {
		w.t.Errorf("%d clients closed between %s and %s, want 30 at least, none before %s and not all at once", ends, first, last, delay)
	}
}

// Observed: one record through the balancer to a client, and every router and node is scraped by the Prometheus of the
// compose file, with all rules in order.
func Observed(t testing.TB) {
	w, c := containers(t, stack.Options{Routers: 2, Nodes: 3})
	_, err := w.fleet.Add(w.ctx, 1, func(int) load.Options { return load.Options{Key: "alice"} }, throughBalancer(c))
	w.must(err)
	w.put("alice", `{"hello":"world"}`)
	if r := w.finish(); r.Received != 1 {
		t.Errorf("received %d records, want 1", r.Received)
	}
	url, err := c.Observe(w.ctx)
	if errors.Is(err, stack.ErrUnsupported) {
		lacks(t, err.Error())
	}
	w.must(err)
	w.eventually(time.Minute, "Prometheus scrapes all of them", func() error {
		return w.scraped(url, map[string]int{"router": len(w.Routers()), "wsnode": len(w.Nodes())})
	})
	_, body := w.get(url + "/api/v1/rules")
	t.Logf("rules: %.300s", body)
}

// scraped holds what Prometheus says of its targets, by job, against how many there are.
func (w *world) scraped(url string, want map[string]int) error {
	status, body := w.get(url + "/api/v1/targets")
	var answer struct {
		Data struct {
			ActiveTargets []struct {
				Labels            map[string]string
				Health, LastError string
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return fmt.Errorf("HTTP %d: %w", status, err)
	}
	up := map[string]int{}
	for _, target := range answer.Data.ActiveTargets {
		if target.Health == "up" {
			up[target.Labels["job"]]++
		}
	}
	for job, n := range want {
		if up[job] != n {
			return fmt.Errorf("%d of job %s are up, want %d: %+v", up[job], job, n, answer.Data.ActiveTargets)
		}
	}
	return nil
}

// OnExisting runs against a stack that somebody else runs: clients of all its routers receive while every command of
// faults does to it what its owner wants to know about. No socket of a client may end unless ends says that routers
// may be among what the commands stop; nothing may be lost, repeated or reordered either way.
func OnExisting(t testing.TB, opts stack.Options, clients int, rate float64, faults []string, ends bool) {
	w := beginOn(t, stack.Existing, opts)
	names := keys(fmt.Sprintf("pointsman-test-%d", time.Now().UnixNano()), clients)
	connected := make([]*load.Client, clients)
	for i, key := range names {
		o := load.Options{Key: key}
		if ends {
			o.Reconnect = w.other(i)
			o.Deaf = time.Minute
		}
		connected[i] = w.fleet.New(o)
	}
	w.must(w.fleet.Connect(w.ctx, connected, w.target))
	w.produce(names, rate, 128)
	w.must(w.settled(time.Minute))
	if ends {
		for i := range w.Routers() {
			w.fleet.ExpectEnds(w.target(i).Name, true)
		}
	}
	for _, command := range faults {
		w.fault(command, func() error { return shell(w.ctx, command) })
	}
	if len(faults) == 0 {
		w.at(time.Now(), 5*time.Second)
	}
	if r := w.finish(); r.Broken.Count > 0 && !ends {
		t.Log("sockets ended: if the commands stop routers, say so with POINTSMAN_TEST_ROUTERS_END=1")
	}
}

// shell runs a command of the stack's owner.
func shell(ctx context.Context, command string) error {
	if out, err := exec.CommandContext(ctx, "/bin/sh", "-c", command).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, out)
	}
	return nil
}
