package arena

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/integration/designs/command"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// unit is one running part of a design.
type unit interface {
	pid() int
	stop(ctx context.Context) error // in order
	kill() error
	done() <-chan struct{}
}

// Launcher starts parts by their command lines.
type Launcher interface {
	launch(name, log string, args []string) (unit, error)
}

// Processes runs bin/designs.
type Processes struct{ Bin string }

func (l Processes) launch(name, log string, args []string) (unit, error) {
	p, err := procs.Start(procs.Spec{Name: name, Path: filepath.Join(l.Bin, "designs"), Args: args, Log: log})
	if err != nil {
		return nil, err
	}
	return process{p}, nil
}

type process struct{ p *procs.Process }

func (u process) pid() int                       { return u.p.PID() }
func (u process) stop(ctx context.Context) error { return u.p.Stop(ctx) }
func (u process) kill() error                    { return u.p.Kill() }
func (u process) done() <-chan struct{}          { return u.p.Done() }

// InProcess runs the same commands as goroutines; a kill is an orderly stop there.
type InProcess struct{}

func (InProcess) launch(name, log string, args []string) (unit, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644) //nolint:gosec // for everybody to read
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &routine{name: name, cancel: cancel, ended: make(chan struct{}), log: log}
	go func() {
		defer close(g.ended)
		defer file.Close()
		out := &locked{file: file}
		g.code = options.Run(ctx, command.Description(), &command.Parts{}, args, options.Env{Stdin: &bytes.Buffer{}, Stdout: out, Stderr: out})
	}()
	return g, nil
}

// locked serialises what a part's goroutines write.
type locked struct {
	mu   sync.Mutex
	file *os.File // guarded by mu
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

type routine struct {
	name, log string
	cancel    context.CancelFunc
	ended     chan struct{}
	code      int // written before ended is closed
}

func (g *routine) pid() int              { return 0 }
func (g *routine) done() <-chan struct{} { return g.ended }
func (g *routine) kill() error           { return g.stop(context.Background()) }

func (g *routine) stop(ctx context.Context) error {
	g.cancel()
	select {
	case <-g.ended:
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", g.name, context.Cause(ctx))
	}
	if g.code != 0 {
		return errors.Join(fmt.Errorf("%s ended with %d", g.name, g.code), errors.New(procs.Tail(g.log, 10)))
	}
	return nil
}
