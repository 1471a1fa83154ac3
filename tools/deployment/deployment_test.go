package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// repository copies deploy/ and README.md, so that a test can damage them.
func repository(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "deploy", "kubernetes"), os.DirFS("../../deploy/kubernetes")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "deploy", "systemd"), os.DirFS("../../deploy/systemd")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "deploy", "haproxy"), os.DirFS("../../deploy/haproxy")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "deploy", "prometheus"), os.DirFS("../../deploy/prometheus")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "deploy/compose.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestWhatIsWrongIsFound damages one thing at a time; nothing is wrong before that.
func TestWhatIsWrongIsFound(t *testing.T) {
	found, err := check(repository(t))
	if err != nil || len(found) > 0 {
		t.Fatalf("deploy/ as it is: %v %q", err, found)
	}
	const router, wsnode, network, scrapes = "deploy/kubernetes/router.yaml", "deploy/kubernetes/wsnode.yaml", "deploy/kubernetes/network.yaml", "deploy/prometheus/kubernetes.yml"
	tests := []struct{ name, file, from, to, want string }{
		{"a misspelt field", router, "terminationGracePeriodSeconds:", "terminationGracePeriodSecond:", `unknown field "spec.template.spec.terminationGracePeriodSecond"`},
		{"a misspelt field deep inside", wsnode, "readOnlyRootFilesystem:", "readonlyRootFilesystem:", `unknown field "spec.template.spec.containers[0].securityContext.readonlyRootFilesystem"`},
		{"a misspelt field of the kustomization", "deploy/kubernetes/kustomization.yaml", "configMapGenerator:", "configMapGenerators:", "configMapGenerators"},
		{"a kind of another group", router, "apiVersion: policy/v1", "apiVersion: policy/v1beta1", "no kind"},
		{"a field given twice", router, "minReadySeconds: 5", "minReadySeconds: 5\n  minReadySeconds: 6", "minReadySeconds"},
		{"a grace below the drain", "deploy/kubernetes/kustomization.yaml", "POINTSMAN_DRAIN_TIMEOUT=60s", "POINTSMAN_DRAIN_TIMEOUT=90s", "terminationGracePeriodSeconds is less than"},
		{"a grace below preStop and drain", router, "          ports:\n", "          lifecycle: {preStop: {sleep: {seconds: 10}}}\n          ports:\n", "preStop (10s)"},
		{"a router that refuses too early", "deploy/kubernetes/kustomization.yaml", "POINTSMAN_DRAIN_DELAY=10s", "POINTSMAN_DRAIN_DELAY=2s", "new connections are refused 2s after SIGTERM"},
		{"a setting that does not exist", "deploy/kubernetes/kustomization.yaml", "POINTSMAN_RING=", "POINTSMAN_RINGS=", "sets POINTSMAN_RINGS"},
		{"a setting that is needed", "deploy/kubernetes/kustomization.yaml", "      - POINTSMAN_TOPIC=records\n      - POINTSMAN_KAFKA", "      - POINTSMAN_KAFKA", "lacks POINTSMAN_TOPIC"},
		{"a probe of another path", wsnode, "path: /readyz", "path: /ready", "no probe asks /readyz"},
		{"a probe of another port", wsnode, "httpGet: {path: /readyz, port: admin}", "httpGet: {path: /readyz, port: links}", "does not ask the admin address"},
		{"an admin address that probes cannot reach", wsnode, `value: ":9081"`, `value: "127.0.0.1:9081"`, "cannot be reached by probes"},
		{"a port that the container does not have", wsnode, "containerPort: 9080", "containerPort: 9090", "names port 9080"},
		{"a budget for nobody", wsnode, "kind: PodDisruptionBudget\nmetadata:\n  name: pointsman-wsnode\nspec:\n  maxUnavailable: 1\n  unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels: {app.kubernetes.io/name: pointsman-wsnode}", "kind: PodDisruptionBudget\nmetadata:\n  name: pointsman-wsnode\nspec:\n  maxUnavailable: 1\n  unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels: {app.kubernetes.io/name: wsnode}", "selects the pods of 0 Deployments"},
		{"a rollout that stops pods first", wsnode, "maxUnavailable: 0", "maxUnavailable: 1", "stops a pod before"},
		{"root", router, "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"},
		{"a garbage collector beyond the limit", router, "value: 900MiB", "value: 1100MiB", "GOMEMLIMIT"},
		{"a policy for another port", network, "- {port: links}", "- {port: link}", "names port link"},
		{"a console that hides with the last node", router, "  publishNotReadyAddresses: true", "  publishNotReadyAddresses: false", "Service pointsman-router-admin: publishNotReadyAddresses"},
		{"clients for routers that are unready", router, "  type: LoadBalancer", "  publishNotReadyAddresses: true\n  type: LoadBalancer", "Service pointsman-router: publishNotReadyAddresses"},
		{"a balancer that hides the console", "deploy/haproxy/haproxy.cfg", "backend consoles\n    option httpchk GET /livez", "backend consoles\n    option httpchk GET /readyz", "backend consoles"},
		{"a balancer that turns clients away while no node lives", "deploy/haproxy/haproxy.cfg", "backend unready\n    option httpchk GET /livez", "backend unready\n    option httpchk GET /readyz", "backend unready"},
		{"a balancer that sends clients to unready routers", "deploy/haproxy/haproxy.cfg", "    option httpchk GET /readyz\n", "", "backend routers"},
		{"a job that no alert names", scrapes, "regex: pointsman-(.+)", "regex: (.+)", `scraped as job "pointsman-router"`},
		{"pods that nobody scrapes", scrapes, "regex: pointsman-(router|wsnode);admin", "regex: pointsman-router;admin", "port admin of Deployment pointsman-wsnode: scraped false"},
		{"a port that has no metrics", scrapes, "(router|wsnode);admin", "(router|wsnode);.*", "port clients of Deployment pointsman-router: scraped true"},
		{"a misspelt field of the scrape configuration", scrapes, "target_label: job", "target_labels: job", "target_labels"},
		{"compose's grace", "deploy/compose.yaml", "stop_grace_period: 40s", "stop_grace_period: 30s", "stop_grace_period"},
		{"compose's settings", "deploy/compose.yaml", "POINTSMAN_KAFKA: kafka:9092", "POINTSMAN_BROKERS: kafka:9092", "sets POINTSMAN_BROKERS"},
		{"systemd's grace", "deploy/systemd/pointsman-router.service", "TimeoutStopSec=45", "TimeoutStopSec=30", "TimeoutStopSec"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := repository(t)
			path := filepath.Join(root, tt.file)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(data), tt.from) {
				t.Fatalf("%s does not contain %q", tt.file, tt.from)
			}
			if err := os.WriteFile(path, []byte(strings.Replace(string(data), tt.from, tt.to, 1)), 0o644); err != nil {
				t.Fatal(err)
			}
			found, err := check(root)
			if err != nil || !strings.Contains(strings.Join(found, "\n"), tt.want) {
				t.Errorf("got %v %q, want a finding with %q", err, found, tt.want)
			}
		})
	}
}
