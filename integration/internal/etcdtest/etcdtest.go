// Package etcdtest runs a real etcd inside the calling process, on an address that outlives its stops, so that tests
// and the playground can stop it, start it again, cut it off and lose its data.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/integration/internal/bridge"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// Config says where it listens and keeps its data. The zero value is a free loopback port and a temporary folder.
type Config struct {
	Addr   string      // host:port for clients; "": a free loopback port
	Dir    string      // "": a temporary folder that Close removes
	TLS    bool        // clients must use TLS; the certificate is self-signed
	Logger *zap.Logger // of etcd itself; nil: silent
	// Timeout is how long a start may take; 0 means 30 s.
	Timeout time.Duration
}

// Server is one etcd. Its methods may be called from several goroutines.
type Server struct {
	cfg    Config
	temp   bool
	ports  procs.Ports
	inner  string // where etcd itself listens, behind the bridge
	peer   string
	bridge *bridge.Bridge

	mu     sync.Mutex
	etcd   *embed.Etcd // nil while stopped
	closed bool
}

// Start runs an etcd and returns when it serves.
func Start(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	s := &Server{cfg: cfg}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) prepare() (err error) {
	if s.cfg.Dir == "" {
		if s.cfg.Dir, err = os.MkdirTemp("", "pointsman-etcd-"); err != nil {
			return fmt.Errorf("folder for etcd: %w", err)
		}
		s.temp = true
	}
	for _, addr := range []*string{&s.inner, &s.peer} {
		if *addr, err = s.ports.Take(); err != nil {
			return err
		}
	}
	if s.cfg.Addr == "" {
		if s.cfg.Addr, err = s.ports.Take(); err != nil {
			return err
		}
	}
	s.bridge = bridge.New(s.cfg.Addr, s.inner)
	return nil
}

// TB is what New needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// New runs an etcd for the length of a test, with the first of cfg if there is one.
func New(tb TB, cfg ...Config) *Server {
	tb.Helper()
	s, err := Start(append(cfg, Config{})[0])
	if err != nil {
		tb.Fatalf("start etcd: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Fatalf("close etcd: %v", err)
		}
	})
	return s
}

// Addr is where clients find it: host:port, the same after every Start and Wipe.
func (s *Server) Addr() string { return s.cfg.Addr }

// Endpoints is Addr as a list.
func (s *Server) Endpoints() []string { return []string{s.cfg.Addr} }

// Start brings it back on the same address with the data it has. It does nothing while it runs.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("start etcd: closed")
	}
	return s.startLocked()
}

func (s *Server) startLocked() error {
	if s.etcd != nil {
		return nil
	}
	e, err := embed.StartEtcd(s.embedConfig())
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	timer := time.NewTimer(s.cfg.Timeout)
	defer timer.Stop()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return fmt.Errorf("start etcd: %w", err)
	case <-timer.C:
		e.Close()
		return fmt.Errorf("start etcd: not ready after %v", s.cfg.Timeout)
	}
	if err := s.bridge.Open(); err != nil {
		e.Close()
		return err
	}
	s.etcd = e
	return nil
}

func (s *Server) embedConfig() *embed.Config {
	at := func(addr string) []url.URL { return []url.URL{{Scheme: "http", Host: addr}} }
	clients := at
	if s.cfg.TLS {
		clients = func(addr string) []url.URL { return []url.URL{{Scheme: "https", Host: addr}} }
	}
	c := embed.NewConfig()
	c.BcryptCost = 4 // the least: under the race detector the default takes seconds for each password
	c.Dir = s.dataDir()
	c.ListenClientUrls, c.AdvertiseClientUrls = clients(s.inner), clients(s.cfg.Addr)
	c.ClientAutoTLS, c.SelfSignedCertValidity = s.cfg.TLS, 1
	c.ListenPeerUrls, c.AdvertisePeerUrls = at(s.peer), at(s.peer)
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 10, 100 // ready in tens of milliseconds
	c.UnsafeNoFsync = true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(s.cfg.Logger)
	return c
}

func (s *Server) dataDir() string { return filepath.Join(s.cfg.Dir, "data") }

// Stop ends it as a crash would: connections break at once and its address refuses. Data stays.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
}

func (s *Server) stopLocked() {
	if s.etcd == nil {
		return
	}
	s.bridge.Shut()
	s.etcd.Close()
	s.etcd = nil
}

// Wipe loses all data; it runs again, empty, on return.
func (s *Server) Wipe() error {
	return s.between(func() error { return os.RemoveAll(s.dataDir()) })
}

// Save stops it, copies its data to dir and starts it again.
func (s *Server) Save(dir string) error {
	return s.between(func() error { return os.CopyFS(dir, os.DirFS(s.dataDir())) })
}

// Restore puts back what Save copied; it runs again on return.
func (s *Server) Restore(dir string) error {
	return s.between(func() error {
		if err := os.RemoveAll(s.dataDir()); err != nil {
			return err
		}
		return os.CopyFS(s.dataDir(), os.DirFS(dir))
	})
}

// between stops it, does f and starts it.
func (s *Server) between(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("etcd is closed")
	}
	s.stopLocked()
	if err := f(); err != nil {
		return err
	}
	return s.startLocked()
}

// CutOff holds all its connections still, as a network that loses everything does, until Heal.
func (s *Server) CutOff() { s.bridge.Hold(true) }

// Heal ends CutOff.
func (s *Server) Heal() { s.bridge.Hold(false) }

// Disconnect breaks all connections and refuses new ones until Reconnect, while etcd itself goes on.
func (s *Server) Disconnect() { s.bridge.Shut() }

// Reconnect ends Disconnect.
func (s *Server) Reconnect() error { return s.bridge.Open() }

// Close ends it for good and removes a temporary folder.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.stopLocked()
	var err error
	if s.temp {
		err = os.RemoveAll(s.cfg.Dir)
	}
	return errors.Join(err, s.ports.Close())
}

// Do runs f with a plain client to etcd itself, past the bridge, so that it works while clients are cut off.
// It knows neither TLS nor passwords.
func (s *Server) Do(ctx context.Context, f func(context.Context, *clientv3.Client) error) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.inner}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, c), c.Close())
}
