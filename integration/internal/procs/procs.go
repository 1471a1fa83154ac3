// Package procs runs OS processes for tests and the playground: each in a process group of its own, its output
// in a file, killed and frozen with real signals, and gone when the program that started it is gone.
package procs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Name string   // for messages
	Path string   // of the executable
	Args []string // without the program's name
	Env  []string // added to the few variables that every process gets; never the caller's whole environment
	Dir  string   // working folder; empty is the caller's
	Log  string   // file that receives stdout and stderr, appended to
}

// inherited are the caller's variables that a process gets: what it takes to run and to be observed, nothing
// that would configure it by accident.
func inherited() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "JAVA_HOME", "GORACE", "GOCOVERDIR", "GOMAXPROCS", "GODEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// Process is one started process. Its methods may be called from several goroutines.
type Process struct {
	// Static after Start.
	spec Spec
	pid  int
	done chan struct{}

	// Written before done is closed.
	state *os.ProcessState
}

// Start runs the process. It returns when the process exists, not when it is ready.
func Start(spec Spec) (*Process, error) {
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{spec: spec, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the *thread* that started the child ends, so the thread stays with the
		// child until it has gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		defer log.Close()
		cmd := exec.Command(spec.Path, spec.Args...)
		cmd.Env = append(inherited(), spec.Env...)
		cmd.Dir = spec.Dir
		cmd.Stdout = log
		cmd.Stderr = log
		cmd.SysProcAttr = attributes()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		_ = cmd.Wait() // what the process came to is in its state
		p.state = cmd.ProcessState
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.pid }

// Log is the path of the file with the process's output.
func (p *Process) Log() string { return p.spec.Log }

// Done is closed when the process has gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not gone yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode is what the process ended with: -1 while it runs or when a signal ended it.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.state.ExitCode()
}

// State says how the process ended, or that it runs.
func (p *Process) State() string {
	if p.Running() {
		return "running"
	}
	return p.state.String()
}

// Signal sends a signal to the process and everything it started.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Running() {
		return fmt.Errorf("signal %s: %w", p.spec.Name, os.ErrProcessDone)
	}
	// The process is its group's leader; while it has not been waited for, the group's number cannot be reused.
	if err := syscall.Kill(-p.pid, sig); err != nil {
		return fmt.Errorf("send %v to %s: %w", sig, p.spec.Name, err)
	}
	return nil
}

// Kill ends the process at once and returns when it has gone. A process that has already gone is not an error.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	if err != nil {
		return err
	}
	<-p.done
	return nil
}

// Terminate asks the process to end (SIGTERM) and returns when it has gone, whatever it exited with: an error if
// it had to be killed because ctx ended.
func (p *Process) Terminate(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop %s: %w; killed. It said last:\n%s", p.spec.Name, context.Cause(ctx), p.Tail(15)), p.Kill())
	}
}

// Stop is Terminate of a process that exits with 0 when it is asked to end; another code is an error.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Terminate(ctx); err != nil {
		return err
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %v. It said last:\n%s", p.spec.Name, p.state, p.Tail(15))
	}
	return nil
}

// Freeze stops the process where it stands and returns when it stands still.
func (p *Process) Freeze(ctx context.Context) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return Poll(ctx, time.Millisecond, func() error {
		if s, known := schedState(p.pid); known && s != 'T' {
			return fmt.Errorf("%s is in state %c after SIGSTOP", p.spec.Name, s)
		}
		return nil
	})
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw() error { return p.Signal(syscall.SIGCONT) }

// Tail is the last n lines of the process's output.
func (p *Process) Tail(n int) string { return Tail(p.spec.Log, n) }

// Tail is the last n lines of a file, or why it cannot be read.
func Tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
