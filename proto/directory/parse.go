package directory

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// ErrMalformed is wrapped by every error of the Parse functions.
var ErrMalformed = errors.New("malformed directory value")

const (
	// MaxValue bounds an etcd value, in bytes (etcd's own limit for a request is 1.5 MiB).
	MaxValue = 1 << 20
	// MaxID bounds a node or instance id, in bytes.
	MaxID = 255
	// MaxPartitions is more partitions than a topic has; a larger number would only make readers allocate.
	MaxPartitions = 1 << 20
)

// CheckID says what is wrong with a node or instance id. It must be printable ASCII without spaces and
// slashes: it is part of etcd keys, log fields and metric labels.
func CheckID(id string) error {
	if id == "" {
		return errors.New("an id must not be empty")
	}
	if len(id) > MaxID {
		return fmt.Errorf("an id of %d bytes is longer than %d", len(id), MaxID)
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '/' {
			return fmt.Errorf("an id must be printable ASCII without spaces and slashes, not %q", id)
		}
	}
	return nil
}

// CheckAddr says what is wrong with an address that routers dial; it must be host:port.
func CheckAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: not host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
		return fmt.Errorf("address %q: host or port is missing", addr)
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c > '~' || strings.IndexByte(`/\?#@"[]`, c) >= 0 {
			return fmt.Errorf("address %q: a host does not contain %q", addr, c)
		}
	}
	return nil
}

// ParseTopicID reads the canonical text of a topic id, a UUID in lower or upper case.
func ParseTopicID(s string) ([16]byte, error) {
	var id [16]byte
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("topic id %q: not a UUID", s)
	}
	if _, err := hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return [16]byte{}, fmt.Errorf("topic id %q: not a UUID", s)
	}
	return id, nil
}

// FormatTopicID is the canonical text of a topic id.
func FormatTopicID(id [16]byte) string {
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// ParseTopic reads a Topic value. Unknown fields are ignored; errors wrap ErrMalformed.
func ParseTopic(value []byte) (Topic, error) {
	t, err := parse[Topic](value)
	if err != nil {
		return Topic{}, err
	}
	if err := t.check(); err != nil {
		return Topic{}, fmt.Errorf("%w: topic: %w", ErrMalformed, err)
	}
	return t, nil
}

// ParseNode reads a Node value. Unknown fields are ignored; errors wrap ErrMalformed.
func ParseNode(value []byte) (Node, error) {
	n, err := parse[Node](value)
	if err != nil {
		return Node{}, err
	}
	if err := n.check(); err != nil {
		return Node{}, fmt.Errorf("%w: node: %w", ErrMalformed, err)
	}
	return n, nil
}

// ParseClaim reads a Claim value. Unknown fields are ignored; errors wrap ErrMalformed.
func ParseClaim(value []byte) (Claim, error) {
	c, err := parse[Claim](value)
	if err != nil {
		return Claim{}, err
	}
	if err := c.check(); err != nil {
		return Claim{}, fmt.Errorf("%w: claim: %w", ErrMalformed, err)
	}
	return c, nil
}

// Marshal returns the value to publish. A zero V is written as Version. It fails on a value that the Parse
// function would refuse.
func Marshal[T Topic | Node | Claim](v T) ([]byte, error) {
	var err error
	var out any
	switch v := any(v).(type) {
	case Topic:
		v.V = orVersion(v.V)
		err, out = v.check(), v
	case Node:
		v.V = orVersion(v.V)
		err, out = v.check(), v
	case Claim:
		v.V = orVersion(v.V)
		err, out = v.check(), v
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	value, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return value, nil
}

func orVersion(v int) int {
	if v == 0 {
		return Version
	}
	return v
}

func parse[T any](value []byte) (T, error) {
	var head struct {
		V *int `json:"v"`
	}
	var v, none T
	if len(value) > MaxValue {
		return none, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(value), MaxValue)
	}
	// The version decides first: another version's fields may have other types.
	if err := json.Unmarshal(value, &head); err != nil {
		return none, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if head.V == nil {
		return none, fmt.Errorf("%w: it has no v", ErrMalformed)
	}
	if *head.V != Version {
		return none, fmt.Errorf("%w: v is %d, this program knows %d", ErrMalformed, *head.V, Version)
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return none, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return v, nil
}

func checkVersion(v int) error {
	if v != Version {
		return fmt.Errorf("v is %d, this program knows %d", v, Version)
	}
	return nil
}

// checkTime refuses what JSON cannot carry.
func checkTime(name string, t time.Time) error {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("%s: year %d", name, y)
	}
	return nil
}

func (t Topic) check() error {
	if err := checkVersion(t.V); err != nil {
		return err
	}
	if t.Group == "" {
		return errors.New("group is empty")
	}
	if _, err := ParseTopicID(t.TopicID); err != nil {
		return err
	}
	if t.Partitions <= 0 || t.Partitions > MaxPartitions {
		return fmt.Errorf("%d partitions, want 1 to %d", t.Partitions, MaxPartitions)
	}
	if t.Partitioner == "" {
		return errors.New("partitioner is empty")
	}
	if t.Incarnation < 0 {
		return fmt.Errorf("incarnation %d", t.Incarnation)
	}
	before := int32(0)
	for i, g := range t.Growth {
		if g.Partitions <= before || g.Partitions >= t.Partitions {
			return fmt.Errorf("growth %d: from %d partitions, after %d, to %d in the end", i, g.Partitions, before, t.Partitions)
		}
		before = g.Partitions
		if len(g.Ends) != int(g.Partitions) {
			return fmt.Errorf("growth %d: %d ends for %d partitions", i, len(g.Ends), g.Partitions)
		}
		for _, more := range [][]int64{g.From, g.Closed} {
			if len(more) != 0 && len(more) != int(g.Partitions) {
				return fmt.Errorf("growth %d: %d offsets for %d partitions", i, len(more), g.Partitions)
			}
		}
		for _, offsets := range [][]int64{g.Ends, g.From, g.Closed} {
			for p, o := range offsets {
				if o < 0 {
					return fmt.Errorf("growth %d: partition %d ends at %d", i, p, o)
				}
			}
		}
		if err := checkTime("since", g.Since); err != nil {
			return fmt.Errorf("growth %d: %w", i, err)
		}
	}
	return nil
}

func (n Node) check() error {
	if err := checkVersion(n.V); err != nil {
		return err
	}
	if err := CheckID(n.Instance); err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	if err := CheckAddr(n.Addr); err != nil {
		return fmt.Errorf("addr: %w", err)
	}
	if n.Admin != "" {
		if err := CheckAddr(n.Admin); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	return checkTime("started", n.Started)
}

func (c Claim) check() error {
	if err := checkVersion(c.V); err != nil {
		return err
	}
	if err := CheckID(c.Node); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if err := CheckID(c.Instance); err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	if c.Incarnation < 0 || c.Generation < 0 {
		return fmt.Errorf("incarnation %d, generation %d", c.Incarnation, c.Generation)
	}
	return checkTime("since", c.Since)
}
