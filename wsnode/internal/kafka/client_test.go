package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

func TestRecreatedTopicStopsItsReaders(t *testing.T) { onEach(t, 1, recreatedTopicStopsItsReaders) }

func recreatedTopicStopsItsReaders(t *testing.T, f *cluster) {
	ctx := context.Background()
	c := f.open()
	before, err := c.Topic(ctx)
	if err != nil || before.Partitions != 1 || before.ID == [16]byte{} {
		t.Fatalf("topic %+v, %v", before, err)
	}
	s := newTape(t, 0)
	c.Read(0, 0, s)
	f.produce(f.admin, 0, "old 0", "old 1")
	s.waitNext(2)

	f.deleteTopic()
	s.wait("failure", func() bool { return len(s.failures) > 0 })
	f.createTopic(3)
	s.waitFailure(ErrTopicChanged)

	// Until the caller has heard of the new topic, nothing of the old one's is used on it.
	stale := newTape(t, 2)
	c.Read(0, 2, stale)
	stale.waitFailure(ErrTopicChanged)
	if _, err := c.Scan(ctx, 0, 0, 1<<20); !errors.Is(err, ErrTopicChanged) {
		t.Errorf("scan: %v", err)
	}
	if _, err := c.Bounds(ctx, 0); !errors.Is(err, ErrTopicChanged) {
		t.Errorf("bounds: %v", err)
	}
	after, err := c.Topic(ctx)
	if err != nil || after.Partitions != 3 || after.ID == before.ID {
		t.Fatalf("topic %+v, %v; before %+v", after, err, before)
	}
	fresh, old := newTape(t, 0), newTape(t, 0)
	c.Read(0, 0, fresh)
	c.At(before.ID).Read(1, 0, old)
	old.waitFailure(ErrTopicChanged)
	f.produce(f.kgo(), 0, "new 0")
	fresh.waitNext(1)
	fresh.wantValues("new 0")
	s.wantValues("old 0", "old 1")
}

// A process that was frozen does not know what happened meanwhile.
func TestReaderLooksForTheTopicAfterAPause(t *testing.T) {
	f := newFake(t, 1, kfake.NumBrokers(1))
	c := f.open()
	f.deleteTopic()
	f.createTopic(1)
	s := newTape(t, 0)
	p := &part{partition: 0, id: c.meta.current().id, sink: s}
	r := &reader{l: c.live, held: []*part{p}, touched: time.Now()}
	if !r.inTouch(c.ctx) {
		t.Fatal("a reader in touch asks for the topic")
	}
	r.touched = time.Now().Add(-2 * stale)
	if r.inTouch(c.ctx) || len(r.held) != 0 {
		t.Error("a reader goes on in a topic that was recreated during a pause")
	}
	s.waitFailure(ErrTopicChanged)
}

func TestOffsetAtFindsTimes(t *testing.T) { onEach(t, 1, offsetAtFindsTimes) }

func offsetAtFindsTimes(t *testing.T, f *cluster) {
	c := f.open()
	ctx := context.Background()
	if _, ok, err := c.OffsetAt(ctx, 0, 0); ok || err != nil {
		t.Errorf("a time in an empty log: %v, %v", ok, err)
	}
	f.produce(f.admin, 0, "0")
	b, err := c.Scan(ctx, 0, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	at := b.Records[0].Timestamp
	for _, q := range []struct {
		t    int64
		want bool
	}{{0, true}, {-1, true}, {-2, true}, {at, true}, {at + 1, false}} {
		if o, ok, err := c.OffsetAt(ctx, 0, q.t); ok != q.want || ok && o != 0 || err != nil {
			t.Errorf("time %d: %d, %v, %v", q.t-at, o, ok, err)
		}
	}
}

func TestPartitionThatDoesNotExist(t *testing.T) {
	f := newFake(t, 1, kfake.NumBrokers(1))
	c := f.open()
	if _, err := c.Bounds(context.Background(), 7); err == nil || !strings.Contains(err.Error(), "topic has 1 partitions") {
		t.Errorf("bounds: %v", err)
	}
	s := newTape(t, 0)
	c.Read(7, 0, s)
	s.wait("failure", func() bool { return len(s.failures) == 1 })
	c.StopRead(7)
}

func TestOpenWaitsForALateCluster(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	core, logs := observer.New(zap.WarnLevel)
	opened := make(chan error, 1)
	go func() {
		c, err := Open(context.Background(), Config{Brokers: []string{addr}, Topic: "orders", Logger: zap.New(core)})
		if err == nil {
			err = c.Close()
		}
		opened <- err
	}()
	deadline := time.NewTimer(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for logs.Len() == 0 {
		select {
		case err := <-opened:
			t.Fatalf("open without a cluster: %v", err)
		case <-deadline.C:
			t.Fatal("nothing was logged while the cluster is away")
		case <-tick.C:
		}
	}
	newFake(t, 1, kfake.Ports(l.Addr().(*net.TCPAddr).Port))
	if err := <-opened; err != nil {
		t.Errorf("open: %v", err)
	}
}

func TestOpenGivesUpWithItsContext(t *testing.T) {
	// A broker that accepts and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	stopped := errors.New("stopped")
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			cancel(stopped)
			<-ctx.Done()
		}
	}()
	_, err = Open(ctx, Config{Brokers: []string{l.Addr().String()}, Topic: "orders", NetTimeout: time.Hour})
	if !errors.Is(err, stopped) {
		t.Errorf("open: %v", err)
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	for name, q := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"topic":       {func(c *Config) { c.Topic = "nowhere" }, "create it first"},
		"password":    {func(c *Config) { c.SASL.Password = "wrong" }, "Authentication failed"},
		"unsupported": {func(c *Config) { c.SASL.Mechanism = "SCRAM-SHA-512" }, "mechanism"},
		"mechanism":   {func(c *Config) { c.SASL.Mechanism = "GUESS" }, "is not known"},
		"no brokers":  {func(c *Config) { c.Brokers = nil }, "no kafka brokers"},
		"no topic":    {func(c *Config) { c.Topic = "" }, "no topic"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "joe", "pw"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// kfake only hangs up, where Kafka says why.
			c.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
				resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
				resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
				return resp, nil, req.(*kmsg.SASLHandshakeRequest).Mechanism != "PLAIN"
			})
			c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
				resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
				resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
				return resp, nil, bytes.HasSuffix(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, []byte("wrong"))
			})
			cfg := Config{
				Brokers: c.ListenAddrs(), Topic: "orders", Logger: zaptest.NewLogger(t),
				SASL: SASL{Mechanism: "PLAIN", User: "joe", Password: "pw"},
			}
			q.change(&cfg)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			client, err := Open(ctx, cfg)
			if err == nil {
				_ = client.Close()
			}
			if err == nil || !strings.Contains(err.Error(), q.want) || ctx.Err() != nil {
				t.Errorf("open: %v", err)
			}
		})
	}
}

func TestCredentialsAndTLS(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cert := selfSigned(t)
			roots := x509.NewCertPool()
			roots.AddCert(cert.Leaf)
			plain, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.EnableSASL(),
				kfake.Superuser(mechanism, "joe,=", "pw"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := Open(ctx, Config{
				Brokers: plain.ListenAddrs(), Topic: "orders", TLS: &tls.Config{RootCAs: roots},
				SASL: SASL{Mechanism: mechanism, User: "joe,=", Password: "pw"},
			})
			if err != nil {
				t.Fatal(err)
			}
			s := newTape(t, 0)
			c.Read(0, 0, s)
			s.wait("an answer", func() bool { return s.batches > 0 || len(s.failures) > 0 })
			if b, err := c.Scan(ctx, 0, 0, 1<<20); err != nil || b.Next != 0 {
				t.Errorf("scan: %+v, %v", b, err)
			}
			r := newRoster(t)
			g, err := c.NewGroup(GroupConfig{Group: "nodes", Handler: rosterMember{r, "a"}})
			if err != nil {
				t.Fatal(err)
			}
			member, leave := context.WithCancel(ctx)
			done := make(chan error)
			go func() { done <- g.Run(member) }()
			r.waitShares(1, "a")
			leave()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if len(s.failures) > 0 {
				t.Errorf("reader: %v", s.failures)
			}
		})
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// wires are the connections that a cluster accepted.
type wires struct {
	mu    sync.Mutex
	conns []*wire
	cut   atomic.Bool // what is written is lost, as in a network that is cut
}

type wire struct {
	net.Conn
	w *wires
}

func (c *wire) Write(p []byte) (int, error) {
	if c.w.cut.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

type wiredListener struct {
	net.Listener
	w *wires
}

func (l wiredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t := &wire{Conn: c, w: l.w}
	l.w.mu.Lock()
	l.w.conns = append(l.w.conns, t)
	l.w.mu.Unlock()
	return t, nil
}

func (w *wires) breakAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

func (w *wires) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return wiredListener{l, w}, err
}

func TestConnectionsBreakAndNothingIsLostOrRepeated(t *testing.T) {
	const partitions, rounds, each = 8, 20, 5
	w := &wires{}
	f := newFake(t, partitions, kfake.NumBrokers(2), kfake.ListenFn(w.listen))
	c := f.open()
	var tapes [partitions]*tape
	for p := range tapes {
		tapes[p] = newTape(t, 0)
		c.Read(int32(p), 0, tapes[p])
	}
	for round := range rounds {
		for p := range tapes {
			for i := range each {
				f.produce(f.admin, int32(p), fmt.Sprint(round*each+i))
			}
		}
		tapes[round%partitions].waitNext(int64(round+1) * each)
		w.breakAll()
		if b, err := c.Bounds(context.Background(), int32(round%partitions)); err != nil || b.High < int64(round+1)*each {
			t.Fatalf("bounds on broken connections: %+v, %v", b, err)
		}
	}
	for p, s := range tapes {
		s.waitNext(rounds * each)
		for i, v := range s.values {
			if v != fmt.Sprint(i) {
				t.Fatalf("partition %d: value %d is %s", p, i, v)
			}
		}
	}
}

func TestCutOffClusterIsGivenUpAndFoundAgain(t *testing.T) {
	w := &wires{}
	f := newFake(t, 2, kfake.NumBrokers(1), kfake.ListenFn(w.listen))
	c := f.open(func(cfg *Config) { cfg.NetTimeout = 200 * time.Millisecond })
	s := newTape(t, 0)
	c.Read(0, 0, s)
	f.produce(f.admin, 0, "before")
	s.waitNext(1)
	w.cut.Store(true)
	s.wait("failure", func() bool { return len(s.failures) == 1 })
	if _, err := c.Topic(context.Background()); err == nil {
		t.Error("a cluster that is cut off answers")
	}
	w.cut.Store(false)
	f.produce(f.kgo(), 0, "after")
	s.waitNext(2)
	s.wantValues("before", "after")
	if b, err := c.Bounds(context.Background(), 0); err != nil || b != (source.Bounds{Stable: 2, High: 2}) {
		t.Errorf("bounds %+v, %v", b, err)
	}
}

func TestOneFrozenBrokerStopsNeitherChecksNorOtherPartitions(t *testing.T) {
	const partitions = 8
	var both []*wires // by broker, in the order of the addresses
	f := newFake(t, partitions, kfake.NumBrokers(2), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		both = append(both, &wires{})
		return both[len(both)-1].listen(network, address)
	}))
	c := f.open()
	top := c.meta.current()
	producer := f.kgo()
	var tapes [partitions]*tape
	for p := range tapes {
		tapes[p] = newTape(t, 0)
		c.Read(int32(p), 0, tapes[p])
		f.produce(producer, int32(p), "before")
	}
	for p := range tapes {
		tapes[p].waitNext(1)
	}
	for frozen, w := range both {
		healthy := slices.IndexFunc(top.leaders, func(l leader) bool { return l.addr != f.brokers[frozen] })
		if healthy < 0 {
			t.Fatalf("broker %d leads every partition", frozen)
		}
		w.cut.Store(true)
		for check := range int64(10) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			began := time.Now()
			_, err := c.Topic(ctx)
			cancel()
			if took := time.Since(began); err != nil || took > 3*time.Second {
				t.Fatalf("broker %d is frozen: check %d ended after %v with %v", frozen, check, took, err)
			}
			// Whoever did not answer is not the one that the next check begins with.
			if first := c.meta.candidates()[0]; first == f.brokers[frozen] {
				t.Fatalf("broker %d is frozen and will be asked first", frozen)
			}
			f.produce(producer, int32(healthy), "meanwhile")
			tapes[healthy].waitNext(check + 2)
		}
		w.cut.Store(false)
	}
}

func TestBrokersThatLetACallerWaitInVainAreAskedLast(t *testing.T) {
	both := make(map[string]*wires)
	var made []*wires
	f := newFake(t, 1, kfake.NumBrokers(2), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		made = append(made, &wires{})
		return made[len(made)-1].listen(network, address)
	}))
	for i, addr := range f.brokers {
		both[addr] = made[i]
	}
	c := f.open()
	first := c.meta.candidates()[0]
	both[first].cut.Store(true)
	// Shorter than it takes until the next broker is asked.
	ctx, cancel := context.WithTimeout(context.Background(), hedgeAfter/3)
	defer cancel()
	if _, err := c.Topic(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v from a frozen broker", err)
	}
	if got := c.meta.candidates(); len(got) != 2 || got[1] != first {
		t.Errorf("next to ask: %v; %s did not answer", got, first)
	}
	both[first].cut.Store(false)
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	w := &wires{}
	f := newFake(t, 2, kfake.NumBrokers(1), kfake.ListenFn(w.listen))
	c := f.open(func(cfg *Config) { cfg.NetTimeout = time.Hour })
	s := newTape(t, 0)
	c.Read(0, 0, s)
	f.produce(f.admin, 0, "0")
	s.waitNext(1)
	w.cut.Store(true)
	scanned := make(chan error)
	go func() {
		_, err := c.Scan(context.Background(), 0, 0, 1<<20)
		scanned <- err
	}()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Bounds(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("bounds with a dead context: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	w.cut.Store(false)
	if err := <-scanned; err == nil {
		t.Error("scan of a closed client succeeds")
	}
	c.Read(1, 0, s)
	c.StopRead(1)
}

func TestBrokerThatLagsBehindARecreationIsNotBelieved(t *testing.T) {
	m := newMetadata("orders", []string{"a:1"}, nil)
	first, second := &topology{id: [16]byte{1}}, &topology{id: [16]byte{2}}
	if err := m.accept(first, "a:1", []string{"a:1", "b:2"}); err != nil {
		t.Fatal(err)
	}
	if err := m.accept(second, "b:2", []string{"a:1", "b:2"}); err != nil {
		t.Fatal(err)
	}
	if err := m.accept(first, "a:1", []string{"a:1", "b:2"}); err == nil || m.current() != second {
		t.Errorf("the former topic is believed again: %v", err)
	}
	if got := m.candidates(); fmt.Sprint(got) != "[b:2 a:1]" {
		t.Errorf("next to ask: %v", got)
	}
}
