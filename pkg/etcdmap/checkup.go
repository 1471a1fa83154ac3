package etcdmap

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// Look reads the map once, for those who do not follow it.
func (m *Map) Look(ctx context.Context) (*Picture, error) {
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var snap snapshot
	err = m.try(ctx, reading, func(ctx context.Context) (err error) {
		snap, err = m.store.list(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	events := make([]event, 0, len(snap.entries))
	for _, e := range snap.entries {
		events = append(events, event{entry: e})
	}
	empty := &Picture{Nodes: map[string]directory.Node{}, Claims: map[int32]directory.Claim{}}
	pic, _ := empty.with(m.keys, events, m.malformed.note)
	pic.Revision, pic.ClusterID, pic.At = snap.revision, snap.clusterID, time.Now()
	return pic, nil
}

// TryWriting finds out whether etcd takes writes, by a lease that it grants and takes back. An etcd that is full, or
// that does not let this user write, answers reads as always.
func (m *Map) TryWriting(ctx context.Context) error {
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return m.try(ctx, writing, func(ctx context.Context) error {
		lease, err := m.store.grant(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		return m.store.revoke(ctx, lease)
	})
}

// Clock asks one endpoint for its time, which it tells to about a second, and says how far it is ahead of ours.
func Clock(ctx context.Context, cfg Config, endpoint string) (ahead time.Duration, err error) {
	scheme := "http://"
	if cfg.TLS != nil {
		scheme = "https://"
	}
	if _, rest, ok := strings.Cut(endpoint, "://"); ok {
		endpoint = rest
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+strings.TrimSuffix(endpoint, "/")+"/version", nil)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its time: %w", endpoint, err)
	}
	req.Close = true
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.TLS, DisableKeepAlives: true}}
	sent := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its time: %w", endpoint, err)
	}
	_ = resp.Body.Close()
	middle := sent.Add(time.Since(sent) / 2)
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, errors.New("etcd did not tell its time")
	}
	// The header has whole seconds, rounded down.
	return at.Add(500 * time.Millisecond).Sub(middle), nil
}
