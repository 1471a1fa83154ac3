package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/client"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// issuer numbers its tokens; some of its answers are errors.
type issuer struct {
	asked atomic.Int64
	fails func(n int64) bool
}

func (i *issuer) token(context.Context) (string, error) {
	n := i.asked.Add(1)
	if i.fails != nil && i.fails(n) {
		return "", errors.New("the issuer is away")
	}
	return fmt.Sprint("token-", n), nil
}

// sent takes the client's next message.
func (s *socket) sent() string {
	s.t.Helper()
	_, msg, err := s.conn.Read(s.t.Context())
	if err != nil {
		s.t.Fatalf("read what the client sends: %v", err)
	}
	return string(msg)
}

func TestTokenIsRenewedOnTheOpenConnection(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		i := &issuer{fails: func(n int64) bool { return n == 3 || n == 4 }}
		c, s := rt.connect(client.Config{Token: i.token})
		defer mustClose(t, c)
		s.hello("c0", true)
		want[*client.Hello](t, c)
		s.send(clientmsg.AppendExpiring(nil, 20*time.Second))
		if e := want[*client.Expiring](t, c); e.In != 20*time.Second {
			t.Errorf("expires in %s", e.In)
		}
		if got := s.sent(); got != `{"type":"auth","token":"token-2"}` {
			t.Errorf("sent %s", got)
		}
		// The issuer fails twice now, and records go on meanwhile.
		s.send(clientmsg.AppendExpiring(nil, 20*time.Second))
		want[*client.Expiring](t, c)
		s.record(1, 7, "1")
		want[*client.Record](t, c)
		if got := s.sent(); got != `{"type":"auth","token":"token-5"}` {
			t.Errorf("sent %s", got)
		}
		s.record(1, 8, "1")
		want[*client.Record](t, c)
		synctest.Wait() // a renewal is counted after it was sent
		if got := c.Stats(); got.Connections != 1 || got.Renewals != 2 {
			t.Errorf("stats = %+v, want one connection and two renewals", got)
		}
	})
}

func TestWithoutTokenExpiryIsOnlyToldOf(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Key: []byte("alice")})
		defer mustClose(t, c)
		s.send(clientmsg.AppendExpiring(nil, time.Second))
		want[*client.Expiring](t, c)
		s.close(closecode.CredentialsExpired, "expired")
		if d := want[*client.Disconnected](t, c); !d.Lost {
			t.Errorf("%+v", d)
		}
	})
}

func TestExpiredConnectionIsReplacedWithAFreshToken(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		i := &issuer{fails: func(n int64) bool { return n > 1 && n < 4 }}
		c, s := rt.connect(client.Config{Token: i.token, MinBackoff: 10 * time.Second, MaxBackoff: time.Minute})
		defer mustClose(t, c)
		s.hello("c0", true)
		want[*client.Hello](t, c)
		s.send(clientmsg.AppendExpiring(nil, time.Second))
		want[*client.Expiring](t, c)
		s.close(closecode.CredentialsExpired, "the credentials have expired")
		want[*client.Disconnected](t, c)
		req := rt.next()
		if req.r.Header.Get("Authorization") == "Bearer token-1" || req.query("cursor") != "c0" {
			t.Errorf("came back with %q and cursor %q", req.r.Header.Get("Authorization"), req.query("cursor"))
		}
		req.accept()
	})
}

func TestRefusedTokenIsTriedAfreshOnce(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		i := &issuer{}
		got := rt.start(client.Config{Token: i.token})
		rt.next().refuse(http.StatusUnauthorized, "the token has expired")
		req := rt.next()
		if auth := req.r.Header.Get("Authorization"); auth != "Bearer token-2" {
			t.Errorf("came back with %q", auth)
		}
		s := req.accept()
		c := <-got
		defer mustClose(t, c)
		// A connection later it may happen again, but not twice in a row.
		s.close(closecode.CredentialsExpired, "the credentials have expired")
		want[*client.Disconnected](t, c)
		rt.next().refuse(http.StatusUnauthorized, "the token has expired")
		want[*client.Disconnected](t, c)
		rt.next().refuse(http.StatusUnauthorized, "the token has expired")
		_, err := c.Next(t.Context())
		var refused *client.RefusedError
		if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			t.Errorf("ended with %v, want the refusal", err)
		}
	})
}

func TestRefusedRenewalEndsTheClient(t *testing.T) {
	bubble(t, func(t *testing.T, rt *router) {
		c, s := rt.connect(client.Config{Token: (&issuer{}).token})
		defer mustClose(t, c)
		s.close(closecode.CredentialsRefused, "the token is for another client key")
		_, err := c.Next(t.Context())
		var closed *client.CloseError
		if !errors.As(err, &closed) || closed.Code != closecode.CredentialsRefused {
			t.Errorf("ended with %v, want the close code", err)
		}
	})
}
