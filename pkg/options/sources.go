package options

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// sources resolve what the command line left open: the environment, then the file.
type sources struct {
	grammar *grammar
	environ map[string]string // only names that begin with EnvPrefix and values that are not empty
	loaded  bool
	path    string
	file    map[string]entry
	err     error // the first bad value, told with where it came from
}

// entry is one key of the file.
type entry struct {
	node *yaml.Node
	line int
}

func environMap(environ []string) map[string]string {
	m := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if value != "" && strings.HasPrefix(name, EnvPrefix) {
			m[name] = value
		}
	}
	return m
}

// load reads the file that --config or its variable names. kong calls it once per element of the line.
func (s *sources) load(ctx *kong.Context) error {
	if s.loaded {
		return nil
	}
	s.loaded = true
	s.path = cmp.Or(s.environ[s.grammar.ownEnvName("config")], s.environ[EnvName("config")])
	for _, f := range s.grammar.kong.Model.Flags {
		if f.Name == "config" {
			if path, _ := ctx.FlagValue(f).(string); path != "" {
				s.path = path
			}
		}
	}
	if s.path == "" {
		return nil
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	s.file, err = s.parseFile(text)
	return err
}

// parseFile accepts one mapping from known settings to values, each once.
func (s *sources) parseFile(text []byte) (map[string]entry, error) {
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one YAML document", s.path)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: expected settings as \"name: value\" lines", s.path, root.Line)
	}
	file := map[string]entry{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if s.grammar.settings[key.Value] == nil {
			return nil, fmt.Errorf("%s:%d: unknown setting %q; the nearest known one is %q",
				s.path, key.Line, key.Value, nearest(key.Value, s.grammar.names))
		}
		if earlier, ok := file[key.Value]; ok {
			return nil, fmt.Errorf("%s:%d: setting %q stands on line %d already", s.path, key.Line, key.Value, earlier.line)
		}
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		file[key.Value] = entry{node: value, line: key.Line}
	}
	return file, nil
}

// Validate is part of kong.Resolver; load has checked the file.
func (s *sources) Validate(*kong.Application) error { return nil }

// Resolve gives a flag that is not on the command line its value, or nil for the default.
func (s *sources) Resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if s.grammar.settings[f.Name] == nil {
		return nil, nil
	}
	for _, name := range []string{s.grammar.ownEnvName(f.Name), EnvName(f.Name)} {
		if value, ok := s.environ[name]; ok {
			return s.checked(f, value, name)
		}
	}
	if e, ok := s.file[f.Name]; ok {
		where := fmt.Sprintf("%s:%d: %s", s.path, e.line, f.Name)
		value, err := text(e.node, f)
		if err != nil {
			s.err = fmt.Errorf("%s: %w", where, err)
			return nil, s.err
		}
		return s.checked(f, value, where)
	}
	return nil, nil
}

// checked decodes the value once on the side, because kong's own message would name a flag that is not on the
// command line and not the place where the value stands.
func (s *sources) checked(f *kong.Flag, value, where string) (any, error) {
	scratch := reflect.New(f.Target.Type()).Elem()
	scan := kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: value})
	err := f.Mapper.Decode(&kong.DecodeContext{Value: f.Value, Scan: scan}, scratch)
	if err == nil && f.Enum != "" && scratch.Kind() == reflect.String && !f.EnumMap()[scratch.String()] {
		err = fmt.Errorf("must be one of %s but is %q", strings.Join(choices(f), ", "), value)
	}
	if err != nil {
		s.err = fmt.Errorf("%s: %w", where, err)
		return nil, s.err
	}
	return value, nil
}

// text spells a YAML value as the flag would be spelled on a command line.
func text(n *yaml.Node, f *kong.Flag) (string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "", errors.New("has no value; leave the line out to get the default")
	case n.Kind == yaml.ScalarNode:
		if f.IsSlice() {
			return kong.JoinEscaped([]string{n.Value}, f.Tag.Sep), nil
		}
		return n.Value, nil
	case n.Kind == yaml.SequenceNode && f.IsSlice():
		items, err := scalars(n.Content)
		return kong.JoinEscaped(items, f.Tag.Sep), err
	case n.Kind == yaml.MappingNode && f.IsMap():
		items, err := scalars(n.Content)
		var pairs []string
		for i := 0; i+1 < len(items); i += 2 {
			pairs = append(pairs, items[i]+"="+items[i+1])
		}
		return kong.JoinEscaped(pairs, f.Tag.MapSep), err
	}
	want := "one value"
	if f.IsSlice() {
		want = "a list of values"
	}
	return "", fmt.Errorf("expected %s", want)
}

func scalars(nodes []*yaml.Node) ([]string, error) {
	var values []string
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: expected a plain value", n.Line)
		}
		values = append(values, n.Value)
	}
	return values, nil
}

// warnings name variables that look like misspelt settings. Others may belong to the other program, to the
// container platform or to a test, and are left alone.
func (s *sources) warnings() []string {
	known := map[string]bool{EnvName("config"): true, s.grammar.ownEnvName("config"): true}
	var names []string
	for _, flag := range s.grammar.names {
		known[EnvName(flag)], known[s.grammar.ownEnvName(flag)] = true, true
		names = append(names, EnvName(flag), s.grammar.ownEnvName(flag))
	}
	var out []string
	for name := range s.environ {
		if known[name] {
			continue
		}
		if near := nearest(name, names); near != "" && distance(name, near) <= 2 {
			out = append(out, fmt.Sprintf("the variable %s is not a setting; is %s meant?", name, near))
		}
	}
	slices.Sort(out)
	return out
}

// nearest gives the name with the smallest edit distance, the first of equals, "" of none.
func nearest(name string, names []string) string {
	best, bestD := "", 0
	for _, n := range names {
		if d := distance(name, n); best == "" || d < bestD {
			best, bestD = n, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes: names are ASCII.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next := min(row[j]+1, row[j-1]+1, diagonal+cost)
			diagonal, row[j] = row[j], next
		}
	}
	return row[len(b)]
}
