package clientconn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

// follow gives bytes to an inbound in pieces, and returns what came of them and how many it took. Now and then a piece
// is read to where it belongs.
func follow(in *inbound, b []byte, cut func(left int) int) (seen []string, took int, bad *violation) {
	in.limit = 1 << 10
	for took < len(b) && bad == nil {
		n := cut(len(b) - took)
		var what event
		if room := in.room(8); room != nil {
			n = copy(room, b[took:took+min(n, len(room))])
			what, bad = in.filled(n)
		} else {
			n, what, bad = in.take(slices.Clone(b[took : took+n]))
		}
		took += n
		switch what {
		case nothing:
		case wholeMessage:
			op, packed, data := in.message()
			seen = append(seen, fmt.Sprintf("%d %v %x", op, packed, data))
		case wholePing, wholePong, wholeClose:
			seen = append(seen, fmt.Sprintf("%v %x", what, in.control))
			in.control = nil
		}
	}
	return seen, took, bad
}

func whole(left int) int { return left }

func bytewise(int) int { return 1 }

func parts(texts ...string) []byte {
	var all []byte
	for i, text := range texts {
		f := masked(byte(Text), []byte(text))
		if f[0] = byte(Text); i > 0 {
			f[0] = 0
		}
		if i == len(texts)-1 {
			f[0] |= fin
		}
		all = append(all, f...)
	}
	return all
}

func TestWhatMayNotBeIsFoundAtTheByteThatProvesIt(t *testing.T) {
	good := masked(byte(Text), []byte("good"))
	with := func(first byte, f []byte) []byte { return append([]byte{first}, f[1:]...) }
	long := append([]byte{fin | byte(Binary), 0x80 | 127}, binary.BigEndian.AppendUint64(nil, 1<<63)...)
	for name, q := range map[string]struct {
		bad  []byte
		more int // bytes of bad that are looked at
		code int // 0: it may be
	}{
		"no mask":             {frame(Text, "plain"), 2, closecode.ProtocolError},
		"no UTF-8":            {masked(byte(Text), []byte("ab\xffcd")), 2 + 4 + 5, closecode.InvalidData},
		"half a rune":         {masked(byte(Text), []byte("a\xc3")), 2 + 4 + 2, closecode.InvalidData},
		"runes cut by frames": {parts("a\xc3", "\xa4", "b"), 3*6 + 4, 0},
		"half at the end":     {parts("a\xc3", "\xa4\xc3"), 2*6 + 4, closecode.InvalidData},
		"close reason":        {masked(byte(opClose), []byte("\x03\xe8a\xff")), 2 + 4 + 4, closecode.InvalidData},
		"close without one":   {masked(byte(opClose), []byte("\x03\xe8")), 2 + 4 + 2, 0},
		"empty close":         {masked(byte(opClose), nil), 2 + 4, 0},
		"half a close code":   {masked(byte(opClose), []byte("\x03")), 2 + 4 + 1, closecode.ProtocolError},
		"reserved close code": {masked(byte(opClose), []byte("\x03\xed")), 2 + 4 + 2, closecode.ProtocolError},
		"binary":              {masked(byte(Binary), []byte("\xff\xfe")), 2 + 4 + 2, 0},
		"ping":                {masked(byte(opPing), []byte("\xff\xfe")), 2 + 4 + 2, 0},
		"large ping":          {masked(byte(opPing), make([]byte, 126)), 2, closecode.ProtocolError},
		"ping in parts":       {with(byte(opPing), masked(byte(opPing), nil)), 1, closecode.ProtocolError},
		"unknown":             {masked(3, nil), 1, closecode.ProtocolError},
		"unknown control":     {masked(11, nil), 1, closecode.ProtocolError},
		"reserved bit":        {with(fin|0x20|byte(Text), masked(byte(Text), nil)), 1, closecode.ProtocolError},
		"compressed":          {with(fin|rsv1|byte(Text), masked(byte(Text), nil)), 1, closecode.ProtocolError},
		"nothing to continue": {masked(0, nil), 1, closecode.ProtocolError},
		"two begun":           {slices.Concat(parts("a", "b")[:7], masked(byte(Text), nil)), 7 + 1, closecode.ProtocolError},
		"ping within":         {slices.Concat(parts("a", "b")[:7], masked(byte(opPing), nil), parts("a", "b")[7:]), 7 + 6 + 7, 0},
		"too large":           {masked(byte(Binary), make([]byte, 1<<10+1)), 8, closecode.TooBig},
		"too large in parts":  {slices.Concat(parts("a", "b")[:7], with(fin, masked(0, make([]byte, 1<<10)))), 7 + 8, closecode.TooBig},
		"as large as may be":  {masked(byte(Binary), make([]byte, 1<<10)), 8 + 1<<10, 0},
		"huge":                {append(long, 1, 2, 3, 4), 14, closecode.TooBig},
	} {
		t.Run(name, func(t *testing.T) {
			_, took, bad := follow(&inbound{}, slices.Concat(good, q.bad), bytewise)
			code := 0
			if bad != nil {
				code = bad.code
			}
			if took -= len(good); took > q.more || code != q.code || code == 0 && took != len(q.bad) {
				t.Errorf("%d bytes of %d taken, %v; want %d and %d", took, len(q.bad), bad, q.more, q.code)
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

// What a head promises is not believed: memory grows with what has come.
func TestMemoryGrowsWithWhatHasCome(t *testing.T) {
	in := &inbound{limit: 64 << 20}
	head := append([]byte{fin | byte(Binary), 0x80 | 127}, binary.BigEndian.AppendUint64(nil, 60<<20)...)
	if _, _, bad := in.take(append(head, 1, 2, 3, 4)); bad != nil {
		t.Fatal(bad)
	}
	for came := 0; came < 1<<20; {
		room := in.room(8)
		came += len(room)
		if _, bad := in.filled(len(room)); bad != nil {
			t.Fatal(bad)
		}
		if cap(in.data) > max(512, 2*came) {
			t.Fatalf("%d bytes are held for %d that came", cap(in.data), came)
		}
	}
	short := &inbound{limit: 1 << 10}
	if _, _, bad := short.take(masked(byte(Text), make([]byte, 20))[:10]); bad != nil || cap(short.data) > 32 {
		t.Errorf("%d bytes are held for a message of 20; %v", cap(short.data), bad)
	}
}

// heads counts the heads that are whole in frames of which none is wrong.
func heads(b []byte) (n int) {
	for len(b) >= 2 {
		length, head := uint64(b[1]&0x7f), 2+4
		switch length {
		case 126:
			if head += 2; len(b) >= head {
				length = uint64(binary.BigEndian.Uint16(b[2:]))
			}
		case 127:
			if head += 8; len(b) >= head {
				length = binary.BigEndian.Uint64(b[2:])
			}
		}
		if len(b) < head {
			return n
		}
		n++
		if length >= uint64(len(b)-head) {
			return n
		}
		b = b[head+int(length):]
	}
	return n
}

// However the bytes are cut, they are the same frames and messages, and as many.
func FuzzInbound(f *testing.F) {
	f.Add(masked(byte(Text), []byte("text")), uint64(1))
	f.Add(slices.Concat(masked(byte(Text), []byte("\xff")), frame(Text, "x")), uint64(2))
	f.Add(masked(byte(opClose), []byte("\x03\xe8\xc3")), uint64(3))
	f.Add([]byte{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, uint64(4))
	f.Add(slices.Concat(parts("a", "b", "ccccccccccccccccccc"), masked(byte(opPing), []byte("p")), parts("", "")), uint64(5))
	f.Add(append(masked(byte(Binary), bytes.Repeat([]byte("x"), 300)), masked(byte(opPong), nil)...), uint64(6))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		one, many := &inbound{packs: seed%2 == 0}, &inbound{packs: seed%2 == 0}
		a, took, bad := follow(one, b, whole)
		c, again, worse := follow(many, b, func(left int) int { return 1 + r.IntN(left) })
		if !slices.Equal(a, c) || one.frames != many.frames || (bad == nil) != (worse == nil) {
			t.Fatalf("whole: %v of %d frames, %v; in pieces: %v of %d, %v", a, one.frames, bad, c, many.frames, worse)
		}
		if n := heads(b); bad == nil && one.frames != n {
			t.Fatalf("%d frames, want %d", one.frames, n)
		}
		if bad == nil && (took != len(b) || again != len(b)) {
			t.Fatalf("%d and %d bytes of %d were taken", took, again, len(b))
		}
		if bad != nil && bad.code != worse.code {
			t.Fatalf("whole: %v, in pieces: %v", bad, worse)
		}
		if held := cap(many.data); held > 512+4*len(b) {
			t.Errorf("%d bytes are held of %d", held, len(b))
		}
	})
}
