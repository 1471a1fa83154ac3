// Package observe reads what operators watch a stack with: the Grafana dashboard, the alert rules and their tests, the
// runbook, and the list of metrics.
package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Where the files lie, from the repository's root.
const (
	DashboardFile = "deploy/grafana/dashboard.json"
	AlertsFile    = "deploy/prometheus/alerts.yml"
	AlertTests    = "deploy/prometheus/alerts_test.yml"
	RunbookFile   = "docs/runbook.md"
	MetricsFile   = "docs/metrics.md"
)

// Query is one query of a panel, an annotation or a variable.
type Query struct {
	Where string
	Expr  string
}

// Dashboard is the part of a dashboard that is looked at.
type Dashboard struct {
	Schema    int
	Queries   []Query
	Variables map[string]string // query by name
}

type panel struct {
	Type       string
	Title      string
	Datasource struct{ UID string }
	Targets    []struct{ Expr string }
	Panels     []panel
}

// ReadDashboard reads it.
func ReadDashboard(root string) (*Dashboard, error) {
	text, err := os.ReadFile(filepath.Join(root, DashboardFile))
	if err != nil {
		return nil, fmt.Errorf("read the dashboard: %w", err)
	}
	var file struct {
		SchemaVersion int
		Panels        []panel
		Templating    struct {
			List []struct {
				Name, Type, Definition string
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("read %s: %w", DashboardFile, err)
	}
	d := &Dashboard{Schema: file.SchemaVersion, Variables: map[string]string{}}
	for _, v := range file.Templating.List {
		d.Variables[v.Name] = v.Definition
	}
	var errs []error
	var add func(panels []panel)
	add = func(panels []panel) {
		for _, p := range panels {
			add(p.Panels)
			if p.Type == "row" || p.Type == "text" {
				continue
			}
			if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				errs = append(errs, fmt.Errorf("%s: panel %q: data source %q, %d queries", DashboardFile, p.Title, p.Datasource.UID, len(p.Targets)))
			}
			for _, t := range p.Targets {
				d.Queries = append(d.Queries, Query{Where: p.Title, Expr: t.Expr})
			}
		}
	}
	add(file.Panels)
	return d, errors.Join(errs...)
}

// Alert is one alert rule.
type Alert struct {
	Alert       string
	Expr        string
	Annotations map[string]string
}

// ReadAlerts reads the rules.
func ReadAlerts(root string) ([]Alert, error) {
	var file struct {
		Groups []struct{ Rules []Alert }
	}
	if err := readYAML(filepath.Join(root, AlertsFile), &file); err != nil {
		return nil, err
	}
	var all []Alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}

// Tested is how many unit tests of an alert want it to fire, and how many want it not to.
type Tested struct{ Fires, Quiet int }

// ReadAlertTests counts the unit tests of each alert.
func ReadAlertTests(root string) (map[string]Tested, error) {
	var file struct {
		Tests []struct {
			Rules []struct {
				Name string      `yaml:"alertname"`
				Want []yaml.Node `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := readYAML(filepath.Join(root, AlertTests), &file); err != nil {
		return nil, err
	}
	all := map[string]Tested{}
	for _, t := range file.Tests {
		for _, r := range t.Rules {
			n := all[r.Name]
			if len(r.Want) > 0 {
				n.Fires++
			} else {
				n.Quiet++
			}
			all[r.Name] = n
		}
	}
	return all, nil
}

func readYAML(path string, into any) error {
	text, err := os.ReadFile(path) //nolint:gosec // a file of this repository
	if err != nil {
		return fmt.Errorf("read what operators are given: %w", err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

var row = regexp.MustCompile("(?m)^\\| `(pointsman_[a-z_]+)` \\| (counter|gauge|histogram) \\|")

// ReadMetrics returns the types of the documented metrics, by name.
func ReadMetrics(root string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(root, MetricsFile))
	if err != nil {
		return nil, fmt.Errorf("read the list of metrics: %w", err)
	}
	kinds := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		kinds[m[1]] = m[2]
	}
	// Of every program, and of no tier: the list mentions them in words.
	for _, name := range []string{"pointsman_router_build_info", "pointsman_wsnode_build_info"} {
		kinds[name] = "gauge"
	}
	return kinds, nil
}

var (
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	name   = regexp.MustCompile(`\b(?:pointsman|process|go)_[a-z_]+\b|\bup\b`)
	part   = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

// Metrics are the metrics that an expression names, sorted; of histograms the whole.
func Metrics(expr string, kinds map[string]string) []string {
	var all []string
	for _, n := range name.FindAllString(quoted.ReplaceAllString(expr, ""), -1) {
		all = append(all, Family(n, kinds))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Family is the metric that a series' name belongs to.
func Family(series string, kinds map[string]string) string {
	if whole := part.ReplaceAllString(series, ""); kinds[whole] == "histogram" {
		return whole
	}
	return series
}

// Concrete puts values in the place of a dashboard's variables: everything that is there, and an interval that fits.
func Concrete(expr, interval string) string {
	return strings.NewReplacer("$__rate_interval", interval, "$topic", ".*", "$router", ".*", "$node", ".*").Replace(expr)
}
