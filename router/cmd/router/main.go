// Command router runs a router: clients connect to it, and it carries each to the node that owns its partition.
package main

import (
	"os"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/options"
)

// program is the command line. Its zero value is what tests start from.
type program struct {
	Serve       serve       `cmd:"" default:"withargs" help:"Carry clients to the nodes that own their partitions (the default)."`
	Status      status      `cmd:"" help:"Show who serves what, and how far behind: nodes, routers, partitions, handovers."`
	Where       where       `cmd:"" help:"Tell which node serves a key and why, and which sessions a router has for it."`
	Tail        tail        `cmd:"" help:"Print the records of a key as they come."`
	Healthcheck healthcheck `cmd:"" help:"Ask a running router on this machine whether it is ready; for container health checks."`
	Version     version     `cmd:"" help:"Print the version and stop."`
}

func description() options.Program {
	return options.Program{
		Name: "router",
		Summary: "A Pointsman router: WebSocket clients connect to it and receive the records of their key, " +
			"whichever node reads them.",
		Version: buildinfo.Read().String(),
	}
}

func main() { os.Exit(options.Main(description(), &program{})) }
