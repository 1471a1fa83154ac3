// Command playground runs a whole Pointsman on this machine, with a page on which nodes are killed, frozen and
// drained while live clients watch that nothing breaks.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/integration/playground"
)

// program is the command line.
type program struct {
	Listen string `placeholder:"ADDR" group:"Page" help:"Loopback address of the page; without it 127.0.0.1:8000, or a free port if that is in use."`

	Kafka      []string `placeholder:"HOST:PORT" group:"Over real ones" help:"Brokers of a Kafka that runs already; the topic is created if it is absent. Without it a Kafka runs inside this program."`
	Etcd       []string `placeholder:"HOST:PORT" group:"Over real ones" help:"Endpoints of an etcd that runs already. Without it one runs inside this program."`
	Topic      string   `placeholder:"NAME" group:"Over real ones" help:"Topic; without it records, or pointsman-playground in a Kafka that runs already."`
	EtcdPrefix string   `default:"/pointsman" placeholder:"PREFIX" group:"Over real ones" help:"Where keys begin in etcd."`

	Routers    int     `default:"2" placeholder:"N" group:"Size" help:"Routers."`
	Nodes      int     `default:"3" placeholder:"N" group:"Size" help:"Nodes at the start."`
	Partitions int32   `default:"32" placeholder:"N" group:"Size" help:"Partitions of a topic that is created."`
	Clients    int     `default:"48" placeholder:"N" group:"Size" help:"Clients on the page, each with a key of its own."`
	Rate       float64 `default:"4" placeholder:"N" group:"Size" help:"Records a second for each client."`

	Bin       string `placeholder:"DIR" group:"Processes" help:"Folder with router and wsnode; without it, that of this program."`
	Dir       string `placeholder:"DIR" group:"Processes" help:"Folder for logs and data; without it a temporary one that is removed at the end."`
	FreePorts bool   `group:"Processes" help:"Take any free ports instead of 8080, 8081, 9092 and 2379, which the README's commands name."`
}

// Run runs the playground until ctx ends.
func (p *program) Run(ctx context.Context, env options.Env) error {
	for _, w := range env.Warnings {
		fmt.Fprintf(env.Stderr, "playground: %s\n", w)
	}
	bin := p.Bin
	if bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program's folder: %w", err)
		}
		bin = filepath.Dir(exe)
	}
	cfg := playground.Config{
		Listen: p.Listen, Bin: bin, Dir: p.Dir, Kafka: p.Kafka, Etcd: p.Etcd, Topic: p.Topic, EtcdPrefix: p.EtcdPrefix,
		Routers: p.Routers, Nodes: p.Nodes, Partitions: p.Partitions, Clients: p.Clients, Rate: p.Rate,
		FreePorts: p.FreePorts, Out: env.Stdout, Err: env.Stderr,
	}
	if err := cfg.Check(); err != nil {
		return &options.UsageError{Err: err}
	}
	return playground.Run(ctx, cfg)
}

func main() {
	os.Exit(options.Main(options.Program{
		Name: "playground",
		Summary: "A whole Pointsman on this machine: routers and nodes as processes, a producer, and a page with live " +
			"clients and buttons that kill, freeze and drain.",
		Version: buildinfo.Read().String(),
	}, &program{}))
}
