// Command readme writes the parts of README.md that are made from the code: each program's settings and the table
// of close codes. With -check it changes nothing and fails if they are not what the code says.
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

func main() {
	check := flag.Bool("check", false, "change nothing; fail if README.md is not what the code says")
	file := flag.String("file", "README.md", "the file")
	flag.Parse()
	if err := run(*file, *check); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

func run(file string, check bool) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(old)
	sections := map[string]func() (string, error){
		"closecodes":   func() (string, error) { return closecode.Markdown(), nil },
		"flags-router": func() (string, error) { return settings("./router/cmd/router") },
		"flags-wsnode": func() (string, error) { return settings("./wsnode/cmd/wsnode") },
	}
	for name, of := range sections {
		made, err := of()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if text, err = replace(text, name, made); err != nil {
			return err
		}
	}
	switch {
	case text == string(old):
		return nil
	case check:
		return errors.New(file + " is not what the code says: run `make readme`")
	}
	return os.WriteFile(file, []byte(text), 0o644)
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
