// Package closecode is the table of the WebSocket close codes that a client of a router can see. Every close
// has one of these codes (those below 4000 are of RFC 6455 and the IANA registry); each says whether the client
// should connect again with its cursor.
package closecode

import (
	"fmt"
	"strings"
)

// The standard codes in use, and our own from 4000 on.
const (
	Normal          = 1000
	GoingAway       = 1001
	ProtocolError   = 1002
	UnsupportedData = 1003
	Abnormal        = 1006
	InvalidData     = 1007
	Policy          = 1008
	TooBig          = 1009
	Internal        = 1011
	ServiceRestart  = 1012
	TryAgainLater   = 1013

	BadCursor          = 4000
	BadRequest         = 4001
	ForeignCursor      = 4002
	RawGap             = 4003
	SlowClient         = 4004
	Shed               = 4005
	DeadPeer           = 4006
	ControlTimeout     = 4007
	CredentialsExpired = 4008
	CredentialsRefused = 4009
	TopicChanged       = 4010
	Replaced           = 4011
	TooManyMessages    = 4012
)

// Code is one row of the table.
type Code struct {
	Code    int
	Name    string // one word for logs and metrics
	Retry   bool   // connect again with the cursor, after a moment; else the same request would fail again
	Meaning string // for people; "Reserved:" begins what no router sends yet
}

// All returns the table, by rising code.
func All() []Code {
	return []Code{
		{Normal, "normal", false, "The client asked for the end, or an orderly end has nothing to add."},
		{GoingAway, "going_away", true, "The router is stopping; `goaway` came before it."},
		{ProtocolError, "protocol_error", false, "The client broke the WebSocket protocol."},
		{UnsupportedData, "unsupported_data", false, "The client sent a data message; clients may send nothing but control messages."},
		{Abnormal, "abnormal", true, "Never sent: what a client's own library reports when the socket broke without a close."},
		{InvalidData, "invalid_data", false, "The client sent a text that is not UTF-8, or a compressed message that is damaged."},
		{Policy, "policy", false, "The client sent something that is not allowed here; the reason says what."},
		{TooBig, "too_big", false, "The client sent a message above the size limit."},
		{Internal, "internal", true, "The router failed; its log says why."},
		{ServiceRestart, "service_restart", true, "Reserved: the router is being restarted. None sends it yet; a stop of any kind is 1001."},
		{TryAgainLater, "try_again_later", true, "The router takes no more clients for the moment."},
		{BadCursor, "bad_cursor", false, "The cursor is malformed, damaged or of an unknown version. Start again without it."},
		{BadRequest, "bad_request", false, "A control message is malformed, of an unknown type or not expected now; the reason says what."},
		{ForeignCursor, "foreign_cursor", false, "The cursor belongs to another client key."},
		{RawGap, "raw_gap", false, "Records can no longer be delivered, and `pointsman.raw.v1` has no message to say so. Start again from where you want."},
		{SlowClient, "slow_client", true, "Reserved: the client fell further behind than the operator allows. The cursor still holds."},
		{Shed, "shed", true, "The router is short of memory and gave up the clients that cost the most. The cursor still holds."},
		{DeadPeer, "dead_peer", true, "Nothing was heard or taken by the client for too long."},
		{ControlTimeout, "control_timeout", true, "The client asked to resume by message, and the message did not come in time; or a message that it began did not come to its end in time."},
		{CredentialsExpired, "credentials_expired", true, "The credentials ran out; `expiring` came before it. Connect again with fresh ones."},
		{CredentialsRefused, "credentials_refused", false, "The credentials sent by message are not valid, or are for another client key."},
		{TopicChanged, "topic_changed", true, "The topic was recreated or can no longer be followed on this socket."},
		{Replaced, "replaced", false, "The client key connected again, and the operator allows it no more sockets (`--key-policy=newest`)."},
		{TooManyMessages, "too_many_messages", false, "The client sent more messages or control frames a second than it may."},
	}
}

// Lookup returns the row of a code; false for a code that is not in the table.
func Lookup(code int) (Code, bool) {
	for _, c := range All() {
		if c.Code == code {
			return c, true
		}
	}
	return Code{}, false
}

// Markdown renders the table for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| code | name | retry | meaning |\n|---|---|---|---|\n")
	for _, c := range All() {
		retry := "no"
		if c.Retry {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", c.Code, c.Name, retry, c.Meaning)
	}
	return b.String()
}
