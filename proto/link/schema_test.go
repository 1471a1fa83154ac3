package link_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pointsmanhq/pointsman/proto/link/linkpb"
)

// The generated code is committed; this fails when somebody changed link.proto and did not generate again.
func TestGeneratedCodeIsOfThisSchema(t *testing.T) {
	text, err := os.ReadFile("link.proto")
	if err != nil {
		t.Fatal(err)
	}
	got, want := compiledSchema(linkpb.File_link_link_proto), writtenSchema(t, string(text))
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("link.proto says %q, the generated code does not; run `make generate`", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("the generated code says %q, link.proto does not; run `make generate`", line)
		}
	}
	if len(want) < 60 {
		t.Errorf("only %d lines of link.proto were understood: %q", len(want), want)
	}
}

// writtenSchema reads the declarations of a .proto file, as far as link.proto uses the language.
func writtenSchema(t *testing.T, text string) (lines []string) {
	text = regexp.MustCompile(`//.*`).ReplaceAllString(text, "")
	field := regexp.MustCompile(`^(optional |repeated )?(\w+) (\w+) = (\d+)$`)
	value := regexp.MustCompile(`^(\w+) = (\d+)$`)
	var scope []string
	for _, statement := range regexp.MustCompile(`[^;{}]*[;{}]`).FindAllString(text, -1) {
		end := statement[len(statement)-1]
		s := strings.Join(strings.Fields(statement[:len(statement)-1]), " ")
		switch {
		case end == '{':
			scope = append(scope, s)
			if !strings.HasPrefix(s, "oneof ") {
				lines = append(lines, s)
			}
		case end == '}':
			scope = scope[:len(scope)-1]
		case len(scope) == 0:
			// syntax, package and options
		case strings.HasPrefix(scope[0], "enum ") && value.MatchString(s):
			m := value.FindStringSubmatch(s)
			lines = append(lines, fmt.Sprintf("%s: %s = %s", scope[0], m[1], m[2]))
		case field.MatchString(s):
			m := field.FindStringSubmatch(s)
			kind := m[1]
			if len(scope) == 2 {
				kind = scope[1] + " "
			}
			lines = append(lines, fmt.Sprintf("%s: %s%s %s = %s", scope[0], kind, m[2], m[3], m[4]))
		default:
			t.Fatalf("statement not understood: %q", s)
		}
	}
	return lines
}

func compiledSchema(f protoreflect.FileDescriptor) (lines []string) {
	for i := range f.Enums().Len() {
		e := f.Enums().Get(i)
		lines = append(lines, "enum "+string(e.Name()))
		for j := range e.Values().Len() {
			v := e.Values().Get(j)
			lines = append(lines, fmt.Sprintf("enum %s: %s = %d", e.Name(), v.Name(), v.Number()))
		}
	}
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		lines = append(lines, "message "+string(m.Name()))
		for j := range m.Fields().Len() {
			d := m.Fields().Get(j)
			kind, typ := "", d.Kind().String()
			switch {
			case d.IsList():
				kind = "repeated "
			case d.HasOptionalKeyword():
				kind = "optional "
			case d.ContainingOneof() != nil:
				kind = fmt.Sprintf("oneof %s ", d.ContainingOneof().Name())
			}
			if d.Message() != nil {
				typ = string(d.Message().Name())
			}
			if d.Enum() != nil {
				typ = string(d.Enum().Name())
			}
			lines = append(lines, fmt.Sprintf("message %s: %s%s %s = %d", m.Name(), kind, typ, d.Name(), d.Number()))
		}
	}
	return lines
}
