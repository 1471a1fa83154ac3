package arena

import (
	"fmt"
	"strings"
)

// Design is one of those that are compared.
type Design struct {
	Name  string
	Title string // for tables
	Says  string // one sentence
	Parts string // what has to be run beside Kafka
	// Others is how many routers or redistributors it has by default beside so many servers; nil when it has none.
	Others func(servers int) int
	// Cache says that it needs a Redis.
	Cache bool

	other   string // the role of the others
	owning  string // the role that shares the partitions
	args    func(role string, o *Options) []string
	product bool
}

func redistributors(where, forward, title string) *Design {
	parts := "servers, redistributors, Redis"
	if where == "backchannel" {
		parts = "servers, redistributors, a compacted topic"
	}
	if forward == "kafka" {
		parts += ", a topic for each server"
	}
	return &Design{
		Name: "redistributor-" + where + "-" + forward, Title: "redistributors: " + title,
		Says:   "Servers keep sockets, redistributors read the topic and forward; clients are found by " + title + ".",
		Others: oneForTwo, other: Redistributor, owning: Redistributor, Cache: where == "cache", Parts: parts,
		args: func(role string, o *Options) []string {
			name := "redistributor"
			if role == Server {
				name = "redistributor-server"
			}
			return []string{name, "--where=" + where, "--forward=" + forward, "--redis=" + o.Redis}
		},
	}
}

// Designs lists all, in the order of the issue that they settle: what is simplest comes first.
func Designs() []*Design {
	return []*Design{
		{
			Name: "everyone", Title: "everybody reads everything",
			Says: "Every server reads the whole topic; any client on any server.", Parts: "servers",
			args: func(string, *Options) []string { return []string{"everyone"} },
		},
		{
			Name: "plainrouter", Title: "plain router",
			Says:   "Servers share the partitions; routers proxy each client to the owner of its key.",
			Parts:  "servers, routers, etcd",
			Others: oneForTwo, other: Router, owning: Server,
			args: func(role string, o *Options) []string {
				name := "plainrouter-node"
				if role == Router {
					name = "plainrouter-router"
				}
				return []string{name, "--etcd=" + strings.Join(o.Etcd, ",")}
			},
		},
		redistributors("cache", "http", "cache, HTTP"),
		redistributors("cache", "kafka", "cache, Kafka"),
		redistributors("backchannel", "http", "backchannel, HTTP"),
		redistributors("backchannel", "kafka", "backchannel, Kafka"),
		{
			Name: "pointsman", Title: "Pointsman", Says: "Nodes share the partitions; routers keep the sockets and move streams between nodes.",
			Others: oneForTwo, other: Router, product: true, Parts: "nodes, routers, etcd",
		},
	}
}

// oneForTwo is how many routers or redistributors stand beside so many servers: they do less than half the work.
func oneForTwo(servers int) int { return max(1, servers/2) }

// routerClients is the most clients that one router is given: a process may have 20,000 files, and a proxy opens two for
// each client.
const routerClients = 8_000

// OthersFor is how many routers or redistributors it has beside so many servers with so many clients.
func (d *Design) OthersFor(servers, clients int) int {
	if d.Others == nil {
		return 0
	}
	n := d.Others(servers)
	if !d.EntersServers() {
		n = max(n, (clients+routerClients-1)/routerClients)
	}
	return n
}

// Names lists the names.
func Names() []string {
	var out []string
	for _, d := range Designs() {
		out = append(out, d.Name)
	}
	return out
}

// Find finds a design by its name.
func Find(name string) (*Design, error) {
	for _, d := range Designs() {
		if d.Name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("there is no design %q; there are %s", name, strings.Join(Names(), ", "))
}

func (d *Design) listens(role string) bool { return role != Redistributor }

func (d *Design) readsKafka(role string) bool { return role != Router }

// Reader is the role that reads the topic.
func (d *Design) Reader() string {
	if d.owning != "" {
		return d.owning
	}
	return Server
}

// Shares reports whether those who read the topic share its partitions.
func (d *Design) Shares() bool { return d.owning != "" || d.product }

// Other is the role of its routers or redistributors, empty when it has none.
func (d *Design) Other() string { return d.other }

// EntersServers reports whether clients connect to the servers themselves.
func (d *Design) EntersServers() bool { return d.other != Router }
