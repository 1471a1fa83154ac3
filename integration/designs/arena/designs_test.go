package arena_test

import (
	"testing"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
)

// TestNoRouterHasMoreClientsThanFiles counts the descriptors of the largest comparison.
func TestNoRouterHasMoreClientsThanFiles(t *testing.T) {
	const files, spare = 20_000, 500 // of a process, and what it needs beside clients
	for _, d := range arena.Designs() {
		for _, servers := range []int{1, 2, 4, 8} {
			for _, clients := range []int{1, 1000, 10_000} {
				others := d.OthersFor(servers, clients)
				if d.EntersServers() {
					if want := 0; d.Others != nil && others != d.Others(servers) || d.Others == nil && others != want {
						t.Errorf("%s: %d others beside %d servers with %d clients", d.Name, others, servers, clients)
					}
					continue
				}
				if each := (clients + others - 1) / others; 2*each > files-spare {
					t.Errorf("%s: %d routers beside %d servers: each has %d clients", d.Name, others, servers, each)
				}
			}
		}
	}
	d, err := arena.Find("plainrouter")
	if err != nil {
		t.Fatal(err)
	}
	if few, many := d.OthersFor(1, 1000), d.OthersFor(1, 10_000); few != 1 || many != 2 {
		t.Errorf("%d routers for 1,000 clients and %d for 10,000, want 1 and 2", few, many)
	}
}
