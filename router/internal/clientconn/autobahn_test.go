package clientconn

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pointsmanhq/pointsman/router/internal/autobahn"
)

// quiet is an Owner whom nothing concerns.
type quiet struct{}

// Drained implements Owner.
func (quiet) Drained() {}

// echo sends every message back, over the socket code that clients of a router have.
func echo(t *testing.T) (addr string) {
	shared := &Shared{ReadLimit: 32 << 20}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := shared.Accept(w, r, "")
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		c.SetOwner(quiet{})
		go c.serve(true, func(op Opcode, data []byte) {
			c.Queue(Seal(append(Reserve(nil), data...), 0, op), 0)
			c.Flush()
		})
	}))
	t.Cleanup(func() {
		srv.Close()
		shared.Wait()
	})
	return srv.Listener.Addr().String()
}

func TestAutobahnCasesOverAnEchoEndpoint(t *testing.T) {
	shrink := 1
	if raced {
		shrink = 8
	}
	autobahn.Test(t, "port of the Autobahn TestSuite, sections 1-7, 9, 10, against an echo endpoint on the router's socket code",
		autobahn.Server{Addr: echo(t)}, autobahn.Cases(shrink))
}
