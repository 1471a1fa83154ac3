// Package command is the command line of cmd/designs: one command for each part of each design.
package command

import (
	"context"

	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/options"

	"github.com/pointsmanhq/pointsman/integration/designs/everyone"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
)

// Parts are the commands that run one process of a design.
type Parts struct {
	Everyone everyoneCmd `cmd:"" help:"A server that reads the whole topic and keeps its clients' sockets."`
}

// Description is for --help.
func Description() options.Program {
	return options.Program{
		Name:    "designs",
		Summary: "The other ways to bring a Kafka topic to WebSocket clients, to be compared with Pointsman.",
		Version: buildinfo.Read().String(),
	}
}

type everyoneCmd struct {
	program.Options `embed:""`
	Listen          string `default:"127.0.0.1:8080" placeholder:"ADDR" group:"Clients" help:"Address for clients."`
}

// Run runs a server of the design.
func (c *everyoneCmd) Run(ctx context.Context, env options.Env) error {
	return c.Options.Run(ctx, env, func(b program.Base) (program.Part, error) { return everyone.New(b, c.Listen) })
}
