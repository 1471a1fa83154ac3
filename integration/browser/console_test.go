package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/pointsmanhq/pointsman/pkg/admin"
	"github.com/pointsmanhq/pointsman/pkg/console"
	"github.com/pointsmanhq/pointsman/pkg/overview"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// hostile is a client key that would be a picture if the page believed it.
const hostile = `<img src=x onerror="document.title='owned'">`

// dresses are the page's looks; nothing may stick out to the side in any of them.
func (b *tab) dresses(name string, which ...string) {
	b.t.Helper()
	for _, d := range []struct {
		name, scheme  string
		width, height int64
	}{
		{"dark", "dark", 1440, 1000}, {"light", "light", 1440, 1000}, {"tablet-light", "light", 820, 1180}, {"phone-dark", "dark", 390, 844}, {"phone-light", "light", 390, 844},
	} {
		if len(which) > 0 && !slices.Contains(which, d.name) {
			continue
		}
		b.dress(d.scheme, d.width, d.height)
		if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > int(d.width) {
			b.t.Errorf("%s %s: the page is %d wide in a window of %d", name, d.name, wide, d.width)
		}
		b.screenshot(name + "-" + d.name)
	}
	b.dress("dark", 1440, 1000)
}

func (b *tab) expectQuiet() {
	b.t.Helper()
	if red := b.console(); len(red) > 0 {
		b.t.Errorf("the console shows errors: %q", red)
	}
	if title := eval[string](b, `document.title`); strings.Contains(title, "owned") || eval[bool](b, `!!document.querySelector("main img")`) {
		b.t.Errorf("a key became a part of the page (title %q)", title)
	}
}

func TestConsoleShowsWhatHappens(t *testing.T) {
	gate(t)
	bin := os.Getenv("POINTSMAN_BIN")
	s := stack.StartKind(t, stack.Processes, stack.Options{Routers: 2, Nodes: 3, Partitions: 64, Bin: bin, Logf: t.Logf})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	fleet := load.NewFleet()
	t.Cleanup(fleet.Close)
	keys := []string{"alice", hostile}
	for i := range 30 {
		keys = append(keys, fmt.Sprintf("client-%d", i))
	}
	router := s.Routers()[0]
	if _, err := fleet.Add(ctx, len(keys), func(i int) load.Options { return load.Options{Key: keys[i]} },
		func(int) load.Target { return load.Target{Name: router.Name, URL: router.URL} }); err != nil {
		t.Fatal(err)
	}
	produce := func(by string) {
		t.Helper()
		var lines strings.Builder
		for i := range 30 {
			fmt.Fprintf(&lines, "client-%d\t{\"n\":%d}\n", i, i)
		}
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "wsnode"), "produce", "--kafka="+strings.Join(s.Kafka(), ","), "--topic="+s.Topic(), "--partitioner="+by, "--delimiter=\t")
		cmd.Stdin = strings.NewReader(lines.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("produce: %v %s", err, out)
		}
	}
	produce("murmur2")

	b := open(t, router.Admin)
	b.dress("dark", 1440, 1000)
	const good, bad = `document.getElementById("verdict").dataset.state === "good"`, `document.getElementById("verdict").dataset.state === "bad"`
	b.until("all is well", good+` && document.querySelectorAll("#nodes > li").length === 3`, time.Minute)
	b.until("heads and clients show", `document.querySelectorAll("#router-table tbody tr").length === 2 && [...document.querySelectorAll("#tiles dd")].some((dd) => dd.textContent === "32")`, 30*time.Second)

	// By keyboard alone: a slash, the key, Enter.
	b.do("press /", chromedp.KeyEvent("/"))
	b.until("the field has the focus", `document.activeElement.id === "key"`, 10*time.Second)
	eval[string](b, `document.getElementById("key").value = ""`) // DevTools sends the letter although the page took the key
	b.do("type a key", chromedp.KeyEvent("alice"))
	b.do("press Enter", chromedp.KeyEvent("\r"))
	b.until("alice's session shows", `document.querySelectorAll("#found-clients tbody tr").length === 1 && document.getElementById("found-facts").textContent.includes("the consumer group gave it to node-")`, 30*time.Second)
	b.dresses("console-healthy")
	owner := eval[string](b, `document.querySelectorAll("#found-facts dd")[1].textContent.split(" ")[0]`)
	reached := eval[int](b, `[...document.querySelectorAll("a, button, input, select")].filter((e) => !e.disabled && e.tabIndex >= 0 && (e.offsetParent !== null || e.className === "skip")).length`)
	if reached < 15 {
		t.Errorf("%d controls can be reached by keyboard, want those of the page", reached)
	}
	b.do("look for the hostile key", chromedp.Navigate(router.Admin+"/#key="+strings.ReplaceAll(hostile, " ", "%20")))
	b.until("its session shows", `document.querySelectorAll("#found-clients tbody tr").length === 1`, 30*time.Second)

	if err := s.KillNode(ctx, owner); err != nil {
		t.Fatal(err)
	}
	b.until("the page shows the killed node and its handover", bad+` && document.querySelectorAll("#nodes > li.bad").length === 1 && document.querySelector("#handover-table tbody tr td:nth-child(2)").textContent === "node lost"`, 20*time.Second)
	b.dresses("console-killed", "dark", "phone-light")
	b.until("the group has given everything away", good+` && document.querySelectorAll("#nodes > li").length === 2`, time.Minute)
	if err := fleet.Faults(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	for _, c := range fleet.Histories() {
		if len(c.Sessions) != 1 {
			t.Errorf("client %s has had %d connections, want 1", c.Name, len(c.Sessions))
		}
	}

	produce("crc32")
	b.until("the producer with another partitioner shows", bad+` && [...document.querySelectorAll("#mismatch-table tbody tr")].some((tr) => tr.textContent.includes("crc32"))`, 20*time.Second)
	b.screenshot("console-mismatch")

	// The partitions of one node, by its name.
	b.do("press a node's name", chromedp.Click(chromedp.CSS("#nodes li button")))
	b.until("only its partitions show", `document.getElementById("by-owner").value !== "" && [...document.querySelectorAll("#partition-table tbody tr td:nth-child(2)")].every((td) => td.textContent === document.getElementById("by-owner").value)`, 10*time.Second)
	b.do("press the colours' button", chromedp.Click(chromedp.CSS("#theme")))
	b.until("it is dark", `document.documentElement.dataset.theme === "dark"`, 10*time.Second)
	b.expectQuiet()

	own := open(t, s.Nodes()[0].Admin)
	own.dress("light", 1440, 1000)
	own.until("a node shows its own part", `document.getElementById("who").textContent.startsWith("node node-") && document.getElementById("search").hidden && document.querySelectorAll("#router-table tbody tr").length === 2 && document.querySelectorAll("#partition-table tbody tr").length > 15`, 30*time.Second)
	own.dresses("console-node", "light", "phone-dark")
	own.expectQuiet()

	if err := s.KillRouter(ctx, 0); err != nil {
		t.Fatal(err)
	}
	b.until("the page says that its server is gone", `document.getElementById("verdict").textContent === "no answer" && document.body.classList.contains("stale")`, 20*time.Second)
	b.screenshot("console-gone")
}

// crowd is a stack as large as they get, with names that would do harm if the page believed them.
func crowd() *overview.Status {
	at := time.Now().UTC()
	s := &overview.Status{
		Of: overview.OfRouter, ID: `<b>router</b>`, Version: "v1.2.3", At: at, Table: overview.Table{Revision: 98765, AgeMS: 3_723_000},
		Topic:    &overview.Topic{Name: "orders", Partitions: 4096, Partitioner: "murmur2", Group: "pointsman-orders"},
		Problems: []string{`node <script>document.title="owned"</script> is in etcd, but cannot be linked`},
		Routers:  []overview.Router{{ID: `<b>router</b>`, Self: true, Sessions: 123456, Waiting: 12, Memory: 3 << 30, Since: at.Add(-50 * time.Hour), Nodes: 99}},
	}
	for i := range 12 {
		s.Routers = append(s.Routers, overview.Router{ID: fmt.Sprintf("router-%d", i), Streams: 100_000, Nodes: 99, Remote: "10.0.0.1:1234", Since: at.Add(-time.Hour)})
	}
	for i := range 100 {
		n := overview.Node{
			ID: fmt.Sprintf("pointsman-wsnode-%d", i), Instance: fmt.Sprint(i), Addr: "10.0.0.1:9080", Version: "v1.2.3", Zone: "eu-1a", Started: at.Add(-time.Duration(i) * time.Hour),
			Listed: true, Linked: true, RTT: 0.4, Routed: 41, Streams: 12345, Memory: 1 << 30,
		}
		switch i {
		case 3:
			n.Linked, n.LinkError = false, `dial tcp 10.0.0.4:9080: <img src=x onerror="document.title='owned'">`
		case 4:
			n.Draining = true
		case 5:
			n.ID, n.Zone = hostile, `"><script>document.title="owned"</script>`
		}
		s.Nodes = append(s.Nodes, n)
	}
	for p := range int32(4096) {
		row := overview.Partition{Partition: p, Node: s.Nodes[p%100].ID, Generation: 7, Since: at.Add(-time.Hour), Reading: true, Head: 1_000_000 + int64(p), Streams: 301}
		switch {
		case p%100 == 3:
			row.Node, row.StandIn, row.Claimed = s.Nodes[7].ID, true, s.Nodes[3].ID
		case p%511 == 0:
			row.Node = ""
		case p%97 == 0:
			row.Lag = 5000
		case p%89 == 0:
			row.Scanning, row.Behind, row.Lowest, row.ScanAt = true, 12, 10, 5000
		}
		s.Partitions = append(s.Partitions, row)
	}
	for i := range 64 {
		s.Handovers = append(s.Handovers, overview.Handover{
			At: at.Add(-time.Duration(i) * time.Minute), Cause: []string{"claim", "link_down", "link_up"}[i%3], From: []string{hostile}, To: []string{"pointsman-wsnode-1", "pointsman-wsnode-2"},
			Partitions: 41, Sessions: 12345, PauseMS: float64(i) * 1.7,
		})
	}
	s.Mismatches = []overview.Mismatch{{Partition: 7, Offset: 123, At: at, Count: 42, LooksLike: "crc32", Node: hostile}}
	return s
}

func TestConsoleOfALargeStack(t *testing.T) {
	gate(t)
	mux := http.NewServeMux()
	console.Add(mux.Handle)
	status := crowd()
	mux.HandleFunc("GET "+overview.Path, func(w http.ResponseWriter, r *http.Request) { admin.Answer(w, r, http.StatusOK, status) })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	b := open(t, srv.URL)
	b.dress("dark", 1440, 1000)
	b.until("everything shows", `document.querySelectorAll("#nodes .cells i").length === 4096 && document.querySelectorAll("#nodes > li").length === 101`, time.Minute)
	// What it costs to show another answer: a page that is open all night must not heat the room.
	took := eval[float64](b, `(async () => {
		const { show } = await import("./console/view.js");
		const s = await (await fetch("api/v1/status")).json();
		const at = performance.now();
		for (let i = 0; i < 5; i++) { s.partitions[i].lag = 10 + i; show(s, () => {}); }
		return (performance.now() - at) / 5;
	})()`)
	t.Logf("another answer of 4,096 partitions and 100 nodes is shown in %.1f ms", took)
	b.dresses("console-large", "dark", "phone-light")
	b.do("only those that need a look", chromedp.Click(chromedp.CSS("#by-trouble")))
	b.until("stand-ins show", `document.querySelectorAll("#partition-table tbody tr.warn").length > 20 && document.getElementById("pages").textContent.startsWith("1 of ")`, 10*time.Second)
	b.do("next page", chromedp.Click(chromedp.CSS("#later")))
	b.until("the next ones show", `document.getElementById("pages").textContent.startsWith("2 of ")`, 10*time.Second)
	b.screenshot("console-large-trouble")
	b.expectQuiet()
}
