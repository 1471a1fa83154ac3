package procs

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Spec{Name: "script", Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"EXTRA=1"}, Log: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func said(t *testing.T, p *Process, want string) {
	t.Helper()
	err := Poll(t.Context(), time.Millisecond, func() error {
		if got := p.Tail(5); !strings.Contains(got, want) {
			return errors.New("log: " + got)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("waiting for %q: %v", want, err)
	}
}

func TestProcessGetsOnlyItsOwnEnvironment(t *testing.T) {
	t.Setenv("POINTSMAN_TOPIC", "leaked")
	p := shell(t, `echo "[$EXTRA][$POINTSMAN_TOPIC]"`)
	<-p.Done()
	if got := p.Tail(1); got != "[1][]" {
		t.Errorf("got %s, want [1][]", got)
	}
}

func TestStopTellsHowAProcessEnded(t *testing.T) {
	p := shell(t, `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	said(t, p, "up")
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("orderly stop: %v", err)
	}
	p = shell(t, `trap 'echo cannot; exit 3' TERM; echo up; while :; do sleep 0.01; done`)
	said(t, p, "up")
	if err := p.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "cannot") {
		t.Errorf("got %v, want the exit status and the last words", err)
	}
	p = shell(t, `trap '' TERM; echo up; while :; do sleep 0.01; done`)
	said(t, p, "up")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) || p.Running() {
		t.Errorf("got %v, running %v; want a process that does not listen killed", err, p.Running())
	}
}

func TestFrozenProcessStandsStillAndGoesOn(t *testing.T) {
	p := shell(t, `trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	said(t, p, "up")
	if err := p.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !p.Running() {
		t.Fatal("a frozen process handled SIGTERM")
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
}

func TestWaitEndsWhenTheProcessDies(t *testing.T) {
	p := shell(t, `echo cannot bind; exit 1`)
	err := p.WaitTCP(t.Context(), "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "cannot bind") {
		t.Errorf("got %v, want the exit status and the last words", err)
	}
}

// The test runs itself as a parent that starts a child and is then killed without a chance to clean up.
func TestChildDiesWithAParentThatIsKilled(t *testing.T) {
	if dir := os.Getenv("POINTSMAN_TEST_PARENT"); dir != "" {
		p, err := Start(Spec{Name: "child", Path: "/bin/sh", Args: []string{"-c", "echo $$; while :; do sleep 0.01; done"}, Log: filepath.Join(dir, "child")})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		return
	}
	dir := t.TempDir()
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildDiesWithAParentThatIsKilled$")
	parent.Env = append(os.Environ(), "POINTSMAN_TEST_PARENT="+dir)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	err := Poll(t.Context(), time.Millisecond, func() (err error) {
		pid, err = strconv.Atoi(Tail(filepath.Join(dir, "child"), 1))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	err = Poll(t.Context(), time.Millisecond, func() error {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return errors.New("child still runs")
		}
		return nil // gone, or waiting to be buried by whoever adopted it
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPortsAreHandedOutOnce(t *testing.T) {
	var a, b Ports
	defer a.Close()
	defer b.Close()
	seen := map[string]bool{}
	for range 200 {
		for _, p := range []*Ports{&a, &b} {
			addr, err := p.Take()
			if err != nil {
				t.Fatal(err)
			}
			if seen[addr] {
				t.Fatalf("%s was handed out twice", addr)
			}
			seen[addr] = true
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
}

func TestPreferredPortGivesWayToWhoHasIt(t *testing.T) {
	var first, second Ports
	t.Cleanup(func() {
		if err := errors.Join(first.Close(), second.Close()); err != nil {
			t.Error(err)
		}
	})
	free, err := first.Take()
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(free)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := second.Prefer(port); err != nil || other == free {
		t.Errorf("a taken port preferred: got %q, %v, want another one", other, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := second.Prefer(port); err != nil || again != free {
		t.Errorf("a free port preferred: got %q, %v, want %q", again, err, free)
	}
}
