package directory_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/directory"
	"github.com/pointsmanhq/pointsman/proto/internal/golden"
)

const topicID = "10111213-1415-1617-1819-1a1b1c1d1e1f"

func at() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC) }

func topic() directory.Topic {
	return directory.Topic{V: 1, Group: "pointsman-orders", TopicID: topicID, Partitions: 64, Partitioner: "murmur2"}
}

func grown() directory.Topic {
	t := topic()
	t.Incarnation = 2
	t.Growth = []directory.Growth{{Partitions: 1, Ends: []int64{5}, Since: at()}, {Partitions: 3, Ends: []int64{7, 0, math.MaxInt64}, Since: at()}}
	return t
}

func followed() directory.Topic {
	t := grown()
	t.Growth[1].From, t.Growth[1].Closed = []int64{6, 0, 9}, []int64{8, 0, math.MaxInt64}
	return t
}

func node() directory.Node {
	return directory.Node{V: 1, Instance: "5f3a9c", Addr: "10.0.0.7:9080", Started: at(), Version: "v1.0.0"}
}

func claim() directory.Claim {
	return directory.Claim{V: 1, Node: "node-1", Instance: "5f3a9c", Incarnation: 1, Generation: 17, Since: at()}
}

func marshal[T directory.Topic | directory.Node | directory.Claim](t *testing.T, v T) string {
	t.Helper()
	b, err := directory.Marshal(v)
	if err != nil {
		t.Fatalf("%+v: %v", v, err)
	}
	return string(b)
}

func TestValuesAndKeysAreFrozen(t *testing.T) {
	full := node()
	full.Admin, full.Zone, full.Draining = "10.0.0.7:9081", "eu-1a", true
	keys := directory.Keys{Prefix: "/pointsman", Topic: "orders"}
	golden.Check(t, "testdata/directory.golden", []golden.Line{
		{Name: "topic", Text: marshal(t, topic())},
		{Name: "topic-grown", Text: marshal(t, grown())},
		{Name: "node", Text: marshal(t, node())},
		{Name: "node-full", Text: marshal(t, full)},
		{Name: "claim", Text: marshal(t, claim())},
		{Name: "key-topic", Text: keys.TopicKey()},
		{Name: "key-node", Text: keys.Node("node-1")},
		{Name: "key-claim", Text: keys.Claim(3)},
		{Name: "topic-followed", Text: marshal(t, followed())},
	})
	for _, line := range golden.Read(t, "testdata/directory.golden") {
		var got, want any
		var err error
		value := []byte(line.Text)
		switch line.Name {
		case "topic":
			want = topic()
			got, err = directory.ParseTopic(value)
		case "topic-grown":
			want = grown()
			got, err = directory.ParseTopic(value)
		case "topic-followed":
			want = followed()
			got, err = directory.ParseTopic(value)
		case "node":
			want = node()
			got, err = directory.ParseNode(value)
		case "node-full":
			want = full
			got, err = directory.ParseNode(value)
		case "claim":
			want = claim()
			got, err = directory.ParseClaim(value)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", line.Name, got, err, want)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	for _, value := range []string{marshal(t, topic()), marshal(t, node()), marshal(t, claim())} {
		more := `{"news":{"a":[1]},` + value[1:]
		var err error
		switch {
		case strings.Contains(value, "partitioner"):
			_, err = directory.ParseTopic([]byte(more))
		case strings.Contains(value, "addr"):
			_, err = directory.ParseNode([]byte(more))
		default:
			_, err = directory.ParseClaim([]byte(more))
		}
		if err != nil {
			t.Errorf("%s: %v", more, err)
		}
	}
}

func TestMarshalWritesTheVersion(t *testing.T) {
	c := claim()
	c.V = 0
	if got := marshal(t, c); got != marshal(t, claim()) {
		t.Errorf("got %s", got)
	}
}

// Each row changes one thing in a good value, and says what the error must name.
func TestMalformedValuesAreRefused(t *testing.T) {
	type row struct{ from, to, says string }
	both := []row{
		{`{"v":1`, `{"v":2`, "v is 2, this program knows 1"},
		{`{"v":1`, `{"v":0`, "v is 0"},
		{`{"v":1`, `{"v":"1"`, "v"},
		{`{"v":1,`, `{`, "it has no v"},
		{`{"v":1`, `{"v":1,,`, "invalid character"},
		{`{"v":1`, `["v",1`, "invalid character"},
	}
	tests := map[string]struct {
		good  string
		parse func([]byte) (any, error)
		rows  []row
	}{
		"topic": {marshal(t, grown()), func(b []byte) (any, error) { return directory.ParseTopic(b) }, []row{
			{`"pointsman-orders"`, `""`, "group is empty"},
			{topicID, "", "not a UUID"},
			{topicID, topicID + "0", "not a UUID"},
			{topicID, "g0111213-1415-1617-1819-1a1b1c1d1e1f", "not a UUID"},
			{`"partitions":64`, `"partitions":0`, "0 partitions"},
			{`"partitions":64`, `"partitions":-1`, "-1 partitions"},
			{`"partitions":64`, `"partitions":1048577`, "1048577 partitions"},
			{`"partitions":64`, `"partitions":4294967296`, "partitions"},
			{`"partitions":64`, `"partitions":3`, "growth 1"},
			{`"murmur2"`, `""`, "partitioner is empty"},
			{`"incarnation":2`, `"incarnation":-2`, "incarnation -2"},
			{`"partitions":1,`, `"partitions":3,`, "growth 0: 1 ends for 3 partitions"},
			{`"ends":[5]`, `"ends":[-5]`, "partition 0 ends at -5"},
			{`"ends":[5],`, `"ends":[5],"from":[1,2],`, "growth 0: 2 offsets for 1 partitions"},
			{`"ends":[5],`, `"ends":[5],"closed":[-1],`, "ends at -1"},
			{`"since":"2026`, `"since":"yesterday`, "parsing time"},
		}},
		"node": {marshal(t, node()), func(b []byte) (any, error) { return directory.ParseNode(b) }, []row{
			{`"5f3a9c"`, `""`, "instance"},
			{`"5f3a9c"`, `"a b"`, "instance"},
			{`"10.0.0.7:9080"`, `""`, "addr"},
			{`"10.0.0.7:9080"`, `"10.0.0.7"`, "not host:port"},
			{`"10.0.0.7:9080"`, `":9080"`, "host or port is missing"},
			{`"10.0.0.7:9080"`, `"host:0"`, "host or port is missing"},
			{`"10.0.0.7:9080"`, `"host:65536"`, "host or port is missing"},
			{`"10.0.0.7:9080"`, `"host:http"`, "host or port is missing"},
			{`"10.0.0.7:9080"`, `"user@host:9080"`, "a host does not contain"},
			{`"10.0.0.7:9080"`, `"host:9080","admin":"x"`, "admin"},
			{`"draining":false`, `"draining":"no"`, "draining"},
		}},
		"claim": {marshal(t, claim()), func(b []byte) (any, error) { return directory.ParseClaim(b) }, []row{
			{`"node-1"`, `""`, "node"},
			{`"node-1"`, `"node/1"`, "node"},
			{`"5f3a9c"`, `"` + strings.Repeat("x", 256) + `"`, "longer than 255"},
			{`"incarnation":1`, `"incarnation":-1`, "incarnation -1"},
			{`"generation":17`, `"generation":-17`, "generation -17"},
			{`"generation":17`, `"generation":1.5`, "generation"},
		}},
	}
	for name, tt := range tests {
		if v, err := tt.parse([]byte(tt.good)); err != nil {
			t.Fatalf("%s: %+v, %v", name, v, err)
		}
		for _, r := range append(tt.rows, both...) {
			bad := strings.Replace(tt.good, r.from, r.to, 1)
			if bad == tt.good {
				t.Fatalf("%s: %s is not in %s", name, r.from, tt.good)
			}
			v, err := tt.parse([]byte(bad))
			if !errors.Is(err, directory.ErrMalformed) || !strings.Contains(err.Error(), r.says) {
				t.Errorf("%s: %s: got %+v, error %v; want one that says %q", name, bad, v, err, r.says)
			}
		}
		for _, bad := range []string{"", "null", "1", `"x"`, strings.Repeat(" ", directory.MaxValue) + tt.good} {
			if v, err := tt.parse([]byte(bad)); !errors.Is(err, directory.ErrMalformed) {
				t.Errorf("%s: %.20q: got %+v, error %v", name, bad, v, err)
			}
		}
	}
}

func TestMarshalRefusesWhatParseWouldRefuse(t *testing.T) {
	n := node()
	n.Addr = "nowhere"
	c := claim()
	c.Since = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	tp := topic()
	tp.V = 3
	_, err1 := directory.Marshal(n)
	_, err2 := directory.Marshal(c)
	_, err3 := directory.Marshal(tp)
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, directory.ErrMalformed) {
			t.Errorf("value %d: error %v", i, err)
		}
	}
}

func TestKeysAreReadAsTheyWereBuilt(t *testing.T) {
	for _, prefix := range []string{"/pointsman", "/pointsman/", "", "a/b"} {
		k := directory.Keys{Prefix: prefix, Topic: "orders"}
		if id, ok := k.NodeID(k.Node("node-1")); !ok || id != "node-1" {
			t.Errorf("%s: %q, %v", k.Node("node-1"), id, ok)
		}
		for _, p := range []int32{0, 7, math.MaxInt32} {
			if got, ok := k.ClaimPartition(k.Claim(p)); !ok || got != p {
				t.Errorf("%s: %d, %v", k.Claim(p), got, ok)
			}
		}
		if strings.Contains(k.TopicKey(), "//") || !strings.HasPrefix(k.Node("x"), k.Nodes()) || !strings.HasPrefix(k.Claim(1), k.Claims()) ||
			!strings.HasPrefix(k.Nodes(), k.Base()) || !strings.HasPrefix(k.Claims(), k.Base()) || !strings.HasPrefix(k.TopicKey(), k.Base()) {
			t.Errorf("keys of %q: %s %s %s", prefix, k.TopicKey(), k.Nodes(), k.Claims())
		}
	}
	k := directory.Keys{Prefix: "/pointsman", Topic: "orders"}
	for _, key := range []string{"", k.TopicKey(), k.Nodes(), k.Claims(), k.Node("a/b"), k.Claims() + "-1", k.Claims() + "01", k.Claims() + "+1", k.Claims() + "x",
		k.Claims() + "2147483648", "/other/orders/nodes/a", "/pointsman/orders2/claims/1"} {
		if id, ok := k.NodeID(key); ok {
			t.Errorf("%q is node %q", key, id)
		}
		if p, ok := k.ClaimPartition(key); ok {
			t.Errorf("%q is partition %d", key, p)
		}
	}
}

func TestTopicIDs(t *testing.T) {
	id, err := directory.ParseTopicID(strings.ToUpper(topicID))
	if err != nil || id[0] != 0x10 || id[15] != 0x1f || directory.FormatTopicID(id) != topicID {
		t.Errorf("%x, %v, %s", id, err, directory.FormatTopicID(id))
	}
	for _, bad := range []string{"", "10111213141516171819-1a1b1c1d1e1f", topicID[:35], "1011121-31415-1617-1819-1a1b1c1d1e1f", strings.Replace(topicID, "10", "é", 1)} {
		if id, err := directory.ParseTopicID(bad); err == nil {
			t.Errorf("%q is %x", bad, id)
		}
	}
}

func TestNewerClaimWins(t *testing.T) {
	c := func(incarnation int64, generation int32) directory.Claim {
		return directory.Claim{Incarnation: incarnation, Generation: generation}
	}
	order := []directory.Claim{c(0, 1), c(0, 2), c(1, 1), c(1, 17), c(2, 0)}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Newer(b), i > j; got != want {
				t.Errorf("%+v newer than %+v: %v", a, b, got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range []string{
		`{"v":1,"group":"g","topic_id":"` + topicID + `","partitions":2,"partitioner":"murmur2","incarnation":0,"growth":[{"partitions":1,"ends":[5],"since":"2026-01-02T03:04:05Z"}]}`,
		`{"v":1,"instance":"a","addr":"h:1","started":"2026-01-02T03:04:05.006Z","version":"v","draining":false}`,
		`{"v":1,"node":"n","instance":"a","incarnation":1,"generation":17,"since":"2026-01-02T03:04:05.006+02:00"}`, `{"v":2}`, `[]`,
	} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		fuzzOne(t, value, directory.ParseTopic)
		fuzzOne(t, value, directory.ParseNode)
		fuzzOne(t, value, directory.ParseClaim)
	})
}

// fuzzOne wants an error of the right kind, or a value that can be published and read again.
func fuzzOne[T directory.Topic | directory.Node | directory.Claim](t *testing.T, value []byte, parse func([]byte) (T, error)) {
	v, err := parse(value)
	if err != nil {
		if !errors.Is(err, directory.ErrMalformed) {
			t.Fatalf("error of another kind: %v", err)
		}
		return
	}
	again, err := directory.Marshal(v)
	if err != nil {
		t.Fatalf("%s was read as %+v, which is not written: %v", value, v, err)
	}
	second, err := parse(again)
	if err != nil {
		t.Fatalf("%s: %v", again, err)
	}
	if b, err := directory.Marshal(second); err != nil || string(b) != string(again) {
		t.Fatalf("%s and then %s, %v", again, b, err)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("/pointsman/orders/claims/3")
	f.Add("/pointsman/orders/nodes/node-1")
	f.Fuzz(func(t *testing.T, key string) {
		k := directory.Keys{Prefix: "/pointsman", Topic: "orders"}
		p, isClaim := k.ClaimPartition(key)
		id, isNode := k.NodeID(key)
		if isClaim && k.Claim(p) != key || isNode && k.Node(id) != key || isClaim && isNode {
			t.Fatal(fmt.Sprint(key, p, isClaim, id, isNode))
		}
	})
}
