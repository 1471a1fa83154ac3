package procs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Poll calls try every interval until it returns nil, and returns its last error with ctx's cause when ctx ends
// first.
func Poll(ctx context.Context, every time.Duration, try func() error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// WaitTCP returns when addr accepts connections, or with an error as soon as the process has gone.
func (p *Process) WaitTCP(ctx context.Context, addr string) error {
	return p.wait(ctx, func() error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// WaitHTTP returns when GET url answers 200, or with an error as soon as the process has gone.
func (p *Process) WaitHTTP(ctx context.Context, url string) error {
	return p.wait(ctx, func() error { return CheckHTTP(ctx, url) })
}

func (p *Process) wait(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-p.done:
			cancel(fmt.Errorf("%s ended with %v", p.spec.Name, p.state))
		case <-stop:
		}
	}()
	err := Poll(ctx, 20*time.Millisecond, ready)
	close(stop)
	<-watching
	if err != nil {
		return fmt.Errorf("wait for %s: %w. It said last:\n%s", p.spec.Name, err, p.Tail(15))
	}
	return nil
}

// CheckHTTP is nil when GET url answers 200; the error carries the start of another answer's body.
func CheckHTTP(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only adds to the error's text
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return nil
}
