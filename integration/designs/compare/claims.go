package compare

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
)

// reference is the size at which designs are summed up: that of the faults, with the fewest clients.
func (r *Report) reference() Cell {
	clients := r.clients()
	if len(clients) == 0 {
		return Cell{}
	}
	c := Cell{Servers: faultServers, Clients: clients[0]}
	for _, d := range r.designs() {
		if all := r.servers(d, c.Clients); len(r.at(d, c)) == 0 && len(all) > 0 {
			c.Servers = all[0]
		}
	}
	return c
}

// summary has one row for each design: what it costs, what a kill does, and what has to be run.
func (r *Report) summary() string {
	at := r.reference()
	var b strings.Builder
	fmt.Fprintf(&b, "%d servers, %d clients, %.0f records/s of %d bytes; faults were measured with two servers.\n\n", at.Servers, at.Clients, r.Rate, r.Size)
	b.WriteString("| design | CPU per record, us | with the broker's | read from Kafka by each reader, KB/s | memory per client, KB | a server killed: sockets broken | longest pause | a router or redistributor killed: sockets broken, longest pause | to run, beside Kafka |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range r.designs() {
		parts := "?"
		if d, err := arena.Find(name); err == nil {
			parts = d.Parts
		}
		broken, pause := "not measured", "-"
		if f, ok := r.worst(name, KillServer); ok {
			broken, pause = fmt.Sprintf("%d of %d", f.Broken, f.Clients), fmt.Sprintf("%.1f s", f.Pause/1000)
			if f.Failed != "" {
				broken, pause = "failed", "-"
			}
		}
		other := "has none"
		if f, ok := r.worst(name, KillOther); ok {
			other = fmt.Sprintf("%d of %d, %.1f s", f.Broken, f.Clients, f.Pause/1000)
			if f.Failed != "" {
				other = "failed"
			}
		} else if d, err := arena.Find(name); err == nil && d.Other() != "" {
			other = "not measured"
		}
		fmt.Fprintf(&b, "| **%s** | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, r.cell("cpu", name, at), r.whole(name, at), r.cell("ingest", name, at),
			r.cell("memory", name, at), broken, pause, other, parts)
	}
	return b.String()
}

// whole is the CPU of a record with what the broker spends on it: who reads more has it read more.
func (r *Report) whole(design string, at Cell) string {
	own, why := r.value(figure("cpu"), design, at)
	brokers, whyNot := r.value(figure("kafka_cpu"), design, at)
	if why+whyNot != "" {
		return cmp.Or(why, whyNot)
	}
	return number(own + brokers)
}

// cell is a figure as a table has it.
func (r *Report) cell(name, design string, at Cell) string {
	v, why := r.value(figure(name), design, at)
	if why != "" {
		return why
	}
	return number(v)
}

// claim is something that the page says of the designs. It stands only where the figures are so.
type claim struct {
	id   string
	says string
	// holds reports whether the figures are so, and names them. They are empty where there are none.
	holds func(r *Report) (figures string, ok bool)
}

func claims() []claim {
	return []claim{
		{"everyone-ingest", "its ingest does not shrink with servers", func(r *Report) (string, bool) {
			return r.ingestBetween("everyone", func(first, last float64) bool { return last > 0.8*first })
		}},
		{"plainrouter-ingest", "servers share what is read", func(r *Report) (string, bool) {
			return r.ingestBetween("plainrouter", func(first, last float64) bool { return last < 0.6*first })
		}},
		{"plainrouter-breaks", "servers that come and go break clients' sockets", func(r *Report) (string, bool) {
			return r.broken("plainrouter", func(n int64) bool { return n > 0 })
		}},
		{"redistributor-between", "every record crosses to its server a second time", func(r *Report) (string, bool) {
			v, why := r.value(figure("between"), "redistributor-cache-http", r.reference())
			if why != "" {
				return "", false
			}
			return fmt.Sprintf("figure `between`: %s KB/s with a cache and HTTP", number(v)), v > 0
		}},
		{"pointsman-breaks-none", "a server that is killed, drained or added breaks no client's socket", func(r *Report) (string, bool) {
			return r.broken("pointsman", func(n int64) bool { return n == 0 })
		}},
		{"pointsman-router", "the clients of a router that dies reconnect", func(r *Report) (string, bool) {
			f, ok := r.worst("pointsman", KillOther)
			if !ok || f.Failed != "" {
				return "", false
			}
			return fmt.Sprintf("fault table: %s %d of %d, %.1f s", KillOther, f.Broken, f.Clients, f.Pause/1000), f.Broken > 0
		}},
		{"everyone-cheapest", "one server that reads everything spends less on a record than Pointsman", func(r *Report) (string, bool) {
			at := Cell{1, r.reference().Clients}
			x, why := r.value(figure("cpu"), "everyone", at)
			y, whyNot := r.value(figure("cpu"), "pointsman", at)
			if why+whyNot != "" {
				return "", false
			}
			return fmt.Sprintf("figure `cpu`, one server: %s us against %s", number(x), number(y)), x < y
		}},
	}
}

// ingestBetween compares the ingest of a reader with the fewest and with the most servers.
func (r *Report) ingestBetween(design string, so func(first, last float64) bool) (string, bool) {
	all := r.series(figure("ingest"), design, r.reference().Clients)
	if len(all) < 2 || len(all) < len(r.servers(design, r.reference().Clients)) {
		return "", false
	}
	first, last := all[0], all[len(all)-1]
	return fmt.Sprintf("figure `ingest`: %s KB/s each with %.0f, %s with %.0f", number(first.Y), first.X, number(last.Y), last.X), so(first.Y, last.Y)
}

// broken looks at the sockets that broke under what is done to servers.
func (r *Report) broken(design string, so func(n int64) bool) (string, bool) {
	ok, looked := true, false
	var said []string
	for _, fault := range []string{KillServer, DrainServer, AddServer} {
		f, measured := r.worst(design, fault)
		if !measured || f.Failed != "" {
			ok = false
			said = append(said, fault+" not measured")
			continue
		}
		looked = true
		said = append(said, fmt.Sprintf("%s %d of %d", fault, f.Broken, f.Clients))
		ok = ok && so(f.Broken)
	}
	if !looked {
		return "", false
	}
	return "fault table: " + strings.Join(said, ", "), ok
}

// claim is a claim with its figures; where they do not bear it, it says that.
func (r *Report) claim(id string) (string, error) {
	for _, c := range claims() {
		if c.id != id {
			continue
		}
		figures, ok := c.holds(r)
		switch {
		case ok:
			return fmt.Sprintf("%s (%s)", c.says, figures), nil
		case figures == "":
			return fmt.Sprintf("*this run does not show whether* %s", c.says), nil
		}
		return fmt.Sprintf("*this run does not show that* %s (%s)", c.says, figures), nil
	}
	return "", fmt.Errorf("there is no claim %q", id)
}

// What "small" and "few" are measured by: a tenth of a processor of each server, and a gigabyte of one.
const (
	smallShare = 0.1
	fewMemory  = 1 << 30
)

// few is how many clients fit one server.
func (r *Report) few() string {
	bytes, _, _, ok := r.slope("everyone")
	how := "at what one more client takes"
	if !ok {
		v, why := r.value(figure("memory"), "everyone", r.reference())
		if why != "" || v <= 0 {
			return "this run gives no number"
		}
		bytes, how = v*1024, "at what a client took among few, which is too much"
	}
	return fmt.Sprintf("%s clients: a gigabyte of one server, %s (`everyone`, figure `memory`)", rounded(fewMemory/bytes), how)
}

// small is the rate of records that a server reads without noticing, large ten times that.
func (r *Report) small() (rate float64, how string) {
	clients := r.reference().Clients
	if f := r.fit("cpu", "everyone", clients); f.None == "" && f.Form == grows && f.B > 0 {
		return smallShare * 1e6 / f.B, "at what one more server that reads everything costs"
	}
	if v, why := r.value(figure("cpu"), "everyone", Cell{1, clients}); why == "" && v > 0 {
		return smallShare * 1e6 / v, "at what one server spends on a record, delivery and all, which is too much"
	}
	return 0, ""
}

func (r *Report) smallText() string {
	rate, how := r.small()
	if rate == 0 {
		return "this run gives no number"
	}
	return fmt.Sprintf("%s records/s of %d bytes: a tenth of a processor of each server, %s (`everyone`, figure `cpu`)", rounded(rate), r.Size, how)
}

func (r *Report) largeText() string {
	rate, _ := r.small()
	if rate == 0 {
		return "this run gives no number"
	}
	return fmt.Sprintf("%s records/s: a whole processor of each server for reading alone", rounded(10*rate))
}

// rounded has two digits: no more are known.
func rounded(v float64) string {
	if v < 1 {
		return "fewer than 1"
	}
	unit := math.Pow(10, math.Max(0, math.Floor(math.Log10(v))-1))
	text := fmt.Sprintf("%.0f", math.Floor(v/unit)*unit)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
