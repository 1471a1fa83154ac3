// Package nodetest is a node for the router's tests: it speaks the link protocol over a real socket and serves a log in
// memory, which several nodes share as they would share Kafka. It is imported by tests only.
package nodetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/router/internal/links"
)

// TopicID is the id of the topic of a new Log.
func TopicID() [16]byte { return [16]byte{15: 10} }

// Log is a topic.
type Log struct {
	Partitions int32

	mu      sync.Mutex
	topicID [16]byte
	records map[int32][]link.Record
	nodes   []*Node
}

// NewLog returns an empty topic.
func NewLog(partitions int32) *Log {
	return &Log{Partitions: partitions, topicID: TopicID(), records: map[int32][]link.Record{}}
}

// Append adds a record with a value, nil for a tombstone, and serves it. It returns the record's offset.
func (l *Log) Append(partition int32, key string, value []byte) int64 {
	l.mu.Lock()
	at := int64(len(l.records[partition]))
	l.records[partition] = append(l.records[partition], link.Record{
		Partition: partition, Offset: at, Timestamp: time.Now().UnixMilli(), Key: []byte(key), Value: value, Tombstone: value == nil,
	})
	nodes := append([]*Node(nil), l.nodes...)
	l.mu.Unlock()
	for _, n := range nodes {
		n.serve(partition)
	}
	return at
}

// Recreate empties the topic under a new id: streams of the old one are closed.
func (l *Log) Recreate(id [16]byte) {
	l.mu.Lock()
	l.topicID, l.records = id, map[int32][]link.Record{}
	nodes := append([]*Node(nil), l.nodes...)
	l.mu.Unlock()
	for _, n := range nodes {
		n.each(func(s *server) { s.closeAll(link.ClosedTopic) })
	}
}

func (l *Log) read(partition int32, from int64) []link.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.records[partition]
	if from >= int64(len(all)) {
		return nil
	}
	return all[max(from, 0):]
}

func (l *Log) end(partition int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.records[partition]))
}

func (l *Log) id() [16]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.topicID
}

// Node is one node instance.
type Node struct {
	ID       string
	Instance string
	Token    string // asked for in Hello when not empty
	// Welcome, if set, changes what the node says of itself; before the first link.
	Welcome func(*link.Welcome)
	// Mute makes the node answer nothing to attaches; before the first link.
	Mute bool

	log  *Log
	http *httptest.Server

	mu      sync.Mutex
	servers map[*server]struct{}
	links   int
	heard   int // messages
	killed  bool
	frozen  chan struct{} // not nil while the node stands still
}

// Start starts a node on a free port; it ends with the test.
func Start(t testing.TB, log *Log, id, instance string) *Node {
	t.Helper()
	return start(t, log, id, instance, (*httptest.Server).Start)
}

// StartTLS is Start with TLS; the configuration is what a router needs to trust the node.
func StartTLS(t testing.TB, log *Log, id, instance string) (*Node, *tls.Config) {
	t.Helper()
	n := start(t, log, id, instance, (*httptest.Server).StartTLS)
	roots := x509.NewCertPool()
	roots.AddCert(n.http.Certificate())
	return n, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func start(t testing.TB, log *Log, id, instance string, listen func(*httptest.Server)) *Node {
	n := &Node{ID: id, Instance: instance, log: log, servers: map[*server]struct{}{}}
	n.http = httptest.NewUnstartedServer(http.HandlerFunc(n.accept))
	listen(n.http)
	log.mu.Lock()
	log.nodes = append(log.nodes, n)
	log.mu.Unlock()
	t.Cleanup(n.Kill)
	return n
}

// Addr is where routers dial.
func (n *Node) Addr() string { return n.http.Listener.Addr().String() }

// Want is the node as a router's table lists it.
func (n *Node) Want() links.Want { return links.Want{Node: n.ID, Instance: n.Instance, Addr: n.Addr()} }

// Links is how many links were ever opened.
func (n *Node) Links() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links
}

// Heard is how many messages came on all links, greetings included.
func (n *Node) Heard() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard
}

// Streams is how many streams are attached.
func (n *Node) Streams() int {
	total := 0
	n.each(func(s *server) { total += s.count() })
	return total
}

// Kill ends the node: its sockets are reset and its port closed.
func (n *Node) Kill() {
	n.mu.Lock()
	n.killed = true
	n.mu.Unlock()
	n.Thaw()
	_ = n.http.Listener.Close() // first: a router comes back at once
	n.Break()
	n.http.Close()
}

// Break resets the node's links; it stays there for new ones.
func (n *Node) Break() {
	n.each(func(s *server) {
		if tcp, ok := s.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = s.conn.Close()
	})
}

// Freeze makes the node stand still: its sockets stay open and silent.
func (n *Node) Freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen == nil {
		n.frozen = make(chan struct{})
	}
}

// Thaw ends a Freeze.
func (n *Node) Thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
		go n.serveAll()
	}
}

func (n *Node) serveAll() {
	for p := range n.log.Partitions {
		n.serve(p)
	}
}

func (n *Node) isFrozen() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen != nil
}

// Drain says Draining on all links.
func (n *Node) Drain() { n.each(func(s *server) { s.send(link.AppendDraining(nil)) }) }

// Checkpoint tells all links that everything of a partition was sent.
func (n *Node) Checkpoint(partition int32) {
	n.each(func(s *server) { s.checkpoint(partition) })
}

// Send sends raw bytes as one message on all links.
func (n *Node) Send(msg []byte) { n.each(func(s *server) { s.send(msg) }) }

// Gap announces a gap to every stream of a key.
func (n *Node) Gap(key string, from, to int64, reason link.GapReason) {
	n.each(func(s *server) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, st := range s.streams {
			if string(st.key) == key {
				st.next = max(st.next, to)
				s.sendLocked(link.AppendGap(nil, &link.Gap{Stream: id, From: from, To: to, Reason: reason}))
			}
		}
	})
}

func (n *Node) each(f func(*server)) {
	n.mu.Lock()
	var all []*server
	for s := range n.servers {
		all = append(all, s)
	}
	n.mu.Unlock()
	for _, s := range all {
		f(s)
	}
}

func (n *Node) serve(partition int32) {
	if n.isFrozen() {
		return
	}
	n.each(func(s *server) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pumpLocked(partition)
	})
}

func (n *Node) wait() {
	n.mu.Lock()
	frozen := n.frozen
	n.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

func (n *Node) accept(w http.ResponseWriter, r *http.Request) {
	var conn net.Conn
	ws, err := websocket.Accept(spy{w, n, &conn}, r, &websocket.AcceptOptions{Subprotocols: []string{link.Subprotocol}})
	if err != nil {
		return
	}
	ws.SetReadLimit(link.MaxMessage)
	s := &server{n: n, ws: ws, conn: conn, streams: map[uint64]*stream{}}
	n.mu.Lock()
	killed := n.killed
	n.servers[s] = struct{}{}
	n.links++
	n.mu.Unlock()
	if killed {
		_ = ws.CloseNow()
	}
	defer func() {
		n.mu.Lock()
		delete(n.servers, s)
		n.mu.Unlock()
		_ = ws.CloseNow()
	}()
	for {
		_, msg, err := ws.Read(context.Background())
		if err != nil {
			return
		}
		n.mu.Lock()
		n.heard++
		n.mu.Unlock()
		if err := link.DecodeToNode(msg, s); err != nil {
			_ = ws.Close(websocket.StatusPolicyViolation, err.Error())
			return
		}
	}
}

// server is one link's end at the node; it implements link.NodeHandler.
type server struct {
	n    *Node
	ws   *websocket.Conn
	conn net.Conn

	mu      sync.Mutex
	streams map[uint64]*stream
}

type stream struct {
	partition int32
	key       []byte
	next      int64
	credit    int64
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

func (s *server) send(msg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(msg)
}

func (s *server) sendLocked(msg []byte) {
	_ = s.ws.Write(context.Background(), websocket.MessageBinary, msg) // a link that broke is gone
}

// errToken is what a node says to a router without its token.
var errToken = errors.New("wrong token")

func (s *server) Hello(h *link.Hello) error {
	if s.n.Token != "" && h.Token != s.n.Token {
		return errToken
	}
	w := link.Welcome{
		Node: s.n.ID, Instance: s.n.Instance, Topic: "records", TopicID: s.n.log.id(),
		Partitions: s.n.log.Partitions, Version: link.Version, Build: "test",
	}
	if s.n.Welcome != nil {
		s.n.Welcome(&w)
	}
	s.send(link.AppendWelcome(nil, &w))
	return nil
}

func (s *server) Attach(a *link.Attach) error {
	if s.n.Mute {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.TopicID != s.n.log.id() {
		s.sendLocked(link.AppendClosed(nil, &link.Closed{Stream: a.Stream, Reason: link.ClosedTopic}))
		return nil
	}
	end := s.n.log.end(a.Partition)
	next := end
	switch a.Start.Kind {
	case link.StartCursor:
		next = a.Start.Value
	case link.StartOffset:
		next = min(end, a.Start.Value)
	case link.StartEarliest, link.StartTime:
		next = 0
	}
	st := &stream{partition: a.Partition, key: bytes.Clone(a.Key), next: next, credit: a.Credit}
	s.streams[a.Stream] = st
	s.sendLocked(link.AppendAttached(nil, &link.Attached{Stream: a.Stream, Next: next, Head: end, Live: next >= end}))
	if next < end { // what comes later is served for all streams together
		s.pumpSomeLocked(a.Partition, map[uint64]*stream{a.Stream: st})
	}
	return nil
}

func (s *server) Credit(c link.Credit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[c.Stream]; st != nil {
		st.credit += c.Bytes
		s.pumpSomeLocked(st.partition, map[uint64]*stream{c.Stream: st})
	}
	return nil
}

func (s *server) Detach(d link.Detach) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, d.Stream)
	return nil
}

func (s *server) closeAll(reason link.ClosedReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.streams {
		s.sendLocked(link.AppendClosed(nil, &link.Closed{Stream: id, Reason: reason}))
		delete(s.streams, id)
	}
}

// pumpLocked sends what the partition's streams have credit for; a record goes once for all that want it now.
func (s *server) pumpLocked(partition int32) {
	of := map[uint64]*stream{}
	for id, st := range s.streams {
		if st.partition == partition {
			of[id] = st
		}
	}
	s.pumpSomeLocked(partition, of)
}

func (s *server) pumpSomeLocked(partition int32, of map[uint64]*stream) {
	lowest := int64(1 << 62)
	for _, st := range of {
		if st.credit > 0 {
			lowest = min(lowest, st.next)
		}
	}
	var msg []byte
	for _, r := range s.n.log.read(partition, lowest) {
		r.Streams = nil
		for id, st := range of {
			if st.next > r.Offset || st.credit <= 0 {
				continue
			}
			if bytes.Equal(st.key, r.Key) {
				r.Streams = append(r.Streams, id)
				st.credit -= r.Cost()
			}
			st.next = r.Offset + 1
		}
		if len(r.Streams) > 0 {
			msg = link.AppendRecord(msg, &r)
		}
	}
	if len(msg) > 0 {
		s.sendLocked(msg)
	}
}

func (s *server) checkpoint(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.n.log.end(partition)
	c := link.Checkpoint{Partition: partition, Next: end}
	for id, st := range s.streams {
		if st.partition == partition && st.next < end {
			c.Except = append(c.Except, id)
		}
	}
	s.sendLocked(link.AppendCheckpoint(nil, &c))
}
