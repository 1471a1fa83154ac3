package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/scenario"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// follower is a page of another origin than the routers', which imports the client from one of them.
const follower = `<!doctype html><meta charset="utf-8"><title>follower</title><link rel="icon" href="data:,"><p>follows</p>
<script type="module">
  const { module, urls, tokens, keys } = %s;
  const { connect } = await import(module);
  window.followed = {};
  window.said = [];
  for (const key of keys) {
    const token = async () => (await fetch(tokens + "?key=" + key)).text();
    const onState = ({ state, error }) => { if (error) said.push(key + " " + state + ": " + error.message); };
    const stream = connect(urls, { token, from: "earliest", maxBackoff: 1000, connectTimeout: 2000, onState });
    followed[key] = { got: [], stream };
    (async () => { for await (const r of stream) followed[key].got.push({ Partition: r.partition, Offset: r.offset }); })()
      .catch((error) => { said.push(key + " ended: " + error); });
  }
</script>`

// TestJavaScriptClientInChromium: a page that imports the client from a router goes through a node's death, a router's
// death and ten seconds without a network.
func TestJavaScriptClientInChromium(t *testing.T) {
	gate(t)
	scenario.FollowThroughFaults(t, stack.Processes, []string{"--origins=127.0.0.1:*"}, func(trial scenario.Trial) []scenario.Follower {
		keys := []string{"page-0", "page-1", "page-2", "page-3"}
		config, err := json.Marshal(map[string]any{
			"module": "http" + trial.Direct[1][len("ws"):] + "/v1/client.js", "urls": trial.URLs, "tokens": trial.Tokens, "keys": keys,
		})
		if err != nil {
			t.Fatal(err)
		}
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = fmt.Fprintf(w, follower, config)
		}))
		t.Cleanup(page.Close)
		b := open(t, page.URL)
		b.until("the page has imported the client", `window.followed !== undefined && Object.keys(followed).length === 4`, 30*time.Second)
		t.Cleanup(func() {
			for _, line := range eval[[]string](b, `said`) {
				t.Log(line)
			}
		})
		followers := make([]scenario.Follower, 0, len(keys))
		for _, key := range keys {
			followers = append(followers, scenario.Follower{Name: "client.js in Chromium of " + key, Key: key, Look: func() ([]scenario.Got, int, int) {
				type look struct {
					Got                   []scenario.Got
					Connections, Renewals int
				}
				l := eval[look](b, fmt.Sprintf(`(({ got, stream }) => ({ Got: got, Connections: stream.stats.connections, Renewals: stream.stats.renewals }))(followed[%q])`, key))
				return l.Got, l.Connections, l.Renewals
			}})
		}
		return followers
	})
}
