package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/partitioner"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/router"

	"github.com/pointsmanhq/pointsman/router/internal/hub"
	"github.com/pointsmanhq/pointsman/router/internal/survey"
)

// maxWhere bounds the answer that is read: some hundred sessions.
const maxWhere = 1 << 20

// where tells about one key.
type where struct {
	Key    string `arg:"" help:"Client key."`
	Base64 bool   `name:"base64" help:"The key is given in base64."`
	asked  `embed:""`
	output `embed:""`
}

// Run asks a router, or, when none answers, etcd.
func (w *where) Run(ctx context.Context, env options.Env) error {
	key := []byte(w.Key)
	if w.Base64 {
		k, err := clientmsg.DecodeKey(w.Key)
		if err != nil {
			return options.Usagef("the key is not base64")
		}
		key = k
	}
	found, err := w.find(ctx, key)
	if err != nil {
		return err
	}
	if w.Output == "json" {
		enc := json.NewEncoder(env.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(found)
	}
	return printWhere(env.Stdout, found, time.Now())
}

func (w *where) find(ctx context.Context, key []byte) (*router.Where, error) {
	bounded, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	found := new(router.Where)
	path := "/api/v1/where?key_b64=" + url.QueryEscape(base64.StdEncoding.EncodeToString(key))
	err := admin.Get(bounded, w.Admin, path, maxWhere, found)
	said := new(admin.StatusError)
	switch {
	case err == nil:
		return found, nil
	case errors.As(err, &said) && said.Code == 404:
		return nil, fmt.Errorf("no router is at %s, but another program (a node?): say where a router's admin address is with --admin", w.Admin)
	case errors.As(err, &said):
		return nil, err
	}
	s, err := w.look(ctx, survey.New())
	if err != nil {
		return nil, err
	}
	if s.Topic == nil {
		return nil, errors.New(strings.Join(s.Problems, "; "))
	}
	by, err := partitioner.New(s.Topic.Partitioner)
	if err != nil {
		return nil, err
	}
	p := &s.Partitions[by.Partition(key, s.Topic.Partitions)]
	found = &router.Where{
		Key: string(key), KeyBase64: base64.StdEncoding.EncodeToString(key), Topic: s.Topic.Name, Partitions: s.Topic.Partitions,
		Partitioner: s.Topic.Partitioner, Why: s.Why(p), Clients: []hub.Client{},
		Assignment: hub.Assignment{Partition: p.Partition, Node: p.Node, StandIn: p.StandIn, Generation: p.Generation, Since: p.Since},
	}
	if p.Reading {
		found.Head, found.Lag = &p.Head, p.Lag
	}
	return found, nil
}

func printWhere(out io.Writer, w *router.Where, now time.Time) error {
	p := &page{out: out, now: now}
	key := safe(w.Key)
	if key == "" {
		key = `""`
	}
	p.line("%s is in partition %d of %d (%s)", key, w.Partition, w.Partitions, w.Partitioner)
	node := orDash(safe(w.Node))
	if w.Instance != "" {
		node += " (instance " + safe(w.Instance) + ")"
	}
	p.line("served by   %s", node)
	p.line("because     %s", safe(w.Why))
	if w.Head != nil {
		p.line("head        %s, %s records not read yet", number(*w.Head), number(w.Lag))
	}
	if w.Router == "" {
		p.line("sessions    not known: no router answers at --admin, and etcd knows none")
		return p.err
	}
	switch w.ClientsTotal {
	case 0:
		p.line("sessions    none on router %s; another router may have some", safe(w.Router))
		return p.err
	case 1:
		p.line("sessions    1 on router %s", safe(w.Router))
	default:
		p.line("sessions    %s on router %s", number(w.ClientsTotal), safe(w.Router))
	}
	c := newColumns("CLIENT", ">CONNECTED", ">NEXT", ">LAG", ">QUEUED", "SERVED BY", "CURSOR")
	for i := range w.Clients {
		s := &w.Clients[i]
		next, lag, by := "-", "?", orDash(safe(s.Node))
		if s.Cursor != "" {
			next = fmt.Sprintf("%d:%d", s.Partition, s.Next)
			for _, at := range s.Also {
				next += fmt.Sprintf(" %d:%d", at.Partition, at.Next)
			}
		}
		if s.Lag != nil {
			lag = number(*s.Lag)
		}
		if s.Moving {
			by += ", moving"
		}
		if s.Protocol == "raw" {
			by += ", raw"
		}
		c.row(safe(s.Remote), since(s.Since, now), next, lag, number(s.Queued), by, safe(s.Cursor))
	}
	p.table("", c)
	if more := w.ClientsTotal - len(w.Clients); more > 0 {
		p.line("and %s more", number(more))
	}
	return p.err
}
