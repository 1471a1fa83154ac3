// Package golden reads the files that freeze what this module's formats look like in bytes. There is no
// switch that rewrites them: a line that no longer holds means that deployed programs would not understand
// what this one writes.
package golden

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// Line is one frozen example.
type Line struct {
	Name string
	Text string
}

// Read returns the lines of a golden file, "name text" each; lines that begin with # are comments.
func Read(t *testing.T, path string) []Line {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []Line
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "#") || sc.Text() == "" {
			continue
		}
		name, text, _ := strings.Cut(sc.Text(), " ")
		lines = append(lines, Line{Name: name, Text: text})
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// Check fails the test unless the file at path freezes exactly what the program writes now, in this order.
func Check(t *testing.T, path string, got []Line) {
	t.Helper()
	want := Read(t, path)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("%s has no line for %s; a new example is added as\n%s %s", path, got[i].Name, got[i].Name, got[i].Text)
		case i >= len(got):
			t.Errorf("%s: %s is frozen but no longer written", path, want[i].Name)
		case got[i] != want[i]:
			t.Errorf("%s: the format changed, deployed programs would break:\n got %s %s\nwant %s %s",
				path, got[i].Name, got[i].Text, want[i].Name, want[i].Text)
		}
	}
}
