package closecode

import (
	"fmt"
	"net/http"
	"strings"
)

// Status is one HTTP status that a client can get instead of an upgrade.
type Status struct {
	Status  int
	Retry   bool // the same request may succeed later: after Retry-After where there is one
	Meaning string
}

// Statuses returns the table, by rising status.
func Statuses() []Status {
	return []Status{
		{http.StatusBadRequest, false, "The request is malformed; the first line of the answer says what to mend."},
		{http.StatusUnauthorized, false, "A token is missing, or not valid. Come back with another one."},
		{http.StatusForbidden, false, "The token names no client key or another one, the cursor belongs to another key, or the page's origin is not allowed."},
		{http.StatusNotFound, false, "There is nothing at this path."},
		{http.StatusMethodNotAllowed, false, "Clients connect with GET."},
		{http.StatusRequestTimeout, true, "The request did not come in time (`--accept-timeout`). With TLS the connection is closed without an answer."},
		{http.StatusExpectationFailed, false, "The request has an `Expect` header."},
		{http.StatusUpgradeRequired, false, "The request is not one for a WebSocket."},
		{http.StatusTooManyRequests, true, "This address or client key has as many sockets as it may, or connects too often (`--max-clients-per-address`, `--max-clients-per-key`, `--handshake-rate-per-address`). With `Retry-After`."},
		{http.StatusRequestHeaderFieldsTooLarge, false, "The request's head is too large (`--client-head`). Send a long cursor as a message, and shorter tokens."},
		{http.StatusInternalServerError, true, "The router failed; its log says why."},
		{http.StatusNotImplemented, false, "The request has a transfer encoding."},
		{http.StatusServiceUnavailable, true, "Not now: the router starts or stops, has as many clients as it may, is short of memory, too many connect at once, or keys of tokens are missing. With `Retry-After`."},
		{http.StatusHTTPVersionNotSupported, false, "The request is not HTTP/1.1."},
	}
}

// LookupStatus returns the row of a status; false for one that no router sends.
func LookupStatus(status int) (Status, bool) {
	for _, s := range Statuses() {
		if s.Status == status {
			return s, true
		}
	}
	return Status{}, false
}

// StatusMarkdown renders the table for the documentation.
func StatusMarkdown() string {
	var b strings.Builder
	b.WriteString("| status | retry | meaning |\n|---|---|---|\n")
	for _, s := range Statuses() {
		retry := "no"
		if s.Retry {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| %d | %s | %s |\n", s.Status, retry, s.Meaning)
	}
	return b.String()
}
