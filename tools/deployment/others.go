package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
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

// checkBalancer holds what HAProxy asks before it uses a router: clients go to ready ones, or, when
// there is none, to any that lives; operators always to any that lives.
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
	for section, want := range map[string]string{"backend routers": "GET /readyz", "backend unready": "GET /livez", "backend consoles": "GET /livez"} {
		if asked[section] != want {
			found = append(found, fmt.Sprintf("haproxy.cfg: %s: option httpchk %q, want %q", section, asked[section], want))
		}
	}
	return found, nil
}

// checkScrapes holds the scrape configuration for pods against the Deployments: each pod's admin port, and nothing else, is
// scraped, under the job that the alerts name. Debian's promtool does not know Kubernetes, so this reads the file strictly.
func checkScrapes(path string, deployments []*appsv1.Deployment) (found []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Global  map[string]string `json:"global"`
		Rules   []string          `json:"rule_files"`
		Scrapes []struct {
			Job   string `json:"job_name"`
			Finds []struct {
				Role string `json:"role"`
			} `json:"kubernetes_sd_configs"`
			Relabel []relabelling `json:"relabel_configs"`
		} `json:"scrape_configs"`
	}
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return []string{fmt.Sprintf("kubernetes.yml: %v", err)}, nil
	}
	if len(file.Scrapes) != 1 || len(file.Scrapes[0].Finds) != 1 || file.Scrapes[0].Finds[0].Role != "pod" {
		return []string{"kubernetes.yml: want one job that finds pods"}, nil
	}
	for _, d := range deployments {
		for _, port := range container(d).Ports {
			target := map[string]string{
				"job": file.Scrapes[0].Job, "__meta_kubernetes_pod_phase": "Running",
				"__meta_kubernetes_pod_container_port_name": port.Name,
			}
			for name, value := range d.Spec.Template.Labels {
				target["__meta_kubernetes_pod_label_"+strings.NewReplacer(".", "_", "/", "_", "-", "_").Replace(name)] = value
			}
			kept, err := relabel(target, file.Scrapes[0].Relabel)
			if err != nil {
				return []string{fmt.Sprintf("kubernetes.yml: %v", err)}, nil
			}
			switch {
			case kept != (port.Name == "admin"):
				found = append(found, fmt.Sprintf("kubernetes.yml: port %s of Deployment %s: scraped %v", port.Name, d.Name, kept))
			case kept && target["job"] != container(d).Name:
				found = append(found, fmt.Sprintf("kubernetes.yml: Deployment %s is scraped as job %q, and the alerts name %q", d.Name, target["job"], container(d).Name))
			}
		}
	}
	return found, nil
}

// relabelling is one of Prometheus' relabel_configs, as far as they are used here.
type relabelling struct {
	From   []string `json:"source_labels"`
	Regex  string   `json:"regex"`
	Target string   `json:"target_label"`
	Action string   `json:"action"`
}

// relabel does to a target's labels what Prometheus does, and reports whether the target is kept.
func relabel(labels map[string]string, rules []relabelling) (bool, error) {
	for _, r := range rules {
		var values []string
		for _, name := range r.From {
			values = append(values, labels[name])
		}
		if r.Regex == "" {
			r.Regex = "(.*)"
		}
		pattern, err := regexp.Compile("^(?:" + r.Regex + ")$")
		if err != nil {
			return false, err
		}
		match := pattern.FindStringSubmatch(strings.Join(values, ";"))
		switch r.Action {
		case "keep", "drop":
			if (match != nil) != (r.Action == "keep") {
				return false, nil
			}
		case "":
			if match != nil {
				labels[r.Target] = match[1]
			}
		default:
			return false, fmt.Errorf("relabelling %q is not known to this check", r.Action)
		}
	}
	return true, nil
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
