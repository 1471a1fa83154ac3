// Command deployment checks what is in deploy/ against the types that read it and against the programs: it renders the
// kustomization, decodes every object strictly into Kubernetes' own API types, and holds graces, settings, ports,
// probes and selectors against one another and against README's tables of settings; then compose.yaml, haproxy.cfg and the
// systemd units, those by systemd-analyze where there is one.
//
//	go run ./deployment ..
package main

import (
	"fmt"
	"os"
	"slices"
)

func main() {
	root := ".."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	found, err := check(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "deployment:", err)
		os.Exit(2)
	}
	for _, f := range found {
		fmt.Println(f)
	}
	if len(found) > 0 {
		fmt.Printf("deployment: %d wrong\n", len(found))
		os.Exit(1)
	}
}

// check looks at everything in deploy/ of the repository at root.
func check(root string) ([]string, error) {
	settings, err := readSettings(root + "/README.md")
	if err != nil {
		return nil, err
	}
	objects, err := render(root + "/deploy/kubernetes")
	if err != nil {
		return []string{err.Error()}, nil // a field that does not exist, among others
	}
	found := checkObjects(objects, settings)
	composed, err := checkCompose(root+"/deploy/compose.yaml", settings)
	if err != nil {
		return nil, err
	}
	balancer, err := checkBalancer(root + "/deploy/haproxy/haproxy.cfg")
	if err != nil {
		return nil, err
	}
	scrapes, err := checkScrapes(root+"/deploy/prometheus/kubernetes.yml", deploymentsOf(objects))
	if err != nil {
		return nil, err
	}
	units, said, err := checkUnits(root+"/deploy/systemd", settings)
	if err != nil {
		return nil, err
	}
	fmt.Printf("deployment: %d Kubernetes objects, compose.yaml, haproxy.cfg; systemd units %s\n", len(objects), said)
	return slices.Concat(found, composed, balancer, scrapes, units), nil
}
