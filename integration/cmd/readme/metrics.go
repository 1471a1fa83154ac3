package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pointsmanhq/pointsman/router"
	"github.com/pointsmanhq/pointsman/wsnode"
)

// collected is a registry that knows what was registered, also what has no series yet.
type collected struct {
	*prometheus.Registry
	descs []string
}

func (c *collected) Register(of prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 100)
	of.Describe(ch)
	close(ch)
	for d := range ch {
		c.descs = append(c.descs, d.String())
	}
	return c.Registry.Register(of)
}

func (c *collected) MustRegister(all ...prometheus.Collector) {
	for _, of := range all {
		if err := c.Register(of); err != nil {
			panic(err)
		}
	}
}

func routerMetrics() (string, error) {
	c := &collected{Registry: prometheus.NewRegistry()}
	if _, err := router.New(router.Config{Topic: "records"}, router.Deps{Registerer: c}); err != nil {
		return "", err
	}
	return c.table()
}

func nodeMetrics() (string, error) {
	c := &collected{Registry: prometheus.NewRegistry()}
	if _, err := wsnode.New(wsnode.Config{Topic: "records"}, wsnode.Deps{Registerer: c}); err != nil {
		return "", err
	}
	return c.table()
}

var descForm = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*?)", (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

var constLabel = regexp.MustCompile(`(\w+)="[^"]*"`)

// table is what was registered, by name.
func (c *collected) table() (string, error) {
	families, err := c.Gather()
	if err != nil {
		return "", err
	}
	kinds := make(map[string]string)
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	var rows []string
	for _, d := range c.descs {
		m := descForm.FindStringSubmatch(d)
		if m == nil {
			return "", fmt.Errorf("metric of an unknown form: %s", d)
		}
		kind := "gauge"
		if t, ok := kinds[m[1]]; ok {
			kind = t
		} else if strings.HasSuffix(m[1], "_total") {
			kind = "counter"
		}
		var labels []string
		for _, l := range constLabel.FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		if m[4] != "" {
			labels = append(labels, strings.Split(m[4], ",")...)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", m[1], kind, strings.Join(labels, ", "), strings.ReplaceAll(m[2], `\"`, `"`)))
	}
	slices.Sort(rows)
	return "| metric | type | labels | what it is |\n|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n", nil
}
