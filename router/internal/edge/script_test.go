package edge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/router/internal/edge"
)

func TestClientScriptIsServedToPagesThatMayConnect(t *testing.T) {
	s := serve(t, func(cfg *edge.Config) { cfg.Origins = []string{"https://*.example.com"} })
	s.edge.Refuse() // a router that stops still has the file
	plain := func(origin string) http.Header {
		h := http.Header{"Connection": nil, "Upgrade": nil, "Sec-Websocket-Version": nil, "Sec-Websocket-Key": nil}
		if origin != "" {
			h["Origin"] = []string{origin}
		}
		return h
	}
	for _, tt := range []struct {
		name, method, path, origin string
		status                     int
		allow                      string
	}{
		{"a program", http.MethodGet, "/v1/client.js", "", http.StatusOK, ""},
		{"its types", http.MethodGet, "/v1/client.d.ts", "", http.StatusOK, ""},
		{"an origin that is allowed", http.MethodGet, "/v1/client.js", "https://app.example.com", http.StatusOK, "https://app.example.com"},
		{"one that is not", http.MethodGet, "/v1/client.js", "https://evil.test", http.StatusOK, ""},
		{"another method", http.MethodPost, "/v1/client.js", "", http.StatusMethodNotAllowed, ""},
		{"another file", http.MethodGet, "/v1/client.css", "", http.StatusNotFound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body, h := s.ask(t, tt.method, tt.path, plain(tt.origin))
			if status != tt.status || h.Get("Access-Control-Allow-Origin") != tt.allow {
				t.Errorf("%d, allowed for %q", status, h.Get("Access-Control-Allow-Origin"))
			}
			if status == http.StatusOK && (!strings.Contains(body, "export ") || h.Get("Vary") != "Origin") {
				t.Errorf("Vary %q, %.80q", h.Get("Vary"), body)
			}
		})
	}
}
