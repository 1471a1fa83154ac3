// Package realetcd builds etcd from its Go module and runs it as a process that can be stopped, killed and
// frozen.
package realetcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// Build compiles etcd, at the version that module's go.mod requires, into work/bin and returns the binary's
// path. The Go build cache makes every call but the first cheap.
func Build(ctx context.Context, module, work string) (string, error) {
	bin, err := filepath.Abs(filepath.Join(work, "bin", "etcd"))
	if err != nil {
		return "", fmt.Errorf("build etcd: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "go.etcd.io/etcd/server/v3")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	return bin, nil
}

// Config says how the server runs.
type Config struct {
	Bin    string // from Build
	Dir    string // data and log; kept between Stop and Start
	Client string // host:port for clients
	Secure string // host:port for clients that speak TLS as Flags say; empty for none
	Peer   string // host:port for its peers, of which there are none
	Flags  []string
}

// Server is one etcd. Its methods may be called from several goroutines.
type Server struct {
	cfg Config

	mu   sync.Mutex
	proc *procs.Process // guarded by mu; nil before the first Start
}

// New returns a server that Start runs.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Addr is host:port for clients.
func (s *Server) Addr() string { return s.cfg.Client }

// Log is the path of the server's log.
func (s *Server) Log() string { return filepath.Join(s.cfg.Dir, "etcd.log") }

func (s *Server) data() string { return filepath.Join(s.cfg.Dir, "data") }

// Start runs the server and returns when it serves: it has a leader and answers reads.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.Running() {
		return errors.New("start etcd: it runs already")
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	client, peer := "http://"+s.cfg.Client, "http://"+s.cfg.Peer
	listen := client
	if s.cfg.Secure != "" {
		listen += ",https://" + s.cfg.Secure
	}
	p, err := procs.Start(procs.Spec{
		Name: "etcd", Path: s.cfg.Bin, Dir: s.cfg.Dir, Log: s.Log(),
		Args: append([]string{
			"--name=etcd", "--data-dir=" + s.data(),
			"--listen-client-urls=" + listen, "--advertise-client-urls=" + listen,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=etcd=" + peer,
			"--log-level=warn",
		}, s.cfg.Flags...),
	})
	if err != nil {
		return err
	}
	s.proc = p
	return p.WaitHTTP(ctx, client+"/health")
}

// Stop ends the server in order and keeps its data.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.Running() {
		return nil
	}
	return s.proc.Terminate(ctx) // etcd ends itself with the signal that it got
}

// Kill ends the server without a word and keeps its data.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	return s.proc.Kill()
}

// Wipe ends the server, loses its data and runs it again: another cluster id, and revisions from 1.
func (s *Server) Wipe(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.data()); err != nil {
		return fmt.Errorf("wipe etcd: %w", err)
	}
	return s.Start(ctx)
}

// Process is the server's process, nil before the first Start.
func (s *Server) Process() *procs.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}
