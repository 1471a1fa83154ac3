package clientconn

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// feed lets the gate see bytes in pieces and returns how many it let pass.
func feed(g *gate, b []byte, cut func(left int) int) (passed int) {
	for len(b) > 0 && g.refusal == nil {
		n := cut(len(b))
		passed += g.pass(b[:n])
		b = b[n:]
	}
	return passed
}

func whole(left int) int { return left }

func TestGateLetsPassWhatIsBeforeAViolation(t *testing.T) {
	good := masked(byte(Text), []byte("good"))
	for name, q := range map[string]struct {
		bad  []byte
		more int // bytes of bad that may pass
		code int
	}{
		"no mask":      {frame(Text, "plain"), 1, closecode.ProtocolError},
		"no UTF-8":     {masked(byte(Text), []byte("ab\xffcd")), 2 + 4 + 2, closecode.InvalidData},
		"half a rune":  {masked(byte(Text), []byte("a\xc3")), 2 + 4 + 1, closecode.InvalidData},
		"close reason": {masked(byte(opClose), []byte("\x03\xe8a\xff")), 2 + 4 + 3, closecode.InvalidData},
		"empty reason": {masked(byte(opClose), []byte("\x03\xe8")), 2 + 4 + 2, 0},
		"binary":       {masked(byte(Binary), []byte("\xff\xfe")), 2 + 4 + 2, 0},
		"compressed":   {append([]byte{fin | 0x40 | byte(Text)}, masked(byte(Text), []byte("\xff\xfe"))[1:]...), 2 + 4 + 2, 0},
		"ping":         {masked(byte(opPing), []byte("\xff\xfe")), 2 + 4 + 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, cut := range []func(int) int{whole, func(int) int { return 1 }} {
				g := &gate{}
				passed := feed(g, slices.Concat(good, q.bad), cut)
				code := 0
				if g.refusal != nil {
					code = g.refusal.code
				}
				if passed != len(good)+q.more || code != q.code {
					t.Errorf("%d bytes of %d passed, code %d; want %d and %d", passed, len(good)+len(q.bad), code, len(good)+q.more, q.code)
				}
			}
		})
	}
}

// The decoder says of every text what the standard library says.
func TestDecoderAgreesWithTheStandardLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "é", "€", "\U00024b62", "\xc3", "\xed\xa0\x80", "\xf4\x90", "\xf4\x8f\xbf\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\x80", "\xff", "\xc0\xaf", "\xee\x80\x80"}
	for range 20_000 {
		var text []byte
		for range r.IntN(4) {
			text = append(text, parts[r.IntN(len(parts))]...)
		}
		if r.IntN(4) == 0 {
			text = append(text, byte(r.IntN(256)), byte(r.IntN(256)))
		}
		var d decoder
		ok := true
		for _, b := range text {
			ok = ok && d.next(b)
		}
		if ok = ok && d.between(); ok != utf8.Valid(text) {
			t.Fatalf("%q: %v, want %v", text, ok, utf8.Valid(text))
		}
	}
}

// However the bytes are cut, the same number of them passes.
func FuzzGate(f *testing.F) {
	f.Add(masked(byte(Text), []byte("text")), uint64(1))
	f.Add(slices.Concat(masked(byte(Text), []byte("\xff")), frame(Text, "x")), uint64(2))
	f.Add(masked(byte(opClose), []byte("\x03\xe8\xc3")), uint64(3))
	f.Add([]byte{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		one, many := &gate{}, &gate{}
		a := feed(one, slices.Clone(b), whole)
		c := feed(many, slices.Clone(b), func(left int) int { return 1 + r.IntN(left) })
		if a != c || (one.refusal == nil) != (many.refusal == nil) || a > len(b) || one.refusal == nil && a != len(b) {
			t.Fatalf("whole: %d passed, %v; in pieces: %d, %v", a, one.refusal, c, many.refusal)
		}
	})
}
