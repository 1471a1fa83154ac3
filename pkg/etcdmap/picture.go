package etcdmap

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/proto/directory"
)

// Picture is what etcd said at one revision. It is immutable. Nodes and Claims hold only well-formed values; Topic is
// nil when the key is absent or malformed.
type Picture struct {
	Revision  int64
	ClusterID uint64
	Topic     *directory.Topic
	Nodes     map[string]directory.Node
	Claims    map[int32]directory.Claim
	At        time.Time // when this program learned of it
}

// with returns the picture after events, and whether it differs. p is left as it is; maps that did not change are shared.
func (p *Picture) with(keys directory.Keys, events []event, malformed func(entry, error)) (*Picture, bool) {
	next := *p
	differs, nodesOwned, claimsOwned := false, false, false
	for _, ev := range events {
		v, err := parseEntry(keys, ev.entry, ev.deleted)
		if err != nil {
			malformed(ev.entry, err)
		}
		switch v.kind {
		case topicKey:
			if next.Topic != nil || v.topic != nil {
				next.Topic, differs = v.topic, true
			}
		case nodeKey:
			if _, had := next.Nodes[v.node]; !had && v.nodeValue == nil {
				continue
			}
			if !nodesOwned {
				next.Nodes, nodesOwned = cloneOrNew(next.Nodes), true
			}
			put(next.Nodes, v.node, v.nodeValue)
			differs = true
		case claimKey:
			if _, had := next.Claims[v.partition]; !had && v.claimValue == nil {
				continue
			}
			if !claimsOwned {
				next.Claims, claimsOwned = cloneOrNew(next.Claims), true
			}
			put(next.Claims, v.partition, v.claimValue)
			differs = true
		}
	}
	return &next, differs
}

func cloneOrNew[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

func put[K comparable, V any](m map[K]V, k K, v *V) {
	if v == nil {
		delete(m, k)
		return
	}
	m[k] = *v
}

type keyKind int

const (
	otherKey keyKind = iota // nothing this program knows; later versions may
	topicKey
	nodeKey
	claimKey
)

// parsed is one key's meaning. The value is nil when the key is absent or its value malformed.
type parsed struct {
	kind       keyKind
	topic      *directory.Topic
	node       string
	nodeValue  *directory.Node
	partition  int32
	claimValue *directory.Claim
}

func parseEntry(keys directory.Keys, e entry, deleted bool) (parsed, error) {
	var v parsed
	switch {
	case e.key == keys.TopicKey():
		v.kind = topicKey
		if deleted {
			return v, nil
		}
		t, err := directory.ParseTopic(e.value)
		if err == nil {
			v.topic = &t
		}
		return v, err
	case strings.HasPrefix(e.key, keys.Nodes()):
		id, ok := keys.NodeID(e.key)
		if !ok {
			return v, badKey(deleted)
		}
		v.kind, v.node = nodeKey, id
		if deleted {
			return v, nil
		}
		n, err := directory.ParseNode(e.value)
		if err == nil {
			v.nodeValue = &n
		}
		return v, err
	case strings.HasPrefix(e.key, keys.Claims()):
		p, ok := keys.ClaimPartition(e.key)
		if !ok {
			return v, badKey(deleted)
		}
		v.kind, v.partition = claimKey, p
		if deleted {
			return v, nil
		}
		c, err := directory.ParseClaim(e.value)
		if err == nil {
			v.claimValue = &c
		}
		return v, err
	}
	return v, nil
}

func badKey(deleted bool) error {
	if deleted {
		return nil
	}
	return fmt.Errorf("%w: the key names no node or partition", directory.ErrMalformed)
}

// malformedSeen remembers which malformed values were reported. It is bounded: anyone may write to etcd.
type malformedSeen struct {
	log *zap.Logger

	mu    sync.Mutex
	revs  map[string]int64
	total uint64
}

const maxMalformedSeen = 4096

func newMalformedSeen(log *zap.Logger) *malformedSeen {
	return &malformedSeen{log: log, revs: map[string]int64{}}
}

// note logs and counts the value unless this revision of it was met before.
func (s *malformedSeen) note(e entry, err error) {
	s.mu.Lock()
	if s.revs[e.key] == e.rev {
		s.mu.Unlock()
		return
	}
	if len(s.revs) >= maxMalformedSeen {
		clear(s.revs)
	}
	s.revs[e.key] = e.rev
	s.total++
	s.mu.Unlock()
	s.log.Warn("ignoring a malformed value in etcd", zap.String("key", e.key), zap.Int64("mod_revision", e.rev), zap.Error(err))
}

func (s *malformedSeen) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
