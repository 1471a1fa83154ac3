package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	// testName is a test as README names it, and testLink a name with the file that declares it.
	testName = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	testLink = regexp.MustCompile("\\[`(Test[A-Za-z0-9]+)`\\]\\(([^)\\s]+)\\)")
	// makeTarget is a command as README names it.
	makeTarget = regexp.MustCompile("`make ([a-z-]+)")
)

// promisesNameTests: every promise in README's table of guarantees names a test, linked to the file that declares it, or
// a target of the Makefile; and there is no promise whose test has gone.
func promisesNameTests(t *tree) []finding {
	const readme = "README.md"
	data, err := os.ReadFile(filepath.Join(t.root, readme))
	if err != nil {
		return []finding{{readme, 1, "cannot be read: " + err.Error()}}
	}
	makefile, err := os.ReadFile(filepath.Join(t.root, "Makefile"))
	if err != nil {
		return []finding{{"Makefile", 1, "cannot be read: " + err.Error()}}
	}
	declared := map[string][]string{}
	for _, s := range t.sources {
		declared[s.path] = s.tests
	}
	var found []finding
	say := func(line int, format string, args ...any) {
		found = append(found, finding{readme, line, fmt.Sprintf(format, args...)})
	}
	inside, rows := false, 0
	for n, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(line, "## ") {
			inside = line == "## Guarantees"
		}
		if !inside {
			continue
		}
		links := testLink.FindAllStringSubmatch(line, -1)
		for _, m := range links {
			if !slices.Contains(declared[m[2]], m[1]) {
				say(n+1, "%s is not declared in %s", m[1], m[2])
			}
		}
		if bare := len(testName.FindAllString(line, -1)) - len(links); bare > 0 {
			say(n+1, "names %d tests without a link to the file that declares them", bare)
		}
		targets := makeTarget.FindAllStringSubmatch(line, -1)
		for _, m := range targets {
			if !strings.Contains("\n"+string(makefile), "\n"+m[1]+":") {
				say(n+1, "the Makefile has no target %s", m[1])
			}
		}
		// The head and the line below it are no promises.
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.TrimSpace(cells[1]) == "" || strings.HasPrefix(cells[1], "-") {
			continue
		}
		rows++
		if len(links)+len(targets) == 0 {
			say(n+1, "the promise %q names no test", strings.TrimSpace(cells[1]))
		}
	}
	if rows == 0 {
		say(1, "has no table of guarantees")
	}
	return found
}
