package wsnode

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// Config says what a node is and where its dependencies are. Zero values mean the defaults named there.
type Config struct {
	ID    string // default: host name and a random suffix
	Topic string // needed
	Group string // default "pointsman-" and the topic
	Zone  string // shown in etcd and consoles

	Kafka         []string // host:port; default 127.0.0.1:9092
	KafkaTLS      *tls.Config
	KafkaSASL     SASL
	FetchMaxBytes int64         // per partition and fetch; default 1 MiB
	FetchPace     time.Duration // the least from one fetch to the next while records come by the few; 0 for none

	Etcd         []string // default 127.0.0.1:2379
	EtcdPrefix   string   // default /pointsman
	EtcdTLS      *tls.Config
	EtcdUser     string
	EtcdPassword string
	EtcdLease    time.Duration // default 5 s

	Partitioner         string        // murmur2 (default), crc32 or fnv1a
	ProducerMetadataAge time.Duration // how long a producer may go on with an old partition count; default 8 min

	Listen    string // for routers; default :9080; port 0 takes a free one
	Advertise string // host:port that routers dial; default: the listener's, see Node.advertised
	LinkToken string // routers must show it; empty: none is asked for
	LinkTLS   *tls.Config
	Admin     string // for operators; empty: no admin server

	Ring             int64         // recent records of all partitions together; default 256 MiB
	LinkBuffer       int64         // what may wait for one link; default 4 MiB
	LinkStallTimeout time.Duration // a link without progress is closed; default 30 s
	ScanRate         int64         // catch-up reads of the node, bytes per second; default 64 MiB, negative: no bound
	ReplayLimit      int64         // how many offsets a stream may go back; 0: no limit
	CheckpointEvery  time.Duration // default 100 ms
	TruncatedAfter   time.Duration // default 10 s
	Linger           time.Duration // how long an unused partition is read on; default 5 s, negative: not at all
	DrainTimeout     time.Duration // default 30 s

	GroupSessionTimeout time.Duration // of the consumer group; default 6 s, which is the least that brokers allow by default

	Version string // the program's, for etcd and links
	Fault   string // POINTSMAN_FAULT, for builds with the tag pointsman_faults
}

// SASL says how to authenticate at Kafka.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty: none
	User      string
	Password  string
}

// Deps are what a node is given.
type Deps struct {
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer, if not nil, gets the node's metrics beside the admin server's own registry.
	Registerer prometheus.Registerer
}

func (c *Config) defaults() error {
	if c.Topic == "" {
		return errors.New("no topic given")
	}
	text := func(v *string, to string) {
		if *v == "" {
			*v = to
		}
	}
	list := func(v *[]string, to string) {
		if len(*v) == 0 {
			*v = []string{to}
		}
	}
	size := func(v *int64, to int64) {
		if *v == 0 {
			*v = to
		}
	}
	wait := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	text(&c.Group, "pointsman-"+c.Topic)
	text(&c.EtcdPrefix, "/pointsman")
	text(&c.Partitioner, partitioner.Default)
	text(&c.Listen, ":9080")
	text(&c.Version, "devel")
	list(&c.Kafka, "127.0.0.1:9092")
	list(&c.Etcd, "127.0.0.1:2379")
	size(&c.Ring, 256<<20)
	size(&c.ScanRate, 64<<20)
	wait(&c.ProducerMetadataAge, 8*time.Minute)
	wait(&c.LinkStallTimeout, 30*time.Second)
	wait(&c.Linger, 5*time.Second)
	wait(&c.DrainTimeout, 30*time.Second)
	if c.ID == "" {
		id, err := defaultID()
		if err != nil {
			return err
		}
		c.ID = id
	}
	if err := directory.CheckID(c.ID); err != nil {
		return fmt.Errorf("node id %q: %w", c.ID, err)
	}
	if c.Advertise != "" {
		if err := directory.CheckAddr(c.Advertise); err != nil {
			return fmt.Errorf("advertised address %q: %w", c.Advertise, err)
		}
	}
	return nil
}

func defaultID() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find a node id: %w", err)
	}
	suffix, err := random(3)
	if err != nil {
		return "", err
	}
	return host + "-" + suffix, nil
}

// random returns n random bytes as text.
func random(n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make a random id: %w", err)
	}
	return hex.EncodeToString(b), nil
}
