package options

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// width is where help wraps; a narrower terminal wraps again, and nobody reads longer lines with pleasure.
const width = 100

// help prints the program's help, or a command's.
func (g *grammar) help(w io.Writer, selected *kong.Node) error {
	var b strings.Builder
	app := g.kong.Model.Node
	node := app
	if selected != nil && selected != app.DefaultCmd {
		node = selected
	}
	g.usage(&b, node)
	if node.Help != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(node.Help, width, ""))
	}
	if node.Detail != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(node.Detail, width, ""))
	}
	writeArguments(&b, node)
	writeCommands(&b, node)
	flagNode := node
	if node == app && app.DefaultCmd != nil {
		flagNode = app.DefaultCmd
	}
	for _, section := range g.sections(flagNode) {
		fmt.Fprintf(&b, "\n%s:\n", section.title)
		writeColumns(&b, section.rows)
	}
	if len(g.names) > 0 && node == app {
		example := g.names[0]
		fmt.Fprintf(&b, "\n%s\n", wrap(fmt.Sprintf("Every flag is also an environment variable and a key of the --config file: --%s is %s (or %s, for this program alone) and %q. "+
			"A flag wins over the environment, that over the file, that over the default.",
			example, EnvName(example), g.ownEnvName(example), example+": ..."), width, ""))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (g *grammar) usage(b *strings.Builder, node *kong.Node) {
	app := g.kong.Model.Node
	line := g.program.Name
	if node != app {
		line += " " + node.Path()
		for _, arg := range node.Positional {
			line += " " + argument(arg)
		}
	}
	switch {
	case node == app && len(visible(node)) > 0 && app.DefaultCmd != nil:
		fmt.Fprintf(b, "Usage: %s [flags]\n       %s <command> [flags]\n", line, line)
	case len(visible(node)) > 0:
		fmt.Fprintf(b, "Usage: %s <command> [flags]\n", line)
	default:
		fmt.Fprintf(b, "Usage: %s [flags]\n", line)
	}
}

func argument(v *kong.Value) string {
	name := strings.ToUpper(v.Name)
	if v.IsCumulative() {
		name += "..."
	}
	if !v.Required {
		name = "[" + name + "]"
	}
	return name
}

func visible(n *kong.Node) []*kong.Node {
	var out []*kong.Node
	for _, c := range n.Children {
		if !c.Hidden {
			out = append(out, c)
		}
	}
	return out
}

func writeArguments(b *strings.Builder, node *kong.Node) {
	var rows [][2]string
	for _, arg := range node.Positional {
		rows = append(rows, [2]string{argument(arg), arg.Help})
	}
	if len(rows) > 0 {
		b.WriteString("\nArguments:\n")
		writeColumns(b, rows)
	}
}

func writeCommands(b *strings.Builder, node *kong.Node) {
	var rows [][2]string
	for _, c := range visible(node) {
		name := c.Name
		for _, arg := range c.Positional {
			name += " " + argument(arg)
		}
		rows = append(rows, [2]string{name, c.Help})
	}
	if len(rows) > 0 {
		b.WriteString("\nCommands:\n")
		writeColumns(b, rows)
	}
}

// section is a titled group of flags.
type section struct {
	title string
	rows  [][2]string
}

// sections orders flags by the first appearance of their group; the common flags come last.
func (g *grammar) sections(node *kong.Node) []section {
	var out []section
	add := func(title string, f *kong.Flag) {
		i := slices.IndexFunc(out, func(s section) bool { return s.title == title })
		if i < 0 {
			i, out = len(out), append(out, section{title: title})
		}
		out[i].rows = append(out[i].rows, [2]string{flagUse(f), g.flagHelp(f)})
	}
	var last []*kong.Flag
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			if isCommon(f) {
				last = append(last, f)
				continue
			}
			add(groupTitle(f), f)
		}
	}
	for _, f := range last {
		add("Common", f)
	}
	return out
}

func groupTitle(f *kong.Flag) string {
	if f.Group != nil && f.Group.Title != "" {
		return f.Group.Title
	}
	return "Flags"
}

// flagUse is how a flag is written: -h, --listen=ADDR.
func flagUse(f *kong.Flag) string {
	out := "--" + f.Name
	if f.Short != 0 {
		out = "-" + string(f.Short) + ", " + out
	}
	if f.Tag.Negatable != "" {
		out = strings.Replace(out, "--", "--[no-]", 1)
	}
	if !f.IsBool() && !f.IsCounter() {
		out += "=" + placeholder(f)
	}
	return out
}

func placeholder(f *kong.Flag) string {
	name := f.PlaceHolder
	switch {
	case name != "":
	case f.Enum != "":
		return strings.Join(choices(f), "|")
	case f.Target.Type() == reflect.TypeFor[time.Duration]():
		name = "duration"
	case f.Target.Type() == reflect.TypeFor[Size]():
		name = "size"
	default:
		name = f.Name[strings.LastIndexByte(f.Name, '-')+1:]
	}
	name = strings.ToUpper(name)
	if f.IsSlice() && f.Tag.Sep > 0 {
		name += string(f.Tag.Sep) + "..."
	}
	return name
}

// choices are the values of an enum, without the empty one that only says that the flag may be left out.
func choices(f *kong.Flag) []string {
	return slices.DeleteFunc(f.EnumSlice(), func(s string) bool { return s == "" })
}

func (g *grammar) flagHelp(f *kong.Flag) string {
	text := f.Help
	switch {
	case g.required[f]:
		text += " Needed."
	case f.HasDefault && f.Default != "" && !(f.IsBool() && f.Default == "false"):
		text += " (" + f.Default + ")"
	}
	return text
}

// writeColumns prints names and explanations side by side; a long name gets a line of its own.
func writeColumns(b *strings.Builder, rows [][2]string) {
	const most = 34
	left := 0
	for _, r := range rows {
		if len(r[0]) <= most {
			left = max(left, len(r[0]))
		}
	}
	indent := strings.Repeat(" ", left+4)
	for _, r := range rows {
		if len(r[0]) > left {
			fmt.Fprintf(b, "  %s\n%s", r[0], indent)
		} else {
			fmt.Fprintf(b, "  %-*s  ", left, r[0])
		}
		b.WriteString(wrap(r[1], width-len(indent), indent))
		b.WriteByte('\n')
	}
}

// wrap breaks text into lines of at most n bytes where it has spaces; indent begins all but the first.
func wrap(text string, n int, indent string) string {
	var b strings.Builder
	line := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case line+1+len(word) > n:
			b.WriteString("\n" + indent)
			line = 0
		default:
			b.WriteByte(' ')
			line++
		}
		b.WriteString(word)
		line += len(word)
	}
	return b.String()
}

// Markdown renders the program's settings, and the flags that only commands have, as tables for the README.
func Markdown(p Program, into any) (string, error) {
	g, err := newGrammar(p, into, &sources{}, nil)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| flag | environment | default | meaning |\n|---|---|---|---|\n")
	for _, f := range g.settingFlags() {
		if !f.Hidden {
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", cell(flagUse(f)), EnvName(f.Name), g.defaultCell(f), cell(f.Help))
		}
	}
	for _, f := range g.kong.Model.Flags {
		if f.Name == "config" { // a setting cannot say which file holds the settings, hence it is not among them
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", cell(flagUse(f)), EnvName(f.Name), g.defaultCell(f), cell(f.Help))
		}
	}
	var rows strings.Builder
	for _, node := range g.kong.Model.Leaves(true) {
		if node != g.kong.Model.DefaultCmd {
			g.commandRows(&rows, node)
		}
	}
	if rows.Len() > 0 {
		b.WriteString("\n| command | meaning | its own flags |\n|---|---|---|\n")
		b.WriteString(rows.String())
	}
	return b.String(), nil
}

func (g *grammar) commandRows(b *strings.Builder, node *kong.Node) {
	use := g.program.Name + " " + node.Path()
	for _, arg := range node.Positional {
		use += " " + argument(arg)
	}
	var own []string
	for _, f := range node.Flags {
		if g.settings[f.Name] == nil && !f.Hidden {
			own = append(own, fmt.Sprintf("`%s` %s", cell(flagUse(f)), cell(g.flagHelp(f))))
		}
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", cell(use), cell(node.Help), strings.Join(own, "<br>"))
}

func (g *grammar) defaultCell(f *kong.Flag) string {
	switch {
	case g.required[f]:
		return "needed"
	case f.HasDefault && f.Default != "":
		return "`" + cell(f.Default) + "`"
	case f.IsBool():
		return "`false`"
	}
	return ""
}

// cell keeps a table's columns.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
