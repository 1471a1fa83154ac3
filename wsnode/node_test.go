package wsnode

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/identity"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

func claimed(p *etcdmap.Picture) bool { return len(p.Claims) == 2 }

func (b *bench) get(path string) (int, string) {
	b.t.Helper()
	resp, err := http.Get("http://" + b.n.AdminAddr() + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestNodePublishesItselfItsClaimsAndServes(t *testing.T) {
	b := prepare(t)
	b.ready()
	b.until("both partitions are claimed", claimed)
	p, _ := b.r.picture()
	if n := p.Nodes["n1"]; n.Instance != b.n.Instance() || n.Addr != b.n.Addr() || n.Draining {
		t.Errorf("etcd says of the node: %+v", n)
	}
	if c := p.Claims[1]; c.Generation != 4 || c.Incarnation != 1 || c.Instance != b.n.Instance() {
		t.Errorf("etcd says of partition 1: %+v", c)
	}
	r := b.dial()
	r.attach(1, 1, "k")
	r.expect("attached 1")
	b.c.produce(1, "k", "one")
	r.expect("record one")
	if code, body := b.get("/debug/vars/consistency"); code != http.StatusOK || !strings.Contains(body, `"ok": true`) {
		t.Errorf("the consistency check says %s", body)
	}
	code, body := b.get("/metrics")
	for _, want := range []string{"pointsman_wsnode_streams 1", "pointsman_wsnode_claims 2", `pointsman_wsnode_head{partition="1"} 1`} {
		if code != http.StatusOK || !strings.Contains(body, want+"\n") {
			t.Errorf("metrics lack %q", want)
		}
	}
	if code, body := b.get("/readyz"); code != http.StatusOK {
		t.Errorf("not ready: %s", body)
	}
}

func TestDrainServesUntilTheRoutersHaveMoved(t *testing.T) {
	b := prepare(t)
	b.ready()
	b.until("both partitions are claimed", claimed)
	b.r.change(func() { b.r.nodes["n2"] = directory.Node{Instance: "other"} })
	r := b.dial()
	r.attach(1, 0, "k")
	r.expect("attached 1")

	b.stop()
	r.expect("draining")
	<-b.c.left // the group hears at once: others take over
	b.until("the node is draining", func(p *etcdmap.Picture) bool { return p.Nodes["n1"].Draining })
	b.c.produce(0, "k", "late") // before the router has moved
	r.expect("record late")
	r.attach(2, 1, "k") // a router that does not know yet
	r.expect("attached 2")
	if b.r.revoked {
		t.Error("the lease is gone although streams are served")
	}
	r.send(link.AppendDetach(link.AppendDetach(nil, &link.Detach{Stream: 1}), &link.Detach{Stream: 2}))
	if code := r.closed(); code != websocket.StatusGoingAway {
		t.Errorf("the link was closed with %d, want 1001", code)
	}
	if err := b.ended(); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	if !b.r.revoked {
		t.Error("the lease was not revoked")
	}
}

func TestOperatorsCanDrainANodeAndForeignPagesCannot(t *testing.T) {
	b := prepare(t)
	b.ready()
	post := func(site string) int {
		req, err := http.NewRequest(http.MethodPost, "http://"+b.n.AdminAddr()+"/drain", nil)
		if err != nil {
			t.Fatal(err)
		}
		if site != "" {
			req.Header.Set("Sec-Fetch-Site", site)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if code := post("cross-site"); code != http.StatusForbidden {
		t.Errorf("a foreign page got %d, want 403", code)
	}
	select {
	case <-b.c.left:
		t.Fatal("a foreign page drained the node")
	default:
	}
	if code := post(""); code != http.StatusAccepted {
		t.Errorf("an operator got %d, want 202", code)
	}
	if err := b.ended(); err != nil || !b.r.revoked {
		t.Errorf("got %v, revoked %v; want an orderly end", err, b.r.revoked)
	}
}

func TestDrainOfTheLastNodeEndsWithItsTimeout(t *testing.T) {
	b := prepare(t, func(c *Config) { c.DrainTimeout = 300 * time.Millisecond })
	core, logs := observer.New(zap.InfoLevel)
	b.n.log = zap.New(core)
	b.ready()
	r := b.dial()
	r.attach(1, 0, "k")
	r.expect("attached 1")
	began := time.Now()
	b.stop()
	b.c.produce(0, "k", "meanwhile")
	r.expect("record meanwhile")
	if code := r.closed(); code != websocket.StatusGoingAway {
		t.Errorf("the link was closed with %d, want 1001", code)
	}
	if err := b.ended(); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
	for _, says := range []string{
		"no other node can take over: this one serves its streams until the drain timeout is over",
		"drain timeout is over and no other node has come: clients wait until there is one",
	} {
		if got := logs.FilterMessage(says).FilterField(zap.Int64("streams", 1)).Len(); got != 1 {
			t.Errorf("the log says %d times: %s", got, says)
		}
	}
	if got := logs.FilterMessage("drained").FilterField(zap.Int64("streams_left", 1)).Len(); got != 1 {
		t.Errorf("the log does not say what was left: %v", logs.All())
	}
}

func TestNodesStoppedTogetherSayThatNobodyTakesOver(t *testing.T) {
	b := prepare(t)
	core, logs := observer.New(zap.InfoLevel)
	b.n.log = zap.New(core)
	b.ready()
	b.r.change(func() { b.r.nodes["n2"] = directory.Node{Instance: "other"} })
	r := b.dial()
	r.attach(1, 0, "k")
	r.expect("attached 1")
	b.stop()
	r.expect("draining")
	<-b.c.left
	logged := func(message string) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for limit := time.After(patience); logs.FilterMessage(message).Len() != 1; {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("the log says %d times: %s", logs.FilterMessage(message).Len(), message)
			}
		}
	}
	b.r.change(func() { b.r.nodes["n2"] = directory.Node{Instance: "other", Draining: true} })
	logged("no other node can take over: this one serves its streams until the drain timeout is over")
	r.attach(2, 1, "k") // it comes from the other one
	r.expect("attached 2")
	b.r.change(func() { b.r.nodes["n3"] = directory.Node{Instance: "third"} })
	logged("another node can take over now")
	r.send(link.AppendDetach(link.AppendDetach(nil, &link.Detach{Stream: 1}), &link.Detach{Stream: 2}))
	if err := b.ended(); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	if got := logs.FilterMessage("drained").FilterField(zap.Int64("streams", 2)).FilterField(zap.Int64("streams_left", 0)).Len(); got != 1 {
		t.Errorf("the log does not count both streams: %v", logs.FilterMessage("drained").All())
	}
}

func TestKilledNodeSaysNothing(t *testing.T) {
	b := prepare(t)
	b.ready()
	b.until("both partitions are claimed", claimed)
	r := b.dial()
	r.attach(1, 0, "k")
	r.expect("attached 1")
	b.n.Kill()
	if code := r.closed(); code != -1 {
		t.Errorf("the link was closed in order, with %d", code)
	}
	if err := b.ended(); !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want ErrKilled", err)
	}
	if p, _ := b.r.picture(); b.r.revoked || len(p.Claims) != 2 || p.Nodes["n1"].Draining {
		t.Errorf("etcd was told: %+v", p)
	}
}

func TestKillEndsADrain(t *testing.T) {
	b := prepare(t)
	b.ready()
	r := b.dial()
	r.attach(1, 0, "k")
	r.expect("attached 1")
	b.stop()
	r.expect("draining")
	b.n.Kill()
	if err := b.ended(); !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want ErrKilled", err)
	}
}

func TestStopWhileADependencyIsLate(t *testing.T) {
	b := prepare(t)
	asked := make(chan struct{})
	b.n.doors.kafka = func(ctx context.Context, _ kafka.Config) (broker, error) {
		close(asked)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	b.run()
	<-asked
	if code, body := b.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "waiting for kafka") {
		t.Errorf("readyz says %d %q", code, body)
	}
	if code, _ := b.get("/livez"); code != http.StatusOK {
		t.Errorf("livez says %d", code)
	}
	for _, path := range []string{"/metrics", "/debug/vars"} {
		if code, body := b.get(path); code != http.StatusOK {
			t.Errorf("%s says %d %s", path, code, body)
		}
	}
	b.stop()
	if err := b.ended(); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
}

func TestStartFailsWithTheReason(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(b *bench)
		word string
		is   error
	}{
		{"kafka", func(b *bench) {
			b.n.doors.kafka = func(context.Context, kafka.Config) (broker, error) { return nil, errBroken }
		}, "", errBroken},
		{"node id taken", func(b *bench) { b.r.taken = true }, "", etcdmap.ErrNodeIDTaken},
		{"another group", func(b *bench) {
			b.r.topic = &directory.Topic{
				Group: "other", Partitioner: "murmur2", TopicID: directory.FormatTopicID(b.c.id), Partitions: 2,
			}
		}, "--group=other", nil},
		{"port for links", func(b *bench) { b.n.cfg.Listen = takenAddr(b.t) }, "--listen", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := prepare(t)
			tc.make(b)
			b.run()
			err := b.ended()
			if err == nil || !strings.Contains(err.Error(), tc.word) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("got %v", err)
			}
			if b.r.revoked {
				t.Error("a lease was revoked that belongs to somebody else")
			}
		})
	}
	t.Run("port for operators", func(t *testing.T) {
		b := prepare(t, func(c *Config) { c.Admin = takenAddr(t) })
		b.run()
		if err := b.ended(); err == nil || !strings.Contains(err.Error(), "--admin") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBadSettingsAreRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no topic":    {},
		"id":          {Topic: "t", ID: "a/b"},
		"advertise":   {Topic: "t", Advertise: "nonsense"},
		"partitioner": {Topic: "t", Partitioner: "nonsense"},
	} {
		if _, err := New(cfg, Deps{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRecreatedTopicClosesLinksAndReachesEtcd(t *testing.T) {
	b := prepare(t)
	b.ready()
	b.until("both partitions are claimed", claimed)
	r := b.dial()
	r.attach(1, 0, "k")
	r.expect("attached 1")
	b.c.mu.Lock()
	b.c.id, b.c.partitions = [16]byte{2}, 3
	clear(b.c.logs)
	b.c.mu.Unlock()
	b.n.identity.Recheck()
	if code := r.closed(); code != websocket.StatusServiceRestart {
		t.Errorf("the link was closed with %d, want 1012", code)
	}
	b.until("the topic has a new id", func(p *etcdmap.Picture) bool {
		return p.Topic.TopicID == directory.FormatTopicID([16]byte{2}) && p.Topic.Partitions == 3
	})
	again := b.dial()
	again.attach(1, 2, "k")
	again.expect("attached 1")
	b.c.produce(2, "k", "new")
	again.expect("record new")
}

func TestRefusalIsItsOwnError(t *testing.T) {
	b := prepare(t)
	b.r.topic = &directory.Topic{Group: "pointsman-t", Partitioner: "crc32", TopicID: directory.FormatTopicID(b.c.id), Partitions: 2}
	b.run()
	var refusal *identity.Refusal
	if err := b.ended(); !errors.As(err, &refusal) {
		t.Errorf("got %v", err)
	}
}

func TestNothingRunsOnAfterRun(t *testing.T) {
	for name, end := range map[string]func(*bench){
		"drained": func(b *bench) { b.stop() },
		"killed":  func(b *bench) { b.n.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t)
			b.ready()
			r := b.dial()
			r.attach(1, 0, "k")
			r.expect("attached 1")
			r.send(link.AppendDetach(nil, &link.Detach{Stream: 1}))
			end(b)
			r.closed()
			_ = b.ended()
			// One that has said that it is over may still be on its last instructions.
			left := running()
			for limit := time.Now().Add(patience); len(left) > 0 && time.Now().Before(limit); left = running() {
				runtime.Gosched()
			}
			if len(left) > 0 {
				t.Errorf("still running:\n%s", strings.Join(left, "\n\n"))
			}
		})
	}
}

// running lists the goroutines of nodes.
func running() []string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var found []string
	for goroutine := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(goroutine, "pointsman/wsnode") && !strings.Contains(goroutine, "_test.go") {
			found = append(found, goroutine)
		}
	}
	return found
}
