package lean

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreWithinABucket(t *testing.T) {
	var h, half Histogram
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's choices
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		if len(all)%2 == 0 {
			h.Add(d)
		} else {
			half.Add(d)
		}
	}
	h.Join(&half)
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(0, int(q*float64(len(all)))-1)]
		got := h.Quantile(q)
		if got < want-time.Microsecond || got > want+want/32+2*time.Microsecond {
			t.Errorf("quantile %v: got %s, want %s", q, got, want)
		}
	}
}

func TestBucketsFollowEachOther(t *testing.T) {
	last := -1
	for us := range 200_000 {
		d := time.Duration(us) * time.Microsecond
		b := bucket(d)
		if b != last && b != last+1 {
			t.Fatalf("%d us: bucket %d after %d", us, b, last)
		}
		if upper(b) < d-time.Microsecond {
			t.Fatalf("%d us: its bucket %d ends at %s", us, b, upper(b))
		}
		last = b
	}
	if b := bucket(1000 * time.Hour); b != buckets-1 {
		t.Errorf("a duration beyond all buckets is in %d, want the last", b)
	}
}

func TestStampIsReadFromWhereverItIs(t *testing.T) {
	want := Stamp{Epoch: 7, Key: 123, Seq: 0, Sent: 1_700_000_000_123_456_789}
	for _, size := range []int{0, 128, 1024} {
		v := AppendValue(nil, want, size)
		if size > 64 && len(v) != size {
			t.Errorf("size %d: value has %d bytes", size, len(v))
		}
		got, ok := readStamp([]byte(`{"type":"record","cursor":"x","value":` + string(v) + "}"))
		if !ok || got != want {
			t.Errorf("size %d: read %+v %v, want %+v", size, got, ok, want)
		}
	}
	for _, bad := range []string{"", `{"type":"hello"}`, `{"#":[1,2,3]}`, `{"#":[1,2,3,`, `{"#":[1,2,x,4]}`, `{"#":[1,2,3,4`} {
		if s, ok := readStamp([]byte(bad)); ok {
			t.Errorf("%q: read %+v", bad, s)
		}
	}
}

func TestDueIsWrittenInTurn(t *testing.T) {
	d := Due{Records: 10, Keys: 4}
	for key, want := range []int64{3, 3, 2, 2} {
		if got := d.of(int64(key)); got != want {
			t.Errorf("key %d: %d due, want %d", key, got, want)
		}
	}
}
