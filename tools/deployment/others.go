package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// checkCompose holds the services' settings and graces against the programs.
func checkCompose(path string, all map[string]settings) (found []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Services map[string]struct {
			Environment map[string]any
			Grace       string `json:"stop_grace_period"`
			ReadOnly    bool   `json:"read_only"`
		}
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, program := range all {
		service, ok := file.Services[name]
		if !ok {
			found = append(found, "compose.yaml: no service "+name)
			continue
		}
		env := map[string]string{}
		for k, v := range service.Environment {
			env[k] = fmt.Sprint(v)
		}
		for _, what := range program.unknown(env) {
			found = append(found, fmt.Sprintf("compose.yaml: %s %s", name, what))
		}
		drain, err := program.drain(env)
		if err != nil {
			return nil, err
		}
		if grace, err := time.ParseDuration(service.Grace); err != nil || grace < drain+margin || !service.ReadOnly {
			found = append(found, fmt.Sprintf("compose.yaml: %s: stop_grace_period %q for a drain of %s, read_only %v", name, service.Grace, drain, service.ReadOnly))
		}
	}
	return found, nil
}

// checkBalancer holds what HAProxy asks before it uses a router: clients go to ready ones, operators to any that lives.
func checkBalancer(path string) (found []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	asked, section := map[string]string{}, ""
	for line := range strings.Lines(string(data)) {
		if line[0] != ' ' && line[0] != '#' {
			section = strings.TrimSpace(line)
		}
		if what, ok := strings.CutPrefix(strings.TrimSpace(line), "option httpchk "); ok {
			asked[section] = what
		}
	}
	for section, want := range map[string]string{"backend routers": "GET /readyz", "backend consoles": "GET /livez"} {
		if asked[section] != want {
			found = append(found, fmt.Sprintf("haproxy.cfg: %s: option httpchk %q, want %q", section, asked[section], want))
		}
	}
	return found, nil
}

// checkUnits holds the units' graces against the programs, and has systemd read them where it is installed. It says
// which of it was done.
func checkUnits(dir string, all map[string]settings) (found []string, said string, err error) {
	work, err := os.MkdirTemp("", "pointsman-units-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(work)
	var units []string
	for name, program := range all {
		unit := "pointsman-" + name + ".service"
		data, err := os.ReadFile(filepath.Join(dir, unit))
		if err != nil {
			return nil, "", err
		}
		drain, err := program.drain(nil)
		if err != nil {
			return nil, "", err
		}
		values := map[string]string{}
		lines := strings.Split(string(data), "\n")
		for i, line := range lines {
			key, value, ok := strings.Cut(line, "=")
			if ok {
				values[key] = value
			}
			if key == "ExecStart" {
				lines[i] = "ExecStart=/bin/true" // verify wants the program to be there
			}
		}
		if stop, err := strconv.Atoi(values["TimeoutStopSec"]); err != nil || time.Duration(stop)*time.Second < drain+margin {
			found = append(found, fmt.Sprintf("%s: TimeoutStopSec=%s for a drain of %s", unit, values["TimeoutStopSec"], drain))
		}
		units = append(units, filepath.Join(work, unit))
		if err := os.WriteFile(units[len(units)-1], []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			return nil, "", err
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		return found, "not verified: there is no systemd-analyze on this machine", nil
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	// A misspelt setting is a complaint, not a failure.
	if err != nil || len(strings.TrimSpace(string(out))) > 0 {
		found = append(found, fmt.Sprintf("systemd-analyze verify: %v\n%s", err, out))
	}
	return found, "verified", nil
}
