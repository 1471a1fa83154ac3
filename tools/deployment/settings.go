package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"
)

// settings are a program's by their variables, with their defaults.
type settings map[string]string

// settingRow is a row of README's generated tables: | `--flag=X` | `POINTSMAN_FLAG` | `default` | meaning |
var settingRow = regexp.MustCompile("^\\| `--[^`]+` \\| `(POINTSMAN_[A-Z0-9_]+)` \\| ([^|]*) \\|")

// readSettings reads both programs' tables of settings, which the lint step holds against the programs.
func readSettings(readme string) (map[string]settings, error) {
	data, err := os.ReadFile(readme)
	if err != nil {
		return nil, err
	}
	all := map[string]settings{}
	for _, program := range []string{"router", "wsnode"} {
		_, rest, begun := strings.Cut(string(data), "<!-- flags-"+program+":begin -->")
		table, _, ended := strings.Cut(rest, "<!-- flags-"+program+":end -->")
		if !begun || !ended {
			return nil, fmt.Errorf("%s has no table of the settings of %s", readme, program)
		}
		all[program] = settings{}
		for line := range strings.Lines(table) {
			if m := settingRow.FindStringSubmatch(strings.ReplaceAll(line, `\|`, "/")); m != nil {
				all[program][m[1]] = strings.Trim(strings.TrimSpace(m[2]), "`")
			}
		}
		if all[program]["POINTSMAN_DRAIN_TIMEOUT"] == "" {
			return nil, fmt.Errorf("%s: the settings of %s lack POINTSMAN_DRAIN_TIMEOUT", readme, program)
		}
	}
	return all, nil
}

// value is what a setting is with the environment given.
func (s settings) value(env map[string]string, name string) string {
	if v := env[name]; v != "" {
		return v
	}
	return s[name]
}

func (s settings) drain(env map[string]string) (time.Duration, error) {
	return time.ParseDuration(s.value(env, "POINTSMAN_DRAIN_TIMEOUT"))
}

// unknown lists what the environment sets and the program does not have, and what it needs and is not set.
func (s settings) unknown(env map[string]string) (found []string) {
	for name := range env {
		if _, ok := s[name]; strings.HasPrefix(name, "POINTSMAN_") && !ok {
			found = append(found, "sets "+name+", which is no setting of the program")
		}
	}
	for name, byDefault := range s {
		if byDefault == "needed" && env[name] == "" {
			found = append(found, "lacks "+name)
		}
	}
	return found
}

// portOf is the port of an address such as ":8080" or "127.0.0.1:8081".
func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return port
}
