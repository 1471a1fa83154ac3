package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

const partitions = 16

// closed is an address that nobody listens on.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// healthy is a cluster and settings that go with it; etcd is not there.
func healthy(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, Config) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, "orders")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, Config{
		Kafka: kafka.Config{Brokers: c.ListenAddrs(), Topic: "orders", NetTimeout: 3 * time.Second},
		Etcd:  etcdmap.Config{Endpoints: []string{closed(t)}, Prefix: "/pointsman", Topic: "orders"},
		Group: "pointsman-orders", Partitioner: partitioner.Murmur2,
		GroupSessionTimeout: 6 * time.Second, EtcdLease: 5 * time.Second, LinkStall: 30 * time.Second, DrainTimeout: 30 * time.Second,
		Ring: 256 << 20, FetchMaxBytes: 1 << 20, Listen: ":9080",
	}
}

func examine(t *testing.T, cfg Config) map[string][]Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	all := map[string][]Finding{}
	Examine(ctx, cfg, func(f Finding) {
		if strings.ContainsAny(f.Text+f.Remedy, "\n") || f.Text == "" || (f.Level == Wrong || f.Level == Warning) && f.Remedy == "" {
			t.Errorf("%+v is not one line with a remedy", f)
		}
		all[f.Check] = append(all[f.Check], f)
	})
	return all
}

// expect finds one finding of a check with all these words.
func expect(t *testing.T, all map[string][]Finding, check string, level Level, words ...string) {
	t.Helper()
next:
	for _, f := range all[check] {
		if f.Level != level {
			continue
		}
		for _, w := range words {
			if !strings.Contains(f.Text+" "+f.Remedy, w) {
				continue next
			}
		}
		return
	}
	t.Errorf("%s: got %+v, want %s with %q", check, all[check], level, words)
}

// produce writes records whose keys a partitioner places.
func produce(t *testing.T, c *kfake.Cluster, by string, keys int, opts ...kgo.Opt) {
	t.Helper()
	p, err := partitioner.New(by)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var rs []*kgo.Record
	for i := range keys {
		key := []byte(fmt.Sprintf("client-%d", i))
		rs = append(rs, &kgo.Record{Partition: p.Partition(key, partitions), Key: key, Value: []byte("x")})
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestHealthyKafkaIsFoundHealthy(t *testing.T) {
	c, cfg := healthy(t)
	produce(t, c, partitioner.Murmur2, 300)
	all := examine(t, cfg)
	for check, want := range map[string]string{
		"settings": "starts", "kafka": "1 broker answers", "session": "takes a session timeout of 6s", "topic": "orders: 16 partitions",
		"topic settings": "no unclean", "group": "0 members", "transactions": "none", "records": "the newest 300", "timings": "together",
	} {
		if check == "session" {
			want = "session timeout of 6s"
		}
		expect(t, all, check, OK, want)
	}
	expect(t, all, "etcd", Wrong, "does not answer", "connection refused", "start etcd", "--etcd")
}

func TestForeignPartitionerIsNamed(t *testing.T) {
	c, cfg := healthy(t)
	produce(t, c, partitioner.Murmur2, 200)
	produce(t, c, partitioner.CRC32, 200)
	all := examine(t, cfg)
	expect(t, all, "records", Wrong, "of 400 records", "murmur2 says", "crc32 (librdkafka's default", "partitioner=murmur2_random", "--partitioner=crc32")
}

func TestRecordsWithoutKeyAreTold(t *testing.T) {
	c, cfg := healthy(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("no key")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	expect(t, examine(t, cfg), "records", Warning, "1 of 1 records have no key")
}

func TestUnreachableBrokersAreNamed(t *testing.T) {
	c, cfg := healthy(t)
	gone := closed(t)
	cfg.Kafka.Brokers = append(cfg.Kafka.Brokers, gone)
	expect(t, examine(t, cfg), "kafka", Wrong, "1 of 2 brokers given do not answer", gone, "connection refused", "--kafka")

	cfg.Kafka.Brokers = []string{gone}
	all := examine(t, cfg)
	expect(t, all, "kafka", Wrong, "no broker answers", gone, "start the brokers")
	expect(t, all, "topic", Skipped, "Kafka does not answer")

	// One that the others name, but that this machine cannot reach: a wrong advertised.listeners.
	c.ControlKey(3, func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		host, port, _ := net.SplitHostPort(c.ListenAddrs()[0])
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		for i, addr := range []string{net.JoinHostPort(host, port), gone} {
			h, p, _ := net.SplitHostPort(addr)
			b := kmsg.NewMetadataResponseBroker()
			b.NodeID, b.Host = int32(i), h
			_, _ = fmt.Sscan(p, &b.Port)
			resp.Brokers = append(resp.Brokers, b)
		}
		return resp, nil, true
	})
	cfg.Kafka.Brokers = c.ListenAddrs()
	expect(t, examine(t, cfg), "kafka", Wrong, "cannot be reached from here: broker 1 at "+gone, "advertised.listeners")
}

func TestMissingTopicIsTold(t *testing.T) {
	_, cfg := healthy(t)
	cfg.Kafka.Topic = "missing"
	all := examine(t, cfg)
	expect(t, all, "topic", Wrong, "topic missing does not exist", "kafka-topics.sh --create --topic missing")
}

func TestSessionTimeoutBelowTheBrokersLeastIsFound(t *testing.T) {
	_, cfg := healthy(t)
	cfg.GroupSessionTimeout = 2 * time.Second
	expect(t, examine(t, cfg), "session", Wrong, "refuse a session timeout of 2s", "--group-session-timeout", "group.min.session.timeout.ms")
}

func TestSettingsThatANodeRefusesAreAFinding(t *testing.T) {
	_, cfg := healthy(t)
	cfg.Kafka.Brokers = []string{closed(t)}
	cfg.Refused = errors.New("--etcd-lease must be at least 2s")
	expect(t, examine(t, cfg), "settings", Wrong, "does not start", "--etcd-lease must be at least 2s")
}

func TestHangingTransactionIsFoundWithItsOffset(t *testing.T) {
	c, cfg := healthy(t)
	produce(t, c, partitioner.Murmur2, 100)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("orders"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("tx"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Partition: 3, Key: []byte("k"), Value: []byte("v")}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	expect(t, examine(t, cfg), "transactions", OK, "1 is under way", "none older than 1m0s")
	cfg.HangingAfter = time.Nanosecond
	expect(t, examine(t, cfg), "transactions", Wrong, "in partition 3 since offset", "kafka-transactions.sh", fmt.Sprintf("--start-offset %d", r.Offset))
}

func TestTopicSettingsThatBreakPromisesAreFound(t *testing.T) {
	c, cfg := healthy(t)
	set := map[string]string{
		"unclean.leader.election.enable": "true", "min.insync.replicas": "2", "retention.ms": "60000", "cleanup.policy": "delete", "max.message.bytes": "209715200",
	}
	c.ControlKey(32, func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		r := req.(*kmsg.DescribeConfigsRequest)
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, ask := range r.Resources {
			res := kmsg.NewDescribeConfigsResponseResource()
			res.ResourceType, res.ResourceName = ask.ResourceType, ask.ResourceName
			for name, value := range set {
				e := kmsg.NewDescribeConfigsResponseResourceConfig()
				e.Name, e.Value = name, kmsg.StringPtr(value)
				res.Configs = append(res.Configs, e)
			}
			resp.Resources = append(resp.Resources, res)
		}
		return resp, nil, true
	})
	cfg.ProducerMetadataAge = 8 * time.Minute
	all := examine(t, cfg)
	expect(t, all, "topic settings", Warning, "retention.ms=60000 is shorter than --producer-metadata-age=8m0s")
	expect(t, all, "topic settings", Wrong, "unclean.leader.election.enable=true", "kafka-configs.sh")
	expect(t, all, "topic settings", Wrong, "min.insync.replicas=2, but there are 1 replica")
	expect(t, all, "topic settings", Warning, "retention.ms=60000", "1m0s")
	expect(t, all, "topic settings", Warning, "max.message.bytes=209715200")
}

func TestStrangersInTheGroupAreNamed(t *testing.T) {
	c, cfg := healthy(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumerGroup(cfg.Group), kgo.ConsumeTopics("orders"), kgo.ClientID("billing"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	produce(t, c, partitioner.Murmur2, 1)
	cl.PollFetches(deadline) // it is a member once it gets something
	expect(t, examine(t, cfg), "group", Wrong, `"billing"`, "take its partitions", "--group")
}

// lone is a doctor without a patient.
func lone(cfg Config) (*doctor, *[]Finding) {
	all := &[]Finding{}
	return &doctor{cfg: cfg, tell: func(f Finding) { *all = append(*all, f) }, now: time.Now}, all
}

func byCheck(all []Finding) map[string][]Finding {
	out := map[string][]Finding{}
	for _, f := range all {
		out[f.Check] = append(out[f.Check], f)
	}
	return out
}

func TestTimingsThatDoNotGoTogether(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   Config
		took  time.Duration
		level Level
		words []string
	}{
		{"lease and slow etcd", Config{EtcdLease: 2 * time.Second}, 300 * time.Millisecond, Wrong, []string{"lease in etcd (2s)", "300ms", "--etcd-lease"}},
		{"long lease", Config{EtcdLease: 10 * time.Minute}, 1, Warning, []string{"stays in etcd for 10m0s"}},
		{"long session", Config{GroupSessionTimeout: 5 * time.Minute}, 1, Warning, []string{"--group-session-timeout"}},
		{"short stall", Config{LinkStall: time.Second}, 1, Warning, []string{"--link-stall-timeout"}},
		{"short drain", Config{DrainTimeout: time.Second}, 1, Warning, []string{"terminationGracePeriodSeconds"}},
		{"small ring", Config{Ring: 1 << 20, FetchMaxBytes: 1 << 20}, 1, Warning, []string{"--ring"}},
		{"all well", Config{EtcdLease: 5 * time.Second, Ring: 256 << 20, FetchMaxBytes: 1 << 20}, time.Millisecond, OK, []string{"go together"}},
	} {
		d, all := lone(c.cfg)
		d.etcdTook = c.took
		d.state = &kafka.State{Topic: kafka.Topic{Partitions: 64}}
		d.timings()
		t.Run(c.name, func(t *testing.T) { expect(t, byCheck(*all), "timings", c.level, c.words...) })
	}
}

func TestFileLimits(t *testing.T) {
	for limit, level := range map[uint64]Level{64: Wrong, 1024: Warning, 1 << 20: OK} {
		d, all := lone(Config{})
		d.limited("files", limit, 152)
		expect(t, byCheck(*all), "files", level, fmt.Sprint(limit))
	}
}

func TestWhatEtcdSaysOfTheTopicIsCompared(t *testing.T) {
	cfg := Config{Group: "g", Partitioner: "murmur2", Etcd: etcdmap.Config{Prefix: "/p", Topic: "t"}}
	for _, c := range []struct {
		topic *directory.Topic
		nodes int
		level Level
		words []string
	}{
		{nil, 0, OK, []string{"first node describes it"}},
		{nil, 1, Wrong, []string{"does not describe the topic", "/p/t/topic"}},
		{&directory.Topic{Group: "g", Partitioner: "crc32"}, 1, Wrong, []string{"crc32", "--partitioner"}},
		{&directory.Topic{Group: "other", Partitioner: "murmur2"}, 1, Wrong, []string{"other", "--group"}},
		{&directory.Topic{Group: "g", Partitioner: "murmur2", Partitions: 4}, 1, OK, []string{"1 node lives"}},
	} {
		d, all := lone(cfg)
		d.picture = &etcdmap.Picture{Topic: c.topic, Nodes: map[string]directory.Node{}}
		for i := range c.nodes {
			d.picture.Nodes[fmt.Sprint(i)] = directory.Node{}
		}
		d.described()
		expect(t, byCheck(*all), "map", c.level, c.words...)
	}
}

func TestRecordsFromTheFutureMeanAClock(t *testing.T) {
	d, all := lone(Config{})
	d.future = 90 * time.Second
	d.clocks(t.Context())
	expect(t, byCheck(*all), "clocks", Wrong, "1m30s ahead of", "chrony")
}

func TestAddressForThisMachineOnlyIsTold(t *testing.T) {
	for _, c := range []struct {
		listen, advertise, etcd string
		level                   Level
	}{
		{"127.0.0.1:9080", "", "10.0.0.2:2379", Warning},
		{":9080", "localhost:9080", "10.0.0.2:2379", Warning},
		{":9080", "", "10.0.0.2:2379", OK},
		{"127.0.0.1:9080", "", "127.0.0.1:2379", OK},
	} {
		d, all := lone(Config{Listen: c.listen, Advertise: c.advertise, Etcd: etcdmap.Config{Endpoints: []string{c.etcd}}})
		d.settings()
		expect(t, byCheck(*all), "settings", c.level, "")
	}
}
