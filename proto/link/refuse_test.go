package link_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pointsmanhq/pointsman/proto/link"
)

func varint(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

func octets(num protowire.Number, b string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	const minusOne = math.MaxUint64
	tests := map[string][]byte{
		"no tag":                    {0xff},
		"field number 0":            {0x00, 0x01},
		"length beyond the end":     {0x0a, 0x05, 0x00},
		"end of a group":            {0x0c},
		"unknown frame":             frame(12, nil),
		"far unknown frame":         frame(5000, []byte("x")),
		"frame without body":        octets(1, ""),
		"frame with unknown varint": octets(1, string(varint(7, 1))),
		"frame with two bodies":     octets(1, string(join(octets(4, string(varint(1, 1))), octets(4, string(varint(1, 2)))))),

		"hello of bad text":                frame(1, octets(1, "\xff")),
		"attach of stream 0":               frame(2, varint(2, 1)),
		"attach of a negative partition":   frame(2, join(varint(1, 1), varint(2, minusOne))),
		"attach with a short topic id":     frame(2, join(varint(1, 1), octets(5, "short"))),
		"attach with a torn start":         frame(2, join(varint(1, 1), octets(4, "\x08"))),
		"credit of stream 0":               frame(3, varint(2, 1)),
		"detach of stream 0":               frame(4, nil),
		"welcome with a long topic id":     frame(5, octets(4, "seventeen bytes..")),
		"welcome with negative partitions": frame(5, varint(5, minusOne)),
		"welcome of bad text":              frame(5, octets(3, "\xc0\x80")),
		"attached of stream 0":             frame(6, varint(2, 1)),
		"attached below 0":                 frame(6, join(varint(1, 1), varint(2, minusOne))),
		"record of a negative partition":   frame(7, varint(2, minusOne)),
		"record of a negative offset":      frame(7, varint(3, minusOne)),
		"record with a torn stream":        frame(7, octets(1, "\x80")),
		"record with a torn header":        frame(7, octets(5, "\x0a\x05")),
		"checkpoint below 0":               frame(8, varint(2, minusOne)),
		"checkpoint with a torn list":      frame(8, octets(4, "\x01\xff")),
		"gap of stream 0":                  frame(9, varint(3, 1)),
		"gap from below 0":                 frame(9, join(varint(1, 1), varint(2, minusOne))),
		"gap to below 0":                   frame(9, join(varint(1, 1), varint(3, minusOne))),
		"closed of stream 0":               frame(10, nil),
		"closed of bad text":               frame(10, join(varint(1, 1), octets(3, "\xed\xa0\x80"))),
		"draining with a torn field":       frame(11, []byte{0x08}),
		"more than a message may hold":     make([]byte, link.MaxMessage+1),
	}
	for name, msg := range tests {
		t.Run(name, func(t *testing.T) {
			for _, node := range []bool{true, false} {
				if got, err := decode(msg, node); !errors.Is(err, link.ErrMalformed) || len(got) > 0 {
					t.Errorf("to node %v: got %v and error %v, want ErrMalformed", node, got, err)
				}
			}
		})
	}
}

func TestFramesOfTheOtherDirectionAreRefused(t *testing.T) {
	for _, f := range newRandom(1).eachFrame() {
		if got, err := decode(appendFrame(nil, f), !toNode(f)); !errors.Is(err, link.ErrMalformed) || len(got) > 0 {
			t.Errorf("%T: got %v and error %v, want ErrMalformed", f, got, err)
		}
	}
}

func TestEmptyMessageIsLegal(t *testing.T) {
	for _, node := range []bool{true, false} {
		if got, err := decode(nil, node); err != nil || len(got) > 0 {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestTornMessagesNeverPanicAndKeepWholeFrames(t *testing.T) {
	for seed := range uint64(20) {
		for _, f := range newRandom(seed).eachFrame() {
			one := appendFrame(nil, f)
			msg := append(appendFrame(nil, f), one...)
			for cut := range msg {
				got, err := decode(msg[:cut], toNode(f))
				whole := cut / len(one)
				if len(got) != whole || (err == nil) != (cut%len(one) == 0) {
					t.Fatalf("%#v cut at %d of %d: %d frames, error %v", f, cut, len(msg), len(got), err)
				}
			}
		}
	}
}

func TestDamagedMessagesNeverPanic(t *testing.T) {
	r := newRandom(7)
	for range 5000 {
		for _, f := range []any{r.record(), r.eachFrame()[r.IntN(11)]} {
			msg := appendFrame(nil, f)
			for range 1 + r.IntN(3) {
				msg[r.IntN(len(msg))] ^= byte(1 << r.IntN(8))
			}
			if _, err := decode(msg, toNode(f)); err != nil && !errors.Is(err, link.ErrMalformed) {
				t.Fatalf("%x: %v", msg, err)
			}
		}
	}
}

func TestHandlerErrorStopsAndIsReturnedAsItIs(t *testing.T) {
	stop := errors.New("stop")
	for _, f := range newRandom(3).eachFrame() {
		msg := appendFrame(appendFrame(nil, f), f)
		got := received{fail: stop}
		var err error
		if toNode(f) {
			err = link.DecodeToNode(msg, &got)
		} else {
			err = link.DecodeToRouter(msg, &got)
		}
		if err != stop || len(got.frames) != 1 { //nolint:errorlint // as it is, not wrapped
			t.Errorf("%T: error %v after %d frames", f, err, len(got.frames))
		}
	}
}

// A value of a newer version must not look like one that this version knows, least of all like 0.
func TestUnknownReasonsStayUnknown(t *testing.T) {
	for _, v := range []uint64{7, 8, 254, 255, 256, 257, 1 << 31, math.MaxUint64} {
		got, err := decode(join(frame(9, join(varint(1, 1), varint(4, v))), frame(10, join(varint(1, 1), varint(2, v))),
			frame(6, join(varint(1, 1), varint(4, v)))), false)
		if err != nil {
			t.Fatal(err)
		}
		words := []fmt.Stringer{got[0].(*link.Gap).Reason, got[1].(*link.Closed).Reason, got[2].(*link.Attached).Gap}
		for i, w := range words {
			if w.String() != "unknown" {
				t.Errorf("value %d of frame %d reads %q", v, i, w)
			}
		}
		if got[2].(*link.Attached).Gap == link.GapNone {
			t.Errorf("gap reason %d reads as no gap", v)
		}
		got, err = decode(frame(2, join(varint(1, 1), octets(4, string(varint(1, v+1))))), true)
		if err != nil {
			t.Fatal(err)
		}
		if k := got[0].(*link.Attach).Start.Kind; v+1 > 5 && k.String() != "invalid" {
			t.Errorf("start kind %d reads %q", v+1, k)
		}
	}
}

func TestRecordWithTooManyHeadersDoesNotFitAndIsRefused(t *testing.T) {
	r := &link.Record{Headers: make([]link.Header, link.MaxHeaders+1), Tombstone: true}
	if r.Fits() {
		t.Error("too many headers fit")
	}
	r.Headers = r.Headers[1:]
	if !r.Fits() {
		t.Error("the largest number of headers does not fit")
	}
	header := string(octets(5, ""))
	if err := link.DecodeToRouter(frame(7, []byte(strings.Repeat(header, link.MaxHeaders+1))), &counting{}); !errors.Is(err, link.ErrMalformed) {
		t.Errorf("too many headers: error %v", err)
	}
	if err := link.DecodeToRouter(frame(7, []byte(strings.Repeat(header, link.MaxHeaders))), &counting{}); err != nil {
		t.Errorf("the largest number of headers: %v", err)
	}
}

func TestRecordFitsUpToTheLargestMessage(t *testing.T) {
	r := &link.Record{Streams: []uint64{1, 2}, Partition: 3, Offset: 4, Key: []byte("k")}
	r.Value = make([]byte, link.MaxMessage-64, link.MaxMessage)
	for r.Fits() {
		r.Value = append(r.Value, 0)
	}
	msg := link.AppendRecord(make([]byte, 0, link.MaxMessage+1), r)
	if n := len(msg); n != link.MaxMessage+1 {
		t.Fatalf("the first record that does not fit has %d bytes, a message holds %d", n, link.MaxMessage)
	}
	r.Value = r.Value[:len(r.Value)-1]
	var c counting
	if err := link.DecodeToRouter(link.AppendRecord(msg[:0], r), &c); err != nil || c.records != 1 {
		t.Fatalf("%d records, %v", c.records, err)
	}
}
