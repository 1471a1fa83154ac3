package directory

import (
	"strconv"
	"strings"
)

// Keys builds and reads the etcd keys of one topic. The prefix keeps two stacks on one etcd apart.
type Keys struct {
	Prefix string // like /pointsman; a slash at its end makes no difference
	Topic  string
}

func (k Keys) base() string { return strings.TrimRight(k.Prefix, "/") + "/" + k.Topic + "/" }

// Base is the prefix of all keys of the topic, with a slash at its end.
func (k Keys) Base() string { return k.base() }

// TopicKey is the key of the Topic value.
func (k Keys) TopicKey() string { return k.base() + "topic" }

// Nodes is the prefix of all Node values, with a slash at its end.
func (k Keys) Nodes() string { return k.base() + "nodes/" }

// Node is the key of one node's Node value.
func (k Keys) Node(id string) string { return k.Nodes() + id }

// Claims is the prefix of all Claim values, with a slash at its end.
func (k Keys) Claims() string { return k.base() + "claims/" }

// Claim is the key of one partition's Claim value.
func (k Keys) Claim(partition int32) string {
	return k.Claims() + strconv.FormatInt(int64(partition), 10)
}

// NodeID reads the node id out of a key that Node made; false for any other key.
func (k Keys) NodeID(key string) (string, bool) {
	id, ok := strings.CutPrefix(key, k.Nodes())
	if !ok || CheckID(id) != nil {
		return "", false
	}
	return id, true
}

// ClaimPartition reads the partition out of a key that Claim made; false for any other key, also for another
// spelling of the same number.
func (k Keys) ClaimPartition(key string) (int32, bool) {
	s, ok := strings.CutPrefix(key, k.Claims())
	if !ok {
		return 0, false
	}
	p, err := strconv.ParseInt(s, 10, 32)
	if err != nil || p < 0 || strconv.FormatInt(p, 10) != s {
		return 0, false
	}
	return int32(p), true
}
