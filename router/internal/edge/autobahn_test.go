package edge_test

import (
	"testing"

	"github.com/pointsmanhq/pointsman/router/internal/autobahn"
)

// A router sends nothing back, so these are the cases in which it need not: pings, and everything that must end the
// connection.
func TestAutobahnCasesOverTheClientEndpoint(t *testing.T) {
	s := serve(t, nil).known()
	var cases []*autobahn.Case
	for _, c := range autobahn.Cases(1) {
		if !c.Echo {
			cases = append(cases, c)
		}
	}
	autobahn.Test(t, "port of the Autobahn TestSuite against the router's client endpoint: the cases that need no echo",
		autobahn.Server{Addr: s.http.Listener.Addr().String(), Path: "/v1/ws?key=alice", Talks: true}, cases)
}
