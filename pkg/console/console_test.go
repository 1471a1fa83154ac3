package console_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/console"
)

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// parts are the files that a page or a script loads, as they stand in it.
var parts = regexp.MustCompile(`(?:href|src)="(console/[^"]+)"|from "\./([^"]+)"`)

func TestPageAndAllItsPartsAreServedAndLoadNothingElse(t *testing.T) {
	s := admin.New(admin.Config{Namespace: "test"})
	console.Add(s.Handle)
	srv := httptest.NewServer(s)
	defer srv.Close()
	resp, body := get(t, srv.URL+"/")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if p := resp.Header.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") || !strings.Contains(p, "frame-ancestors 'none'") {
		t.Errorf("content security policy: %q", p)
	}
	todo, seen := []string{body}, map[string]bool{}
	for len(todo) > 0 {
		text := todo[0]
		todo = todo[1:]
		for _, banned := range []string{"https://", "innerHTML", "insertAdjacent", "document.write", "eval("} {
			if strings.Contains(text, banned) {
				t.Errorf("the page has %s", banned)
			}
		}
		for _, m := range parts.FindAllStringSubmatch(text, -1) {
			path := m[1]
			if path == "" {
				path = "console/" + m[2]
			}
			if seen[path] {
				continue
			}
			seen[path] = true
			resp, body := get(t, srv.URL+"/"+path)
			if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %d", path, resp.StatusCode)
			}
			todo = append(todo, body)
		}
	}
	if len(seen) < 6 {
		t.Errorf("only %v are loaded", seen)
	}
	if resp, _ := get(t, srv.URL+"/nothing"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("/nothing: %d", resp.StatusCode)
	}
	if resp, _ := get(t, srv.URL+"/livez"); resp.StatusCode != http.StatusOK {
		t.Errorf("/livez: %d", resp.StatusCode)
	}
}
