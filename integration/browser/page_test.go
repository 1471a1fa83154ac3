package browser

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/pointsmanhq/pointsman/integration/internal/etcdtest"
)

const clients = 48

// counters are what the page counts.
type counters struct {
	Received, Lost, Repeated, Reordered, Broken, Exits, Pause, InFlight int
}

func (b *tab) counters() counters {
	b.t.Helper()
	return eval[counters](b, `(() => { const n = (id) => Number(document.getElementById(id).dataset.value); return {
		Received: n("received"), Lost: n("lost"), Repeated: n("repeated"), Reordered: n("reordered"),
		Broken: n("broken"), Exits: n("exits"), Pause: n("pause"), InFlight: n("inflight") } })()`)
}

// expectClean fails the test where something broke.
func (b *tab) expectClean(when string) counters {
	b.t.Helper()
	c := b.counters()
	if c.Lost != 0 || c.Repeated != 0 || c.Reordered != 0 || c.Broken != 0 {
		b.screenshot("broken")
		b.t.Fatalf("%s: got %+v, want none lost, repeated, reordered or broken\n%s", when, c, b.summary())
	}
	return c
}

// expectAllServed waits until every client has had a record within the last second.
func (b *tab) expectAllServed(when string) {
	b.t.Helper()
	b.until(when+": every client receives", fmt.Sprintf(
		`document.querySelectorAll("#clients li.live").length === %d && Number(document.getElementById("inflight").dataset.value) < %d`, clients, clients), time.Minute)
}

// expectMore waits until as many more records have arrived as all clients get in about a second.
func (b *tab) expectMore(when string) {
	b.t.Helper()
	b.until(when+": records go on arriving", fmt.Sprintf(
		`Number(document.getElementById("received").dataset.value) > %d`, b.counters().Received+4*clients), time.Minute)
}

// outcome is an entry of the page's log.
type outcome struct{ Title, Outcome, Effect string }

// outcomes are the page's log, the oldest first.
func (b *tab) outcomes() []outcome {
	b.t.Helper()
	return eval[[]outcome](b, `[...document.querySelectorAll("#log li[data-kind]")].reverse().map((li) => ({
		Title: li.querySelector("b").textContent, Outcome: li.querySelector(".outcome").textContent,
		Effect: li.querySelector(".effect").textContent }))`)
}

// expectDone waits for the log's newest entry, number n of all actions, to be of a kind and done.
func (b *tab) expectDone(n int, kind string) {
	b.t.Helper()
	b.until(kind+" is done", fmt.Sprintf(`(() => {
		const all = document.querySelectorAll("#log li[data-kind]");
		return all.length === %d && all[0].dataset.kind === %q && all[0].dataset.done === "yes" })()`, n, kind), 2*time.Minute)
}

func TestEveryButtonBreaksNothing(t *testing.T) {
	gate(t)
	p := start(t)
	b := open(t, p.page)
	b.dress("dark", 1440, 1000)
	b.until("clients connect", fmt.Sprintf(`document.querySelectorAll("#clients li.live").length === %d`, clients), time.Minute)
	b.expectAllServed("at the start")
	b.expectMore("at the start")
	b.expectClean("at the start")
	b.screenshot("start-dark")

	presses := []struct {
		kind string
		do   chromedp.Action[chromedp.Void]
	}{
		{"kill", button("kill")},
		{"add", button("add")},
		{"drain", button("drain")},
		{"add", chromedp.KeyEvent("a")},
		{"freeze", button("freeze")},
		{"stop-etcd", button("stop-etcd")},
		{"kill", chromedp.Click(chromedp.CSS(`#nodes li.is-live button[data-kind="kill"]`))},
		{"start-etcd", button("start-etcd")},
		{"restart-router", button("restart-router")},
	}
	for i, press := range presses {
		b.do("press "+press.kind, press.do)
		if i == 0 {
			b.until("the page shows the kill", `document.querySelector("#nodes li.is-dead") !== null`, 10*time.Second)
			b.screenshot("kill-dark")
		}
		if press.kind == "freeze" {
			b.until("the page shows the frozen node", `document.querySelector("#nodes li.is-frozen") !== null`, 10*time.Second)
			b.screenshot("freeze-dark")
		}
		b.expectDone(i+1, press.kind)
		b.expectAllServed("after " + press.kind)
		b.expectMore("after " + press.kind)
		b.expectClean("after " + press.kind)
	}
	b.until("the last action settles", `document.querySelector("#log li[data-kind]").className === "good"`, time.Minute)
	c := b.expectClean("at the end")
	if c.Exits == 0 {
		t.Error("a router was restarted, and no socket was counted as left by its exit")
	}
	for _, o := range b.outcomes() {
		t.Logf("%-18s %s: %s", o.Title, o.Outcome, o.Effect)
	}
	t.Logf("%+v", c)
	b.pictures()
	if red := b.console(); len(red) > 0 {
		t.Errorf("the console shows errors: %q", red)
	}

	pids := p.pids(t)
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("it did not stop")
	}
	if code := p.ExitCode(); code != 0 {
		t.Errorf("exit code after an interrupt: got %d, want 0", code)
	}
	expectGone(t, pids)
}

func button(kind string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(`.actions button[data-kind="` + kind + `"]`))
}

// pictures shows the page in all its dresses; nothing may stick out to the side.
func (b *tab) pictures() {
	b.t.Helper()
	for _, dress := range []struct {
		name, scheme  string
		width, height int64
	}{
		{"end-dark", "dark", 1440, 1000}, {"end-light", "light", 1440, 1000}, {"tablet-light", "light", 820, 1180},
		{"phone-dark", "dark", 390, 844}, {"phone-light", "light", 390, 844},
	} {
		b.dress(dress.scheme, dress.width, dress.height)
		b.expectMore("as " + dress.name) // the picture is of a page that has drawn itself
		if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > int(dress.width) {
			b.t.Errorf("%s: the page is %d wide in a window of %d", dress.name, wide, dress.width)
		}
		b.screenshot(dress.name)
	}
}

func TestAllNodesKilledClientsWait(t *testing.T) {
	gate(t)
	b := open(t, start(t, "--clients=8").page)
	b.dress("dark", 1440, 1000)
	b.until("records arrive", `Number(document.getElementById("received").dataset.value) > 40`, time.Minute)
	for i := range 3 {
		b.do("kill a node", button("kill"))
		b.expectDone(i+1, "kill")
	}
	b.until("all clients wait", `document.querySelectorAll("#clients li.waiting, #clients li.quiet").length === 8`, time.Minute)
	b.until("the page says that nobody serves", `document.querySelectorAll("#partitions li.nobody").length === 32`, 30*time.Second)
	b.screenshot("nobody-dark")
	if c := b.expectClean("without a node"); c.InFlight == 0 {
		t.Error("nothing is in flight although no node lives")
	}
	b.do("add a node", button("add"))
	b.until("all clients receive", `document.querySelectorAll("#clients li.live").length === 8 && Number(document.getElementById("inflight").dataset.value) < 8`, time.Minute)
	b.expectClean("with a node again")
	if red := b.console(); len(red) > 0 {
		t.Errorf("the console shows errors: %q", red)
	}
}

func TestOverSomebodyElsesKafkaAndEtcd(t *testing.T) {
	gate(t)
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	etcd := etcdtest.New(t)
	p := start(t, "--kafka="+kafka.ListenAddrs()[0], "--etcd="+etcd.Addr(), "--partitions=12", "--clients=4")
	b := open(t, p.page)
	b.until("records arrive", `Number(document.getElementById("received").dataset.value) > 20`, time.Minute)
	if topic := kafka.PartitionInfo("pointsman-playground", 11); topic == nil {
		t.Error("topic pointsman-playground has not 12 partitions; it was to be created")
	}
	if !eval[bool](b, `document.getElementById("etcd-button").hidden`) {
		t.Error("the page offers to stop somebody else's etcd")
	}
	b.do("kill a node", button("kill"))
	b.expectDone(1, "kill")
	b.until("records go on arriving", fmt.Sprintf(`Number(document.getElementById("received").dataset.value) > %d`, b.counters().Received+40), time.Minute)
	b.expectClean("after a kill")
}

func TestPageSeesWhatDoesNotCome(t *testing.T) {
	gate(t)
	b := open(t, start(t, "--clients=4").page)
	// lost, repeated, reordered: the checks of a client that gets these numbers.
	for numbers, want := range map[string]string{
		"1 2 3 4":       "0 0 0",
		"7 8 9":         "0 0 0", // a client begins anywhere
		"1 2 4 5":       "1 0 0",
		"1 5":           "3 0 0",
		"1 2 2 3":       "0 1 0",
		"1 2 3 1 2 3 4": "0 3 0",
		"1 3 2 4":       "0 0 1",
		"1 4 2 3 5":     "0 0 2",
		"1 3 2 2":       "0 1 1",
		"1 4 3 6":       "2 0 1",
	} {
		got := eval[string](b, `(async () => {
			const { Client } = await import("./client.js");
			const { Tally } = await import("./tally.js");
			const tally = new Tally();
			const client = new Client("k", 0, 0, { tally, run: "r" });
			for (const n of "`+numbers+`".split(" ")) client.record({ value: { run: "r", seq: Number(n), at: Date.now() } });
			const t = tally.total;
			return [t.lost, t.repeated, t.reordered].join(" ");
		})()`)
		if got != want {
			t.Errorf("numbers %s: got lost, repeated, reordered %s, want %s", numbers, got, want)
		}
	}
}

func TestRecordMadeByHandShowsUp(t *testing.T) {
	gate(t)
	p := start(t, "--clients=4")
	b := open(t, p.page)
	b.until("records arrive", `Number(document.getElementById("received").dataset.value) > 20`, time.Minute)
	command := eval[string](b, `[...document.querySelectorAll("#commands code")].at(-1).textContent`)
	if !strings.Contains(command, "produce") {
		t.Fatalf("the last command is %q, want the one that produces", command)
	}
	shell(t, command)
	b.until("the record shows up", `[...document.querySelectorAll("#log .note")].some((li) => li.textContent.includes("alice") && li.textContent.includes('{"hello":"world"}'))`, 30*time.Second)
	b.expectClean("after a record made by hand")
}

func TestNodeKilledFromAShellIsShown(t *testing.T) {
	gate(t)
	p := start(t, "--clients=4")
	b := open(t, p.page)
	b.until("records arrive", `Number(document.getElementById("received").dataset.value) > 20`, time.Minute)
	text := eval[string](b, `document.querySelector("#nodes li .detail").textContent`)
	pid, err := strconv.Atoi(text[strings.LastIndex(text, " ")+1:])
	if err != nil {
		t.Fatalf("%q names no process: %v", text, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.until("the page shows the dead node", `document.querySelector("#nodes li.is-dead") !== null && document.querySelector("#log li[data-kind=ended]") !== null`, 30*time.Second)
	b.until("records go on arriving", fmt.Sprintf(`Number(document.getElementById("received").dataset.value) > %d`, b.counters().Received+40), 30*time.Second)
	b.expectClean("after a kill from a shell")
}

func TestBadOptionsAreToldInOneLine(t *testing.T) {
	gate(t)
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"--listen=0.0.0.0:0"}, "not loopback", 2},
		{[]string{"--kafka=127.0.0.1:9092"}, "both Kafka's and etcd's address", 2},
		{[]string{"--clients=1000"}, "it takes 1 to 200", 2},
		{[]string{"--bin=" + t.TempDir()}, "make build", 2},
		{[]string{"--listen=" + occupied(t)}, "is in use", 1},
		{[]string{"--free-ports", "--kafka=" + occupied(t), "--etcd=127.0.0.1:1"}, "no etcd answers at 127.0.0.1:1", 1},
	} {
		out, code := run(t, c.args...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: got exit code %d and %q, want %d and %q", c.args, code, out, c.code, c.want)
		}
	}
}
