package etcdmap

import (
	"bytes"
	"maps"
	"slices"
)

// entry is one key as etcd held it.
type entry struct {
	key   string
	value []byte
	rev   int64 // its ModRevision, or the revision that deleted it
	lease int64 // 0: none
}

// event is one change of one key.
type event struct {
	entry
	deleted bool
}

// snapshot is a consistent list of every key of the topic.
type snapshot struct {
	clusterID uint64
	revision  int64
	entries   []entry
}

// mirror is a copy of the topic's keys. Keys only move forward in it, so that what a transaction answered and what
// the watch says about the same key may arrive in any order.
type mirror struct {
	clusterID uint64
	revision  int64 // the newest revision of which anything is known
	listed    bool
	entries   map[string]entry
}

func newMirror() *mirror { return &mirror{entries: map[string]entry{}} }

// foreign reports whether s belongs to another history than what is mirrored: etcd was emptied, restored from a
// backup or replaced. It holds for linearizable lists begun after everything mirrored was known.
func (m *mirror) foreign(s snapshot) bool {
	if !m.listed {
		return false
	}
	if s.clusterID != m.clusterID || s.revision < m.revision {
		return true
	}
	for _, e := range s.entries {
		old, ok := m.entries[e.key]
		if ok && (e.rev < old.rev || e.rev == old.rev && (e.lease != old.lease || !bytes.Equal(e.value, old.value))) {
			return true
		}
	}
	return false
}

// replace makes the mirror equal to s and returns what that changed, in key order.
func (m *mirror) replace(s snapshot, foreign bool) []event {
	next := make(map[string]entry, len(s.entries))
	var changed []event
	for _, e := range s.entries {
		old, ok := m.entries[e.key]
		if ok && !foreign && old.rev > s.revision { // written after the list was made
			next[e.key] = old
			continue
		}
		next[e.key] = e
		if !ok || old.rev != e.rev || old.lease != e.lease || !bytes.Equal(old.value, e.value) {
			changed = append(changed, event{entry: e})
		}
	}
	for key, old := range m.entries {
		if _, ok := next[key]; ok {
			continue
		}
		if !foreign && old.rev > s.revision {
			next[key] = old
			continue
		}
		changed = append(changed, event{entry: entry{key: key, rev: s.revision}, deleted: true})
	}
	slices.SortFunc(changed, func(a, b event) int {
		return bytes.Compare([]byte(a.key), []byte(b.key))
	})
	if foreign || s.revision > m.revision {
		m.revision = s.revision
	}
	m.clusterID, m.listed, m.entries = s.clusterID, true, next
	return changed
}

// apply takes events in and returns those that were news.
func (m *mirror) apply(events []event) []event {
	var news []event
	for _, ev := range events {
		m.revision = max(m.revision, ev.rev)
		old, ok := m.entries[ev.key]
		switch {
		case ok && old.rev >= ev.rev, !ok && ev.deleted:
			continue
		case ev.deleted:
			delete(m.entries, ev.key)
		default:
			m.entries[ev.key] = ev.entry
		}
		news = append(news, ev)
	}
	return news
}

// question is what a probe is asked to confirm: the key changed last, and how many there are.
type question struct {
	revision int64
	count    int64
	newest   entry // no key: nothing is known
}

// ask picks the question for a probe that starts now.
func (m *mirror) ask() question {
	q := question{revision: m.revision, count: int64(len(m.entries))}
	for e := range maps.Values(m.entries) {
		if e.rev > q.newest.rev || e.rev == q.newest.rev && e.key > q.newest.key {
			q.newest = e
		}
	}
	return q
}

// probe is etcd's answer to a question. It is small, so that it can be asked every second.
type probe struct {
	clusterID uint64
	revision  int64
	count     int64
	newest    entry // the key asked for; rev 0: absent
}

type verdict int

const (
	current verdict = iota // the mirror is what etcd holds, as far as a probe can tell
	behind                 // etcd holds something newer; the watch should be telling
	foreign                // another history
)

// judge compares the answer with the question. Only what was known when the probe began counts: the watch may have
// moved the mirror past the answer meanwhile.
func (m *mirror) judge(q question, p probe) verdict {
	switch {
	case p.clusterID != m.clusterID, p.revision < q.revision:
		return foreign
	case q.newest.key == "":
	case p.newest.rev == 0 && p.revision == q.revision:
		return foreign // gone without a revision that removed it
	case p.newest.rev == 0, p.newest.rev > q.newest.rev:
		return behind
	case p.newest.rev < q.newest.rev, p.newest.lease != q.newest.lease, !bytes.Equal(p.newest.value, q.newest.value):
		return foreign
	}
	if p.count != q.count {
		return behind
	}
	return current
}
