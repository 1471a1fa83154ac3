package redistributor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

const (
	forwardPath    = "/v1/forward"
	instanceHeader = "Pointsman-Instance"
)

// httpSender posts bundles over connections that stay open.
type httpSender struct{ client *http.Client }

// NewHTTPSender makes one.
func NewHTTPSender() Sender {
	return &httpSender{&http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return nonblock.Wrap(c), nil
			},
			MaxIdleConnsPerHost: 2, WriteBufferSize: 64 << 10, DisableCompression: true,
		},
	}}
}

func (s *httpSender) Send(ctx context.Context, to Place, bundle []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+to.Addr+forwardPath, bytes.NewReader(bundle))
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	// An address may have another process behind it by now.
	req.Header.Set(instanceHeader, to.Instance)
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // for the message, and so that the connection is kept
	switch resp.StatusCode {
	case http.StatusNoContent:
		return nil
	case http.StatusGone:
		return ErrGone
	}
	return fmt.Errorf("forward: %s: %s", resp.Status, said)
}

func (s *httpSender) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// httpReceiver takes bundles on the server's own address.
type httpReceiver struct{ instance string }

// NewHTTPReceiver makes one for a process.
func NewHTTPReceiver(instance string) Receiver { return &httpReceiver{instance} }

func (h *httpReceiver) Mount(mux *http.ServeMux, take func([]byte) error) {
	mux.HandleFunc("POST "+forwardPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(instanceHeader) != h.instance {
			http.Error(w, "that process is gone", http.StatusGone)
			return
		}
		buf := bytes.NewBuffer(make([]byte, 0, max(0, min(r.ContentLength, 2*laneBytes))+bytes.MinRead))
		_, err := buf.ReadFrom(r.Body)
		if err == nil {
			err = take(buf.Bytes())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (h *httpReceiver) Run(ctx context.Context, _ func([]byte) error) error {
	<-ctx.Done()
	return nil
}
