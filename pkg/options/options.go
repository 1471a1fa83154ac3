// Package options turns one struct per program into its flags, environment variables, strict YAML file and
// help text.
//
// A program is a struct whose fields are its commands; a command is a struct whose fields are its flags and
// positional arguments:
//
//	type program struct {
//		Serve  serve  `cmd:"" default:"withargs" help:"Carry clients to nodes (the default)."`
//		Where  where  `cmd:"" help:"Tell which node serves a key."`
//	}
//
//	type serve struct {
//		Listen string        `default:":8080" placeholder:"ADDR" group:"Clients" help:"Address for clients."`
//		Etcd   []string      `default:"127.0.0.1:2379" placeholder:"HOST:PORT" group:"etcd" help:"etcd endpoints."`
//		Drain  time.Duration `default:"30s" help:"How long an orderly stop may take."`
//		Ring   options.Size  `default:"256MiB" help:"Bytes of recent records to keep."`
//		Token  options.SecretFile `name:"link-token-file" help:"File with the links' token."`
//		logging.Options `embed:""`
//	}
//
//	func (s *serve) Run(ctx context.Context, env options.Env) error
//
// The tags are those of github.com/alecthomas/kong: name, default, help, placeholder, enum, group, short,
// required, optional, arg, cmd, embed, prefix, hidden, negatable. A struct may have a method
// Validate() error; what it returns is a bad option.
//
// The flags of the default command (or, in a program without one, of the program itself) are the settings. A
// setting called --etcd-prefix is the variable POINTSMAN_ETCD_PREFIX and the file's key etcd-prefix. A flag wins
// over the environment, that over the file, that over the default. An empty variable counts as not set. The
// other commands' flags take the same variables and keys where they have the same name, and are flags only
// where they do not. Both programs read the same names, so that one environment serves a whole stack: hence a
// variable that a program does not know is not an error, but a likely misspelling is reported in
// Env.Warnings. The file belongs to one program: an unknown key is an error.
package options

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Exit codes of every program.
const (
	ExitOK      = 0 // an orderly stop
	ExitFailure = 1 // something failed
	ExitUsage   = 2 // a bad option
)

// EnvPrefix begins the name of every variable.
const EnvPrefix = "POINTSMAN_"

// Program describes a program.
type Program struct {
	Name    string // "router"
	Summary string // one or two sentences for --help
	Version string // what --version prints
}

// Env is what a command finds around it.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Environ is the environment as "NAME=value"; only names that begin with EnvPrefix are looked at.
	Environ []string
	// Warnings are remarks about the settings that the command should log; Parse fills it.
	Warnings []string
}

// Runner is what a command's struct implements.
type Runner interface {
	Run(ctx context.Context, env Env) error
}

// UsageError is a bad option: exit code 2.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError, for settings that turn out to be bad after parsing.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// Command is a parsed command line.
type Command struct {
	// Name is the command's path, for instance "where".
	Name string
	// Warnings are remarks about the settings, one line each.
	Warnings []string

	run Runner
}

// helpMarkdown, as the only argument, prints the tables for the README.
const helpMarkdown = "--help-markdown"

// ErrHelp is what Parse returns after it has printed what --help or --version asks for.
var ErrHelp = errors.New("help was asked for")

// Parse fills into, a pointer to the program's struct, from args (without the program's name), env.Environ and
// the --config file. --help and --version print to env.Stdout and give ErrHelp. Other errors are UsageErrors.
func Parse(p Program, into any, args []string, env Env) (*Command, error) {
	if slices.Equal(args, []string{helpMarkdown}) {
		text, err := Markdown(p, into)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(env.Stdout, text); err != nil {
			return nil, err
		}
		return nil, ErrHelp
	}
	src := &sources{environ: environMap(env.Environ)}
	g, err := newGrammar(p, into, src, env.Stdout)
	if err != nil {
		return nil, err
	}
	kctx, err := g.parse(args)
	if errors.Is(err, ErrHelp) {
		return nil, err
	}
	if src.err != nil {
		err = src.err // without the flag's name that kong puts in front
	}
	if err != nil {
		return nil, &UsageError{oneLine(err)}
	}
	node := kctx.Selected()
	if node == nil {
		node = g.kong.Model.Node
	}
	cmd := &Command{Name: node.Path(), Warnings: src.warnings()}
	if r, ok := node.Target.Addr().Interface().(Runner); ok {
		cmd.run = r
	}
	return cmd, nil
}

// Run runs the command.
func (c *Command) Run(ctx context.Context, env Env) error {
	if c.run == nil {
		return fmt.Errorf("command %q cannot be run", c.Name)
	}
	env.Warnings = c.Warnings
	return c.run.Run(ctx, env)
}

// Run parses and runs, and gives the exit code. An error is one line on env.Stderr.
func Run(ctx context.Context, p Program, into any, args []string, env Env) int {
	cmd, err := Parse(p, into, args, env)
	if err == nil {
		err = cmd.Run(ctx, env)
	}
	var usage *UsageError
	switch {
	case err == nil, errors.Is(err, ErrHelp):
		return ExitOK
	case errors.As(err, &usage):
		fmt.Fprintf(env.Stderr, "%s: %s\n", p.Name, usage)
		return ExitUsage
	default:
		fmt.Fprintf(env.Stderr, "%s: %s\n", p.Name, err)
		return ExitFailure
	}
}

// Main is a program's main: os.Exit(options.Main(program, &options)). The first SIGTERM or interrupt ends
// ctx, so that the command stops in order; a second one ends the process at once with ExitFailure.
func Main(p Program, into any) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-done:
			return
		case <-signals:
			cancel()
		}
		select {
		case <-done:
		case <-signals:
			fmt.Fprintf(os.Stderr, "%s: second signal: stopping at once\n", p.Name)
			os.Exit(ExitFailure)
		}
	})
	defer watcher.Wait()
	defer close(done)
	return Run(ctx, p, into, os.Args[1:], Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(),
	})
}

// oneLine keeps a message to the one line that an operator reads in a log.
func oneLine(err error) error {
	text := err.Error()
	if !strings.Contains(text, "\n") {
		return err
	}
	return errors.New(strings.Join(strings.Fields(text), " "))
}

// target checks that into can be filled.
func target(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("options are a pointer to a struct, not %T", into)
	}
	return nil
}
