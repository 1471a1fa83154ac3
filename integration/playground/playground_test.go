package playground

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

func TestOtherPagesMayNeitherPressNorLook(t *testing.T) {
	handler := guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	for _, c := range []struct {
		name, method, host string
		header             map[string]string
		want               int
	}{
		{"the page itself", "POST", "127.0.0.1:8000", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"}, 202},
		{"a program", "POST", "127.0.0.1:8000", nil, 202},
		{"by name", "POST", "localhost:8000", map[string]string{"Sec-Fetch-Site": "same-origin"}, 202},
		{"IPv6", "GET", "[::1]:8000", nil, 202},
		{"another page", "POST", "127.0.0.1:8000", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://example.com"}, 403},
		{"another page of this machine", "POST", "127.0.0.1:8000", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, 403},
		{"an old browser's other page", "POST", "127.0.0.1:8000", map[string]string{"Origin": "https://example.com"}, 403},
		{"a sandboxed page", "POST", "127.0.0.1:8000", map[string]string{"Origin": "null"}, 403},
		{"a name that was rebound", "POST", "evil.example:8000", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example:8000"}, 403},
		{"reading by a name that was rebound", "GET", "evil.example:8000", nil, 403},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, "http://"+c.host+"/api/actions", nil)
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: got status %d, want %d", c.name, w.Code, c.want)
		}
	}
}

func TestBodyThatIsNoButton(t *testing.T) {
	p := &Playground{world: &world{changed: make(chan struct{}), etcd: foreign}}
	for body, want := range map[string]int{
		`{"kind":"kill"}`:      http.StatusConflict, // there is no node
		`{"kind":"stop-etcd"}`: http.StatusConflict,
		`{"kind":"ended"}`:     http.StatusBadRequest,
		`{"kind":"explode"}`:   http.StatusBadRequest,
		`{"button":"kill"}`:    http.StatusBadRequest,
		`kill`:                 http.StatusBadRequest,
		``:                     http.StatusBadRequest,
		`{"kind":"kill","target":"` + strings.Repeat("n", maxBody) + `"}`: http.StatusBadRequest,
	} {
		w := httptest.NewRecorder()
		p.press(t.Context(), w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/actions", strings.NewReader(body)))
		if w.Code != want {
			t.Errorf("%.40s: got status %d (%s), want %d", body, w.Code, strings.TrimSpace(w.Body.String()), want)
		}
	}
}

func TestButtonsChooseWhatTheyCanBePressedFor(t *testing.T) {
	w := &world{
		changed: make(chan struct{}),
		nodes: []*node{
			{ID: "a", State: live}, {ID: "b", State: frozen}, {ID: "c", State: draining}, {ID: "d", State: dead}, {ID: "e", State: starting},
		},
		routers: []*router{{Name: "r1", State: live, Sessions: 3}, {Name: "r2", State: live, Sessions: 5}, {Name: "r3", State: draining, Sessions: 9}},
	}
	for _, c := range []struct {
		k      kind
		target string
		want   string // "": unfit
	}{
		{killNode, "", "a"}, {drainNode, "", "a"}, {freezeNode, "", "a"},
		{killNode, "a", "a"}, {killNode, "b", "b"}, {killNode, "c", ""}, {killNode, "d", ""}, {killNode, "e", "e"}, {killNode, "x", ""},
		{drainNode, "b", ""}, {drainNode, "e", ""}, {freezeNode, "b", ""},
	} {
		got := ""
		n, err := w.chooseNodeLocked(c.k, c.target)
		if err == nil {
			got = n.ID
		}
		if got != c.want || err != nil && !errors.Is(err, errUnfit) {
			t.Errorf("%s %q: got %q, %v, want %q", c.k, c.target, got, err, c.want)
		}
	}
	for target, want := range map[string]int{"": 1, "r1": 0, "r3": -1, "x": -1} {
		got, err := w.chooseRouterLocked(target)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("restart %q: got router %d, %v, want %d", target, got, err, want)
		}
	}
}

func TestStateHasNoNulls(t *testing.T) {
	now, _ := (&world{changed: make(chan struct{})}).look()
	text, err := json.Marshal(push{snapshot: now, progress: (&producer{}).progress()})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "null") {
		t.Errorf("a page cannot iterate over null: %s", text)
	}
}

func TestSlotsAreTheLowestFree(t *testing.T) {
	w := &world{nodes: []*node{{ID: "a", Slot: 0}, {ID: "b", Slot: 2}}}
	for _, want := range []int{1, 3, 4} {
		if got := w.addLocked(stackNode(string(rune('k'+want))), live).Slot; got != want {
			t.Errorf("got slot %d, want %d", got, want)
		}
	}
}

func TestProducerNumbersTheRecordsOfEachKey(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "records"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	keys := clientKeys(60)
	p, err := newProducer(cluster.ListenAddrs(), "records", keys, 50)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.produce(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	placed, err := keysOf(keys, 4)
	if err != nil {
		t.Fatal(err)
	}
	partitions := map[string]int32{}
	for _, k := range placed {
		partitions[k.Key] = k.Partition
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("records"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	last := map[string]int64{}
	for got := 0; got < 2000; {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			got++
			var v struct {
				Run string
				Seq int64
			}
			if err := json.Unmarshal(r.Value, &v); err != nil {
				t.Fatalf("value %s: %v", r.Value, err)
			}
			key := string(r.Key)
			if v.Run != p.run || v.Seq != last[key]+1 || r.Partition != partitions[key] {
				t.Fatalf("key %s: got number %d of run %s in partition %d after %d, want the next one of run %s in partition %d",
					key, v.Seq, v.Run, r.Partition, last[key], p.run, partitions[key])
			}
			last[key] = v.Seq
		})
	}
	if len(last) != len(keys) {
		t.Errorf("got records of %d keys, want %d", len(last), len(keys))
	}
	if now := p.progress(); now.Produced == 0 || len(now.Acks) == 0 {
		t.Errorf("progress: got %+v, want some", now)
	}
}

func TestConfigurationsThatCannotRun(t *testing.T) {
	for want, cfg := range map[string]Config{
		"both Kafka's and etcd's": {Kafka: []string{"127.0.0.1:9092"}},
		"not loopback":            {Listen: "0.0.0.0:8000"},
		"1 to 8":                  {Nodes: 9},
		"1 to 200":                {Clients: 201},
		"at most 100":             {Rate: 1000},
		"make build":              {Bin: t.TempDir()},
	} {
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", cfg, err, want)
		}
	}
}

func stackNode(id string) stack.Node { return stack.Node{ID: id} }
