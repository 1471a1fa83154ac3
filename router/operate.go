package router

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/console"
	"github.com/pointsmanhq/pointsman/pkg/overview"

	"github.com/pointsmanhq/pointsman/router/internal/metrics"
)

// operate gives the admin server its checks, dumps and the JSON API.
func (r *Router) operate() {
	console.Add(r.admin.Handle)
	r.admin.Ready("router", r.Unready)
	r.admin.Vars("table", func() any { return r.hub.Dump() })
	r.admin.Vars("nodes", func() any { return r.hub.Nodes(r.pool.State) })
	r.admin.Vars("consistency", func() any { return r.hub.Consistency() })
	r.admin.Vars("etcd", func() any {
		err, since := r.etcd.Health()
		dump := map[string]any{"stats": r.etcd.Stats()}
		if err != nil {
			dump["error"], dump["since"] = err.Error(), since
		}
		return dump
	})
	if r.tokens != nil {
		r.admin.Vars("auth", func() any { return r.tokens.State() })
	}
	r.admin.Vars("router", func() any {
		return map[string]any{
			"id": r.cfg.ID, "topic": r.cfg.Topic, "addr": r.Addr(), "version": r.cfg.Version,
			"sessions": r.hub.Sessions(), "waiting": r.hub.Waiting(), "handovers_pending": r.hub.Pending(),
			"draining": r.draining.Load(),
		}
	})
	r.admin.HandleFunc("GET "+overview.Path, r.serveStatus)
	r.admin.HandleFunc("GET /api/v1/assignments", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, r.hub.Assignments())
	})
	r.admin.HandleFunc("GET /api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, r.hub.Nodes(r.pool.State))
	})
	r.admin.HandleFunc("GET /api/v1/where", r.where)
}

func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // whoever does not read the answer does not get it
}

// gauges are what the metrics read when they are asked; none is called before New is over.
func (r *Router) gauges() metrics.Gauges {
	return metrics.Gauges{
		Sessions:   func() float64 { return float64(r.hub.Sessions()) },
		Keys:       func() float64 { return float64(r.hub.Keys()) },
		Waiting:    func() float64 { return float64(r.hub.Waiting()) },
		Pending:    func() float64 { return float64(r.hub.Pending()) },
		Queued:     func() float64 { return float64(r.hub.Queued()) },
		Full:       func() float64 { return float64(r.hub.Full()) },
		Paced:      func() float64 { return float64(r.hub.Paced()) },
		Nodes:      func() float64 { return float64(r.hub.NodesListed()) },
		LinksUp:    func() float64 { return float64(r.hub.LinksUp()) },
		Partitions: func() float64 { all, _, _ := r.hub.Served(); return float64(all) },
		StoodIn:    func() float64 { _, stoodIn, _ := r.hub.Served(); return float64(stoodIn) },
		Unserved:   func() float64 { _, _, unserved := r.hub.Served(); return float64(unserved) },
		Draining: func() float64 {
			if r.draining.Load() {
				return 1
			}
			return 0
		},
		Streams:       func() float64 { return float64(r.hub.Streams()) },
		TableRevision: func() float64 { return float64(r.hub.Table().Revision) },
		TableAge: func() float64 {
			at := r.hub.Table().At
			if at.IsZero() {
				return 0
			}
			return time.Since(at).Seconds()
		},
		EtcdAway: func() float64 {
			err, since := r.etcd.Health()
			if err == nil || since.IsZero() {
				return 0
			}
			return time.Since(since).Seconds()
		},
		LinkDials:    func() float64 { return float64(r.pool.Stats().Dials) },
		LinkFailures: func() float64 { return float64(r.pool.Stats().Failures) },
		Malformed:    func() float64 { return float64(r.etcd.Stats().MalformedValues) },
	}
}
