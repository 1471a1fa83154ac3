package autobahn

import (
	"fmt"
	"strings"
)

// protocol is how a violation of the framing ends.
var protocol = []int{1002}

const hello = "Hello, world!"

// Cases is the whole list. Sizes of section 9 are divided by shrink (1 for the list's own), which helps race builds.
func Cases(shrink int) []*Case {
	l := &lister{}
	l.messages()
	l.pings()
	l.reserved()
	l.opcodes()
	l.fragmentation()
	l.utf8()
	l.closing()
	l.large(max(1, shrink))
	return l.all
}

type lister struct{ all []*Case }

func (l *lister) add(id, what string, c Case) {
	c.ID, c.What = id, what
	l.all = append(l.all, &c)
}

// messages is section 1.
func (l *lister) messages() {
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
		chop := 0
		if i == 7 {
			chop = 997
		}
		t, b := strings.Repeat("*", n), strings.Repeat("\xfe", n)
		l.add(fmt.Sprintf("1.1.%d", i+1), fmt.Sprintf("text of %d bytes", n), Case{
			Echo: true, want: []event{msg(t)}, steps: func() []step { return []step{{text(t), chop}} },
		})
		l.add(fmt.Sprintf("1.2.%d", i+1), fmt.Sprintf("binary of %d bytes", n), Case{
			Echo: true, want: []event{bin(b)}, steps: func() []step { return []step{{binaryOf(b), chop}} },
		})
	}
}

// pings is section 2.
func (l *lister) pings() {
	odd := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	full := strings.Repeat("\xfe", 125)
	l.add("2.1", "ping without payload", Case{steps: together(ping("")), want: []event{ponged("")}})
	l.add("2.2", "ping with text", Case{steps: together(ping(hello)), want: []event{ponged(hello)}})
	l.add("2.3", "ping with bytes that are no UTF-8", Case{steps: together(ping(odd)), want: []event{ponged(odd)}})
	l.add("2.4", "ping of 125 bytes", Case{steps: together(ping(full)), want: []event{ponged(full)}})
	l.add("2.5", "ping of 126 bytes", Case{steps: together(ping(full + "\xfe")), fail: protocol})
	l.add("2.6", "ping of 125 bytes, byte by byte", Case{steps: byteByByte(ping(full)), want: []event{ponged(full)}})
	l.add("2.7", "pong that nobody asked for", Case{steps: together(pong(""))})
	l.add("2.8", "pong with payload that nobody asked for", Case{steps: together(pong("unsolicited pong payload"))})
	l.add("2.9", "pong that nobody asked for, then a ping", Case{
		steps: together(pong("unsolicited pong payload"), ping("ping payload")), want: []event{ponged("ping payload")},
	})
	var ten [][]byte
	var answers []event
	for i := range 10 {
		p := fmt.Sprintf("payload-%d", i)
		ten, answers = append(ten, ping(p)), append(answers, ponged(p))
	}
	l.add("2.10", "ten pings", Case{steps: oneByOne(ten...), want: answers})
	l.add("2.11", "ten pings, byte by byte", Case{steps: byteByByte(ten...), want: answers})
}

// reserved is section 3.
func (l *lister) reserved() {
	first := []event{msg(hello)}
	second := func(bits byte) [][]byte { return [][]byte{text(hello), frame(rsv(bits, opText), hello), ping("")} }
	l.add("3.1", "RSV 1 in a text", Case{steps: together(frame(rsv(1, opText), hello)), fail: protocol})
	l.add("3.2", "text, then RSV 2, then ping", Case{Echo: true, steps: together(second(2)...), want: first, fail: protocol})
	l.add("3.3", "text, then RSV 3, then ping, frame by frame", Case{Echo: true, steps: oneByOne(second(3)...), want: first, fail: protocol})
	l.add("3.4", "text, then RSV 4, then ping, byte by byte", Case{Echo: true, steps: byteByByte(second(4)...), want: first, fail: protocol})
	l.add("3.5", "RSV 5 in a binary", Case{steps: together(frame(rsv(5, opBinary), "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), fail: protocol})
	l.add("3.6", "RSV 6 in a ping", Case{steps: together(frame(rsv(6, opPing), hello)), fail: protocol})
	l.add("3.7", "RSV 7 in a close", Case{steps: together(frame(rsv(7, opClose), "\x03\xe8")), fail: protocol})
}

// opcodes is section 4.
func (l *lister) opcodes() {
	for i, base := range []byte{3, 11} {
		name := []string{"non-control", "control"}[i]
		for j := range 5 {
			op := base + byte(j)
			c := Case{fail: protocol}
			what := fmt.Sprintf("%s opcode %d", name, op)
			switch j {
			case 0:
				c.steps = together(frame(fin|op, ""))
			case 1:
				what += " with payload"
				c.steps = together(frame(fin|op, "reserved payload"))
			default:
				what = "text, then " + what + ", then ping"
				payload := ""
				if j != 2 {
					payload = "reserved payload"
				}
				frames := [][]byte{text(hello), frame(fin|op, payload), ping("")}
				c.Echo, c.want, c.steps = true, []event{msg(hello)}, together(frames...)
				if j == 4 {
					what += ", byte by byte"
					c.steps = byteByByte(frames...)
				}
			}
			l.add(fmt.Sprintf("4.%d.%d", i+1, j+1), what, c)
		}
	}
}

// fragmentation is section 5.
func (l *lister) fragmentation() {
	two := []string{"fragment1", "fragment2"}
	whole := []event{msg("fragment1fragment2")}
	ways := []struct {
		name string
		send func(...[]byte) func() []step
	}{{"", together}, {", frame by frame", oneByOne}, {", byte by byte", byteByByte}}
	l.add("5.1", "ping in two fragments", Case{steps: together(frame(opPing, two[0]), frame(fin|opCont, two[1])), fail: protocol})
	l.add("5.2", "pong in two fragments", Case{steps: together(frame(opPong, two[0]), frame(fin|opCont, two[1])), fail: protocol})
	for i, w := range ways {
		l.add(fmt.Sprintf("5.%d", 3+i), "text in two fragments"+w.name, Case{
			Echo: true, steps: w.send(fragments(opText, two, nil)...), want: whole,
		})
	}
	for i, w := range ways {
		l.add(fmt.Sprintf("5.%d", 6+i), "text in two fragments, a ping between"+w.name, Case{
			Echo: true, steps: w.send(fragments(opText, two, map[int][]byte{1: ping("ping payload")})...),
			want: []event{ponged("ping payload"), whole[0]},
		})
	}
	for i, w := range ways {
		l.add(fmt.Sprintf("5.%d", 9+i), "last continuation of nothing, then a text"+w.name, Case{
			steps: w.send(frame(fin|opCont, "non-continuation payload"), text(hello)), fail: protocol,
		})
	}
	for i, w := range ways {
		l.add(fmt.Sprintf("5.%d", 12+i), "continuation of nothing, then a text"+w.name, Case{
			steps: w.send(frame(opCont, "non-continuation payload"), text(hello)), fail: protocol,
		})
	}
	l.add("5.15", "text in two fragments, then a continuation of nothing, then a text", Case{
		Echo: true, want: whole, fail: protocol,
		steps: together(append(fragments(opText, two, nil), frame(opCont, "fragment3"), text("fragment4"))...),
	})
	for i, first := range []byte{opCont, fin | opCont} {
		var frames [][]byte
		for range 2 {
			frames = append(frames, frame(first, "fragment1"), frame(opText, "fragment2"), frame(fin|opCont, "fragment3"))
		}
		l.add(fmt.Sprintf("5.%d", 16+i), "twice: continuation of nothing, then a text in two fragments", Case{steps: together(frames...), fail: protocol})
	}
	l.add("5.18", "text in two fragments that both say text", Case{steps: together(frame(opText, two[0]), frame(fin|opText, two[1])), fail: protocol})
	five := []string{"fragment1", "fragment2", "fragment3", "fragment4", "fragment5"}
	pinged := map[int][]byte{2: ping("pongme 1!"), 4: ping("pongme 2!")}
	events := []event{ponged("pongme 1!"), ponged("pongme 2!"), msg(strings.Join(five, ""))}
	l.add("5.19", "text in five fragments, two pings between, frame by frame", Case{Echo: true, steps: oneByOne(fragments(opText, five, pinged)...), want: events})
	l.add("5.20", "text in five fragments, two pings between", Case{Echo: true, steps: together(fragments(opText, five, pinged)...), want: events})
}

// closing is section 7.
func (l *lister) closing() {
	bye := closeFrame(1000, "")
	big := strings.Repeat("BAsd7&jh23", 26215)[:256<<10]
	closed := func(id, what string, c Case) {
		if c.closes == 0 {
			c.closes = 1000
		}
		l.add(id, what, c)
	}
	closed("7.1.1", "text, then close", Case{Echo: true, steps: together(text(hello), bye), want: []event{msg(hello)}})
	closed("7.1.2", "two closes", Case{steps: together(bye, bye)})
	closed("7.1.3", "close, then ping", Case{steps: together(bye, ping(""))})
	closed("7.1.4", "close, then text", Case{steps: together(bye, text(hello))})
	closed("7.1.5", "half a text, then close, then the rest", Case{steps: together(frame(opText, "fragment1"), bye, frame(fin|opCont, "fragment2"))})
	closed("7.1.6", "256 KB of text, close, ping", Case{Echo: true, steps: together(text(big), text(hello), bye, ping("")), want: []event{msg(big), msg(hello)}, loose: true})
	closed("7.3.1", "close without payload", Case{steps: together(raw("")), closes: noStatus})
	l.add("7.3.2", "close with one byte", Case{steps: together(raw("a")), fail: protocol})
	closed("7.3.3", "close with a code", Case{steps: together(bye)})
	closed("7.3.4", "close with a reason", Case{steps: together(closeFrame(1000, hello))})
	closed("7.3.5", "close with the longest reason", Case{steps: together(closeFrame(1000, strings.Repeat("*", 123)))})
	l.add("7.3.6", "close with a reason that is too long", Case{steps: together(closeFrame(1000, strings.Repeat("*", 124))), fail: protocol})
	l.add("7.5.1", "close with a reason that is no UTF-8", Case{steps: together(closeFrame(1000, kosme+"\xed\xa0\x80edited")), fail: []int{1002, 1007}})
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		closed(fmt.Sprintf("7.7.%d", i+1), fmt.Sprintf("close with %d", code), Case{steps: together(closeFrame(code, "")), closes: code})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		l.add(fmt.Sprintf("7.9.%d", i+1), fmt.Sprintf("close with %d, which nobody may send", code), Case{steps: together(closeFrame(code, "")), fail: protocol})
	}
	for i, code := range []int{5000, 65535} {
		l.add(fmt.Sprintf("7.13.%d", i+1), fmt.Sprintf("close with %d, which is not defined", code), Case{steps: together(closeFrame(code, "")), inform: true})
	}
}

// large is sections 9 and 10.
func (l *lister) large(shrink int) {
	kinds := []struct {
		name  string
		op    byte
		frame func(string) []byte
	}{{"text", opText, text}, {"binary", opBinary, binaryOf}}
	payload := func(n int) string { return strings.Repeat("BAsd7&jh23", n/10+1)[:n] }
	for k, kind := range kinds {
		for i, n := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20} {
			d := payload(n / shrink)
			l.add(fmt.Sprintf("9.%d.%d", 1+k, i+1), fmt.Sprintf("%s of %d bytes", kind.name, len(d)), Case{
				Echo: true, want: []event{{kind.op, d}}, steps: func() []step { return []step{{data: kind.frame(d)}} },
			})
		}
	}
	for k, kind := range kinds {
		for i, n := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
			d := payload((4 << 20) / shrink)
			l.add(fmt.Sprintf("9.%d.%d", 3+k, i+1), fmt.Sprintf("%s of %d bytes in fragments of %d", kind.name, len(d), n), Case{
				Echo: true, want: []event{{kind.op, d}},
				steps: func() []step { return together(fragments(kind.op, split(d, n), nil)...)() },
			})
		}
	}
	for k, kind := range kinds {
		for i, chop := range []int{64, 128, 256, 512, 1024, 2048} {
			d := payload((1 << 20) / shrink)
			l.add(fmt.Sprintf("9.%d.%d", 5+k, i+1), fmt.Sprintf("%s of %d bytes in writes of %d", kind.name, len(d), chop), Case{
				Echo: true, want: []event{{kind.op, d}}, steps: func() []step { return []step{{kind.frame(d), chop}} },
			})
		}
	}
	for k, kind := range kinds {
		for i, n := range []int{0, 16, 64, 256, 1024, 4096} {
			d := payload(n)
			many := 1000 / shrink
			want := make([]event, many)
			for j := range want {
				want[j] = event{kind.op, d}
			}
			l.add(fmt.Sprintf("9.%d.%d", 7+k, i+1), fmt.Sprintf("%d times %s of %d bytes", many, kind.name, n), Case{
				Echo: true, want: want,
				steps: func() []step {
					all := make([]step, many)
					for j := range all {
						all[j] = step{data: kind.frame(d)}
					}
					return all
				},
			})
		}
	}
	d := payload(65536)
	l.add("10.1.1", "text of 65536 bytes in fragments of 1300", Case{
		Echo: true, want: []event{msg(d)}, steps: together(fragments(opText, split(d, 1300), nil)...),
	})
}
