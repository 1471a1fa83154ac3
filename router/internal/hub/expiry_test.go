package hub_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/hub"
)

// session opens a client and gives the session that the hub made of it.
func (r *rig) session(key string, raw bool) (*client, *hub.Session) {
	r.t.Helper()
	made := make(chan *hub.Session, 1)
	edge := r.http
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		conn, err := r.hub.Conns().Accept(w, req, "")
		if err != nil {
			r.t.Errorf("accept: %v", err)
			return
		}
		r.hub.Go(func() {
			s, err := r.hub.Connect(conn, hub.Wish{Key: []byte(key), Raw: raw})
			if err != nil {
				r.t.Errorf("connect: %v", err)
				return
			}
			made <- s
			s.Serve(func(*hub.Session, []byte) {})
		})
	}))
	r.t.Cleanup(srv.Close)
	r.http = srv
	defer func() { r.http = edge }()
	c := r.connect(key)
	return c, <-made
}

func TestCredentialsEndInTwoSteps(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: 200 * time.Millisecond})
	r.put()
	c, s := r.session("alice", false)
	if got := string(s.Key()); got != "alice" {
		t.Errorf("key %q", got)
	}
	now := time.Now()
	s.Expires(now.Add(time.Hour), now)
	if m := c.until(clientmsg.TypeExpiring); m.ExpiresIn <= 59*time.Minute || m.ExpiresIn > time.Hour {
		t.Errorf("expires in %s, want an hour", m.ExpiresIn)
	}
	// Once is enough, until somebody asks for it again.
	s.Remind(now)
	c.until(clientmsg.TypeExpiring)
	for range 3 {
		c.next(clientmsg.TypeWaiting) // heartbeats: rounds go by, and nothing is said
	}
	// What was never told is not told earlier because of a reminder.
	s.Expires(now.Add(time.Hour), now.Add(30*time.Minute))
	s.Remind(now)
	// Without an end there is nothing to remind of.
	s.Expires(time.Time{}, time.Time{})
	s.Remind(now)
	for range 2 {
		c.next(clientmsg.TypeWaiting)
	}
	s.Expires(now, now.Add(-time.Second))
	if code, reason := c.closed(); code != closecode.CredentialsExpired || reason == "" {
		t.Errorf("closed with %d %q, want %d", code, reason, closecode.CredentialsExpired)
	}
	waitFor(t, "the session to be gone", func() bool { return r.hub.Sessions() == 0 })
	r.consistent()
}

func TestRawClientsAreClosedWithoutAWarning(t *testing.T) {
	r := newRig(t, rigOptions{heartbeat: 200 * time.Millisecond})
	r.put()
	c, s := r.session("alice", true)
	now := time.Now()
	s.Expires(now, now)
	if msg, err := c.read(); int(websocket.CloseStatus(err)) != closecode.CredentialsExpired {
		t.Errorf("got %q, %v, want code %d", msg, err, closecode.CredentialsExpired)
	}
}
