package browser

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// TestConsoleOfContainers opens the console where the compose file's users find it, through the balancer, and watches a
// node's container die on it while clients receive.
func TestConsoleOfContainers(t *testing.T) {
	if os.Getenv("POINTSMAN_COMPOSE") == "" {
		t.Skip("needs a container engine, images and Chromium: make test-compose")
	}
	ctx := t.Context()
	s, ok := stack.StartKind(t, stack.Compose, stack.Options{Routers: 2, Nodes: 3, Partitions: 16}).(stack.Contained)
	if !ok {
		t.Fatal("a stack of containers is not Contained")
	}
	fleet := load.NewFleet()
	t.Cleanup(fleet.Close)
	balancer := load.Target{Name: s.Balancer().Name, URL: s.Balancer().URL}
	keys := make([]string, 40)
	for i := range keys {
		keys[i] = fmt.Sprintf("client-%d", i)
	}
	if _, err := fleet.Add(ctx, len(keys), func(i int) load.Options { return load.Options{Key: keys[i]} }, func(int) load.Target { return balancer }); err != nil {
		t.Fatal(err)
	}
	producer, err := load.NewProducer(s.Kafka(), s.Topic())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	put := func(n int) *checker.Truth {
		t.Helper()
		if err := producer.Burst(ctx, keys, n, 128); err != nil {
			t.Fatal(err)
		}
		truth, err := load.ReadTopic(ctx, s.Kafka(), s.Topic())
		if err != nil {
			t.Fatal(err)
		}
		if err := fleet.WaitCaughtUp(ctx, truth); err != nil {
			t.Fatal(err)
		}
		return truth
	}
	put(400)

	b := open(t, s.Balancer().Admin)
	b.dress("dark", 1440, 1000)
	const good = `document.getElementById("verdict").dataset.state === "good"`
	b.until("all is well", good+` && document.querySelectorAll("#nodes > li").length === 3 && document.querySelectorAll("#router-table tbody tr").length === 2`, 2*time.Minute)
	b.dresses("compose-healthy", "dark", "light", "phone-dark")
	b.do("look for a client", chromedp.Navigate(s.Balancer().Admin+"/#key="+keys[0]))
	b.until("its place shows", `document.getElementById("found-facts").textContent.includes("the consumer group gave it to ")`, time.Minute)
	victim := eval[string](b, `document.querySelectorAll("#found-facts dd")[1].textContent.split(" ")[0]`)

	if err := s.KillNode(ctx, victim); err != nil {
		t.Fatal(err)
	}
	// Until the group has given its partitions away, it is named as lost; the handover stays in the list.
	b.until("the page shows the handover of the killed container", `[...document.querySelectorAll("#handover-table tbody tr")].some((tr) => tr.children[1].textContent === "node lost")`, time.Minute)
	b.dresses("compose-killed", "dark", "phone-light")
	put(400)
	b.until("two nodes serve everything", good+` && document.querySelectorAll("#nodes > li").length === 2`, 2*time.Minute)
	b.screenshot("compose-healed")
	b.expectQuiet()

	report := checker.Check(put(400), fleet.Histories(), nil)
	t.Logf("%s", report)
	if err := errors.Join(report.Err(), fleet.Faults()); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	if report.Sessions != len(keys) {
		t.Errorf("%d connections of %d clients", report.Sessions, len(keys))
	}
}
