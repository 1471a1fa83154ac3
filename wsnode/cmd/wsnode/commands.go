package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/buildinfo"
	"github.com/pointsmanhq/pointsman/pkg/options"
)

// healthcheck asks the node's admin server.
type healthcheck struct {
	Admin   string        `default:"127.0.0.1:9081" placeholder:"ADDR" help:"The node's address for operators."`
	Live    bool          `help:"Ask only whether it lives, not whether it is ready."`
	Timeout time.Duration `default:"3s" placeholder:"DURATION" help:"How long to wait for the answer."`
}

// Run asks once.
func (h *healthcheck) Run(ctx context.Context, env options.Env) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	path := "/readyz"
	if h.Live {
		path = "/livez"
	}
	if err := admin.Probe(ctx, h.Admin, path); err != nil {
		return err
	}
	_, err := fmt.Fprintln(env.Stdout, "ok")
	return err
}

// drain asks the node's admin server to stop the node in order.
type drain struct {
	Admin   string        `default:"127.0.0.1:9081" placeholder:"ADDR" help:"The node's address for operators."`
	Wait    bool          `help:"Wait until the node has gone."`
	Timeout time.Duration `default:"60s" placeholder:"DURATION" help:"How long to wait."`
}

// Run asks once.
func (d *drain) Run(ctx context.Context, env options.Env) error {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.Admin+"/drain", nil)
	if err != nil {
		return &options.UsageError{Err: fmt.Errorf("--admin: %w", err)}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the node to drain: %w", err)
	}
	_, err = io.Copy(env.Stdout, io.LimitReader(resp.Body, 4096))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("ask the node to drain: %w", err)
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("ask the node to drain: %s", resp.Status)
	}
	if !d.Wait {
		return nil
	}
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for admin.Probe(ctx, d.Admin, "/livez") == nil {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("the node still runs after %s", d.Timeout)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the node still runs after %s", d.Timeout)
	}
	return nil
}

// version prints the build.
type version struct{}

// Run prints one line.
func (version) Run(_ context.Context, env options.Env) error {
	_, err := fmt.Fprintln(env.Stdout, "wsnode", buildinfo.Read())
	return err
}
