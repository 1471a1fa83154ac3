package admin

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Check is one named check's result, as /readyz?format=json gives it.
type Check struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// Readiness is the answer of /readyz?format=json.
type Readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Readiness runs the checks, in the order of their names.
func (s *Server) Readiness() Readiness {
	s.mu.Lock()
	checks := maps.Clone(s.checks)
	s.mu.Unlock()

	all := Readiness{Ready: true, Checks: []Check{}}
	for _, name := range sortedKeys(checks) {
		c := Check{Name: name, Ready: true}
		if err := checks[name](); err != nil {
			c.Ready, c.Reason = false, err.Error()
			all.Ready = false
		}
		all.Checks = append(all.Checks, c)
	}
	return all
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	all := s.Readiness()
	code := http.StatusOK
	if !all.Ready {
		code = http.StatusServiceUnavailable
	}
	if wantsJSON(r) {
		writeJSON(w, code, all)
		return
	}
	var b strings.Builder
	if all.Ready {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	for _, c := range all.Checks {
		if c.Ready {
			fmt.Fprintf(&b, "%s: ok\n", c.Name)
		} else {
			fmt.Fprintf(&b, "%s: %s\n", c.Name, c.Reason)
		}
	}
	writeText(w, code, b.String())
}

func (s *Server) serveVars(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	dumps := maps.Clone(s.dumps)
	s.mu.Unlock()
	out := make(map[string]any, len(dumps))
	for name, dump := range dumps {
		out[name] = dump()
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) serveVar(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	dump, ok := s.dumps[r.PathValue("name")]
	names := sortedKeys(s.dumps)
	s.mu.Unlock()
	if !ok {
		writeText(w, http.StatusNotFound, fmt.Sprintf("no dump of that name; there are: %s\n", strings.Join(names, ", ")))
		return
	}
	writeJSON(w, http.StatusOK, dump())
}

// serveIndex lists what there is, where the program has no page of its own at "/".
func (s *Server) serveIndex(w http.ResponseWriter) {
	s.mu.Lock()
	paths := slices.Clone(s.patterns)
	s.mu.Unlock()
	paths = append(paths, "/metrics", "/livez", "/readyz", "/debug/vars", "/debug/pprof/")
	slices.Sort(paths)
	writeText(w, http.StatusOK, fmt.Sprintf("%s %s\n\n%s\n", s.cfg.Namespace, s.cfg.Build, strings.Join(paths, "\n")))
}

func wantsJSON(r *http.Request) bool {
	return r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		writeText(w, http.StatusInternalServerError, fmt.Sprintf("encode: %v\n", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

// compressAbove is the size from which an answer is worth compressing.
const compressAbove = 8 << 10

// Answer writes v as JSON on one line, compressed when it is large and the asker takes that.
func Answer(w http.ResponseWriter, r *http.Request, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeText(w, http.StatusInternalServerError, fmt.Sprintf("encode: %v\n", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if len(body) < compressAbove || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.WriteHeader(code)
		_, _ = w.Write(append(body, '\n'))
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(code)
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return // the level is a constant that exists
	}
	_, _ = z.Write(body) // whoever does not read the answer does not get it
	_ = z.Close()
}
