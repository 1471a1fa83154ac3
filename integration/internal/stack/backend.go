package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/pointsmanhq/pointsman/integration/internal/etcdtest"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/realetcd"
	"github.com/pointsmanhq/pointsman/integration/internal/realkafka"
)

// backend is what routers and nodes stand on: one Kafka and one etcd.
type backend interface {
	kafka() []string
	etcd() []string
	stopEtcd(ctx context.Context) error
	startEtcd(ctx context.Context) error
	wipeEtcd(ctx context.Context) error
	stopKafka(ctx context.Context) error
	startKafka(ctx context.Context) error
	close() error
}

// embedded is kfake and etcd inside this process.
type embedded struct {
	dir  string
	addr string // of kfake's broker
	port int
	db   *etcdtest.Server

	mu   sync.Mutex
	fake *kfake.Cluster // guarded by mu; nil while stopped
}

func openEmbedded(dir string, ports *procs.Ports, wellKnown bool) (_ backend, err error) {
	e := &embedded{dir: filepath.Join(dir, "kafka")}
	db := etcdtest.Config{Dir: filepath.Join(dir, "etcd")}
	if wellKnown {
		e.addr, err = ports.Prefer(kafkaPort)
		if err == nil {
			db.Addr, err = ports.Prefer(etcdPort)
		}
	} else {
		e.addr, err = ports.Take()
	}
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(e.addr)
	if err != nil {
		return nil, err
	}
	if e.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if err := e.startKafka(context.Background()); err != nil {
		return nil, err
	}
	if e.db, err = etcdtest.Start(db); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *embedded) kafka() []string { return []string{e.addr} }
func (e *embedded) etcd() []string  { return e.db.Endpoints() }

func (e *embedded) stopEtcd(context.Context) error  { e.db.Stop(); return nil }
func (e *embedded) startEtcd(context.Context) error { return e.db.Start() }
func (e *embedded) wipeEtcd(context.Context) error  { return e.db.Wipe() }

func (e *embedded) startKafka(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fake != nil {
		return errors.New("start kfake: it runs already")
	}
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return fmt.Errorf("start kfake: %w", err)
	}
	// One broker, as many ports: the same one after a restart, so that clients find it again.
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(e.port), kfake.DataDir(e.dir))
	if err != nil {
		return fmt.Errorf("start kfake: %w", err)
	}
	e.fake = fake
	return nil
}

func (e *embedded) stopKafka(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fake == nil {
		return nil
	}
	e.fake.Close()
	e.fake = nil
	return nil
}

func (e *embedded) close() error {
	err := e.stopKafka(context.Background())
	if e.db != nil {
		err = errors.Join(err, e.db.Close())
	}
	return err
}

// real is Apache Kafka and etcd as processes.
type real struct {
	broker   *realkafka.Broker
	db       *realetcd.Server
	security *Security // nil unless the stack is of kind Secured
}

func openReal(ctx context.Context, root, dir string, ports *procs.Ports, secured bool) (_ backend, err error) {
	work := filepath.Join(root, "integration", ".work")
	jars, err := realkafka.Fetch(ctx, filepath.Join(root, "integration", "kafka", "pom.xml"), work)
	if err != nil {
		return nil, err
	}
	bin, err := realetcd.Build(ctx, filepath.Join(root, "integration"), work)
	if err != nil {
		return nil, err
	}
	kcfg := realkafka.Config{Jars: jars, Dir: filepath.Join(dir, "kafka")}
	ecfg := realetcd.Config{Bin: bin, Dir: filepath.Join(dir, "etcd")}
	for _, addr := range []*string{&kcfg.Addr, &kcfg.Controller, &ecfg.Client, &ecfg.Peer} {
		if *addr, err = ports.Take(); err != nil {
			return nil, err
		}
	}
	r := &real{}
	if secured {
		if r.security, err = newSecurity(dir, ports); err != nil {
			return nil, err
		}
		if err := r.security.guard(&kcfg, &ecfg); err != nil {
			return nil, err
		}
	}
	r.db = realetcd.New(ecfg)
	if r.broker, err = realkafka.New(ctx, kcfg); err != nil {
		return nil, err
	}
	if err := errors.Join(r.db.Start(ctx), r.broker.Start(ctx)); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *real) kafka() []string                      { return []string{r.broker.Addr()} }
func (r *real) etcd() []string                       { return []string{r.db.Addr()} }
func (r *real) stopEtcd(ctx context.Context) error   { return r.db.Stop(ctx) }
func (r *real) startEtcd(ctx context.Context) error  { return r.db.Start(ctx) }
func (r *real) wipeEtcd(ctx context.Context) error   { return r.db.Wipe(ctx) }
func (r *real) stopKafka(ctx context.Context) error  { return r.broker.Stop(ctx) }
func (r *real) startKafka(ctx context.Context) error { return r.broker.Start(ctx) }
func (r *real) close() error                         { return errors.Join(r.broker.Kill(), r.db.Kill()) }

// external is somebody else's Kafka and etcd, which nobody may stop.
type external struct{ brokers, endpoints []string }

func (e external) kafka() []string                  { return e.brokers }
func (e external) etcd() []string                   { return e.endpoints }
func (e external) stopEtcd(context.Context) error   { return ErrUnsupported }
func (e external) startEtcd(context.Context) error  { return ErrUnsupported }
func (e external) wipeEtcd(context.Context) error   { return ErrUnsupported }
func (e external) stopKafka(context.Context) error  { return ErrUnsupported }
func (e external) startKafka(context.Context) error { return ErrUnsupported }
func (e external) close() error                     { return nil }

// ensureTopic creates the topic unless it exists, and returns how many partitions it has.
func ensureTopic(ctx context.Context, brokers []string, o Options) (int32, error) {
	topic := o.Topic
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return 0, fmt.Errorf("create topic %s: %w", topic, err)
	}
	defer client.Close()
	create := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, o.Partitions, 1
	for name, value := range o.TopicConfig {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		t.Configs = append(t.Configs, c)
	}
	create.Topics = append(create.Topics, t)
	resp, err := create.RequestWith(ctx, client)
	if err != nil {
		return 0, fmt.Errorf("create topic %s: %w", topic, err)
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return 0, fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return metadata(ctx, client, topic)
}

// countPartitions is how many partitions a topic has.
func countPartitions(ctx context.Context, brokers []string, topic string) (int32, error) {
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return 0, fmt.Errorf("look at topic %s: %w", topic, err)
	}
	defer client.Close()
	return metadata(ctx, client, topic)
}

// metadata waits until every partition of a topic has a leader, and counts them.
func metadata(ctx context.Context, client *kgo.Client, topic string) (int32, error) {
	var count int32
	// A broker answers a creation before its metadata names every leader.
	err := procs.Poll(ctx, pollEvery, func() error {
		meta := kmsg.NewPtrMetadataRequest()
		mt := kmsg.NewMetadataRequestTopic()
		mt.Topic = &topic
		meta.Topics = append(meta.Topics, mt)
		resp, err := meta.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
				return err
			}
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
			}
			count = int32(len(t.Partitions))
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("look at topic %s: %w", topic, err)
	}
	return count, nil
}

// Backend is a Kafka and an etcd for several stacks of kind External, one after the other.
type Backend struct {
	back  backend
	ports procs.Ports
}

// OpenBackend starts what stacks of that kind stand on: Real is Apache Kafka and an etcd as processes, Processes is
// kfake and an etcd inside this one.
func OpenBackend(ctx context.Context, kind Kind, dir string) (_ *Backend, err error) {
	b := new(Backend)
	switch kind {
	case Real:
		var root string
		if root, err = repository(); err == nil {
			b.back, err = openReal(ctx, root, dir, &b.ports, false)
		}
	case Processes:
		b.back, err = openEmbedded(dir, &b.ports, false)
	default:
		err = fmt.Errorf("a stack of kind %s has no backend of its own", kind)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a backend: %w", err), b.ports.Close())
	}
	return b, nil
}

// Kafka is the brokers' addresses.
func (b *Backend) Kafka() []string { return b.back.kafka() }

// Etcd is etcd's endpoints.
func (b *Backend) Etcd() []string { return b.back.etcd() }

// PIDs are the processes, by name; none for what is inside this one.
func (b *Backend) PIDs() map[string]int {
	if f, ok := b.back.(fragile); ok {
		return f.pids()
	}
	return nil
}

// CreateTopic creates a topic.
func (b *Backend) CreateTopic(ctx context.Context, name string, partitions int32) error {
	_, err := ensureTopic(ctx, b.Kafka(), Options{Topic: name, Partitions: partitions})
	return err
}

// Close ends both.
func (b *Backend) Close() error { return errors.Join(b.back.close(), b.ports.Close()) }
