package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/garbage"
	"github.com/pointsmanhq/pointsman/pkg/logging"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/tlsfiles"
	"github.com/pointsmanhq/pointsman/router"
)

// etcdOptions say where etcd is; serve and the commands that read it have them.
type etcdOptions struct {
	Etcd             []string           `default:"127.0.0.1:2379" placeholder:"HOST:PORT" group:"etcd" help:"etcd endpoints."`
	EtcdPrefix       string             `default:"/pointsman" placeholder:"KEY" group:"etcd" help:"Where this stack's keys begin; two stacks on one etcd need two."`
	EtcdTLS          bool               `name:"etcd-tls" group:"etcd" help:"Talk TLS with etcd."`
	EtcdCAFile       string             `name:"etcd-ca-file" placeholder:"FILE" group:"etcd" help:"Certificates that vouch for etcd; the system's without it."`
	EtcdCertFile     string             `name:"etcd-cert-file" placeholder:"FILE" group:"etcd" help:"Certificate to show to etcd."`
	EtcdKeyFile      string             `name:"etcd-key-file" placeholder:"FILE" group:"etcd" help:"Its private key."`
	EtcdUser         string             `placeholder:"NAME" group:"etcd" help:"User at etcd."`
	EtcdPasswordFile options.SecretFile `placeholder:"FILE" group:"etcd" help:"File with that user's password."`
}

// serve runs the router.
type serve struct {
	Topic string `required:"" placeholder:"NAME" group:"Topic" help:"Topic whose records are delivered. Everything else about it is read from etcd."`

	etcdOptions `embed:""`

	Listen      string   `default:":8080" placeholder:"ADDR" group:"Clients" help:"Address for clients."`
	TLSCertFile string   `name:"tls-cert-file" placeholder:"FILE" group:"Clients" help:"Certificate for --listen; TLS is used with it."`
	TLSKeyFile  string   `name:"tls-key-file" placeholder:"FILE" group:"Clients" help:"Its private key."`
	Auth        string   `default:"none" enum:"none,jwt" group:"Clients" help:"Who may listen to what: none believes the key in the request, jwt takes it from a signed token."`
	Origins     []string `placeholder:"PATTERN" group:"Clients" help:"Origins beside the router's own that browsers may come from, for instance https://*.example.com, or * for all."`

	Heartbeat     time.Duration `default:"15s" group:"Clients" help:"The longest that a client hears nothing."`
	MaxKeys       int           `default:"100" group:"Clients" help:"Keys that one socket may follow; eight of them have a --client-window, and each one more an eighth. At most 1000: a cursor names them all."`
	Window        options.Size  `name:"client-window" default:"128KiB" group:"Clients" help:"Bytes that may be queued and under way for one client; beyond it the client is behind, and catches up."`
	Compression   bool          `name:"compression" group:"Clients" help:"Compress records for clients that offer it (permessage-deflate without context takeover). It costs time for each record; docs/compression.md has figures."`
	CompressFrom  options.Size  `name:"compression-threshold" default:"512" placeholder:"SIZE" group:"Clients" help:"Messages shorter than this are not compressed."`
	Ping          time.Duration `name:"client-ping" default:"20s" group:"Clients" help:"Silence after which a client is asked for a sign of life."`
	Timeout       time.Duration `name:"client-timeout" default:"60s" group:"Clients" help:"Silence after which a client with nothing queued is given up."`
	Stall         time.Duration `name:"client-stall-timeout" default:"5m" group:"Clients" help:"How long a client's socket may take no bytes at all. A client that reads slowly is never given up."`
	ResumeTimeout time.Duration `default:"10s" group:"Clients" help:"How long a client's message may take to arrive; that of ?resume=message from the connect on."`
	AcceptTimeout time.Duration `default:"10s" group:"Clients" help:"How long a client may take to send its request."`
	DrainTimeout  time.Duration `default:"30s" group:"Clients" help:"How long an orderly stop may take; clients are closed one by one over most of it."`
	DrainDelay    time.Duration `default:"1s" group:"Clients" help:"How much of that the router still takes clients, although /readyz says no: longer than balancers take to notice."`

	tokenOptions `embed:""`

	limitOptions `embed:""`

	LinkTLS       bool               `name:"link-tls" group:"Links" help:"Talk TLS with nodes."`
	LinkCAFile    string             `name:"link-ca-file" placeholder:"FILE" group:"Links" help:"Certificates that vouch for nodes; the system's without it."`
	LinkCertFile  string             `name:"link-cert-file" placeholder:"FILE" group:"Links" help:"Certificate to show to nodes."`
	LinkKeyFile   string             `name:"link-key-file" placeholder:"FILE" group:"Links" help:"Its private key."`
	LinkTokenFile options.SecretFile `placeholder:"FILE" group:"Links" help:"File with the token that nodes ask for."`
	LinkPing      time.Duration      `default:"1s" group:"Links" help:"How often a node is asked for a sign of life."`
	LinkTimeout   time.Duration      `default:"3s" group:"Links" help:"A node that is silent for so long is given up; its clients move to another."`
	LinkRetry     time.Duration      `default:"2s" group:"Links" help:"Longest wait before a node is dialled again."`

	ID              string `name:"id" placeholder:"NAME" group:"Operators" help:"Name of this router in nodes' logs. Default: host name and a random suffix."`
	Admin           string `default:"127.0.0.1:8081" placeholder:"ADDR" group:"Operators" help:"Address for operators: metrics, health, assignments, profiles. Who reaches it may read everything."`
	logging.Options `embed:""`
}

// Validate refuses what the types allow and the router cannot use.
func (s *serve) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat", s.Heartbeat}, {"client-ping", s.Ping}, {"client-timeout", s.Timeout},
		{"client-stall-timeout", s.Stall}, {"resume-timeout", s.ResumeTimeout}, {"accept-timeout", s.AcceptTimeout},
		{"drain-timeout", s.DrainTimeout}, {"link-ping", s.LinkPing}, {"link-timeout", s.LinkTimeout}, {"link-retry", s.LinkRetry},
	} {
		if d.value <= 0 {
			return fmt.Errorf("--%s must be more than 0", d.name)
		}
	}
	if s.DrainDelay < 0 || s.DrainDelay >= s.DrainTimeout {
		return errors.New("--drain-delay must be shorter than --drain-timeout")
	}
	if s.Heartbeat < 100*time.Millisecond {
		return errors.New("--heartbeat must be at least 100ms")
	}
	if s.Timeout <= s.Ping {
		return errors.New("--client-timeout must be longer than --client-ping")
	}
	if s.LinkTimeout <= s.LinkPing {
		return errors.New("--link-timeout must be longer than --link-ping")
	}
	if s.MaxKeys < 1 || s.MaxKeys > 1000 {
		return errors.New("--max-keys must be from 1 to 1000")
	}
	if s.CompressFrom < 1 {
		return errors.New("--compression-threshold must be at least 1")
	}
	if s.Window < 4<<10 {
		return errors.New("--client-window must be at least 4KiB")
	}
	if err := s.limitOptions.check(); err != nil {
		return err
	}
	return s.tokenOptions.check(s.Auth == "jwt")
}

func (s *serve) config(log *zap.Logger) (router.Config, error) {
	etcdTLS, err := tlsfiles.Client(log, s.EtcdTLS, s.EtcdCAFile, s.EtcdCertFile, s.EtcdKeyFile)
	if err != nil {
		return router.Config{}, options.Usagef("etcd: %w", err)
	}
	etcdPassword, err := s.EtcdPasswordFile.Read()
	if err != nil {
		return router.Config{}, options.Usagef("--etcd-password-file: %w", err)
	}
	linkTLS, err := tlsfiles.Client(log, s.LinkTLS, s.LinkCAFile, s.LinkCertFile, s.LinkKeyFile)
	if err != nil {
		return router.Config{}, options.Usagef("links: %w", err)
	}
	token, err := s.LinkTokenFile.Read()
	if err != nil {
		return router.Config{}, options.Usagef("--link-token-file: %w", err)
	}
	clientsTLS, err := tlsfiles.Server(log, s.TLSCertFile, s.TLSKeyFile, "")
	if err != nil {
		return router.Config{}, options.Usagef("clients: %w", err)
	}
	packFrom := 0
	if s.Compression {
		packFrom = int(s.CompressFrom)
	}
	cfg := router.Config{
		CompressFrom: packFrom,
		ID:           s.ID, Topic: s.Topic,
		Etcd: s.Etcd, EtcdPrefix: s.EtcdPrefix, EtcdTLS: etcdTLS, EtcdUser: s.EtcdUser, EtcdPassword: etcdPassword,
		Listen: s.Listen, TLS: clientsTLS, Auth: s.Auth, Origins: s.Origins, Admin: s.Admin,
		Heartbeat: s.Heartbeat, MaxKeys: s.MaxKeys, ClientWindow: int64(s.Window), ClientPing: s.Ping, ClientTimeout: s.Timeout, ClientStallTimeout: s.Stall,
		ResumeTimeout: s.ResumeTimeout, AcceptTimeout: s.AcceptTimeout, DrainTimeout: s.DrainTimeout, DrainDelay: s.DrainDelay,
		LinkToken: token, LinkTLS: linkTLS, LinkPing: s.LinkPing, LinkTimeout: s.LinkTimeout, LinkRetry: s.LinkRetry,
		Version: buildinfo.Read().Version, Fault: os.Getenv("POINTSMAN_FAULT"),
	}
	s.limitOptions.apply(&cfg)
	return cfg, s.tokenOptions.apply(&cfg)
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
	settle := s.claim(&cfg)
	r, err := router.New(cfg, router.Deps{Logger: log})
	if err != nil {
		return &options.UsageError{Err: err}
	}
	settle(log)
	log.Info("starting", zap.String("version", cfg.Version), zap.String("topic", s.Topic), zap.Strings("etcd", s.Etcd))
	defer garbage.Tend()()
	return r.Run(ctx)
}

// healthcheck asks the router's admin server.
type healthcheck struct {
	Admin   string        `default:"127.0.0.1:8081" placeholder:"ADDR" help:"The router's address for operators."`
	Live    bool          `help:"Ask only whether it lives, not whether it is ready."`
	Timeout time.Duration `default:"3s" help:"How long to wait for the answer."`
}

// Run asks once.
func (h *healthcheck) Run(ctx context.Context, env options.Env) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	path := "/readyz"
	if h.Live {
		path = "/livez"
	}
	if err := admin.Probe(ctx, h.Admin, path); err != nil {
		return err
	}
	_, err := fmt.Fprintln(env.Stdout, "ok")
	return err
}

// version prints the build.
type version struct{}

// Run prints one line.
func (version) Run(_ context.Context, env options.Env) error {
	_, err := fmt.Fprintln(env.Stdout, "router", buildinfo.Read())
	return err
}
