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
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/observe"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// still are the metrics that this scenario does not move, and why.
var still = map[string]string{
	"pointsman_router_info":                        "constant",
	"pointsman_router_build_info":                  "constant",
	"pointsman_wsnode_info":                        "constant",
	"pointsman_wsnode_build_info":                  "constant",
	"pointsman_wsnode_ring_limit_bytes":            "constant",
	"pointsman_router_records_dropped_total":       "cannot happen",
	"pointsman_router_partitions":                  "the topic does not grow",
	"pointsman_router_partitions_stood_in":         "too short between two scrapes",
	"pointsman_router_partitions_unserved":         "a node always lives",
	"pointsman_router_sessions_waiting":            "a node always lives",
	"pointsman_router_handovers_pending":           "too short between two scrapes",
	"pointsman_router_duplicates_dropped_total":    "needs a record within a handover's milliseconds",
	"pointsman_router_draining":                    "too short between two scrapes",
	"pointsman_wsnode_draining":                    "too short between two scrapes",
	"pointsman_router_outbox_bytes":                "every client reads",
	"pointsman_wsnode_link_queued_bytes":           "routers take everything at once",
	"pointsman_wsnode_links":                       "a router is back between two scrapes",
	"pointsman_router_limit_hits_total":            "no limit is met; the limits have tests of their own",
	"pointsman_router_client_addresses":            "all clients come from one",
	"pointsman_router_clients_limit":               "constant",
	"pointsman_router_memory_limit_bytes":          "constant",
	"pointsman_router_open_files_limit":            "constant",
	"pointsman_router_memory_short":                "memory suffices",
	"pointsman_router_handshakes_open":             "too short between two scrapes",
	"pointsman_router_handshakes_waiting":          "too short between two scrapes",
	"pointsman_wsnode_lag":                         "too short between two scrapes",
	"pointsman_wsnode_scans":                       "too short between two scrapes",
	"pointsman_wsnode_uncommitted":                 "TestHangingTransaction moves it",
	"pointsman_router_auth_keys":                   "no tokens here; the router's own tests move them",
	"pointsman_router_auth_keys_age_seconds":       "no tokens here; the router's own tests move it",
	"pointsman_router_auth_key_failures_total":     "no tokens here; the router's own tests move it",
	"pointsman_router_auth_total":                  "no tokens here",
	"pointsman_router_bad_tables_total":            "needs a value that no version writes",
	"pointsman_router_etcd_malformed_values_total": "moved, but counted when it is seen first",
	"pointsman_wsnode_etcd_malformed_values_total": "moved, but counted when it is seen first",
	"pointsman_wsnode_behind_offsets":              "too short between two scrapes",
	"pointsman_wsnode_streams_behind":              "too short between two scrapes",
	"pointsman_wsnode_topic_verified":              "Kafka lives; TestKafkaRestart stops it",
}

// prometheus is Debian's, which scrapes a stack once a second and evaluates the alert rules that are shipped.
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
	config := fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
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

// Watched: a real Prometheus scrapes a running stack, through which go traffic and faults. Every query of the dashboard
// returns something, what is exposed is what docs/metrics.md lists, everything that the scenario should move has moved,
// and the rules are evaluated.
func Watched(t testing.TB) {
	bin := needPrograms(t)
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		lacks(t, "prometheus is not installed (Debian: apt-get install prometheus), nothing scrapes the stack")
	}
	kinds, err := observe.ReadMetrics(root)
	if err != nil {
		t.Fatal(err)
	}
	dashboard, err := observe.ReadDashboard(root)
	if err != nil {
		t.Fatal(err)
	}
	// A small ring and a replay limit: a client that comes from the beginning meets a gap and is read for again.
	w := begin(t, stack.Options{Routers: 2, Nodes: 3, NodeFlags: []string{"--ring=1MiB", "--replay-limit=800"}})
	p := w.prometheus(root)

	clients := keys("client", 200)
	for i, key := range clients {
		w.fleet.New(load.Options{Key: key, Reconnect: w.other(i)})
	}
	w.must(w.fleet.Connect(w.ctx, w.fleet.Clients(), w.target))
	w.must(w.producer.Burst(w.ctx, clients, 8000, 512))
	w.produce(clients, 500, 128)
	w.must(w.settled(time.Minute))
	w.disturb(p, bin)
	w.must(w.quiet())

	for _, q := range dashboard.Queries {
		if err := p.sees(observe.Concrete(q.Expr, "5s")); err != nil {
			t.Errorf("dashboard, panel %q: %v", q.Where, err)
		}
	}
	for name, expr := range dashboard.Variables {
		if inner, ok := strings.CutPrefix(expr, "label_values("); ok {
			if err := p.sees(observe.Concrete(inner[:strings.LastIndex(inner, ",")], "5s")); err != nil {
				t.Errorf("dashboard, variable %s: %v", name, err)
			}
		}
	}
	p.exposes(kinds)
	p.moved(kinds)
	p.judges()
	w.consistent()
}

// disturb lets happen what metrics tell of.
func (w *world) disturb(p *prometheus, bin string) {
	w.t.Helper()
	// A client from the beginning; requests that are no WebSocket.
	w.client(0, load.Options{Key: "client-0000", From: "earliest"})
	for range 3 {
		w.get(strings.Replace(w.Routers()[0].URL, "ws://", "http://", 1) + "/v1/ws?key=x")
	}
	// A producer with another partitioner, and one without keys.
	w.place(bin, "crc32")
	w.must(w.producer.Produce(w.ctx, &kgo.Record{Value: []byte("nobody's")}))
	p.fires("PointsmanPartitionerMismatch")

	w.fault("node killed", func() error { return w.KillNode(w.ctx, w.Nodes()[0].ID) })
	_, err := w.AddNode(w.ctx)
	w.must(err)
	p.scrape()
	w.fault("node drained", func() error { return w.DrainNode(w.ctx, w.Nodes()[0].ID) })
	p.scrape()
	w.must(w.StopEtcd(w.ctx))
	w.eventually(20*time.Second, "Prometheus sees that etcd is away", func() error {
		return errors.Join(p.sees("pointsman_router_etcd_away_seconds > 1"), p.sees("pointsman_wsnode_etcd_away_seconds > 1"))
	})
	w.must(w.StartEtcd(w.ctx))
	name := w.target(1).Name
	w.fleet.ExpectEnds(name, true)
	w.fault("router replaced", func() error { return stack.RestartRouter(w.ctx, w, 1) })
	w.fleet.ExpectEnds(name, false)
	p.fires("PointsmanGaps")
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
		// One that has labels only, none of which is known beforehand.
		if !found[n] && n != "pointsman_router_auth_total" {
			p.w.t.Errorf("docs/metrics.md lists %s, and nothing exposes it", n)
		}
	}
}

// moved wants every metric to have moved that the scenario moves.
func (p *prometheus) moved(kinds map[string]string) {
	p.w.t.Helper()
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
			if _, ok := still[n]; ok {
				continue
			}
			if err := p.sees(expr); err != nil {
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
	}
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
