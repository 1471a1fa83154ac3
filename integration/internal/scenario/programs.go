package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// needPrograms skips a test that runs the built programs where there are none.
func needPrograms(t testing.TB) (dir string) {
	t.Helper()
	if kind := kindOf(t); kind == stack.InProcess {
		t.Skip("runs bin/router and bin/wsnode: make test-kafka does")
	}
	dir = os.Getenv("POINTSMAN_BIN")
	if dir == "" {
		t.Skip("POINTSMAN_BIN does not say where router and wsnode are: make test-kafka does")
	}
	return dir
}

// lacks ends a test that cannot run here: it is skipped on a developer's machine, and fails in CI, which installs all of it.
func lacks(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("POINTSMAN_CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// program is one run of a built program.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
	said *sync.Cond // on every write
}

// Write collects what the program prints.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.said.Broadcast()
	return p.text.Write(b)
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// run starts a program; it is killed when the test ends.
func run(t testing.TB, path string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.CommandContext(t.Context(), path, args...), done: make(chan struct{})} //nolint:gosec // our own programs
	p.said = sync.NewCond(&p.mu)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the code is in ProcessState
		p.mu.Lock()
		p.said.Broadcast()
		p.mu.Unlock()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// exit waits for the program's end and returns its code.
func (p *program) exit(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not exit: %w; it said:\n%s", filepath.Base(p.cmd.Path), context.Cause(ctx), p.output())
	}
}

// says waits until the program has printed a text, whatever its case.
func (p *program) says(ctx context.Context, text string) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.said.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !strings.Contains(strings.ToLower(p.text.String()), strings.ToLower(text)) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; it said:\n%s", context.Cause(ctx), p.text.String())
		case <-p.done:
			return fmt.Errorf("it ended with code %d and said:\n%s", p.cmd.ProcessState.ExitCode(), p.text.String())
		default:
			p.said.Wait()
		}
	}
	return nil
}

// Refusals: what cannot work ends with a message that names it, and with the code of its kind.
func Refusals(t *testing.T) {
	bin := needPrograms(t)
	w := begin(t, stack.Options{Nodes: 1})
	living := w.Nodes()[0]
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	t.Cleanup(func() { _ = taken.Close() })
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte("topic: records\nno_such_option: 1\n"), 0o600))

	common := []string{"--etcd=" + strings.Join(w.Etcd(), ","), "--etcd-prefix=" + w.EtcdPrefix(), "--topic=" + w.Topic(), "--admin=127.0.0.1:0"}
	node := append([]string{"wsnode", "--kafka=" + strings.Join(w.Kafka(), ","), "--listen=127.0.0.1:0", "--advertise=127.0.0.1:1"}, common...)
	router := append([]string{"router", "--listen=127.0.0.1:0"}, common...)
	with := func(command []string, more ...string) []string {
		return append(append([]string(nil), command...), more...)
	}
	cases := []struct {
		name    string
		command []string
		code    int
		says    []string
	}{
		{"BadOptionOfNode", with(node, "--no-such-option"), 2, []string{"no-such-option"}},
		{"BadOptionOfRouter", with(router, "--auth=perhaps"), 2, []string{"auth", "perhaps"}},
		{"UnknownKeyInConfig", with(router, "--config="+config), 2, []string{"no_such_option"}},
		{"PortInUseOfRouter", with(router, "--listen="+taken.Addr().String()), 1, []string{taken.Addr().String(), "in use"}},
		{"PortInUseOfNode", with(node, "--listen="+taken.Addr().String()), 1, []string{taken.Addr().String(), "in use"}},
		{"TopicMissing", with(node, "--topic=nobody-made-it"), 1, []string{"nobody-made-it"}},
		{"WrongGroup", with(node, "--group=another-group"), 1, []string{"another-group", "group"}},
		{"WrongPartitioner", with(node, "--partitioner=crc32"), 1, []string{"crc32", "murmur2"}},
		{"TwoNodesOneID", with(node, "--id="+living.ID), 1, []string{living.ID}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 60*time.Second, errors.New("not within 60 s"))
			defer cancel()
			p := run(t, filepath.Join(bin, tt.command[0]), tt.command[1:]...)
			code, err := p.exit(ctx)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(p.output()), "\n")
			t.Logf("code %d: %s", code, lines[len(lines)-1])
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.says {
				if !strings.Contains(p.output(), want) {
					t.Errorf("the output does not say %q:\n%s", want, p.output())
				}
			}
		})
	}
	// None of them disturbed the living.
	w.client(0, load.Options{Key: "alice"})
	w.put("alice", "1")
	w.finish()
}

// LateDependencies: programs that start before Kafka or etcd wait for them, say so, and stop in order when asked.
func LateDependencies(t *testing.T) {
	bin := needPrograms(t)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		command []string
	}{
		{"Router", []string{"router", "--listen=127.0.0.1:0"}},
		{"Node", []string{"wsnode", "--listen=127.0.0.1:0", "--kafka=" + closed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("not within 30 s"))
			defer cancel()
			p := run(t, filepath.Join(bin, tt.command[0]), append(tt.command[1:], "--topic=records", "--admin=127.0.0.1:0", "--etcd="+closed)...)
			if err := p.says(ctx, "waiting"); err != nil {
				t.Fatalf("it does not say that it waits: %v", err)
			}
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			code, err := p.exit(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if code != 0 {
				t.Errorf("exit code %d after SIGTERM, want 0; it said:\n%s", code, p.output())
			}
		})
	}
}

// CheckerIsChecked runs programs with a deliberate fault in them; each must make the checker fail.
func CheckerIsChecked(t *testing.T) {
	for _, tt := range []struct {
		fault string
		kinds []checker.Kind // any of them: a router mends what it can, so a repeat or a swap reaches clients as something else
	}{
		{"", nil},
		{"drop:0.01", []checker.Kind{checker.Lost}},
		{"repeat:0.01", []checker.Kind{checker.Repeated, checker.Foreign, checker.Corrupt, checker.Lost}},
		{"swap:0.01", []checker.Kind{checker.Reordered, checker.Lost, checker.Repeated, checker.Foreign, checker.Corrupt}},
		{"break:0.01", []checker.Kind{checker.Broken}},
	} {
		name := tt.fault
		if name == "" {
			name = "none"
		}
		t.Run(name, func(t *testing.T) {
			// The faults are compiled into programs of their own; what Kafka is makes no difference to the checker.
			w := beginOn(t, stack.Processes, stack.Options{Fault: tt.fault})
			names := keys("client", 50)
			w.connect(names, load.Options{})
			w.must(w.producer.Burst(w.ctx, names, 5000, 128))
			truth := w.truth()
			// What was dropped never comes: every client that is still connected has its newest record, or a
			// checkpoint behind it, or time runs out.
			ctx, cancel := w.within(5 * time.Second)
			defer cancel()
			err := w.fleet.WaitCaughtUp(ctx, truth)
			r := checker.Check(truth, w.fleet.Histories(), nil)
			t.Logf("%v\n%s", err, r)
			if tt.fault == "" {
				if err := r.Err(); err != nil {
					t.Error(err)
				}
				return
			}
			for _, v := range r.Verdicts() {
				for _, k := range tt.kinds {
					if v.Kind == k && v.Count > 0 {
						return
					}
				}
			}
			t.Errorf("POINTSMAN_FAULT=%s went unnoticed: want one of %v", tt.fault, tt.kinds)
		})
	}
}
