package observe_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/integration/internal/observe"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// known fails the test for a product's metric that is not documented, and so does not exist.
func known(t *testing.T, where, expr string, kinds map[string]string) {
	t.Helper()
	for _, m := range observe.Metrics(expr, kinds) {
		if _, ok := kinds[m]; strings.HasPrefix(m, "pointsman_") && !ok {
			t.Errorf("%s: there is no metric %s", where, m)
		}
	}
}

func TestDashboardNamesMetricsThatExist(t *testing.T) {
	kinds, err := observe.ReadMetrics(root(t))
	if err != nil {
		t.Fatal(err)
	}
	d, err := observe.ReadDashboard(root(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Queries) < 40 || d.Schema < 39 {
		t.Errorf("%d queries, schema %d", len(d.Queries), d.Schema)
	}
	for _, q := range d.Queries {
		known(t, q.Where, q.Expr, kinds)
		if len(observe.Metrics(q.Expr, kinds)) == 0 {
			t.Errorf("panel %q asks for nothing: %s", q.Where, q.Expr)
		}
	}
	for _, name := range []string{"datasource", "topic", "router", "node"} {
		expr, ok := d.Variables[name]
		if !ok {
			t.Errorf("no variable %s", name)
		}
		known(t, "variable "+name, expr, kinds)
	}
}

// Every alert is tested firing and quiet, and the runbook has an entry under its name that says what to do.
func TestAlertsAreTestedAndExplained(t *testing.T) {
	kinds, err := observe.ReadMetrics(root(t))
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := observe.ReadAlerts(root(t))
	if err != nil {
		t.Fatal(err)
	}
	tested, err := observe.ReadAlertTests(root(t))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root(t), observe.RunbookFile))
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{}
	for _, part := range regexp.MustCompile(`(?m)^### `).Split(string(text), -1)[1:] {
		title, body, _ := strings.Cut(part, "\n")
		entries[strings.TrimSpace(title)] = body
	}
	if len(alerts) == 0 {
		t.Fatal("no alerts")
	}
	for _, a := range alerts {
		known(t, a.Alert, a.Expr, kinds)
		if n := tested[a.Alert]; n.Fires == 0 || n.Quiet == 0 {
			t.Errorf("%s has %d tests in which it fires and %d in which it does not", a.Alert, n.Fires, n.Quiet)
		}
		for _, word := range []string{"**Means.**", "**Look at.**", "**Do.**"} {
			if !strings.Contains(entries[a.Alert], word) {
				t.Errorf("%s: its entry in %s lacks %s", a.Alert, observe.RunbookFile, word)
			}
		}
		if want := observe.RunbookFile + "#" + strings.ToLower(a.Alert); !strings.HasSuffix(a.Annotations["runbook_url"], want) {
			t.Errorf("%s: runbook_url is %q, want one that ends with %s", a.Alert, a.Annotations["runbook_url"], want)
		}
		if a.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", a.Alert)
		}
		delete(entries, a.Alert)
		delete(tested, a.Alert)
	}
	for name := range entries {
		if strings.HasPrefix(name, "Pointsman") {
			t.Errorf("the runbook explains %s, and there is no such alert", name)
		}
	}
	for name := range tested {
		t.Errorf("%s is tested and does not exist", name)
	}
}

func TestMetricsOfAnExpression(t *testing.T) {
	kinds := map[string]string{"pointsman_a_seconds": "histogram", "pointsman_b_count": "gauge"}
	got := observe.Metrics(`sum(rate(pointsman_a_seconds_bucket{le="go_x"}[5m])) / pointsman_b_count + up`, kinds)
	if want := "pointsman_a_seconds pointsman_b_count up"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
