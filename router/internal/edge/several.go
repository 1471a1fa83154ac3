package edge

import (
	"errors"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"

	"github.com/pointsmanhq/pointsman/router/internal/clientconn"
	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/limits"
)

// runSeveral is run of a client with several keys.
func (e *Edge) runSeveral(c *client, q request, place *limits.Place) (serve func()) {
	k, err := e.hub.ConnectSeveral(c.conn, q.several)
	if err != nil {
		code, reason := closing(err)
		e.dismiss(c, code, reason)
		return nil
	}
	e.expires(k, q.expires)
	return func() {
		k.Serve(func(k *hub.Socket, text []byte) { e.messageSeveral(k, place, text) })
	}
}

// messageSeveral handles what a client with several keys sends. What is wrong with one key is answered and ends nothing.
func (e *Edge) messageSeveral(k *hub.Socket, place *limits.Place, text []byte) {
	m, err := clientmsg.ParseControl(text)
	switch {
	case !utf8.Valid(text):
		k.Conn().Close(closecode.InvalidData, "the message is not UTF-8")
	case err != nil:
		k.Conn().Close(closecode.UnsupportedData, "clients may send control messages only: "+err.Error())
	case m.Type == clientmsg.TypeAuth:
		e.renew(k, k.Allowed(), m.Token)
	case m.Type == clientmsg.TypeResume:
		k.Conn().Close(closecode.Policy, "resume is only possible as the first message, with ?resume=message")
	case !e.heeds(k.Conn()):
	case m.Type == clientmsg.TypeUnsubscribe:
		if k.Follows(m.Key) {
			place.Part(m.Key) // before the answer: who reads that may ask for the place at once
		}
		if err := k.Unsubscribe(m.Key); err != nil {
			k.Refuse(m.Type, m.Key, clientmsg.RefusedUnknown, err.Error())
		}
	default:
		if reason, detail := e.subscribe(k, place, &m); reason != "" {
			k.Refuse(m.Type, m.Key, reason, detail)
		}
	}
}

// heeds ends a client that asks and asks and does not read the answers: they are no records, which wait at their node.
func (e *Edge) heeds(c *clientconn.Conn) bool {
	if e.hub.Flooded(c) {
		c.Close(closecode.Policy, "messages come faster than their answers are read")
		return false
	}
	return true
}

// subscribe adds a key, or says why not.
func (e *Edge) subscribe(k *hub.Socket, place *limits.Place, m *clientmsg.Control) (reason, detail string) {
	w := hub.Wish{Key: m.Key}
	if err := fits(m.Key); err != nil {
		return clientmsg.RefusedBadRequest, err.Error()
	}
	if !k.May(m.Key) {
		return clientmsg.RefusedForbidden, "the credentials do not name this key"
	}
	var err error
	switch {
	case m.Cursor != "" && m.From != "":
		return clientmsg.RefusedBadRequest, "give either cursor or from, not both"
	case m.Cursor != "":
		if w.Cursors, err = parseCursor(m.Cursor); err != nil {
			return clientmsg.RefusedCursor, err.Error()
		}
	default:
		if w.Start, err = parseFrom(m.From); err != nil {
			return clientmsg.RefusedBadRequest, err.Error()
		}
	}
	if k.Follows(m.Key) {
		return clientmsg.RefusedAlready, hub.ErrAlready.Error()
	}
	if err := place.Join(m.Key); err != nil {
		return clientmsg.RefusedTooMany, err.Error()
	}
	if err = k.Subscribe(w); err == nil {
		return "", ""
	}
	place.Part(m.Key)
	switch {
	case errors.Is(err, hub.ErrTooMany):
		e.cfg.Gate.Note(limits.Keys)
		return clientmsg.RefusedTooMany, err.Error()
	case errors.Is(err, hub.ErrNoCursor):
		return clientmsg.RefusedCursor, err.Error()
	}
	return clientmsg.RefusedUnavailable, err.Error()
}
