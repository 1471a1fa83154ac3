package cursor_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/cursor"
	"github.com/pointsmanhq/pointsman/proto/internal/golden"
)

func topicID() (id [16]byte) {
	for i := range id {
		id[i] = byte(0x10 + i)
	}
	return id
}

func single(key string, partition int32, next int64, epoch int32) cursor.Cursor {
	return cursor.Cursor{TopicID: topicID(), Feeds: []cursor.Feed{{Key: cursor.Hash([]byte(key)),
		Positions: []cursor.Position{{Partition: partition, Next: next, Epoch: epoch}}}}}
}

func random(r *rand.Rand) cursor.Cursor {
	c := cursor.Cursor{}
	for i := range c.TopicID {
		c.TopicID[i] = byte(r.Uint32())
	}
	for range 1 + r.IntN(5) {
		f := cursor.Feed{Key: r.Uint64()}
		first := r.Int32N(math.MaxInt32 - 10)
		for i := range 1 + r.Int32N(4) {
			f.Positions = append(f.Positions, cursor.Position{Partition: first + i, Next: r.Int64() >> r.IntN(63), Epoch: r.Int32() >> r.IntN(31)})
		}
		c.Feeds = append(c.Feeds, f)
	}
	return c
}

func TestCursorsAreReadAsTheyWereWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		want := random(r)
		text := cursor.Encode(want)
		got, err := cursor.Decode(text)
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("\n got %+v\nwant %+v", got, want)
		}
		if strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("%q needs quoting in a URL", text)
		}
	}
}

func TestAppendSingleEqualsEncode(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	longest := 0
	for i := range 5000 {
		c := random(r)
		p := c.Feeds[0].Positions[0]
		if i == 0 {
			p = cursor.Position{Partition: math.MaxInt32, Next: math.MaxInt64, Epoch: math.MaxInt32}
		}
		c.Feeds = []cursor.Feed{{Key: c.Feeds[0].Key, Positions: []cursor.Position{p}}}
		got := string(cursor.AppendSingle([]byte("before "), c.TopicID, c.Feeds[0].Key, p.Partition, p.Next, p.Epoch))
		if want := "before " + cursor.Encode(c); got != want {
			t.Fatalf("%+v:\n got %s\nwant %s", c, got, want)
		}
		longest = max(longest, len(got)-len("before "))
	}
	if longest > cursor.MaxSingleLen {
		t.Fatalf("a text of %d bytes, MaxSingleLen says %d", longest, cursor.MaxSingleLen)
	}
}

func TestAppendSingleDoesNotAllocate(t *testing.T) {
	id, key, dst := topicID(), cursor.Hash([]byte("alice")), make([]byte, 0, cursor.SingleRoom)
	if n := testing.AllocsPerRun(1000, func() { dst = cursor.AppendSingle(dst[:0], id, key, 63, 123456789, 0) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestHashDoesNotAllocate(t *testing.T) {
	key := []byte("alice")
	if n := testing.AllocsPerRun(1000, func() { cursor.Hash(key) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestCursorIsBoundToItsKey(t *testing.T) {
	c, err := cursor.Decode(cursor.Encode(single("alice", 3, 4711, 0)))
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := c.For([]byte("alice")); !ok || f.Positions[0].Next != 4711 {
		t.Errorf("own key: %+v, %v", f, ok)
	}
	for _, other := range []string{"", "Alice", "alice ", "bob"} {
		if _, ok := c.For([]byte(other)); ok {
			t.Errorf("key %q was let in", other)
		}
	}
}

func TestTheLastOfAListCounts(t *testing.T) {
	both := single("alice", 3, 10, 0)
	both.Feeds = append(both.Feeds, single("bob", 5, 20, 0).Feeds...)
	newer, other := single("alice", 3, 11, 0), single("bob", 5, 7, 0)
	other.TopicID[0]++
	list, err := cursor.DecodeList(cursor.Encode(both) + "." + cursor.Encode(newer) + "." + cursor.Encode(other))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key     string
		topicID [16]byte
		next    int64
	}{{"alice", topicID(), 11}, {"bob", other.TopicID, 7}} {
		if id, f, ok := cursor.Of(list, []byte(tt.key)); !ok || id != tt.topicID || f.Positions[0].Next != tt.next {
			t.Errorf("%s: %x %+v, %v", tt.key, id, f, ok)
		}
	}
	if _, _, ok := cursor.Of(list, []byte("carol")); ok {
		t.Error("a key that no part names was let in")
	}
	text := cursor.Encode(newer)
	for _, bad := range []string{"", ".", text + ".", "." + text, text + ".." + text, text + ".x", text + "," + text,
		strings.Repeat(text+".", cursor.MaxLen/len(text)) + text} {
		if list, err := cursor.DecodeList(bad); err == nil {
			t.Errorf("%.200q was read as %+v", bad, list)
		}
	}
}

func TestAThousandKeysFit(t *testing.T) {
	c := cursor.Cursor{TopicID: topicID()}
	for i := range 1000 {
		c.Feeds = append(c.Feeds, cursor.Feed{Key: uint64(i) << 50, Positions: []cursor.Position{{Partition: 20000, Next: 1 << 45}, {Partition: 30000, Next: 1 << 45, Epoch: 100}}})
	}
	if _, err := cursor.Decode(cursor.Encode(c)); err != nil {
		t.Fatal(err)
	}
}

// text makes a cursor of any bytes, with the right checksum.
func text(raw string) string {
	sum := crc32.Checksum([]byte(raw), crc32.MakeTable(crc32.Castagnoli))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32([]byte(raw), sum))
}

func TestBadCursorsAreRefused(t *testing.T) {
	const id, key = "0123456789abcdef", "\x00\x00\x00\x00\x00\x00\x00\x01"
	good := cursor.Encode(single("alice", 3, 4711, 0))
	huge := single("alice", 0, 0, 0)
	for i := range int32(20000) {
		huge.Feeds[0].Positions = append(huge.Feeds[0].Positions, cursor.Position{Partition: i + 1, Next: 1 << 40})
	}
	if _, err := cursor.Decode(text("\x01" + id + "\x01" + key + "\x01\x03\x05\x00")); err != nil {
		t.Fatalf("the bad ones below are variations of this good one: %v", err)
	}
	tests := map[string]struct {
		text string
		want error
	}{
		"empty":                     {"", cursor.ErrMalformed},
		"not base64":                {"hello world", cursor.ErrMalformed},
		"standard alphabet":         {"+/+/", cursor.ErrMalformed},
		"padding":                   {good + "=", cursor.ErrMalformed},
		"line break":                {good[:10] + "\n" + good[10:], cursor.ErrMalformed},
		"space":                     {" " + good, cursor.ErrMalformed},
		"bits beyond the last byte": {"AR", cursor.ErrMalformed},
		"too long":                  {cursor.Encode(huge), cursor.ErrMalformed},
		"version 0":                 {text("\x00" + id + "\x01" + key + "\x01\x03\x05\x00"), cursor.ErrVersion},
		"version 2":                 {text("\x02something else"), cursor.ErrVersion},
		"version alone":             {"AQ", cursor.ErrMalformed},
		"cut":                       {good[:44], cursor.ErrChecksum},
		"one letter changed":        {good[:20] + string(good[20]^1) + good[21:], cursor.ErrChecksum},
		"no feeds":                  {text("\x01" + id + "\x00"), cursor.ErrMalformed},
		"no count":                  {text("\x01" + id), cursor.ErrMalformed},
		"more feeds than bytes":     {text("\x01" + id + "\xff\xff\xff\xff\x0f" + key + "\x01\x03\x05\x00"), cursor.ErrMalformed},
		"missing feed":              {text("\x01" + id + "\x02" + key + "\x01\x03\x05\x00"), cursor.ErrMalformed},
		"no positions":              {text("\x01" + id + "\x01" + key + "\x00\x00\x00\x00"), cursor.ErrMalformed},
		"more positions than bytes": {text("\x01" + id + "\x01" + key + "\x7f\x03\x05\x00"), cursor.ErrMalformed},
		"partition beyond int32":    {text("\x01" + id + "\x01" + key + "\x01\x80\x80\x80\x80\x08\x05\x00"), cursor.ErrMalformed},
		"offset beyond int64":       {text("\x01" + id + "\x01" + key + "\x01\x03\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00"), cursor.ErrMalformed},
		"epoch beyond int32":        {text("\x01" + id + "\x01" + key + "\x01\x03\x05\x80\x80\x80\x80\x08"), cursor.ErrMalformed},
		"long spelling of a number": {text("\x01" + id + "\x01" + key + "\x01\x83\x00\x05\x00"), cursor.ErrMalformed},
		"endless number":            {text("\x01" + id + "\x01" + key + "\x01\x03\x05\x80"), cursor.ErrMalformed},
		"something behind":          {text("\x01" + id + "\x01" + key + "\x01\x03\x05\x00\x00"), cursor.ErrMalformed},
		"a key twice":               {text("\x01" + id + "\x02" + key + "\x01\x03\x05\x00" + key + "\x01\x04\x05\x00"), cursor.ErrMalformed},
		"a partition twice":         {text("\x01" + id + "\x01" + key + "\x02\x03\x05\x00\x03\x06\x00"), cursor.ErrMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if c, err := cursor.Decode(tt.text); !errors.Is(err, tt.want) {
				t.Fatalf("%.80q: got %+v, %v; want %v", tt.text, c, err, tt.want)
			}
		})
	}
}

// Any change of one letter is an accident that must be seen.
func TestDamageIsNoticed(t *testing.T) {
	good := cursor.Encode(single("alice", 3, 4711, 0))
	for i := range good {
		for _, c := range "AZaz09-_" {
			if bad := good[:i] + string(c) + good[i+1:]; bad != good {
				if _, err := cursor.Decode(bad); err == nil {
					t.Fatalf("%q was taken for %q", bad, good)
				}
			}
		}
	}
}

func TestCursorsAreFrozen(t *testing.T) {
	two := single("alice", 3, 4711, 0)
	two.Feeds[0].Positions = append(two.Feeds[0].Positions, cursor.Position{Partition: 51, Next: 0, Epoch: 7})
	two.Feeds = append(two.Feeds, single("bücher", 63, math.MaxInt64, math.MaxInt32).Feeds...)
	golden.Check(t, "testdata/cursor.golden", []golden.Line{
		{Name: "hash-alice", Text: fmt.Sprintf("%016x", cursor.Hash([]byte("alice")))},
		{Name: "hash-empty", Text: fmt.Sprintf("%016x", cursor.Hash(nil))},
		{Name: "start", Text: cursor.Encode(single("alice", 0, 0, 0))},
		{Name: "single", Text: cursor.Encode(single("alice", 3, 4711, 0))},
		{Name: "several", Text: cursor.Encode(two)},
	})
	for _, line := range golden.Read(t, "testdata/cursor.golden")[2:] {
		c, err := cursor.Decode(line.Text)
		if err != nil {
			t.Errorf("%s: %v", line.Name, err)
			continue
		}
		if f, ok := c.For([]byte("alice")); !ok || c.TopicID != topicID() || f.Positions[0].Partition > 3 {
			t.Errorf("%s: read as %+v", line.Name, c)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "AQ", cursor.Encode(single("alice", 3, 4711, 0)), cursor.Encode(random(rand.New(rand.NewPCG(3, 1))))} {
		f.Add(s, false)
	}
	f.Add("\x01"+"0123456789abcdef"+"\x01"+"12345678"+"\x01\x03\x05\x00", true)
	// With raw, the input is what stands before the checksum: few random texts have a right one.
	f.Fuzz(func(t *testing.T, in string, raw bool) {
		if raw {
			in = text(in)
		}
		c, err := cursor.Decode(in)
		if err != nil {
			if !errors.Is(err, cursor.ErrMalformed) && !errors.Is(err, cursor.ErrVersion) && !errors.Is(err, cursor.ErrChecksum) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if again := cursor.Encode(c); again != in {
			t.Fatalf("two texts for one cursor: %q and %q", in, again)
		}
	})
}

func FuzzDecodeList(f *testing.F) {
	one, two := cursor.Encode(single("alice", 3, 4711, 0)), cursor.Encode(random(rand.New(rand.NewPCG(4, 1))))
	for _, s := range []string{"", ".", one, one + "." + two, two + "." + one + "." + one, one + "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		list, err := cursor.DecodeList(in)
		if err != nil {
			return
		}
		var texts []string
		for _, c := range list {
			texts = append(texts, cursor.Encode(c))
		}
		if again := strings.Join(texts, "."); again != in {
			t.Fatalf("two texts for one list: %q and %q", in, again)
		}
		if _, f, ok := cursor.Of(list, []byte("alice")); ok && f.Key != cursor.Hash([]byte("alice")) {
			t.Fatalf("the feed of %x for alice", f.Key)
		}
	})
}

func BenchmarkAppendSingle(b *testing.B) {
	id, key, dst := topicID(), cursor.Hash([]byte("alice")), make([]byte, 0, cursor.SingleRoom)
	b.ReportAllocs()
	for b.Loop() {
		dst = cursor.AppendSingle(dst[:0], id, key, 63, 123456789, 0)
	}
}
