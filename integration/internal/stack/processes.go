package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/pointsmanhq/pointsman/integration/internal/bridge"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// processes runs the programs that users run.
type processes struct {
	bin    atomic.Pointer[string] // folder with router and wsnode
	opts   Options
	prefix string
	back   backend

	routerFlags []string // how routers reach etcd and nodes
	nodeFlags   []string // how nodes reach Kafka and etcd, and what they ask of routers
}

func (l *processes) env() []string {
	if l.opts.Fault == "" {
		return nil
	}
	return []string{"POINTSMAN_FAULT=" + l.opts.Fault}
}

func (l *processes) router(s spec) (unit, error) {
	return l.start("router", s, slices.Concat([]string{
		"--listen=" + s.listen, "--admin=" + s.admin, "--topic=" + l.opts.Topic, "--etcd-prefix=" + l.prefix,
	}, l.routerFlags, l.opts.RouterFlags))
}

func (l *processes) node(s spec) (unit, error) {
	if s.inner == "" {
		return l.nodeAt(s, s.listen)
	}
	b := bridge.New(s.listen, s.inner)
	if err := b.Open(); err != nil {
		return nil, err
	}
	u, err := l.nodeAt(s, s.inner)
	if err != nil {
		b.Shut()
		return nil, err
	}
	return &bridged{unit: u, Bridge: b}, nil
}

func (l *processes) nodeAt(s spec, listen string) (unit, error) {
	return l.start("wsnode", s, slices.Concat([]string{
		"--id=" + s.name, "--listen=" + listen, "--advertise=" + s.listen, "--admin=" + s.admin, "--topic=" + l.opts.Topic,
		"--etcd-prefix=" + l.prefix,
	}, l.nodeFlags, l.opts.NodeFlags))
}

func (l *processes) start(program string, s spec, args []string) (unit, error) {
	p, err := procs.Start(procs.Spec{Name: s.name, Path: filepath.Join(*l.bin.Load(), program), Args: args, Env: l.env(), Log: s.log})
	if err != nil {
		return nil, err
	}
	return process{p}, nil
}

// bridged is a node that routers reach over a bridge.
type bridged struct {
	unit
	*bridge.Bridge
}

func (u *bridged) stop(ctx context.Context) error {
	err := u.unit.stop(ctx)
	u.Shut()
	return err
}

// kill ends the process first: its kernel is what tells routers.
func (u *bridged) kill() error {
	err := u.unit.kill()
	u.Shut()
	return err
}

type process struct{ p *procs.Process }

func (u process) pid() int                         { return u.p.PID() }
func (u process) stop(ctx context.Context) error   { return u.p.Stop(ctx) }
func (u process) kill() error                      { return u.p.Kill() }
func (u process) freeze(ctx context.Context) error { return u.p.Freeze(ctx) }
func (u process) thaw() error                      { return u.p.Thaw() }
func (u process) done() <-chan struct{}            { return u.p.Done() }
func (u process) ended() string                    { return u.p.State() }

// programs is the folder with router and wsnode that the stack runs: the one it is told, or a fresh build.
func programs(ctx context.Context, o Options) (string, error) {
	if o.Fault == "" {
		if o.Bin != "" {
			return o.Bin, nil
		}
		if dir := os.Getenv("POINTSMAN_BIN"); dir != "" {
			return dir, nil
		}
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	name, args := "bin", []string{"build"}
	if o.Fault != "" {
		name, args = "bin-faults", append(args, "-tags=pointsman_faults")
	}
	dir := filepath.Join(root, "integration", ".work", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build programs: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", dir+string(filepath.Separator), "./router/cmd/router", "./wsnode/cmd/wsnode")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build programs: %w\n%s", err, out)
	}
	return dir, nil
}

// repository is the folder with go.work, at or above the working folder.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.work here or above: run inside the repository")
		}
		dir = parent
	}
}
