package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/observe"
)

// prometheus is Debian's, which scrapes a stack twice a second and evaluates the alert rules that are shipped.
type prometheus struct {
	w       *world
	url     string
	targets string // the file with what is scraped
	began   time.Time
}

func (w *world) prometheus(root string) *prometheus {
	w.t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		lacks(w.t, "prometheus is not installed (Debian: apt-get install prometheus), nothing scrapes the stack")
	}
	dir, addr := w.t.TempDir(), w.closedPort()
	p := &prometheus{w: w, url: "http://" + addr, targets: filepath.Join(dir, "targets.json"), began: time.Now()}
	p.scrape()
	config := fmt.Sprintf(`global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: pointsman
    file_sd_configs: [{files: [%q], refresh_interval: 1s}]
    relabel_configs: [{source_labels: [tier], target_label: job}]
`, filepath.Join(root, observe.AlertsFile), p.targets)
	file := filepath.Join(dir, "prometheus.yml")
	w.must(os.WriteFile(file, []byte(config), 0o600))
	run(w.t, path, "--config.file="+file, "--web.listen-address="+addr, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--log.level=warn")
	w.eventually(30*time.Second, "prometheus is ready", func() error {
		if status, body := w.get(p.url + "/-/ready"); status != http.StatusOK {
			return fmt.Errorf("HTTP %d %s", status, body)
		}
		return nil
	})
	w.eventually(30*time.Second, "prometheus scrapes every router and node", func() error {
		return p.sees(fmt.Sprintf("sum(up) == %d", len(w.Routers())+len(w.Nodes())))
	})
	return p
}

// scrape tells Prometheus what runs now.
func (p *prometheus) scrape() {
	p.w.t.Helper()
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	routers, nodes := group{Labels: map[string]string{"tier": "router"}}, group{Labels: map[string]string{"tier": "wsnode"}}
	for _, r := range p.w.Routers() {
		routers.Targets = append(routers.Targets, strings.TrimPrefix(r.Admin, "http://"))
	}
	for _, n := range p.w.Nodes() {
		nodes.Targets = append(nodes.Targets, strings.TrimPrefix(n.Admin, "http://"))
	}
	text, err := json.Marshal([]group{routers, nodes})
	p.w.must(err)
	p.w.must(os.WriteFile(p.targets+".new", text, 0o600))
	p.w.must(os.Rename(p.targets+".new", p.targets))
}

// ask calls the API and decodes its data.
func (p *prometheus) ask(path string, q url.Values, data any) error {
	_, body := p.w.get(p.url + path + "?" + q.Encode())
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return fmt.Errorf("%s: %w: %.200s", path, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// sees reports whether a query gives at least one number within the whole run.
func (p *prometheus) sees(expr string) error {
	var found struct {
		Result []struct {
			Values [][2]any
		}
	}
	err := p.ask("/api/v1/query_range", url.Values{
		"query": {expr}, "step": {"1"},
		"start": {fmt.Sprint(p.began.Unix())}, "end": {fmt.Sprint(time.Now().Unix())},
	}, &found)
	if err != nil {
		return fmt.Errorf("%s: %w", expr, err)
	}
	for _, series := range found.Result {
		for _, v := range series.Values {
			text, _ := v[1].(string)
			if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s: nothing", expr)
}

// fires waits until an alert does.
func (p *prometheus) fires(name string) {
	p.w.t.Helper()
	p.w.eventually(30*time.Second, name+" fires", func() error {
		return p.sees(fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing"}`, name))
	})
}

// exposes compares what Prometheus has found with the documented list, both ways.
func (p *prometheus) exposes(kinds map[string]string) {
	p.w.t.Helper()
	var names []string
	p.w.must(p.ask("/api/v1/label/__name__/values", nil, &names))
	found := map[string]bool{}
	for _, n := range names {
		if strings.HasPrefix(n, "pointsman_") {
			found[observe.Family(n, kinds)] = true
		}
	}
	for n := range found {
		if _, ok := kinds[n]; !ok {
			p.w.t.Errorf("%s is exposed, and docs/metrics.md does not list it", n)
		}
	}
	for n := range kinds {
		if !found[n] {
			p.w.t.Errorf("docs/metrics.md lists %s, and nothing exposes it", n)
		}
	}
}

// moved wants every metric to have moved that the scenario moves.
func (p *prometheus) moved(kinds map[string]string) {
	p.w.t.Helper()
	excused := map[string]string{} // and moved all the same
	p.w.eventually(15*time.Second, "metrics have moved", func() error {
		var errs []error
		for n, kind := range kinds {
			var expr string
			switch kind {
			case "counter":
				expr = fmt.Sprintf("increase(%s[30m]) > 0", n)
			case "histogram":
				expr = fmt.Sprintf("increase(%s_count[30m]) > 0", n)
			default:
				expr = fmt.Sprintf("changes(%s[30m]) > 0", n)
			}
			err := p.sees(expr)
			if _, ok := fleeting[n]; ok {
				continue
			}
			if why, ok := still[n]; ok {
				if err == nil {
					excused[n] = why
				}
				continue
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return errors.Join(errs...)
	})
	for n := range still {
		if _, ok := kinds[n]; !ok {
			p.w.t.Errorf("there is no metric %s any more", n)
		}
		if why, ok := excused[n]; ok {
			p.w.t.Errorf("%s has moved, which it should not: %s", n, why)
		}
	}
	p.w.t.Logf("%d metrics, %d of them excused from moving", len(kinds), len(still))
}

// judges wants every rule to be evaluated without an error.
func (p *prometheus) judges() {
	p.w.t.Helper()
	var found struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	p.w.must(p.ask("/api/v1/rules", nil, &found))
	n := 0
	var said bytes.Buffer
	for _, g := range found.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				p.w.t.Errorf("alert %s: %s %s", r.Name, r.Health, r.LastError)
			}
			if p.sees(fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing"}`, r.Name)) == nil {
				fmt.Fprintf(&said, " %s", r.Name)
			}
		}
	}
	if n == 0 {
		p.w.t.Error("Prometheus has no rules")
	}
	p.w.t.Logf("%d alerts; these fired:%s", n, said.String())
}
