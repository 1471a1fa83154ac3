package clientconn

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/closecode"
)

func TestAllowanceOfMessages(t *testing.T) {
	var m bucket
	now := time.Now().UnixNano()
	for i := range 15 {
		if ok := m.spend(1, now, 5, 10); ok != (i < 10) {
			t.Fatalf("frame %d at once: %v", i, ok)
		}
	}
	now += int64(3 * time.Second)
	if !m.spend(10, now, 5, 10) || m.spend(1, now, 5, 10) {
		t.Error("three seconds later there are not ten more")
	}
}

// TestFloodsAreClosed sends what is no message, too: pongs and empty continuation frames.
func TestFloodsAreClosed(t *testing.T) {
	for name, flood := range map[string][]byte{
		"pings": masked(9, []byte("x")), "pongs": masked(10, nil), "messages": masked(1, []byte("m")),
	} {
		h := newHarness(t, false)
		h.shared.MessageRate, h.shared.MessageBurst = 1, 50
		h.texts = make(chan string, 1000)
		codes := make(chan int, 1)
		h.shared.Ended = func(code int) { codes <- code }
		raw, br, _ := h.knock(nil, 0)
		for range 49 {
			if _, err := raw.Write(flood); err != nil {
				t.Fatalf("%s below the limit: %v", name, err)
			}
		}
		for range 100 {
			_, _ = raw.Write(flood) // it may be closed at any moment
		}
		if code := closeCode(t, raw, br); code != closecode.TooManyMessages {
			t.Errorf("a flood of %s is closed with %d", name, code)
		}
		_ = raw.Close()
		if code := receive(t, "end", codes); code != closecode.TooManyMessages {
			t.Errorf("the end of a flood of %s is known as %d", name, code)
		}
	}
}

// closeCode reads frames until the close.
func closeCode(t *testing.T, raw net.Conn, br *bufio.Reader) int {
	t.Helper()
	_ = raw.SetReadDeadline(time.Now().Add(patience))
	for {
		op, payload, err := nextFrame(br)
		if err != nil {
			t.Fatalf("the socket ended without a close frame: %v", err)
		}
		if op == 8 {
			return int(binary.BigEndian.Uint16(payload))
		}
	}
}

func nextFrame(br *bufio.Reader) (op byte, payload []byte, err error) {
	var h [8]byte
	if _, err := io.ReadFull(br, h[:2]); err != nil {
		return 0, nil, err
	}
	op = h[0] & 15
	n := uint64(h[1])
	switch n {
	case 126:
		if _, err := io.ReadFull(br, h[:2]); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		if _, err := io.ReadFull(br, h[:8]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(h[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(br, payload)
	return op, payload, err
}

// fill queues frames for a client that does not read until the socket is full and more is queued.
func fill(c *Conn, size, frames int) {
	for i := range frames {
		c.Queue(frame(Text, strings.Repeat(string(rune('a'+i%26)), size)), 1)
		c.Flush()
	}
}

func TestShedClientLosesItsQueueAndReadsWhyAtAFrameBoundary(t *testing.T) {
	for round := range 3 {
		h := newHarness(t, false)
		raw, br, c := h.knock(nil, 256<<10)
		// Frames of many sizes: the cut falls into headers, too.
		fill(c, 1000+round*137, 10000)
		held := c.Held()
		if held < 100<<10 {
			t.Fatalf("only %d bytes are held: the socket took all", held)
		}
		if freed := c.Shed(closecode.Shed, "short"); freed != held {
			t.Errorf("%d bytes are said to be free of %d", freed, held)
		}
		waitUntil(t, "the queue to be small", func() bool { return c.Held() < 2*smallRest })
		if c.Shed(closecode.Shed, "again") != 0 {
			t.Error("there was something left")
		}
		if code := closeCode(t, raw, br); code != closecode.Shed {
			t.Errorf("closed with %d", code)
		}
		_ = raw.Close()
		if got := receive(t, "end", h.ended).Code(); got != closecode.Shed {
			t.Errorf("the end is known as %d", got)
		}
	}
}

func TestShedClientInAHugeFrameIsCutOff(t *testing.T) {
	h := newHarness(t, false)
	_, _, c := h.knock(nil, 4<<10)
	fill(c, 32<<20, 1)
	if c.Shed(closecode.Shed, "short") < 16<<20 {
		t.Error("nothing was freed")
	}
	if got := receive(t, "end", h.ended).Code(); got != closecode.Shed {
		t.Errorf("the end is known as %d", got)
	}
	waitUntil(t, "the memory to be free", func() bool { return c.Held() == 0 })
}

func TestShedClientBehindTLSIsCutOff(t *testing.T) {
	h := newHarness(t, true)
	_, c := h.dial()
	fill(c, 1<<20, 40)
	if c.Held() == 0 {
		t.Fatal("the socket took all")
	}
	c.Shed(closecode.Shed, "short")
	if got := receive(t, "end", h.ended).Code(); got != closecode.Shed {
		t.Errorf("the end is known as %d", got)
	}
	waitUntil(t, "the memory to be free", func() bool { return c.Held() == 0 })
}

func TestShedOfAnIdleClientIsAClose(t *testing.T) {
	h := newHarness(t, false)
	raw, br, c := h.knock(nil, 0)
	if freed := c.Shed(closecode.Shed, "short"); freed != 0 {
		t.Errorf("%d bytes freed", freed)
	}
	if code := closeCode(t, raw, br); code != closecode.Shed {
		t.Errorf("closed with %d", code)
	}
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}

func TestBoundary(t *testing.T) {
	var b []byte
	ends := []int{0}
	for _, n := range []int{0, 5, 125, 126, 65535, 65536, 3} {
		b = append(b, frame(Text, strings.Repeat("x", n))...)
		ends = append(ends, len(b))
	}
	at := 0
	for off := range len(b) + 1 {
		if off > ends[at] {
			at++
		}
		if got := boundary(b, 0, off); got != ends[at] {
			t.Fatalf("boundary behind %d is %d, want %d", off, got, ends[at])
		}
		if at > 0 && boundary(b, ends[at-1], off) != ends[at] {
			t.Fatalf("boundary behind %d is another one from %d on", off, ends[at-1])
		}
	}
}

// unfinished begins a message of n bytes and sends all but the last one.
func unfinished(t *testing.T, raw net.Conn, c *Conn, n int) {
	t.Helper()
	head := append([]byte{fin | byte(Text), 0x80 | 127}, binary.BigEndian.AppendUint64(nil, uint64(n))...)
	if _, err := raw.Write(append(head, make([]byte, 4+n-1)...)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "what is there to be counted", func() bool { return c.Held() >= n })
	if held := c.Held(); held > 2*n {
		t.Errorf("%d bytes count of a message of %d", held, n)
	}
}

func TestMessagesThatDoNotEndAreClosed(t *testing.T) {
	for _, shed := range []bool{false, true} {
		h := newHarness(t, false)
		h.shared.ReadLimit = 128 << 10
		raw, br, c := h.knock(nil, 0)
		unfinished(t, raw, c, 100<<10)
		l := limits()
		l.Message = 10 * time.Second
		now := time.Now()
		c.Check(now.Add(9*time.Second), now, l)
		if c.isClosing() {
			t.Fatal("closed too early")
		}
		if shed { // memory is short instead
			if freed := c.Shed(closecode.Shed, "short"); freed < 100<<10 {
				t.Errorf("shedding frees %d bytes", freed)
			}
		} else {
			c.Check(now.Add(11*time.Second), now, l)
		}
		want := map[bool]int{false: closecode.ControlTimeout, true: closecode.Shed}[shed]
		if code := closeCode(t, raw, br); code != want {
			t.Errorf("closed with %d, want %d", code, want)
		}
		waitFor(t, "its memory to be free", func() bool { return c.Held() == 0 })
		_ = raw.Close()
		if got := receive(t, "end", h.ended); got.Code() != want {
			t.Errorf("the end is known as %d, want %d", got.Code(), want)
		}
	}
}
