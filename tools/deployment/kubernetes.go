package main

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// margin is what a grace has over the drain: the last closes, and the way to the process.
const margin = 5 * time.Second

// render builds a kustomization and decodes what comes out strictly: a field that the API does not have is an error.
func render(dir string) ([]runtime.Object, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", dir, err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, policyv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var objects []runtime.Object
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, err
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.GetKind(), r.GetName(), err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// cluster is what was rendered, by kind.
type cluster struct {
	settings    map[string]settings
	deployments []*appsv1.Deployment
	maps        map[string]map[string]string
	found       []string
}

func (c *cluster) say(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

func checkObjects(objects []runtime.Object, all map[string]settings) []string {
	c := &cluster{settings: all, maps: map[string]map[string]string{}}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			c.maps[o.Name] = o.Data
		case *appsv1.Deployment:
			c.deployments = append(c.deployments, o)
		}
	}
	for _, d := range c.deployments {
		c.deployment(d)
	}
	budgets := map[string]int{}
	for _, o := range objects {
		switch o := o.(type) {
		case *policyv1.PodDisruptionBudget:
			if d := c.selected("PodDisruptionBudget "+o.Name, o.Spec.Selector); d != nil {
				budgets[d.Name]++
			}
			if m := o.Spec.MaxUnavailable; m == nil || m.IntValue() < 1 {
				c.say("PodDisruptionBudget %s never lets a pod go", o.Name)
			}
		case *corev1.Service:
			if d := c.selected("Service "+o.Name, &metav1.LabelSelector{MatchLabels: o.Spec.Selector}); d != nil {
				for _, p := range o.Spec.Ports {
					c.port("Service "+o.Name, d, p.TargetPort)
					// A router without nodes is unready: it must get no clients, and its console must be seen.
					if admin := p.TargetPort.String() == "admin"; admin != o.Spec.PublishNotReadyAddresses {
						c.say("Service %s: publishNotReadyAddresses is %v for port %s", o.Name, o.Spec.PublishNotReadyAddresses, p.TargetPort.String())
					}
				}
			}
		case *networkingv1.NetworkPolicy:
			if d := c.selected("NetworkPolicy "+o.Name, &o.Spec.PodSelector); d != nil {
				for _, rule := range o.Spec.Ingress {
					for _, p := range rule.Ports {
						c.port("NetworkPolicy "+o.Name, d, *p.Port)
					}
				}
			}
		}
	}
	for _, d := range c.deployments {
		if budgets[d.Name] != 1 {
			c.say("Deployment %s has %d PodDisruptionBudgets, want one", d.Name, budgets[d.Name])
		}
	}
	for program := range all {
		if !slices.ContainsFunc(c.deployments, func(d *appsv1.Deployment) bool { return container(d) != nil && container(d).Name == program }) {
			c.say("no Deployment runs %s", program)
		}
	}
	slices.Sort(c.found)
	return c.found
}

// deploymentsOf are those that have one container; another check says so of the rest.
func deploymentsOf(objects []runtime.Object) (all []*appsv1.Deployment) {
	for _, o := range objects {
		if d, ok := o.(*appsv1.Deployment); ok && container(d) != nil {
			all = append(all, d)
		}
	}
	return all
}

// selected is the one Deployment whose pods a selector matches.
func (c *cluster) selected(who string, selector *metav1.LabelSelector) *appsv1.Deployment {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		c.say("%s: %v", who, err)
		return nil
	}
	var match []*appsv1.Deployment
	for _, d := range c.deployments {
		if !s.Empty() && s.Matches(labels.Set(d.Spec.Template.Labels)) {
			match = append(match, d)
		}
	}
	if len(match) != 1 {
		c.say("%s selects the pods of %d Deployments, want one", who, len(match))
		return nil
	}
	return match[0]
}

// port demands that a Deployment's container has the port.
func (c *cluster) port(who string, d *appsv1.Deployment, port intstr.IntOrString) string {
	for _, p := range container(d).Ports {
		if n := strconv.Itoa(int(p.ContainerPort)); port.String() == p.Name || port.String() == n {
			return n
		}
	}
	c.say("%s names port %s, which Deployment %s does not have", who, port.String(), d.Name)
	return ""
}

func container(d *appsv1.Deployment) *corev1.Container {
	if len(d.Spec.Template.Spec.Containers) != 1 {
		return nil
	}
	return &d.Spec.Template.Spec.Containers[0]
}

func (c *cluster) deployment(d *appsv1.Deployment) {
	say := func(format string, args ...any) {
		c.say("Deployment %s: %s", d.Name, fmt.Sprintf(format, args...))
	}
	box := container(d)
	if box == nil || c.settings[box.Name] == nil {
		say("want one container, named router or wsnode")
		return
	}
	program := c.settings[box.Name]
	env := map[string]string{}
	for _, from := range box.EnvFrom {
		if from.ConfigMapRef == nil || c.maps[from.ConfigMapRef.Name] == nil {
			say("takes its environment from something that is not there")
			continue
		}
		for name, value := range c.maps[from.ConfigMapRef.Name] {
			env[name] = value
		}
	}
	for _, v := range box.Env {
		env[v.Name] = v.Value
	}
	for _, what := range program.unknown(env) {
		say("%s", what)
	}

	pod := d.Spec.Template.Spec
	drain, err := program.drain(env)
	if err != nil {
		say("%v", err)
	}
	var before time.Duration
	if box.Lifecycle != nil && box.Lifecycle.PreStop != nil && box.Lifecycle.PreStop.Sleep != nil {
		before = time.Duration(box.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || time.Duration(*grace)*time.Second < before+drain+margin {
		say("terminationGracePeriodSeconds is less than preStop (%s), --drain-timeout (%s) and %s", before, drain, margin)
	}
	// Endpoints take seconds to forget a pod.
	if text := program.value(env, "POINTSMAN_DRAIN_DELAY"); text != "" {
		if delay, err := time.ParseDuration(text); err != nil || before+delay < 5*time.Second || delay > drain/2 {
			say("new connections are refused %s after SIGTERM (%v), want 5s at least and half of --drain-timeout (%s) at most", before+delay, err, drain)
		}
	}

	listen, admin := program.value(env, "POINTSMAN_LISTEN"), program.value(env, "POINTSMAN_ADMIN")
	for _, addr := range []string{listen, admin} {
		c.port("POINTSMAN_LISTEN or POINTSMAN_ADMIN "+addr, d, intstr.Parse(portOf(addr)))
	}
	if host, _, err := net.SplitHostPort(admin); err != nil || host == "localhost" || net.ParseIP(host).IsLoopback() {
		say("the admin address %q cannot be reached by probes", admin)
	}
	for name, probe := range map[string]*corev1.Probe{"/readyz": box.ReadinessProbe, "/livez": box.LivenessProbe} {
		switch {
		case probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != name:
			say("no probe asks %s", name)
		case c.port("the probe of "+name, d, probe.HTTPGet.Port) != portOf(admin):
			say("the probe of %s does not ask the admin address %s", name, admin)
		}
	}
	c.rollout(d, say)
	restricted(d, say)
	sized(box, env, say)
}

// rollout: a new pod is ready before an old one is stopped, and pods are spread.
func (c *cluster) rollout(d *appsv1.Deployment, say func(string, ...any)) {
	c.selected("Deployment "+d.Name, d.Spec.Selector)
	r := d.Spec.Strategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil || r.MaxUnavailable.IntValue() != 0 || r.MaxSurge == nil || r.MaxSurge.IntValue() < 1 {
		say("its rolling update stops a pod before the next one is ready")
	}
	spread := d.Spec.Template.Spec.TopologySpreadConstraints
	if len(spread) == 0 {
		say("its pods are not spread")
	}
	for _, s := range spread {
		if c.selected("Deployment "+d.Name+": spread over "+s.TopologyKey, s.LabelSelector) != d {
			say("the spread over %s counts other pods than its own", s.TopologyKey)
		}
	}
}

// restricted: what Kubernetes' restricted profile demands, and a root file system that nobody writes.
func restricted(d *appsv1.Deployment, say func(string, ...any)) {
	pod, box := d.Spec.Template.Spec, container(d)
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	if s := pod.SecurityContext; s == nil || !is(s.RunAsNonRoot, true) || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		say("the pod may run as root, or without a seccomp profile")
	}
	s := box.SecurityContext
	if s == nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
		say("the container keeps privileges, capabilities or a writable file system")
	}
	if !is(pod.AutomountServiceAccountToken, false) {
		say("the pod gets a token that it does not need")
	}
	if !is(pod.EnableServiceLinks, false) {
		say("the cluster's services get into the environment, where names that begin with POINTSMAN_ are settings")
	}
}

// sized: requests, a memory limit, and a garbage collector that knows it.
func sized(box *corev1.Container, env map[string]string, say func(string, ...any)) {
	limit := box.Resources.Limits.Memory().Value()
	if box.Resources.Requests.Cpu().IsZero() || box.Resources.Requests.Memory().IsZero() || limit == 0 {
		say("requests and a memory limit are needed")
		return
	}
	mib := func(name string) int64 {
		n, err := strconv.ParseInt(strings.TrimSuffix(env[name], "MiB"), 10, 64)
		if err != nil {
			say("%s=%s is no number of MiB", name, env[name])
		}
		return n << 20
	}
	if soft := mib("GOMEMLIMIT"); soft >= limit || soft < limit/2 {
		say("GOMEMLIMIT=%s does not fit the memory limit %s", env["GOMEMLIMIT"], box.Resources.Limits.Memory())
	}
	if env["POINTSMAN_RING"] != "" && mib("POINTSMAN_RING") > limit/2 {
		say("the ring takes more than half of the memory limit")
	}
}
