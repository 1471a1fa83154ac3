package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Probe asks an admin server on addr for path ("/readyz" or "/livez") and returns nil on 200, else an error
// that carries the answer's text. It is what `healthcheck` does inside a container image that has no curl.
// addr is what the server was told to listen on: ":8081" and "0.0.0.0:8081" mean this machine.
func Probe(ctx context.Context, addr, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(addr)+path, nil)
	if err != nil {
		return fmt.Errorf("probe %s%s: %w", addr, path, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("probe %s%s: %w", addr, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		reasons := strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; ")
		return fmt.Errorf("probe %s%s: %s: %s", addr, path, resp.Status, reasons)
	}
	return nil
}

// local gives an address that can be dialled for one that was listened on.
func local(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		if ip != nil && ip.To4() == nil {
			host = "::1"
		} else {
			host = "127.0.0.1"
		}
	}
	return net.JoinHostPort(host, port)
}
