package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/garbage"
	"github.com/pointsmanhq/pointsman/pkg/logging"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/tlsfiles"
	"github.com/pointsmanhq/pointsman/wsnode"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

// kafkaOptions say where Kafka is; serve and produce have them.
type kafkaOptions struct {
	Topic string   `required:"" placeholder:"NAME" group:"Kafka" help:"Topic to serve."`
	Kafka []string `default:"127.0.0.1:9092" placeholder:"HOST:PORT" group:"Kafka" help:"Brokers to ask first."`

	KafkaTLS           bool               `name:"kafka-tls" group:"Kafka" help:"Talk TLS with the brokers."`
	KafkaCAFile        string             `name:"kafka-ca-file" placeholder:"FILE" group:"Kafka" help:"Certificates that vouch for the brokers; the system's without it."`
	KafkaCertFile      string             `name:"kafka-cert-file" placeholder:"FILE" group:"Kafka" help:"Certificate to show to the brokers."`
	KafkaKeyFile       string             `name:"kafka-key-file" placeholder:"FILE" group:"Kafka" help:"Its private key."`
	KafkaSASLMechanism string             `name:"kafka-sasl-mechanism" enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" default:"" group:"Kafka" help:"How to authenticate at the brokers: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."`
	KafkaUser          string             `placeholder:"NAME" group:"Kafka" help:"User for SASL."`
	KafkaPasswordFile  options.SecretFile `placeholder:"FILE" group:"Kafka" help:"File with the password for SASL."`

	Partitioner string `default:"murmur2" enum:"murmur2,crc32,fnv1a" group:"Kafka" help:"How the topic's producers choose partitions: murmur2 (Java), crc32 (librdkafka) or fnv1a (sarama)."`
}

func (k kafkaOptions) security(log *zap.Logger) (*tls.Config, wsnode.SASL, error) {
	conf, err := tlsfiles.Client(log, k.KafkaTLS, k.KafkaCAFile, k.KafkaCertFile, k.KafkaKeyFile)
	if err != nil {
		return nil, wsnode.SASL{}, options.Usagef("kafka: %w", err)
	}
	password, err := k.KafkaPasswordFile.Read()
	if err != nil {
		return nil, wsnode.SASL{}, options.Usagef("--kafka-password-file: %w", err)
	}
	if k.KafkaSASLMechanism == "" && (k.KafkaUser != "" || password != "") {
		return nil, wsnode.SASL{}, options.Usagef("--kafka-user needs --kafka-sasl-mechanism")
	}
	return conf, wsnode.SASL{Mechanism: k.KafkaSASLMechanism, User: k.KafkaUser, Password: password}, nil
}

// serve runs the node.
type serve struct {
	kafkaOptions `embed:""`
	Group        string        `placeholder:"NAME" group:"Kafka" help:"Consumer group of all nodes of this topic. Default: pointsman-<topic>."`
	MetadataAge  time.Duration `name:"producer-metadata-age" default:"8m" placeholder:"DURATION" group:"Kafka" help:"How long a producer may go on writing by an old partition count after partitions were added: more than its metadata.max.age.ms (5m by default) and delivery.timeout.ms (2m). Keys that moved are read in both partitions for so long."`
	Session      time.Duration `name:"group-session-timeout" default:"6s" placeholder:"DURATION" group:"Kafka" help:"How long the group waits for a node that is silent; at least 1s, and brokers refuse less than their group.min.session.timeout.ms (6s by default)."`

	Etcd             []string           `default:"127.0.0.1:2379" placeholder:"HOST:PORT" group:"etcd" help:"etcd endpoints."`
	EtcdPrefix       string             `default:"/pointsman" placeholder:"KEY" group:"etcd" help:"Where this stack's keys begin; two stacks on one etcd need two."`
	EtcdTLS          bool               `name:"etcd-tls" group:"etcd" help:"Talk TLS with etcd."`
	EtcdCAFile       string             `name:"etcd-ca-file" placeholder:"FILE" group:"etcd" help:"Certificates that vouch for etcd; the system's without it."`
	EtcdCertFile     string             `name:"etcd-cert-file" placeholder:"FILE" group:"etcd" help:"Certificate to show to etcd."`
	EtcdKeyFile      string             `name:"etcd-key-file" placeholder:"FILE" group:"etcd" help:"Its private key."`
	EtcdUser         string             `placeholder:"NAME" group:"etcd" help:"User at etcd."`
	EtcdPasswordFile options.SecretFile `placeholder:"FILE" group:"etcd" help:"File with that user's password."`
	EtcdLease        time.Duration      `default:"5s" placeholder:"DURATION" group:"etcd" help:"How long etcd keeps what a silent node has published; at least 2s."`

	ID        string `name:"id" placeholder:"NAME" group:"Node" help:"Name of this node; no two living nodes may share it. Default: host name and a random suffix."`
	Zone      string `placeholder:"NAME" group:"Node" help:"Where this node is; shown in consoles."`
	Listen    string `default:":9080" placeholder:"ADDR" group:"Node" help:"Address for routers."`
	Advertise string `placeholder:"HOST:PORT" group:"Node" help:"Address that routers dial. Default: --listen's, or this machine's on the way to etcd."`

	LinkTokenFile options.SecretFile `placeholder:"FILE" group:"Links" help:"File with the token that routers must show."`
	TLSCertFile   string             `name:"tls-cert-file" placeholder:"FILE" group:"Links" help:"Certificate for --listen; TLS is used with it."`
	TLSKeyFile    string             `name:"tls-key-file" placeholder:"FILE" group:"Links" help:"Its private key."`
	TLSClientCA   string             `name:"tls-client-ca-file" placeholder:"FILE" group:"Links" help:"Routers must show a certificate that these vouch for."`
	LinkBuffer    options.Size       `default:"4MiB" placeholder:"SIZE" group:"Links" help:"Bytes that may wait for one router; beyond it its streams fall behind."`
	LinkStall     time.Duration      `name:"link-stall-timeout" default:"30s" placeholder:"DURATION" group:"Links" help:"How long a link may make no progress before it is closed."`

	Ring           options.Size  `default:"256MiB" placeholder:"SIZE" group:"Limits" help:"Memory for recent records, shared by the partitions that are read; at least 1MiB."`
	ScanRate       options.Size  `default:"64MiB" placeholder:"SIZE" group:"Limits" help:"Bytes per second that may be read again for clients that are behind; 0 for no limit."`
	ReplayLimit    int64         `default:"0" placeholder:"RECORDS" group:"Limits" help:"How many offsets a client may go back; 0 for no limit but Kafka's retention."`
	FetchMaxBytes  options.Size  `default:"1MiB" placeholder:"SIZE" group:"Limits" help:"Most that is read of one partition at a time; larger records are read all the same."`
	FetchPace      time.Duration `default:"1ms" placeholder:"DURATION" group:"Limits" help:"The least time from one fetch of a broker to the next while records come by the few: more spares the brokers, and delays each record by half of it. 0 for none."`
	Checkpoint     time.Duration `name:"checkpoint-every" default:"100ms" placeholder:"DURATION" group:"Limits" help:"How often routers are told how far their streams are covered."`
	TruncatedAfter time.Duration `default:"10s" placeholder:"DURATION" group:"Limits" help:"How long a position may lie beyond the end of the log before the log counts as truncated."`
	Linger         time.Duration `default:"5s" placeholder:"DURATION" group:"Limits" help:"How long a partition that nobody needs is read on; 0 to stop at once."`
	DrainTimeout   time.Duration `default:"30s" placeholder:"DURATION" group:"Limits" help:"How long an orderly stop may take."`

	Admin           string `default:"127.0.0.1:9081" placeholder:"ADDR" group:"Operators" help:"Address for operators: metrics, health, profiles. Who reaches it may read everything."`
	logging.Options `embed:""`
}

// Validate refuses what the types allow and the node cannot use.
func (s *serve) Validate() error {
	for name, d := range map[string]time.Duration{
		"group-session-timeout": s.Session, "etcd-lease": s.EtcdLease, "link-stall-timeout": s.LinkStall,
		"producer-metadata-age": s.MetadataAge, "checkpoint-every": s.Checkpoint, "truncated-after": s.TruncatedAfter, "drain-timeout": s.DrainTimeout,
	} {
		if d <= 0 {
			return fmt.Errorf("--%s must be more than 0", name)
		}
	}
	// Several heartbeats, which go out every 250 ms, must fit into it.
	if s.Session < time.Second {
		return errors.New("--group-session-timeout must be at least 1s, and brokers refuse less than their group.min.session.timeout.ms (6s by default)")
	}
	if s.EtcdLease < 2*time.Second {
		return errors.New("--etcd-lease must be at least 2s")
	}
	if s.LinkBuffer < 64<<10 {
		return errors.New("--link-buffer must be at least 64KiB")
	}
	if s.Ring < 1<<20 {
		return errors.New("--ring must be at least 1MiB")
	}
	if s.Linger < 0 {
		return errors.New("--linger must not be negative")
	}
	if s.FetchMaxBytes < 1<<10 || s.FetchMaxBytes > 1<<30 {
		return errors.New("--fetch-max-bytes must be from 1KiB to 1GiB")
	}
	if s.FetchPace < 0 || s.FetchPace > 100*time.Millisecond {
		return errors.New("--fetch-pace must be from 0 to 100ms")
	}
	if s.ReplayLimit < 0 {
		return errors.New("--replay-limit must not be negative")
	}
	return nil
}

func (s *serve) config(log *zap.Logger) (wsnode.Config, error) {
	kafkaTLS, sasl, err := s.security(log)
	if err != nil {
		return wsnode.Config{}, err
	}
	etcdTLS, err := tlsfiles.Client(log, s.EtcdTLS, s.EtcdCAFile, s.EtcdCertFile, s.EtcdKeyFile)
	if err != nil {
		return wsnode.Config{}, options.Usagef("etcd: %w", err)
	}
	etcdPassword, err := s.EtcdPasswordFile.Read()
	if err != nil {
		return wsnode.Config{}, options.Usagef("--etcd-password-file: %w", err)
	}
	token, err := s.LinkTokenFile.Read()
	if err != nil {
		return wsnode.Config{}, options.Usagef("--link-token-file: %w", err)
	}
	linkTLS, err := tlsfiles.Server(log, s.TLSCertFile, s.TLSKeyFile, s.TLSClientCA)
	if err != nil {
		return wsnode.Config{}, options.Usagef("--tls-cert-file, --tls-key-file, --tls-client-ca-file: %w", err)
	}
	scan := int64(s.ScanRate)
	if scan == 0 {
		scan = -1
	}
	linger := s.Linger
	if linger == 0 {
		linger = -1 // in a Config 0 means the default
	}
	return wsnode.Config{
		ID: s.ID, Topic: s.Topic, Group: s.Group, Zone: s.Zone,
		Kafka: s.Kafka, KafkaTLS: kafkaTLS, KafkaSASL: sasl, FetchMaxBytes: int64(s.FetchMaxBytes), FetchPace: s.FetchPace,
		Etcd: s.Etcd, EtcdPrefix: s.EtcdPrefix, EtcdTLS: etcdTLS, EtcdUser: s.EtcdUser, EtcdPassword: etcdPassword, EtcdLease: s.EtcdLease,
		Partitioner: s.Partitioner, ProducerMetadataAge: s.MetadataAge,
		Listen: s.Listen, Advertise: s.Advertise, LinkToken: token, LinkTLS: linkTLS, Admin: s.Admin,
		Ring: int64(s.Ring), LinkBuffer: int64(s.LinkBuffer), LinkStallTimeout: s.LinkStall, ScanRate: scan,
		ReplayLimit: s.ReplayLimit, CheckpointEvery: s.Checkpoint, TruncatedAfter: s.TruncatedAfter, Linger: linger,
		DrainTimeout: s.DrainTimeout, GroupSessionTimeout: s.Session, Version: buildinfo.Read().Version, Fault: os.Getenv("POINTSMAN_FAULT"),
	}, nil
}

// Run serves until ctx ends, then drains.
func (s *serve) Run(ctx context.Context, env options.Env) error {
	log, _, err := logging.New(s.Options, env.Stderr)
	if err != nil {
		return &options.UsageError{Err: err}
	}
	cfg, err := s.config(log)
	if err != nil {
		return err
	}
	for _, w := range env.Warnings {
		log.Warn("settings", zap.String("remark", w))
	}
	kafka.RedirectLog(log)
	node, err := wsnode.New(cfg, wsnode.Deps{Logger: log})
	if err != nil {
		return &options.UsageError{Err: err}
	}
	log.Info("starting", zap.String("version", cfg.Version), zap.String("topic", s.Topic),
		zap.Strings("kafka", s.Kafka), zap.Strings("etcd", s.Etcd))
	defer garbage.Tend()()
	return node.Run(ctx)
}
