package links_test

import (
	"crypto/tls"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/links"
	"github.com/pointsmanhq/pointsman/router/internal/nodetest"
)

const patience = 10 * time.Second

// recorder is an Events and a Receiver that hands on what happens.
type recorder struct {
	t       *testing.T
	ups     chan *links.Link
	downs   chan string
	records chan int64
	drains  chan struct{}

	mu   sync.Mutex
	open int
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{
		t: t, ups: make(chan *links.Link, 100), downs: make(chan string, 100),
		records: make(chan int64, 100), drains: make(chan struct{}, 100),
	}
}

func (r *recorder) Open(*links.Link) links.Receiver {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	return r
}
func (r *recorder) Up(l *links.Link)                  { r.ups <- l }
func (r *recorder) Down(_ *links.Link, reason string) { r.downs <- reason }
func (r *recorder) Begin()                            {}
func (r *recorder) End(int)                           {}
func (r *recorder) Welcome(*link.Welcome) error       { return nil }
func (r *recorder) Attached(link.Attached) error      { return nil }
func (r *recorder) Record(f *link.Record) error       { r.records <- f.Offset; return nil }
func (r *recorder) Checkpoint(*link.Checkpoint) error { return nil }
func (r *recorder) Gap(link.Gap) error                { return nil }
func (r *recorder) Closed(link.Closed) error          { return nil }
func (r *recorder) Draining() error                   { r.drains <- struct{}{}; return nil }

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("unreachable")
	}
}

func expect(log *nodetest.Log) links.Expect {
	return links.Expect{Topic: "records", TopicID: nodetest.TopicID(), Partitions: log.Partitions}
}

func newPool(t *testing.T, events links.Events, change func(*links.Config)) *links.Pool {
	t.Helper()
	cfg := links.Config{
		Router: "router", DialTimeout: patience, PingEvery: 50 * time.Millisecond, DeadAfter: patience,
		RetryMost: 50 * time.Millisecond, Logger: zap.NewNop(),
	}
	if change != nil {
		change(&cfg)
	}
	p := links.NewPool(cfg, events)
	t.Cleanup(p.Close)
	return p
}

func TestLinkCarriesFramesBothWays(t *testing.T) {
	log := nodetest.NewLog(4)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, nil)
	p.Set(expect(log), []links.Want{node.Want()})
	l := receive(t, "link", rec.ups)
	if l.Node != "n1" || l.Instance != "i1" || l.ID == 0 {
		t.Errorf("link %+v", l)
	}
	l.SendAttach(&link.Attach{Stream: 1, Partition: 2, Key: []byte("k"), Start: link.Start{Kind: link.StartEarliest}, TopicID: nodetest.TopicID(), Credit: 1 << 20})
	for i := range int64(3) {
		log.Append(2, "k", []byte("v"))
		if got := receive(t, "record", rec.records); got != i {
			t.Fatalf("record %d, want %d", got, i)
		}
	}
	l.SendDetach(link.Detach{Stream: 1})
	node.Drain()
	receive(t, "draining", rec.drains)
	if s := p.State("i1"); s != "" {
		t.Errorf("state of a linked node: %q", s)
	}
}

func TestBrokenLinkIsDownAtOnceAndComesBack(t *testing.T) {
	log := nodetest.NewLog(1)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, nil)
	p.Set(expect(log), []links.Want{node.Want()})
	first := receive(t, "link", rec.ups)
	node.Break()
	if reason := receive(t, "end", rec.downs); reason != "broken" {
		t.Errorf("reason %q, want broken", reason)
	}
	second := receive(t, "second link", rec.ups)
	if second.ID == first.ID {
		t.Error("a link's id was used again")
	}
}

func TestFrozenNodeIsGivenUpThoughItsSocketStaysOpen(t *testing.T) {
	log := nodetest.NewLog(1)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, func(c *links.Config) { c.DeadAfter = 300 * time.Millisecond; c.PingEvery = 20 * time.Millisecond })
	p.Set(expect(log), []links.Want{node.Want()})
	receive(t, "link", rec.ups)
	start := time.Now()
	node.Freeze()
	if reason := receive(t, "end", rec.downs); reason != "silent" {
		t.Errorf("reason %q, want silent", reason)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("given up after %s, which is too early", took)
	}
	node.Thaw()
	receive(t, "link after the thaw", rec.ups)
}

func TestIdleNodeIsKeptAliveByPings(t *testing.T) {
	log := nodetest.NewLog(1)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, func(c *links.Config) { c.DeadAfter = 300 * time.Millisecond; c.PingEvery = 20 * time.Millisecond })
	p.Set(expect(log), []links.Want{node.Want()})
	l := receive(t, "link", rec.ups)
	select {
	case reason := <-rec.downs:
		t.Fatalf("the link went down: %s", reason)
	case <-time.After(900 * time.Millisecond): // three times the silence that it may keep
	}
	if l.RTT() == 0 {
		t.Error("no ping was answered")
	}
}

func TestUnfitNodesAreNotLinked(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*link.Welcome)
		want   string
	}{
		"another instance":   {func(w *link.Welcome) { w.Instance = "other" }, `instance "other"`},
		"another node":       {func(w *link.Welcome) { w.Node = "other" }, `node "other"`},
		"another topic":      {func(w *link.Welcome) { w.Topic = "other" }, `topic "other"`},
		"recreated topic":    {func(w *link.Welcome) { w.TopicID[0]++ }, "another id"},
		"too few partitions": {func(w *link.Welcome) { w.Partitions = 3 }, "3 partitions of 4"},
		"newer protocol":     {func(w *link.Welcome) { w.Version++ }, "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := nodetest.NewLog(4)
			node := nodetest.Start(t, log, "n1", "i1")
			node.Welcome = c.change
			rec := newRecorder(t)
			core, logs := observer.New(zap.WarnLevel)
			p := newPool(t, rec, func(cfg *links.Config) { cfg.Logger = zap.New(core) })
			p.Set(expect(log), []links.Want{node.Want()})
			waitFor(t, "a warning", func() bool { return logs.Len() > 0 })
			if text := p.State("i1"); !strings.Contains(text, c.want) {
				t.Errorf("state %q does not tell %q", text, c.want)
			}
			select {
			case <-rec.ups:
				t.Error("it was linked")
			default:
			}
		})
	}
}

func TestLinkOverTLSShowsItsToken(t *testing.T) {
	log := nodetest.NewLog(1)
	node, conf := nodetest.StartTLS(t, log, "n1", "i1")
	node.Token = "secret"
	rec := newRecorder(t)
	right := newPool(t, rec, func(c *links.Config) { c.TLS, c.Token = conf, "secret" })
	right.Set(expect(log), []links.Want{node.Want()})
	l := receive(t, "link", rec.ups)
	l.SendAttach(&link.Attach{Stream: 1, Key: []byte("k"), Start: link.Start{Kind: link.StartEarliest}, TopicID: nodetest.TopicID(), Credit: 1 << 20})
	log.Append(0, "k", []byte("v"))
	receive(t, "record", rec.records)

	for name, change := range map[string]func(*links.Config){
		"wrong token":             func(c *links.Config) { c.TLS, c.Token = conf, "guess" },
		"certificate not trusted": func(c *links.Config) { c.TLS, c.Token = &tls.Config{MinVersion: tls.VersionTLS12}, "secret" },
		"no TLS":                  func(c *links.Config) { c.Token = "secret" },
	} {
		wrong := newRecorder(t)
		p := newPool(t, wrong, change)
		p.Set(expect(log), []links.Want{node.Want()})
		waitFor(t, name+": a failure", func() bool { return p.Stats().Failures > 0 })
		select {
		case <-wrong.ups:
			t.Errorf("%s: linked", name)
		default:
		}
		if s := p.State("i1"); strings.Contains(s, "secret") || strings.Contains(s, "guess") {
			t.Errorf("%s: the state tells the token: %q", name, s)
		}
		p.Close()
	}
}

func TestMalformedFramesEndTheLinkOnly(t *testing.T) {
	log := nodetest.NewLog(1)
	bad, good := nodetest.Start(t, log, "n1", "i1"), nodetest.Start(t, log, "n2", "i2")
	rec := newRecorder(t)
	p := newPool(t, rec, nil)
	p.Set(expect(log), []links.Want{bad.Want(), good.Want()})
	receive(t, "link", rec.ups)
	receive(t, "link", rec.ups)
	bad.Send([]byte{0xff, 0xff, 0xff})
	if reason := receive(t, "end", rec.downs); reason != "malformed" {
		t.Errorf("reason %q, want malformed", reason)
	}
	if l := receive(t, "link again", rec.ups); l.Node != "n1" {
		t.Errorf("link of %s came up, want n1", l.Node)
	}
	if good.Links() != 1 {
		t.Errorf("the other node was linked %d times", good.Links())
	}
}

func TestUnlistedNodeStaysLinkedAndIsNotDialledAgain(t *testing.T) {
	log := nodetest.NewLog(1)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, nil)
	p.Set(expect(log), []links.Want{node.Want()})
	l := receive(t, "link", rec.ups)
	p.Set(expect(log), nil)
	l.SendAttach(&link.Attach{Stream: 1, Key: []byte("k"), Start: link.Start{Kind: link.StartEarliest}, TopicID: nodetest.TopicID(), Credit: 1 << 20})
	log.Append(0, "k", []byte("v"))
	receive(t, "record over the link of an unlisted node", rec.records)
	node.Break()
	receive(t, "end", rec.downs)
	waitFor(t, "the keeper to give up", func() bool { return p.State("i1") == "not wanted" })
	if node.Links() != 1 {
		t.Errorf("%d links, want no second one", node.Links())
	}
}

func TestFramesOfABatchGoAsFewMessages(t *testing.T) {
	log := nodetest.NewLog(1)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, nil)
	p.Set(expect(log), []links.Want{node.Want()})
	l := receive(t, "link", rec.ups)
	before := node.Heard()
	l.Hold()
	const n = 10000
	for i := range uint64(n) {
		l.SendAttach(&link.Attach{Stream: i + 1, Key: []byte("k"), Start: link.Start{Kind: link.StartLatest}, TopicID: nodetest.TopicID(), Credit: 1 << 20})
	}
	l.Release()
	waitFor(t, "all streams", func() bool { return node.Streams() == n })
	if got := node.Heard() - before; got > 5 {
		t.Errorf("%d attaches came in %d messages", n, got)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	log := nodetest.NewLog(1)
	node := nodetest.Start(t, log, "n1", "i1")
	rec := newRecorder(t)
	p := newPool(t, rec, nil)
	p.Set(expect(log), []links.Want{node.Want(), {Node: "gone", Instance: "gone", Addr: "127.0.0.1:1"}})
	receive(t, "link", rec.ups)
	p.Close()
	if reason := receive(t, "end", rec.downs); reason != "stopped" {
		t.Errorf("reason %q, want stopped", reason)
	}
	p.Set(expect(log), []links.Want{{Node: "late", Instance: "late", Addr: "127.0.0.1:1"}})
	if s := p.State("late"); s != "not wanted" {
		t.Errorf("a closed pool took a node: %q", s)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}
