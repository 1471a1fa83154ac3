package closecode_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/internal/golden"
)

// constants reads the codes out of the source, so that none can be forgotten in the table.
func constants(t *testing.T) map[string]int {
	file, err := parser.ParseFile(token.NewFileSet(), "closecode.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		if g, ok := n.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				code, err := strconv.Atoi(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatalf("%s: %v", v.Names[0].Name, err)
				}
				found[v.Names[0].Name] = code
			}
		}
		return true
	})
	return found
}

func TestEveryConstantIsInTheTable(t *testing.T) {
	cs := constants(t)
	if len(cs) < 20 || len(cs) != len(closecode.All()) {
		t.Errorf("%d constants, %d rows", len(cs), len(closecode.All()))
	}
	for name, code := range cs {
		row, ok := closecode.Lookup(code)
		if !ok || row.Code != code {
			t.Errorf("%s (%d) is not in the table", name, code)
			continue
		}
		if want := strings.ReplaceAll(row.Name, "_", ""); !strings.EqualFold(want, name) {
			t.Errorf("%s is called %s in the table", name, row.Name)
		}
	}
}

func TestTableIsOrderedAndWhole(t *testing.T) {
	before := 0
	for _, c := range closecode.All() {
		if c.Code <= before {
			t.Errorf("%d comes after %d", c.Code, before)
		}
		before = c.Code
		if c.Code >= 1016 && (c.Code < 4000 || c.Code > 4999) {
			t.Errorf("%d: our own codes are 4000 to 4999", c.Code)
		}
		if c.Name == "" || !strings.HasSuffix(c.Meaning, ".") || strings.Contains(c.Meaning, "|") {
			t.Errorf("%+v", c)
		}
	}
	if c, ok := closecode.Lookup(4999); ok {
		t.Errorf("an unknown code is %+v", c)
	}
}

func TestCodesAreFrozen(t *testing.T) {
	var got []golden.Line
	for _, c := range closecode.All() {
		got = append(got, golden.Line{Name: strconv.Itoa(c.Code), Text: fmt.Sprintf("%s retry=%v", c.Name, c.Retry)})
	}
	golden.Check(t, "testdata/closecode.golden", got)
}

func TestMarkdownHasARowForEveryCode(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(closecode.Markdown(), "\n"), "\n")
	if len(lines) != len(closecode.All())+2 {
		t.Fatalf("%d lines for %d codes", len(lines), len(closecode.All()))
	}
	for i, c := range closecode.All() {
		want := fmt.Sprintf("| %d | `%s` | %s | %s |", c.Code, c.Name, map[bool]string{true: "yes", false: "no"}[c.Retry], c.Meaning)
		if lines[i+2] != want {
			t.Errorf("got %s, want %s", lines[i+2], want)
		}
	}
}
