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
	"github.com/pointsmanhq/pointsman/router/internal/limits"
	"github.com/pointsmanhq/pointsman/router/internal/session"
)

// request is a client's request that was found valid.
type request struct {
	subprotocol string // to confirm, "" when none was offered
	wish        hub.Wish
	several     *hub.SeveralWish // in place of wish, nil for a client with one key
	expires     time.Time        // when the credentials end; zero: never
	await       bool             // the cursor comes in the first message
}

// parameters are those of the protocol; an Authenticator has its own.
var parameters = [...]string{"several", "cursor", "from", "resume"}

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
	q.expires = who.Expires
	if err := e.keys(&q, query, who); err != nil {
		return q, err
	}
	if err := q.start(query); err != nil {
		return q, err
	}
	if q.several != nil && !q.await {
		err = e.hub.CheckSeveral(q.several)
	} else if q.several == nil {
		err = e.hub.Check(q.wish)
	}
	if err != nil {
		return q, fitness(err)
	}
	return q, nil
}

// keys are those that the client begins with.
func (q *request) keys() [][]byte {
	if q.several != nil {
		return q.several.Keys
	}
	return [][]byte{q.wish.Key}
}

// keys tells a client with one key from one with several: it has several if it names more than one, or says so because
// the others will come later. All may: a token's keys are then those that it may ask for.
func (e *Edge) keys(q *request, query url.Values, who Identity) error {
	none := query.Get("several") == "none"
	switch {
	case query.Has("several") && query.Get("several") != "true" && !none:
		return bad(`several can only be "true" or "none"`)
	case none && (query.Has("key") || query.Has("key_b64")):
		return bad("several=none begins without a key; leave key and key_b64 out, or say several=true")
	case none:
		who.Keys = nil
	}
	if len(who.Keys) == 1 && !query.Has("several") {
		q.wish.Key = who.Keys[0]
		return nil
	}
	if q.wish.Raw {
		return bad("%s has one key; follow several with %s", clientmsg.Raw, clientmsg.JSON)
	}
	if most := e.hub.MaxKeys(); len(who.Keys) > most {
		e.cfg.Gate.Note(limits.Keys)
		return bad("%d keys on one socket are more than the %d that the operator allows; name fewer with key=", len(who.Keys), most)
	}
	q.several = &hub.SeveralWish{Keys: who.Keys, Allowed: who.Allowed}
	return nil
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
		if len(values) > 1 && name != "key" && name != "key_b64" {
			return bad("query parameter %q is given more than once", name)
		}
	}
	return nil
}

// start reads where to begin.
func (q *request) start(query url.Values) error {
	from, text, resume := query.Get("from"), query.Get("cursor"), query.Get("resume")
	switch {
	case query.Has("cursor") && query.Has("from") && q.several == nil:
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
		if err != nil {
			return err
		}
		q.resume(c)
		if q.several == nil {
			return nil
		}
	}
	start, err := parseFrom(from)
	if q.several == nil {
		q.wish.Start = start
		return err
	}
	if start.Kind == link.StartOffset {
		return bad("from: an offset is one of a single partition, and several keys are in several; subscribe to them one by one")
	}
	q.several.Start = start
	return err
}

func (q *request) resume(c []cursor.Cursor) {
	if q.several != nil {
		q.several.Cursors = c
		return
	}
	q.wish.Cursors = c
}

// parseCursor reads a cursor, or several that are joined with dots.
func parseCursor(text string) ([]cursor.Cursor, error) {
	if text == "" {
		return nil, bad("cursor is empty; leave it out to begin at the end of the topic")
	}
	list, err := cursor.DecodeList(text)
	switch {
	case errors.Is(err, cursor.ErrVersion):
		return nil, bad("the cursor is of a version that this router does not know")
	case errors.Is(err, cursor.ErrChecksum):
		return nil, bad("the cursor is damaged")
	case err != nil:
		return nil, bad("the cursor is malformed; send one exactly as it was received")
	}
	for _, c := range list {
		for _, f := range c.Feeds {
			if !slices.ContainsFunc(f.Positions, func(p cursor.Position) bool { return p.Next != session.Done }) {
				return nil, bad("the cursor is malformed: it names no place to go on from; send one exactly as it was received")
			}
		}
	}
	return list, nil
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
