package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"
)

const project = "github.com/pointsmanhq/pointsman/"

// maxLines is where a file stops being about one thing.
const maxLines = 600

// finding is one broken rule, printed as other linters print theirs.
type finding struct {
	path string
	line int
	text string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text) }

// tree is what the rules look at: files under version control and new ones that git does not ignore.
type tree struct {
	root    string
	files   []string // slash-separated, relative to root
	sources []source // Go files outside tools
	modules map[string]*modfile.File
}

type source struct {
	path      string
	lines     int
	generated bool
	imports   []imported
	inits     []int    // lines that declare func init
	sleeps    []int    // lines that call time.Sleep
	tests     []string // names of the tests that it declares
}

type imported struct {
	path string
	line int
}

// rules are all of them; each returns what it found broken.
var rules = []func(*tree) []finding{
	tiersDoNotMeet, kafkaStaysInNodes, etcdStaysInOnePackage, packageTableMatchesModules, versionsAgree,
	noMachinePaths, filesStaySmall, noInit, noSleepInTests, nothingLeftOpen, promisesNameTests,
}

func check(root string) ([]finding, error) {
	t, err := load(root)
	if err != nil {
		return nil, err
	}
	var all []finding
	for _, rule := range rules {
		all = append(all, rule(t)...)
	}
	return all, nil
}

func load(root string) (*tree, error) {
	cmd := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", root, err)
	}
	t := &tree{root: root, modules: map[string]*modfile.File{}}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if info, err := os.Lstat(filepath.Join(root, name)); err != nil || !info.Mode().IsRegular() {
			continue // deleted in the work tree, or a link
		}
		t.files = append(t.files, name)
		switch {
		case strings.HasPrefix(name, "tools/"):
		case strings.HasSuffix(name, ".go"):
			s, err := readSource(root, name)
			if err != nil {
				return nil, err
			}
			t.sources = append(t.sources, s)
		case filepath.Base(name) == "go.mod" && strings.Count(name, "/") == 1:
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				return nil, err
			}
			mod, err := modfile.Parse(name, data, nil)
			if err != nil {
				return nil, err
			}
			t.modules[name] = mod
		}
	}
	return t, nil
}

func readSource(root, name string) (source, error) {
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return source{}, err
	}
	fset := token.NewFileSet()
	// Build tags are not looked at: an import behind a tag is an import.
	file, err := parser.ParseFile(fset, name, data, parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	s := source{path: name, lines: bytes.Count(data, []byte("\n")), generated: ast.IsGenerated(file)}
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, err
		}
		s.imports = append(s.imports, imported{path, fset.Position(spec.Pos()).Line})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				s.inits = append(s.inits, fset.Position(n.Pos()).Line)
			}
			if n.Recv == nil && strings.HasPrefix(n.Name.Name, "Test") && strings.HasSuffix(name, "_test.go") {
				s.tests = append(s.tests, n.Name.Name)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" {
				s.sleeps = append(s.sleeps, fset.Position(n.Pos()).Line)
			}
		}
		return true
	})
	return s, nil
}

// module is the top folder that a file belongs to.
func module(path string) string {
	top, _, _ := strings.Cut(path, "/")
	return top
}

// importRule reports every import that bad objects to.
func importRule(t *tree, bad func(s source, path string) string) []finding {
	var found []finding
	for _, s := range t.sources {
		for _, i := range s.imports {
			if why := bad(s, i.path); why != "" {
				found = append(found, finding{s.path, i.line, fmt.Sprintf("imports %s: %s", i.path, why)})
			}
		}
	}
	return found
}

// tiersDoNotMeet: dependencies point downwards only.
func tiersDoNotMeet(t *tree) []finding {
	allowed := map[string][]string{
		"proto":       {"proto"},
		"pkg":         {"pkg", "proto"},
		"router":      {"router", "pkg", "proto"},
		"wsnode":      {"wsnode", "pkg", "proto"},
		"integration": {"integration", "router", "wsnode", "pkg", "proto"},
	}
	return importRule(t, func(s source, path string) string {
		rest, ours := strings.CutPrefix(path, project)
		if !ours || slices.Contains(allowed[module(s.path)], module(rest)) {
			return ""
		}
		return fmt.Sprintf("%s may not import %s", module(s.path), module(rest))
	})
}

func kafkaStaysInNodes(t *tree) []finding {
	return importRule(t, func(s source, path string) string {
		kafka := strings.HasPrefix(path, "github.com/IBM/sarama") || strings.HasPrefix(path, "github.com/twmb/franz-go")
		if kafka && module(s.path) != "wsnode" && module(s.path) != "integration" {
			return "Kafka libraries belong to wsnode (and integration)"
		}
		return ""
	})
}

func etcdStaysInOnePackage(t *tree) []finding {
	return importRule(t, func(s source, path string) string {
		if strings.HasPrefix(path, "go.etcd.io/") && filepath.Dir(s.path) != "pkg/etcdmap" && module(s.path) != "integration" {
			return "etcd's client belongs to pkg/etcdmap (and integration)"
		}
		return ""
	})
}

// tableRow is a row of README's table of packages: | `module` | version | what for |, the module linked or not.
var tableRow = regexp.MustCompile("^\\|\\s*\\[?`?([a-zA-Z0-9-]+\\.[a-zA-Z0-9./_-]+)`?(?:\\]\\([^)]*\\))?\\s*\\|\\s*`?(v[0-9][^\\s|`]*)`?\\s*\\|")

// packageTableMatchesModules: README names every module that go.mod files require directly, at its version.
func packageTableMatchesModules(t *tree) []finding {
	want := map[string]string{}
	for _, mod := range t.modules {
		if strings.HasPrefix(mod.Module.Mod.Path, project+"tools") {
			continue
		}
		for _, r := range mod.Require {
			if !r.Indirect && !strings.HasPrefix(r.Mod.Path, project) {
				want[r.Mod.Path] = r.Mod.Version
			}
		}
	}
	data, err := os.ReadFile(filepath.Join(t.root, "README.md"))
	if err != nil {
		return []finding{{"README.md", 1, "cannot be read: " + err.Error()}}
	}
	var found []finding
	listed := map[string]bool{}
	table := 0
	for n, line := range strings.Split(string(data), "\n") {
		m := tableRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		table = n + 1
		listed[m[1]] = true
		switch version, required := want[m[1]]; {
		case !required:
			found = append(found, finding{"README.md", n + 1, m[1] + " is in the table of packages, and no go.mod requires it directly"})
		case version != m[2]:
			found = append(found, finding{"README.md", n + 1, fmt.Sprintf("%s is %s in the table of packages and %s in go.mod", m[1], m[2], version)})
		}
	}
	for path, version := range want {
		if !listed[path] {
			found = append(found, finding{"README.md", max(table, 1), fmt.Sprintf("the table of packages lacks | `%s` | %s |", path, version)})
		}
	}
	slices.SortFunc(found, func(a, b finding) int { return strings.Compare(a.String(), b.String()) })
	return found
}

// versionsAgree: a workspace builds with the highest version that any module asks for, a module alone with its
// own; when they differ, what was tested is not what a module's user gets.
func versionsAgree(t *tree) []finding {
	type use struct{ file, version string }
	first := map[string]use{}
	var found []finding
	names := make([]string, 0, len(t.modules))
	for name := range t.modules {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		mod := t.modules[name]
		if module(name) == "tools" {
			continue
		}
		for _, r := range mod.Require {
			if r.Indirect || strings.HasPrefix(r.Mod.Path, project) {
				continue
			}
			if seen, ok := first[r.Mod.Path]; !ok {
				first[r.Mod.Path] = use{name, r.Mod.Version}
			} else if seen.version != r.Mod.Version {
				found = append(found, finding{name, r.Syntax.Start.Line, fmt.Sprintf("%s is %s here and %s in %s", r.Mod.Path, r.Mod.Version, seen.version, seen.file)})
			}
		}
	}
	return found
}

// machinePath is a folder of somebody's own machine. It is put together so that this file does not contain what it
// looks for.
var machinePath = regexp.MustCompile(`/work/` + `[a-z]|/home/` + `[a-z]|/Users/` + `[a-z]|/root/` + `[a-z.]`)

func noMachinePaths(t *tree) []finding {
	var found []finding
	for _, name := range t.files {
		if filepath.Base(name) == "go.sum" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(t.root, name))
		if err != nil || bytes.IndexByte(data, 0) >= 0 {
			continue
		}
		for n, line := range strings.Split(string(data), "\n") {
			if m := machinePath.FindString(line); m != "" {
				found = append(found, finding{name, n + 1, "names a path of somebody's machine: " + m})
			}
		}
	}
	return found
}

func filesStaySmall(t *tree) []finding {
	var found []finding
	for _, s := range t.sources {
		if s.lines > maxLines && !s.generated {
			found = append(found, finding{s.path, maxLines, fmt.Sprintf("has %d lines, more than %d: split it by concept", s.lines, maxLines)})
		}
	}
	return found
}

func noInit(t *tree) []finding {
	var found []finding
	for _, s := range t.sources {
		for _, line := range s.inits {
			if !s.generated {
				found = append(found, finding{s.path, line, "declares func init: what must happen at start belongs to a constructor"})
			}
		}
	}
	return found
}

func noSleepInTests(t *tree) []finding {
	var found []finding
	for _, s := range t.sources {
		for _, line := range s.sleeps {
			if strings.HasSuffix(s.path, "_test.go") {
				found = append(found, finding{s.path, line, "sleeps in a test: wait for the event, or use a synctest bubble"})
			}
		}
	}
	return found
}

var openMark = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func nothingLeftOpen(t *tree) []finding {
	var found []finding
	for _, s := range t.sources {
		if s.generated {
			continue
		}
		data, err := os.ReadFile(filepath.Join(t.root, s.path))
		if err != nil {
			continue
		}
		for n, line := range strings.Split(string(data), "\n") {
			if m := openMark.FindString(line); m != "" {
				found = append(found, finding{s.path, n + 1, m + ": finish it, or file an issue and say so without the mark"})
			}
		}
	}
	return found
}
