package autobahn

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const kosme = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

// invalid is how a text that is no UTF-8 ends.
var invalid = []int{1007}

// utf8 is section 6.
func (l *lister) utf8() {
	hello := "Hello-µ@ßöäüàá-UTF-8!!"
	l.add("6.1.1", "empty text", Case{Echo: true, steps: together(text("")), want: []event{msg("")}})
	l.add("6.1.2", "three empty fragments", Case{Echo: true, steps: together(fragments(opText, []string{"", "", ""}, nil)...), want: []event{msg("")}})
	l.add("6.1.3", "three fragments, the outer ones empty", Case{
		Echo: true, steps: together(fragments(opText, []string{"", "middle frame payload", ""}, nil)...), want: []event{msg("middle frame payload")},
	})
	at := strings.Index(hello, "ö")
	l.add("6.2.1", "valid text", Case{Echo: true, steps: together(text(hello)), want: []event{msg(hello)}})
	l.add("6.2.2", "valid text in two fragments, cut between characters", Case{
		Echo: true, steps: together(fragments(opText, []string{hello[:at], hello[at:]}, nil)...), want: []event{msg(hello)},
	})
	l.add("6.2.3", "valid text in fragments of one byte", Case{Echo: true, steps: together(fragments(opText, split(hello, 1), nil)...), want: []event{msg(hello)}})
	l.add("6.2.4", "valid text in fragments of one byte", Case{Echo: true, steps: together(fragments(opText, split(kosme, 1), nil)...), want: []event{msg(kosme)}})
	bad := kosme + "\xed\xa0\x80edited"
	l.add("6.3.1", "invalid text", Case{steps: together(text(bad)), fail: invalid})
	l.add("6.3.2", "invalid text in fragments of one byte", Case{steps: together(fragments(opText, split(bad, 1), nil)...), fail: invalid})

	// What is wrong is known before the message is whole; a strict server does not wait for the rest.
	whole := kosme + "\xf4\x90\x80\x80edited"
	three := []string{kosme, "\xf4\x90\x80\x80", "edited"}
	four := []string{kosme + "\xf4", "\x90", "\x80\x80edited"}
	l.add("6.4.1", "invalid text in three fragments, the second wrong", Case{steps: oneByOne(fragments(opText, three, nil)...), early: 3, fail: invalid})
	l.add("6.4.2", "invalid text in three fragments, cut within the wrong character", Case{steps: oneByOne(fragments(opText, four, nil)...), early: 3, fail: invalid})
	for i, cut := range []int{len(kosme) + 4, len(kosme) + 2} {
		l.add(fmt.Sprintf("6.4.%d", 3+i), "invalid text in one frame, sent in pieces", Case{
			early: 3, fail: invalid,
			steps: func() []step {
				f := text(whole)
				head := len(f) - len(whole)
				return []step{{data: f[:head+len(kosme)]}, {data: f[head+len(kosme) : head+cut]}, {data: f[head+cut:]}}
			},
		})
	}
	for section, group := range sequences() {
		for i, s := range group {
			c := Case{steps: together(text(s)), fail: invalid}
			if utf8.ValidString(s) {
				c = Case{Echo: true, steps: together(text(s)), want: []event{msg(s)}}
			}
			l.add(fmt.Sprintf("6.%d.%d", 5+section, i+1), fmt.Sprintf("text %+.24q", s), c)
		}
	}
}

// sequences are those of Markus Kuhn's "UTF-8 decoder capability and stress test", grouped as sections 6.5 to 6.23.
func sequences() [][]string {
	var prefixes []string
	for i := range len(kosme) {
		prefixes = append(prefixes, kosme[:i+1])
	}
	var continuations strings.Builder
	for b := 0x80; b <= 0xbf; b++ {
		continuations.WriteByte(byte(b))
	}
	unexpected := []string{"\x80", "\xbf"}
	for n := 2; n <= 6; n++ {
		unexpected = append(unexpected, strings.Repeat("\x80\xbf", 3)[:n])
	}
	unexpected = append(unexpected, continuations.String())
	var lonely []string
	for _, span := range [][2]int{{0xc0, 0xdf}, {0xe0, 0xef}, {0xf0, 0xf7}, {0xf8, 0xfb}, {0xfc, 0xfd}} {
		var b strings.Builder
		for c := span[0]; c <= span[1]; c++ {
			b.WriteByte(byte(c))
			b.WriteByte(' ')
		}
		lonely = append(lonely, b.String())
	}
	incomplete := []string{
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
	}
	var nobody []string // U+FFFE and U+FFFF, and their like in the other planes
	for plane := range rune(17) {
		nobody = append(nobody, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	var specials []string
	for r := rune(0xfff9); r <= 0xffff; r++ {
		specials = append(specials, string(r))
	}
	return [][]string{
		{"hello$world", "hello¢world", "hello€world", "hello\U00024b62world", kosme},
		prefixes,
		{"\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"},
		{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"},
		{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"},
		{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"},
		{"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80"},
		unexpected,
		lonely,
		incomplete,
		{strings.Join(incomplete, "")},
		{"\xfe", "\xff", "\xfe\xfe\xff\xff"},
		{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"},
		{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"},
		{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"},
		{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"},
		{
			"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
			"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
		},
		nobody,
		specials,
	}
}
