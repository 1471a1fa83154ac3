package scenario

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/conformance"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// Conformance holds a router against docs/protocol.md, open and with tokens.
func Conformance(t *testing.T) {
	i := newIssuer(t)
	i.rotate("first")
	for _, tt := range []struct {
		name  string
		flags []string
		token func(string) string
	}{
		{"Open", []string{"--heartbeat=2s"}, nil},
		{"Tokens", i.flags(), func(key string) string { return i.token(key, time.Hour) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := begin(t, stack.Options{Nodes: 1, RouterFlags: tt.flags})
			cfg := conformance.Config{
				URL: w.Routers()[0].URL, Token: tt.token, Patience: 20 * time.Second, Run: tt.name,
				Produce: func(ctx context.Context, key string, value []byte, headers []conformance.Header) error {
					r := &kgo.Record{Key: []byte(key), Value: value}
					for _, h := range headers {
						r.Headers = append(r.Headers, kgo.RecordHeader(h))
					}
					return w.producer.Produce(ctx, r)
				},
			}
			made := 0
			conformance.Run(w.ctx, cfg, func(r conformance.Result) {
				switch {
				case r.Err != nil:
					t.Errorf("%s (%s): %v", r.Check.Name, r.Check.Says, r.Err)
				case r.LeftOut == "":
					made++
				}
			})
			t.Logf("%d checks passed", made)
		})
	}
}
