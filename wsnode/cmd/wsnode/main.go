// Command wsnode runs a node: it reads partitions of a Kafka topic and serves their records to routers.
package main

import (
	"os"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/options"
)

// program is the command line. Its zero value is what tests start from.
type program struct {
	Serve       serve       `cmd:"" default:"withargs" help:"Read partitions and serve them to routers (the default)."`
	Healthcheck healthcheck `cmd:"" help:"Ask a running node on this machine whether it is ready; for container health checks."`
	Drain       drain       `cmd:"" help:"Ask a running node on this machine to stop in order."`
	Doctor      doctorCmd   `cmd:"" help:"Examine Kafka, etcd, clocks, records and settings, and say what to do about what is wrong."`
	Produce     produceCmd  `cmd:"" help:"Write records to the topic."`
	Version     version     `cmd:"" help:"Print the version and stop."`
}

func description() options.Program {
	return options.Program{
		Name: "wsnode",
		Summary: "A Pointsman node: a member of a Kafka consumer group that serves the records of its partitions " +
			"to routers.",
		Version: buildinfo.Read().String(),
	}
}

func main() { os.Exit(options.Main(description(), &program{})) }
