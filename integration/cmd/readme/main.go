// Command readme writes the parts of README.md, docs/metrics.md and docs/protocol.md that are made from the code: each program's
// settings, the table of close codes, the metrics. With -check it changes nothing and fails if they are not what the
// code says.
//
//	go run ./integration/cmd/readme [-check]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// section is a part of a file that the code knows better.
type section struct {
	file, name string
	text       func() (string, error)
}

func sections() []section {
	return []section{
		{"README.md", "closecodes", func() (string, error) { return closecode.Markdown(), nil }},
		{"README.md", "statuses", func() (string, error) { return closecode.StatusMarkdown(), nil }},
		{"README.md", "flags-router", func() (string, error) { return settings("./router/cmd/router") }},
		{"README.md", "flags-wsnode", func() (string, error) { return settings("./wsnode/cmd/wsnode") }},
		{"docs/protocol.md", "closecodes", func() (string, error) { return closecode.Markdown(), nil }},
		{"docs/protocol.md", "statuses", func() (string, error) { return closecode.StatusMarkdown(), nil }},
		{"docs/metrics.md", "metrics-router", routerMetrics},
		{"docs/metrics.md", "metrics-wsnode", nodeMetrics},
	}
}

func main() {
	check := flag.Bool("check", false, "change nothing; fail if the files are not what the code says")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	for _, s := range sections() {
		old, err := os.ReadFile(s.file)
		if err != nil {
			return err
		}
		made, err := s.text()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		text, err := replace(string(old), s.name, made)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", s.file, err)
		case text == string(old):
		case check:
			return errors.New(s.file + " is not what the code says: run `make readme`")
		default:
			if err := os.WriteFile(s.file, []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace puts made between the marks <!-- name:begin --> and <!-- name:end -->.
func replace(text, name, made string) (string, error) {
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	before, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("no mark %q", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("no mark %q", end)
	}
	return before + begin + strings.TrimRight(made, "\n") + "\n" + end + after, nil
}

// settings asks a program for its tables.
func settings(pkg string) (string, error) {
	cmd := exec.Command("go", "run", pkg, "--help-markdown")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go run %s: %w: %s", pkg, err, stderr.String())
	}
	return string(out), nil
}
