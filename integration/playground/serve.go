package playground

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/partitioner"
)

// page is what a browser gets: plain HTML, CSS and ES modules, nothing from anywhere else.
//
//go:embed page
var page embed.FS

const (
	// pushEvery is how often a page hears how far the producer is; changes of the stack reach it at once.
	pushEvery = 250 * time.Millisecond
	// pushTime is how long a page may take to read what it was sent.
	pushTime = 10 * time.Second
	maxBody  = 4 << 10
	closeFor = 2 * time.Second
)

// about is what a page is told once.
type about struct {
	Run        string   `json:"run"`
	Topic      string   `json:"topic"`
	Kafka      []string `json:"kafka"`
	Etcd       []string `json:"etcd"`
	EtcdPrefix string   `json:"etcd_prefix"`
	External   bool     `json:"external"`
	Keys       []key    `json:"keys"`
	Partitions int32    `json:"partitions"`
	Rate       float64  `json:"rate"`
	MaxNodes   int      `json:"max_nodes"`
	Commands   []hint   `json:"commands"`
}

type key struct {
	Key       string `json:"key"`
	Partition int32  `json:"partition"`
}

// push is what a page is told again and again.
type push struct {
	snapshot
	progress
	Now int64 `json:"now"` // ms since the epoch
}

// serve runs producer, watch and page until ctx ends or one of them cannot go on.
func (p *Playground) serve(ctx context.Context, listener net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	handler, err := p.handler(ctx)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // streams of events end with it
	}
	done := make(chan error, 2)
	go func() { done <- p.producer.produce(ctx) }()
	go func() { p.watch(ctx); done <- nil }()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	var failed error
	waiting := cap(done)
	select {
	case <-ctx.Done():
	case failed = <-done:
		waiting--
	case failed = <-served:
		served <- failed
	}
	stop(failed)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeFor)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		_ = server.Close() // a page that does not read is cut off
	}
	for range waiting {
		failed = errors.Join(failed, <-done)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		failed = errors.Join(failed, fmt.Errorf("serve the page: %w", err))
	}
	p.actions.Wait()
	return failed
}

func (p *Playground) handler(ctx context.Context) (http.Handler, error) {
	files, err := fs.Sub(page, "page")
	if err != nil {
		return nil, err
	}
	about, err := p.about()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /api/events", func(w http.ResponseWriter, r *http.Request) { p.events(w, r, about) })
	mux.HandleFunc("POST /api/actions", func(w http.ResponseWriter, r *http.Request) { p.press(ctx, w, r) })
	return guard(mux), nil
}

// guard keeps other people's pages away: they may neither press buttons nor read what happens.
func guard(next http.Handler) http.Handler {
	next = http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A name that was made to resolve to 127.0.0.1 would otherwise share our origin.
		if !loopback(r.Host) {
			http.Error(w, "call the page by its loopback address", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self' ws://127.0.0.1:*; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (p *Playground) about() (about, error) {
	keys, err := keysOf(p.producer.keys, p.stack.Partitions())
	return about{
		Run: p.producer.run, Topic: p.stack.Topic(), Kafka: p.stack.Kafka(), Etcd: p.stack.Etcd(),
		EtcdPrefix: p.stack.EtcdPrefix(), External: p.cfg.external(), Keys: keys, Partitions: p.stack.Partitions(),
		Rate: p.producer.rate, MaxNodes: maxNodes, Commands: p.commands(),
	}, err
}

func keysOf(names []string, partitions int32) ([]key, error) {
	murmur2, err := partitioner.New("murmur2")
	if err != nil {
		return nil, err
	}
	var keys []key
	for _, name := range names {
		keys = append(keys, key{Key: name, Partition: murmur2.Partition([]byte(name), partitions)})
	}
	return keys, nil
}

// press answers a button.
func (p *Playground) press(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	var req struct {
		Kind   kind   `json:"kind"`
		Target string `json:"target"`
	}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(&req); err != nil {
		http.Error(w, `want {"kind":"...","target":"..."}`, http.StatusBadRequest)
		return
	}
	if !isButton(req.Kind) {
		http.Error(w, fmt.Sprintf("there is no button %q; there are: %q", req.Kind, buttons()), http.StatusBadRequest)
		return
	}
	if ctx.Err() != nil {
		http.Error(w, "the playground is stopping", http.StatusServiceUnavailable)
		return
	}
	// Not the request's context: what was begun goes on when the page is closed.
	switch err := p.act(ctx, req.Kind, req.Target); {
	case errors.Is(err, errUnfit):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// events streams the world to one page until it goes away.
func (p *Playground) events(w http.ResponseWriter, r *http.Request, about about) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	send := func(name string, v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := out.SetWriteDeadline(time.Now().Add(pushTime)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data); err != nil {
			return err
		}
		return out.Flush()
	}
	if send("about", about) != nil {
		return
	}
	ticker := time.NewTicker(pushEvery)
	defer ticker.Stop()
	for {
		now, changed := p.world.look()
		if send("state", push{snapshot: now, progress: p.producer.progress(), Now: time.Now().UnixMilli()}) != nil {
			return // the page is gone
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}
