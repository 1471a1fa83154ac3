package redistributor

import (
	"reflect"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/link"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
)

func samples() []message {
	return []message{
		{kind: kindAttached, join: 7, partition: 3, offset: 42, complete: true},
		{kind: kindRecord, join: 7, partition: 3, offset: 41, record: feed.Record{Partition: 3, Offset: 41, Timestamp: 1700000000123, Key: []byte("k"), Value: []byte("v")}},
		{kind: kindRecord, partition: 3, offset: 42, record: feed.Record{Partition: 3, Offset: 42, Timestamp: -1, Key: []byte("k"), Headers: []link.Header{{Key: []byte("a"), Value: nil}, {Key: []byte{}, Value: []byte{}}}}},
		{kind: kindCaughtUp, join: 7, partition: 3, offset: 43},
		{kind: kindGap, join: 1 << 60, partition: 3, offset: 44},
		{kind: kindHead, partition: 1 << 30, offset: 1 << 60},
		{kind: kindReset},
	}
}

func TestBundlesAreReadAsTheyWereWritten(t *testing.T) {
	want := samples()
	var bundle []byte
	for i := range want {
		bundle = want[i].append(bundle)
	}
	var got []message
	if err := parse(bundle, func(m *message) { got = append(got, *m) }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	for cut := range len(bundle) {
		n := 0
		if err := parse(bundle[:cut], func(*message) { n++ }); err == nil && n == len(want) {
			t.Fatalf("%d of %d bytes were read as the whole", cut, len(bundle))
		}
	}
	for most := 1; most < len(bundle); most++ {
		n, err := split(bundle, most)
		if err != nil || n <= 0 {
			t.Fatalf("split at %d: %d, %v", most, n, err)
		}
		if err := parse(bundle[:n], func(*message) {}); err != nil {
			t.Fatalf("split at %d cuts a message: %v", most, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.append(nil))
	}
	f.Fuzz(func(t *testing.T, bundle []byte) {
		var again []byte
		if parse(bundle, func(m *message) { again = m.append(again) }) != nil {
			return
		}
		if err := parse(again, func(*message) {}); err != nil {
			t.Fatalf("%x was written as %x: %v", bundle, again, err)
		}
	})
}
