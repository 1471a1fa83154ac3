package router

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/overview"

	"github.com/pointsmanhq/pointsman/router/internal/edge"
	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/survey"
)

// maxClients bounds the sessions of one key that an answer lists; a key with more is counted all the same.
const maxClients = 100

func (r *Router) serveStatus(w http.ResponseWriter, req *http.Request) {
	admin.Answer(w, req, http.StatusOK, r.status(req.Context()))
}

// status is the stack as this router sees it, with what its nodes say of themselves.
func (r *Router) status(ctx context.Context) *overview.Status {
	now := time.Now().UTC()
	t := r.hub.Table()
	s := &overview.Status{
		Of: overview.OfRouter, ID: r.cfg.ID, Version: r.cfg.Version, At: now,
		Problems: []string{}, Nodes: []overview.Node{}, Mismatches: []overview.Mismatch{}, Handovers: []overview.Handover{},
		Table: overview.Table{Revision: t.Revision},
		Etcd:  overview.Etcd{Malformed: r.etcd.Stats().MalformedValues},
		Routers: []overview.Router{{
			ID: r.cfg.ID, Version: r.cfg.Version, Since: r.started, Self: true, Sessions: r.hub.Sessions(), Waiting: r.hub.Waiting(),
			Pending: r.hub.Pending(), Queued: r.hub.Queued(), Memory: admin.Memory(), Draining: r.draining.Load(),
		}},
	}
	if !t.At.IsZero() {
		s.Table.AgeMS = now.Sub(t.At).Milliseconds()
	}
	if t.Topic != nil {
		s.Topic = &overview.Topic{
			Name: r.cfg.Topic, ID: t.Topic.TopicID, Partitions: t.Topic.Partitions, Partitioner: t.Topic.Partitioner,
			Group: t.Topic.Group, Incarnation: t.Topic.Incarnation,
		}
	}
	if err, since := r.etcd.Health(); err != nil {
		s.Etcd.Error, s.Etcd.Since = err.Error(), since.UTC()
	}
	if err := r.Unready(); err != nil {
		s.Unready = err.Error()
	}
	for _, n := range r.hub.Nodes(r.pool.State) {
		s.Nodes = append(s.Nodes, overview.Node{
			ID: n.Node, Instance: n.Instance, Addr: n.Addr, Admin: n.Admin, Version: n.Version, Zone: n.Zone,
			Started: n.Started, Listed: n.Listed, Draining: n.Draining, Linked: n.Linked, LinkError: n.LinkError,
			RTT: n.RTT, Routed: n.Partitions,
		})
	}
	assignments := r.hub.Assignments()
	s.Partitions = make([]overview.Partition, 0, len(assignments))
	for i := range assignments {
		s.Partitions = append(s.Partitions, partition(&assignments[i]))
	}
	for _, m := range r.hub.Moves() {
		s.Handovers = append(s.Handovers, overview.Handover{
			At: m.At.UTC(), Cause: m.Cause, From: m.From, To: m.To, Partitions: m.Partitions, Sessions: m.Sessions,
			PauseMS: millis(m.Pause), Unserved: m.Unserved, TookMS: millis(m.Took),
		})
	}
	survey.Merge(s, r.survey.Look(ctx, s.Nodes))
	s.Diagnose()
	return s
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func partition(a *hub.Assignment) overview.Partition {
	p := overview.Partition{
		Partition: a.Partition, Node: a.Node, StandIn: a.StandIn, Remembered: a.Remembered, Generation: a.Generation,
		Sessions: a.Sessions,
	}
	if a.Claimed != a.Node {
		p.Claimed = a.Claimed
	}
	if !a.Since.IsZero() {
		p.Since = a.Since.UTC().Truncate(time.Second)
	}
	return p
}

// Where is the answer of /api/v1/where: who serves a key, by which reckoning, and to whom.
type Where struct {
	Key         string `json:"key"`
	KeyBase64   string `json:"key_b64"`
	Topic       string `json:"topic"`
	Partitions  int32  `json:"partitions"`
	Partitioner string `json:"partitioner"`
	hub.Assignment
	Why  string `json:"why"`
	Head *int64 `json:"head,omitempty"` // of the serving node; absent when it did not say
	Lag  int64  `json:"lag"`            // of that node

	Router       string       `json:"router"`        // whose sessions these are
	Clients      []hub.Client `json:"clients"`       // sessions of the key, the first few
	ClientsTotal int          `json:"clients_total"` // how many there are
}

func (r *Router) where(w http.ResponseWriter, req *http.Request) {
	who, err := edge.AuthNone{}.Authenticate(req, req.URL.Query())
	if err != nil {
		refusal := new(edge.Refusal)
		if errors.As(err, &refusal) {
			answer(w, refusal.Status, map[string]string{"error": refusal.Reason})
			return
		}
		answer(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
		return
	}
	if len(who.Keys) != 1 {
		answer(w, http.StatusBadRequest, map[string]string{"error": "ask for one key at a time, with key= or key_b64="})
		return
	}
	key := who.Keys[0]
	p, ok := r.hub.Partition(key)
	if !ok {
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": r.hub.Fit().Error()})
		return
	}
	s := r.status(req.Context())
	topic := r.hub.Table().Topic
	a, ok := r.hub.Assignment(p)
	if !ok || int(p) >= len(s.Partitions) {
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": "the topic is just being created anew; ask again"})
		return
	}
	found := Where{
		Key: string(key), KeyBase64: base64.StdEncoding.EncodeToString(key), Topic: r.cfg.Topic, Router: r.cfg.ID,
		Partitions: topic.Partitions, Partitioner: topic.Partitioner, Assignment: a, Why: s.Why(&s.Partitions[p]),
	}
	if at := s.Partitions[p]; at.Reading {
		found.Head, found.Lag = &at.Head, at.Lag
	}
	found.Clients, found.ClientsTotal = r.hub.Clients(key, maxClients)
	for i := range found.Clients {
		c := &found.Clients[i]
		if c.Cursor != "" {
			c.Lag = lag(s, append(c.Also, hub.Position{Partition: c.Partition, Next: c.Next}))
		}
	}
	answer(w, http.StatusOK, found)
}

// lag is how many offsets lie between a client's positions and the heads, nil where a head is not known.
func lag(s *overview.Status, positions []hub.Position) *int64 {
	var sum int64
	for _, at := range positions {
		if int(at.Partition) >= len(s.Partitions) || !s.Partitions[at.Partition].Reading {
			return nil
		}
		// The client may have got a record since the node was asked.
		sum += max(s.Partitions[at.Partition].Head-at.Next, 0)
	}
	return &sum
}
