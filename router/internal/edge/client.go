package edge

import (
	"errors"
	"math/rand/v2"
	"os"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/limits"
)

// client is an upgraded connection on its way to being a session.
type client struct {
	conn   *clientconn.Conn
	remote string
}

// begin makes a connection a client, and has a goroutine read from it until it ends.
func (e *Edge) begin(conn *clientconn.Conn, remote string, q request, place *limits.Place) {
	serve := e.run(&client{conn: conn, remote: remote}, q, place)
	if serve == nil {
		place.Leave()
		return
	}
	end := func() {
		serve()
		place.Leave()
	}
	// What came until here took a deep stack and the request's memory; an idle client has neither.
	if !e.hub.Go(end) {
		conn.Abort(closecode.GoingAway)
		end()
	}
}

// run makes a connection a session and returns what serves it; nil when the client was dismissed.
func (e *Edge) run(c *client, q request, place *limits.Place) (serve func()) {
	if e.cfg.Gate.Replaces() {
		conn := c.conn
		replaced := func() { conn.Close(closecode.Replaced, "this client key connected again") }
		if !place.Bind(replaced) {
			replaced()
		}
	}
	if q.await && !e.await(c, &q) {
		return nil
	}
	if q.several != nil {
		return e.runSeveral(c, q, place)
	}
	s, err := e.hub.Connect(c.conn, q.wish)
	if err != nil {
		code, reason := closing(err)
		e.dismiss(c, code, reason)
		return nil
	}
	e.expires(s, q.expires)
	return func() { s.Serve(e.message) }
}

// await reads the first message of ?resume=message into the wish; false when the client was dismissed.
func (e *Edge) await(c *client, q *request) bool {
	done := e.hub.Stray(c.conn)
	defer done()
	text, err := c.conn.Message(time.Now().Add(e.cfg.ResumeTimeout))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.dismiss(c, closecode.ControlTimeout, "the resume message did not come in time")
		return false
	case err != nil:
		e.dismiss(c, 0, "")
		return false
	}
	m, err := clientmsg.ParseControl(text)
	switch {
	case err != nil:
		e.dismiss(c, closecode.BadRequest, err.Error())
		return false
	case m.Type != clientmsg.TypeResume:
		e.dismiss(c, closecode.BadRequest, `the first message must be {"type":"resume","cursor":"..."}`)
		return false
	}
	cur, err := parseCursor(m.Cursor)
	if err != nil {
		e.dismiss(c, closecode.BadCursor, err.Error())
		return false
	}
	q.resume(cur)
	return true
}

// dismiss ends a connection that did not become a session. Without a code it has ended already.
func (e *Edge) dismiss(c *client, code int, reason string) {
	done := e.hub.Stray(c.conn)
	defer done()
	if code != 0 {
		e.log.Debug("client dismissed", zap.String("remote", c.remote), zap.Int("code", code), zap.String("reason", reason))
		c.conn.Close(code, reason)
	}
	c.conn.Finish()
	e.cfg.Metrics.Close(c.conn.Code())
}

// message handles what a client sends on an open session: control messages only.
func (e *Edge) message(s *hub.Session, text []byte) {
	m, err := clientmsg.ParseControl(text)
	switch {
	case !utf8.Valid(text):
		s.Conn().Close(closecode.InvalidData, "the message is not UTF-8")
	case err != nil:
		s.Conn().Close(closecode.UnsupportedData, "clients may send control messages only: "+err.Error())
	case m.Type == clientmsg.TypeAuth:
		e.renew(s, [][]byte{s.Key()}, m.Token)
	case m.Type == clientmsg.TypeSubscribe, m.Type == clientmsg.TypeUnsubscribe:
		if e.heeds(s.Conn()) {
			s.Refuse(m.Type, m.Key, clientmsg.RefusedSingle, "this socket has one key; connect with several=true for more")
		}
	default:
		s.Conn().Close(closecode.Policy, "resume is only possible as the first message, with ?resume=message")
	}
}

// holder is a client with credentials.
type holder interface {
	Conn() *clientconn.Conn
	Expires(at, warn time.Time)
	Remind(notBefore time.Time)
}

// renew puts fresh credentials in force. If they cannot be judged now the old ones stay, and the client is told of
// their end once more.
func (e *Edge) renew(s holder, keys [][]byte, token string) {
	if !s.Conn().MayRenew(time.Now()) {
		return
	}
	expires, err := e.cfg.Auth.Renew(keys, token)
	refusal := new(Refusal)
	switch {
	case err == nil:
		e.expires(s, expires)
	case !errors.As(err, &refusal):
		e.log.Error("cannot check a client's credentials", zap.Error(err))
		s.Conn().Close(closecode.Internal, "the router failed to check the credentials; its log says why")
	case refusal.Retry > 0:
		s.Remind(time.Now().Add(refusal.Retry))
	default:
		s.Conn().Close(closecode.CredentialsRefused, refusal.Reason)
	}
}

// expires tells a session when its credentials end, and when to tell its client.
func (e *Edge) expires(s holder, at time.Time) {
	if at.IsZero() {
		s.Expires(time.Time{}, time.Time{})
		return
	}
	// The third leaves time even where tokens live for seconds.
	before := max(0, min(e.cfg.RenewBefore, time.Until(at)/3))
	// Clients that came back together got their tokens together: the issuer need not see them together for ever.
	s.Expires(at, at.Add(-before-rand.N(before/4+1)))
}
