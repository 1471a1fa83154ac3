package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/options"
	"github.com/pointsmanhq/pointsman/pkg/overview"

	"github.com/pointsmanhq/pointsman/router/internal/survey"
)

// output is how an operator command prints.
type output struct {
	Output string `short:"o" default:"table" enum:"table,json" placeholder:"FORMAT" help:"table for people, json for programs."`
}

// status shows the stack.
type status struct {
	asked  `embed:""`
	output `embed:""`

	Partitions bool          `help:"List every partition, not only those that need a look."`
	Watch      bool          `short:"w" help:"Show it again and again."`
	Every      time.Duration `default:"2s" placeholder:"DURATION" help:"How often, with --watch."`
}

// Validate refuses what cannot be done.
func (s *status) Validate() error {
	if s.Every < 100*time.Millisecond {
		return options.Usagef("--every must be at least 100ms")
	}
	return nil
}

// Run shows it once, or until ctx ends.
func (s *status) Run(ctx context.Context, env options.Env) error {
	nodes := survey.New()
	if !s.Watch {
		seen, err := s.look(ctx, nodes)
		if err != nil {
			return err
		}
		return s.print(env.Stdout, seen)
	}
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		// What is on the screen stays until the next picture is complete.
		var screen bytes.Buffer
		seen, err := s.look(ctx, nodes)
		if ctx.Err() != nil {
			return nil // interrupted: that is how watching ends
		}
		switch {
		case err == nil:
			err = s.print(&screen, seen)
		case s.Output == "json":
			err = json.NewEncoder(&screen).Encode(map[string]string{"error": err.Error()})
		default:
			_, err = fmt.Fprintln(&screen, "!", err)
		}
		if err != nil {
			return err
		}
		if err := s.show(env.Stdout, screen.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// show replaces the screen of a person, and appends to anything else.
func (s *status) show(out io.Writer, screen []byte) error {
	switch {
	case s.Output == "json":
	case terminal(out):
		const home, toLineEnd, below = "\x1b[H", "\x1b[K", "\x1b[J"
		screen = append([]byte(home), bytes.ReplaceAll(screen, []byte("\n"), []byte(toLineEnd+"\n"))...)
		screen = append(screen, below...)
	default:
		screen = append(screen, '\n')
	}
	_, err := out.Write(screen)
	return err
}

func (s *status) print(out io.Writer, seen *overview.Status) error {
	if s.Output == "json" {
		enc := json.NewEncoder(out)
		if !s.Watch {
			enc.SetIndent("", "  ")
		}
		return enc.Encode(seen)
	}
	p := &page{out: out, s: seen, now: seen.At, colours: terminal(out) && os.Getenv("NO_COLOR") == "", all: s.Partitions}
	return p.print()
}

// page is a status as a person reads it.
type page struct {
	out     io.Writer
	s       *overview.Status
	now     time.Time
	colours bool
	all     bool
	err     error
}

func (p *page) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format+"\n", args...)
	}
}

func (p *page) table(title string, c *columns) {
	if c.empty() {
		return
	}
	p.line("")
	if title != "" {
		p.line("%s", title)
	}
	if p.err == nil {
		p.err = c.print(p.out)
	}
}

func (p *page) paint(code, text string) string {
	if !p.colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

const (
	red   = "1;31"
	green = "32"
)

func (p *page) print() error {
	p.head()
	p.nodes()
	p.routers()
	p.partitions()
	p.catchUps()
	p.handovers()
	return p.err
}

func (p *page) head() {
	s := p.s
	if t := s.Topic; t != nil {
		p.line("%s: %s partitions, %s, group %s", safe(t.Name), number(int(t.Partitions)), t.Partitioner, safe(t.Group))
	}
	who := map[overview.Of]string{overview.OfRouter: "router " + safe(s.ID), overview.OfNode: "node " + safe(s.ID), overview.OfEtcd: "etcd"}[s.Of]
	table := fmt.Sprintf("etcd revision %d", s.Table.Revision)
	if s.Of != overview.OfEtcd && s.Table.Revision > 0 {
		table += fmt.Sprintf(", unchanged for %s", ago(time.Duration(s.Table.AgeMS)*time.Millisecond))
	}
	p.line("seen by %s at %s; %s", who, p.now.UTC().Format("15:04:05Z"), table)
	p.line("")
	if len(s.Problems) == 0 {
		p.line("%s", p.paint(green, "OK: every partition has its owner, and every node was heard"))
	}
	for _, text := range s.Problems {
		p.line("%s %s", p.paint(red, "!"), safe(text))
	}
}

func (p *page) nodes() {
	c := newColumns("NODE", ">PARTITIONS", ">STREAMS", ">BEHIND", ">LAG", ">MEMORY", ">UP", "VERSION", "ZONE", "STATE")
	for i := range p.s.Nodes {
		n := &p.s.Nodes[i]
		row := []string{safe(n.ID), number(n.Routed), "?", "?", "?", "?", since(n.Started, p.now), safe(n.Version), safe(n.Zone), p.state(n)}
		if n.Heard() {
			row[2], row[3], row[4], row[5] = number(n.Streams), number(n.Behind), number(n.Lag), bytesText(n.Memory)
		}
		c.row(row...)
	}
	p.table("", c)
}

func (p *page) state(n *overview.Node) string {
	var words []string
	if p.s.Of == overview.OfRouter && !n.Linked {
		words = append(words, "not linked")
	}
	if n.Draining {
		words = append(words, "draining")
	}
	if !n.Listed {
		words = append(words, "not in etcd")
	}
	if n.Stage != "" && n.Stage != "draining" {
		words = append(words, n.Stage)
	}
	if !n.Heard() {
		words = append(words, "not heard")
	}
	if len(words) == 0 {
		return "ok"
	}
	return strings.Join(words, ", ")
}

func (p *page) routers() {
	c := newColumns("ROUTER", ">CLIENTS", ">STREAMS", ">NODES", ">WAITING", ">MOVING", ">MEMORY", ">UP", "VERSION", "FROM")
	for i := range p.s.Routers {
		r := &p.s.Routers[i]
		row := []string{safe(r.ID), "", number(r.Streams), number(r.Nodes), "", "", "", since(r.Since, p.now), safe(r.Version), safe(r.Remote)}
		if r.Self {
			row[1], row[4], row[5], row[6], row[9] = number(r.Sessions), number(r.Waiting), number(r.Pending), bytesText(r.Memory), "this router"
			if r.Draining {
				row[9] += ", draining"
			}
		}
		c.row(row...)
	}
	p.table("", c)
}

// needsALook reports whether a partition is shown unasked.
func needsALook(p *overview.Partition) bool {
	return p.Node == "" || p.StandIn || p.Claimed != "" || p.Remembered || p.Lag > 1000 || p.Uncommitted > 1000
}

func (p *page) partitions() {
	const most = 40
	c := newColumns(">PARTITION", "NODE", ">GENERATION", ">SINCE", ">HEAD", ">LAG", ">STREAMS", ">BEHIND", "")
	left := 0
	for i := range p.s.Partitions {
		row := &p.s.Partitions[i]
		if !p.all && (p.s.Of == overview.OfNode || !needsALook(row)) {
			continue
		}
		if !p.all && len(c.rows) > most {
			left++
			continue
		}
		head, lag, streams, behind := "-", "-", "-", "-"
		if row.Reading {
			head, lag, streams, behind = number(row.Head), number(row.Lag), number(row.Streams), number(row.Behind)
		}
		c.row(strconv.Itoa(int(row.Partition)), orDash(safe(row.Node)), number(int64(row.Generation)), since(row.Since, p.now), head, lag, streams, behind, remark(row))
	}
	title := "Partitions that need a look"
	if p.all {
		title = ""
	}
	p.table(title, c)
	if left > 0 {
		p.line("and %s more; --partitions lists all", number(left))
	}
}

func orDash(text string) string {
	if text == "" {
		return "nobody"
	}
	return text
}

func remark(row *overview.Partition) string {
	var words []string
	switch {
	case row.Node == "" && row.Claimed != "":
		words = append(words, "claimed by "+safe(row.Claimed))
	case row.StandIn && row.Claimed != "":
		words = append(words, "stands in for "+safe(row.Claimed))
	case row.StandIn:
		words = append(words, "stands in")
	case row.Claimed != "":
		words = append(words, "until "+safe(row.Claimed)+" is linked")
	}
	if row.Remembered && row.Node != "" {
		words = append(words, "owned it before; etcd holds no claim")
	}
	if row.Uncommitted > 0 {
		words = append(words, number(row.Uncommitted)+" held back by open transactions")
	}
	return strings.Join(words, "; ")
}

func (p *page) catchUps() {
	const most = 10
	c := newColumns(">PARTITION", "NODE", ">CLIENTS BEHIND", ">FURTHEST", ">READING AT", ">HEAD", ">TO GO")
	left := 0
	for i := range p.s.Partitions {
		row := &p.s.Partitions[i]
		if !row.Scanning {
			continue
		}
		if len(c.rows) > most {
			left++
			continue
		}
		c.row(strconv.Itoa(int(row.Partition)), safe(row.Node), number(row.Behind), number(row.Lowest), number(row.ScanAt), number(row.Head), number(max(row.Head-row.ScanAt, 0)))
	}
	p.table("Catch-ups running", c)
	if left > 0 {
		p.line("and %s more", number(left))
	}
}

func (p *page) handovers() {
	const most = 8
	c := newColumns(">AGO", "CAUSE", ">PARTITIONS", ">CLIENTS", ">LONGEST PAUSE", "FROM", "TO")
	for i := range p.s.Handovers {
		h := &p.s.Handovers[i]
		if i == most {
			break
		}
		pause := "none"
		if h.PauseMS > 0 {
			pause = (time.Duration(h.PauseMS*1000) * time.Microsecond).Round(100 * time.Microsecond).String()
		}
		if h.Unserved > 0 {
			pause = number(h.Unserved) + " still wait"
		}
		c.row(since(h.At, p.now), cause(h.Cause), number(h.Partitions), number(h.Sessions), pause, names(h.From), names(h.To))
	}
	p.table("Last handovers", c)
}

// cause spells the causes as a person would.
func cause(c string) string {
	switch c {
	case "claim":
		return "new owner"
	case "link_down":
		return "node lost"
	case "link_up":
		return "node linked"
	}
	return safe(c)
}

func names(list []string) string {
	if len(list) == 0 {
		return "nobody"
	}
	all := make([]string, 0, len(list))
	for _, n := range list {
		all = append(all, safe(n))
	}
	return strings.Join(all, " ")
}
