package playground

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// hint is a command to try by hand.
type hint struct {
	What    string `json:"what"`
	Command string `json:"command"`
	Or      string `json:"or,omitempty"` // the same where that program is missing
}

// commands are the three things to try in another terminal. They can be copied as they are.
func (p *Playground) commands() []hint {
	bin := p.cfg.Bin
	if cwd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(cwd, bin); err == nil && !strings.HasPrefix(rel, "..") {
			bin = rel
		}
	}
	router := p.stack.Routers()[0]
	return []hint{
		{
			What:    "be a client",
			Command: fmt.Sprintf("%s tail alice --url %s", filepath.Join(bin, "router"), router.URL),
		},
		{
			What:    "see who serves what",
			Command: fmt.Sprintf("etcdctl --endpoints %s get --prefix %s/%s/", strings.Join(p.stack.Etcd(), ","), p.stack.EtcdPrefix(), p.stack.Topic()),
			Or:      fmt.Sprintf("curl -s %s/api/v1/assignments", router.Admin),
		},
		{
			What: "send alice a record",
			Command: fmt.Sprintf(`%s produce --kafka %s --topic %s --key alice '{"hello":"world"}'`,
				filepath.Join(bin, "wsnode"), strings.Join(p.stack.Kafka(), ","), p.stack.Topic()),
		},
	}
}

// hints are what a terminal shows.
func (p *Playground) hints() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("")
	line("  page      %s      <- open this in a browser", p.page)
	for _, r := range p.stack.Routers() {
		line("  %s  %s, admin %s", r.Name, r.URL, r.Admin)
	}
	line("  Kafka     %s, topic %s of %d partitions", strings.Join(p.stack.Kafka(), ","), p.stack.Topic(), p.stack.Partitions())
	line("  etcd      %s, below %s/%s/", strings.Join(p.stack.Etcd(), ","), p.stack.EtcdPrefix(), p.stack.Topic())
	line("  logs      %s", p.stack.Dir())
	if busy := p.busy(); len(busy) > 0 {
		line("")
		line("  In use by something else, so free ports were taken instead of: %s.", strings.Join(busy, ", "))
		line("  README's commands name those; the ones below are right.")
	}
	line("")
	line("Three things to try in another terminal:")
	line("")
	for _, h := range p.commands() {
		line("  # %s", h.What)
		line("  %s", h.Command)
		if h.Or != "" {
			line("  # or, without that program")
			line("  %s", h.Or)
		}
	}
	line("")
	line("Ctrl-C stops everything.")
	return b.String()
}

// busy names the well-known addresses that somebody else had.
func (p *Playground) busy() []string {
	if p.cfg.FreePorts {
		return nil
	}
	var busy []string
	want := func(what, got string, port int) {
		if !strings.HasSuffix(got, fmt.Sprintf(":%d", port)) {
			busy = append(busy, fmt.Sprintf("%d (%s)", port, what))
		}
	}
	if p.cfg.Listen == "" {
		want("the page", p.page, pagePort)
	}
	if !p.cfg.external() {
		want("Kafka", p.stack.Kafka()[0], 9092)
		want("etcd", p.stack.Etcd()[0], 2379)
	}
	first := p.stack.Routers()[0]
	want("the first router", first.URL, 8080)
	want("its admin server", first.Admin, 8081)
	return busy
}
