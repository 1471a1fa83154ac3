package admin

import (
	"context"
	"encoding/json"
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

// Get asks an admin server on addr, as Probe does, and reads its JSON answer, of at most limit bytes, into what into
// points to. An answer other than 200 is an error with what the server says.
func Get(ctx context.Context, addr, path string, limit int64, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(addr)+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	req.Close = true // questions are rare; no connection waits for the next one
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch err = errors.Join(err, resp.Body.Close()); {
	case err != nil:
		return fmt.Errorf("ask %s%s: %w", addr, path, err)
	case int64(len(body)) > limit:
		return fmt.Errorf("ask %s%s: the answer has more than %d bytes", addr, path, limit)
	case resp.StatusCode != http.StatusOK:
		return &StatusError{Addr: addr, Code: resp.StatusCode, Text: reason(body)}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("ask %s%s: the answer is not what this program expects (another program or version?): %w", addr, path, err)
	}
	return nil
}

// StatusError is an answer other than 200.
type StatusError struct {
	Addr string
	Code int
	Text string // what the server said
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s says: %d %s", e.Addr, e.Code, e.Text) }

// reason is the text of a refusal: the error of a JSON answer, else the first line.
func reason(body []byte) string {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		return said.Error
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return line[:min(len(line), 300)]
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
