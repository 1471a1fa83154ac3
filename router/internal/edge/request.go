package edge

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// request is a client's request that was found valid.
type request struct {
	subprotocol string // to confirm, "" when none was offered
	wish        hub.Wish
	expires     time.Time // when the credentials end; zero: never
	await       bool      // the cursor comes in the first message
}

// parameters are those of the protocol; an Authenticator has its own.
var parameters = [...]string{"cursor", "from", "resume"}

// check reads a request. What is wrong is reported in the order in which a person would mend it.
func (e *Edge) check(r *http.Request) (request, error) {
	var q request
	if r.URL.Path != clientmsg.Path {
		return q, &Refusal{Status: http.StatusNotFound, Reason: "nothing here; WebSocket clients connect to " + clientmsg.Path}
	}
	if r.Method != http.MethodGet {
		return q, &Refusal{Status: http.StatusMethodNotAllowed, Reason: "WebSocket clients connect with GET"}
	}
	if !upgrade(r) {
		return q, &Refusal{Status: http.StatusUpgradeRequired, Reason: "this is a WebSocket endpoint; connect with a WebSocket client"}
	}
	if e.refused.Load() {
		return q, fitness(hub.ErrClosing)
	}
	if err := e.checkOrigin(r); err != nil {
		return q, err
	}
	var err error
	if q.subprotocol, q.wish.Raw, err = choose(subprotocols(r)); err != nil {
		return q, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, bad("the query cannot be parsed; percent-encode its values")
	}
	if err := e.known(query); err != nil {
		return q, err
	}
	who, err := e.cfg.Auth.Authenticate(r, query)
	if err != nil {
		return q, err
	}
	q.wish.Key, q.expires = who.Key, who.Expires
	if err := q.start(query); err != nil {
		return q, err
	}
	if err := e.hub.Check(q.wish); err != nil {
		return q, fitness(err)
	}
	return q, nil
}

func upgrade(r *http.Request) bool {
	return tokens(r.Header, "Connection", "upgrade") && tokens(r.Header, "Upgrade", "websocket")
}

func tokens(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// known refuses parameters that nobody reads: a misspelt "cursor" would otherwise lose records in silence.
func (e *Edge) known(query url.Values) error {
	names := append(e.cfg.Auth.Parameters(), parameters[:]...)
	for name, values := range query {
		if !slices.Contains(names, name) {
			return bad("unknown query parameter %.40q; there are: %s", name, strings.Join(names, ", "))
		}
		if len(values) > 1 {
			return bad("query parameter %q is given more than once", name)
		}
	}
	return nil
}

// start reads where to begin.
func (q *request) start(query url.Values) error {
	from, text, resume := query.Get("from"), query.Get("cursor"), query.Get("resume")
	switch {
	case query.Has("cursor") && query.Has("from"):
		return bad("give either cursor or from, not both")
	case query.Has("resume") && (query.Has("cursor") || query.Has("from")):
		return bad("with resume=message the cursor comes in the first message; leave cursor and from out")
	case q.wish.Raw && (query.Has("cursor") || query.Has("resume")):
		return bad("%s has no cursors; resume with %s", clientmsg.Raw, clientmsg.JSON)
	case query.Has("resume"):
		if resume != "message" {
			return bad(`resume can only be "message"`)
		}
		q.await = true
		return nil
	case query.Has("cursor"):
		c, err := parseCursor(text)
		q.wish.Cursor = c
		return err
	}
	start, err := parseFrom(from)
	q.wish.Start = start
	return err
}

func parseCursor(text string) (*cursor.Cursor, error) {
	if text == "" {
		return nil, bad("cursor is empty; leave it out to begin at the end of the topic")
	}
	c, err := cursor.Decode(text)
	switch {
	case errors.Is(err, cursor.ErrVersion):
		return nil, bad("the cursor is of a version that this router does not know")
	case errors.Is(err, cursor.ErrChecksum):
		return nil, bad("the cursor is damaged")
	case err != nil:
		return nil, bad("the cursor is malformed; send one exactly as it was received")
	}
	for _, f := range c.Feeds {
		if !slices.ContainsFunc(f.Positions, func(p cursor.Position) bool { return p.Next != session.Done }) {
			return nil, bad("the cursor is malformed: it names no place to go on from; send one exactly as it was received")
		}
	}
	return &c, nil
}

func parseFrom(from string) (link.Start, error) {
	switch from {
	case "", "latest":
		return link.Start{Kind: link.StartLatest}, nil
	case "earliest":
		return link.Start{Kind: link.StartEarliest}, nil
	}
	if n, err := strconv.ParseInt(from, 10, 64); err == nil {
		if n < 0 {
			return link.Start{}, bad("from: an offset cannot be negative")
		}
		return link.Start{Kind: link.StartOffset, Value: n}, nil
	}
	if t, err := time.Parse(time.RFC3339, from); err == nil {
		return link.Start{Kind: link.StartTime, Value: max(0, t.UnixMilli())}, nil
	}
	return link.Start{}, bad("from: %.60q is not latest, earliest, an offset or an RFC 3339 time such as 2026-01-02T03:04:05Z", from)
}
