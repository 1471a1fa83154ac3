package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/pointsmanhq/pointsman/integration/internal/bridge"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/router"
	"github.com/pointsmanhq/pointsman/wsnode"
)

// goroutines runs routers and nodes inside this process.
type goroutines struct {
	opts   Options
	prefix string
	back   backend
	ports  *procs.Ports
}

func (l *goroutines) router(s spec) (unit, error) {
	cfg := router.Config{
		ID: s.name, Listen: s.listen, Admin: s.admin, Topic: l.opts.Topic,
		Etcd: l.back.etcd(), EtcdPrefix: l.prefix,
	}
	if err := applyFlags(&cfg, l.opts.RouterFlags); err != nil {
		return nil, err
	}
	log, closeLog, err := fileLogger(s.log)
	if err != nil {
		return nil, err
	}
	r, err := router.New(cfg, router.Deps{Logger: log})
	if err != nil {
		return nil, errors.Join(err, closeLog())
	}
	return start(r.Run, r.Kill, nil, closeLog), nil
}

func (l *goroutines) node(s spec) (unit, error) {
	inner, err := l.ports.Take()
	if err != nil {
		return nil, err
	}
	cfg := wsnode.Config{
		ID: s.name, Listen: inner, Advertise: s.listen, Admin: s.admin, Topic: l.opts.Topic,
		Kafka: l.back.kafka(), Etcd: l.back.etcd(), EtcdPrefix: l.prefix, FetchPace: time.Millisecond,
	}
	if err := applyFlags(&cfg, l.opts.NodeFlags); err != nil {
		return nil, err
	}
	log, closeLog, err := fileLogger(s.log)
	if err != nil {
		return nil, err
	}
	n, err := wsnode.New(cfg, wsnode.Deps{Logger: log})
	if err != nil {
		return nil, errors.Join(err, closeLog())
	}
	// Routers come over a bridge, which is how a node in this process can be held still.
	b := bridge.New(s.listen, inner)
	if err := b.Open(); err != nil {
		return nil, errors.Join(err, closeLog())
	}
	return start(n.Run, n.Kill, b, closeLog), nil
}

// goroutine is a router or a node that runs in this process.
type goroutine struct {
	// Static after start.
	cancel   context.CancelFunc
	killSelf func()
	bridge   *bridge.Bridge // nil for routers
	gone     chan struct{}

	// Written before gone is closed.
	err error
}

func start(run func(context.Context) error, kill func(), b *bridge.Bridge, closeLog func() error) *goroutine {
	ctx, cancel := context.WithCancel(context.Background())
	g := &goroutine{cancel: cancel, killSelf: kill, bridge: b, gone: make(chan struct{})}
	go func() {
		defer close(g.gone)
		err := run(ctx)
		if b != nil {
			b.Shut()
		}
		g.err = errors.Join(err, closeLog())
	}()
	return g
}

func (g *goroutine) pid() int              { return 0 }
func (g *goroutine) done() <-chan struct{} { return g.gone }

func (g *goroutine) ended() string {
	if g.err != nil {
		return g.err.Error()
	}
	return "no error"
}

func (g *goroutine) stop(ctx context.Context) error {
	g.cancel()
	select {
	case <-g.gone:
		return g.err
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop in order: %w", context.Cause(ctx)), g.kill())
	}
}

func (g *goroutine) kill() error {
	if g.bridge != nil {
		g.bridge.Shut() // its links end first, as those of a killed process do
	}
	g.killSelf()
	<-g.gone
	g.cancel()
	return nil
}

func (g *goroutine) freeze(context.Context) error {
	if g.bridge == nil {
		return fmt.Errorf("freeze a router in one process: %w", ErrUnsupported)
	}
	g.bridge.Hold(true)
	return nil
}

func (g *goroutine) thaw() error {
	if g.bridge == nil {
		return fmt.Errorf("thaw a router in one process: %w", ErrUnsupported)
	}
	g.bridge.Hold(false)
	return nil
}

func fileLogger(path string) (*zap.Logger, func() error, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.Lock(file), zap.InfoLevel)
	return zap.New(core), file.Close, nil
}

// applyFlags sets the fields of a Config that "--some-name=value" means: SomeName. The programs' own option
// structs belong to their mains; a flag that names no such field is an error here.
func applyFlags(cfg any, flags []string) error {
	v := reflect.ValueOf(cfg).Elem()
	for _, flag := range flags {
		name, value, ok := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if !ok || !strings.HasPrefix(flag, "--") {
			return fmt.Errorf("flag %s: in one process it must look like --name=value", flag)
		}
		field := v.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, strings.ReplaceAll(name, "-", "")) })
		if !field.IsValid() {
			return fmt.Errorf("flag %s: %s has no such field", flag, v.Type())
		}
		if err := setField(field, value); err != nil {
			return fmt.Errorf("flag %s: %w", flag, err)
		}
	}
	return nil
}

func setField(field reflect.Value, value string) error {
	switch field.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		field.SetInt(int64(d))
		return nil
	case []string:
		field.Set(reflect.ValueOf(strings.Split(value, ",")))
		return nil
	}
	switch field.Kind() { //nolint:exhaustive // the kinds that options have
	case reflect.String:
		field.SetString(value)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return err
		}
		field.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return err
		}
		field.SetInt(n)
	default:
		return fmt.Errorf("a field of type %s cannot be set here", field.Type())
	}
	return nil
}
