package options

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// grammar is what the struct says: commands, flags, and which of them are settings.
type grammar struct {
	program  Program
	kong     *kong.Kong
	settings map[string]*kong.Flag // by flag name
	names    []string              // of settings, in the struct's order
	required map[*kong.Flag]bool
}

// common are the flags that every program has.
type common struct {
	Config  string           `placeholder:"FILE" help:"YAML file with settings; its keys are the flags' names."`
	Version kong.VersionFlag `help:"Print the version and stop."`
}

// exited is what replaces the end of the process that kong wants after --help and --version.
type exited struct{}

func newGrammar(p Program, into any, src *sources, out io.Writer) (*grammar, error) {
	if err := target(into); err != nil {
		return nil, err
	}
	if out == nil {
		out = io.Discard
	}
	g := &grammar{program: p, settings: map[string]*kong.Flag{}, required: map[*kong.Flag]bool{}}
	src.grammar = g
	k, err := kong.New(into,
		kong.Name(p.Name),
		kong.Description(p.Summary),
		kong.Vars{"version": p.Version},
		kong.Embed(&common{}),
		kong.Writers(out, io.Discard),
		kong.Exit(func(int) { panic(exited{}) }),
		kong.Help(func(_ kong.HelpOptions, ctx *kong.Context) error { return g.help(out, ctx.Selected()) }),
		kong.WithBeforeResolve(src.load),
		kong.Resolvers(src),
	)
	if err != nil {
		return nil, fmt.Errorf("options struct %T: %w", into, err)
	}
	k.Model.Name = p.Name
	k.Model.HelpFlag.Help = "Print this text, or a command's, and stop."
	g.kong = k
	for _, f := range g.settingFlags() {
		g.settings[f.Name] = f
		g.names = append(g.names, f.Name)
	}
	g.takeRequired(k.Model.Node)
	return g, nil
}

// takeRequired moves the check for required flags to here, where the message can say every way to set one.
func (g *grammar) takeRequired(n *kong.Node) {
	for _, f := range n.Flags {
		if f.Required {
			g.required[f], f.Required = true, false
		}
	}
	for _, child := range n.Children {
		g.takeRequired(child)
	}
}

func (g *grammar) checkRequired(ctx *kong.Context) error {
	for _, f := range ctx.Flags() {
		if !g.required[f] || f.Set {
			continue
		}
		if g.settings[f.Name] == nil {
			return fmt.Errorf("--%s is needed", f.Name)
		}
		return fmt.Errorf("--%s is needed (or %s, or %s: in the --config file)", f.Name, EnvName(f.Name), f.Name)
	}
	return nil
}

// settingFlags are the default command's flags; where there is none, the program's own.
func (g *grammar) settingFlags() []*kong.Flag {
	node := g.kong.Model.Node
	if node.DefaultCmd != nil {
		node = node.DefaultCmd
	}
	var flags []*kong.Flag
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if !isCommon(f) {
				flags = append(flags, f)
			}
		}
	}
	return flags
}

func isCommon(f *kong.Flag) bool {
	return f.Name == "help" || f.Name == "config" || f.Name == "version"
}

// EnvName is the variable of a flag.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// ownEnvName is the same for one program alone: where several read one environment it wins over EnvName's.
func (g *grammar) ownEnvName(flag string) string { return EnvName(g.program.Name + "-" + flag) }

func (g *grammar) parse(args []string) (ctx *kong.Context, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			ctx, err = nil, ErrHelp
		default:
			panic(r)
		}
	}()
	if ctx, err = g.kong.Parse(args); err != nil {
		var parse *kong.ParseError
		if errors.As(err, &parse) {
			err = parse.Unwrap()
		}
		return nil, err
	}
	return ctx, g.checkRequired(ctx)
}
