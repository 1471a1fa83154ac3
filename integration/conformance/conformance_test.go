package conformance_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/conformance"
)

// config serves a fake with a fault.
func config(t *testing.T, fault string, tokens bool) conformance.Config {
	t.Helper()
	f := &fake{fault: fault, tokens: tokens, changed: make(chan struct{})}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	cfg := conformance.Config{URL: "ws" + strings.TrimPrefix(srv.URL, "http"), Produce: f.produce, Patience: 20 * time.Second, Run: "test"}
	if tokens {
		cfg.Token = func(string) string { return "good" }
	}
	return cfg
}

func TestServerThatKeepsToTheProtocolPasses(t *testing.T) {
	for name, tokens := range map[string]bool{"open": false, "with tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := 0
			failed := conformance.Run(t.Context(), config(t, "", tokens), func(r conformance.Result) {
				if r.Err != nil {
					t.Errorf("%s: %v", r.Check.Name, r.Err)
				}
				if r.LeftOut == "" {
					made++
				}
			})
			if want := len(conformance.Checks()) - 2; failed != 0 || made != want {
				t.Errorf("%d made, %d failed; want %d and 0", made, failed, want)
			}
		})
	}
}

func TestEachCheckFindsItsFault(t *testing.T) {
	for _, c := range conformance.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, c.Name, c.Name == "no-token" || c.Name == "auth-refused")
			cfg.Only, cfg.Patience = []string{c.Name}, time.Second
			failed := conformance.Run(t.Context(), cfg, func(r conformance.Result) { t.Logf("%s: %v", r.Check.Says, r.Err) })
			if failed != 1 {
				t.Errorf("%d checks failed, want this one", failed)
			}
		})
	}
}

func TestWithoutAProducerTheChecksOfRecordsAreLeftOut(t *testing.T) {
	cfg := config(t, "", false)
	cfg.Produce = nil
	left := 0
	failed := conformance.Run(t.Context(), cfg, func(r conformance.Result) {
		if r.LeftOut != "" {
			left++
		}
	})
	if failed != 0 || left < 10 {
		t.Errorf("%d failed, %d left out", failed, left)
	}
}
