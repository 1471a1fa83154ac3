package nonblock

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Frames of all sizes that come in pieces of all sizes are read whole, and no read waits for more than will come:
// every frame is asked for only when the one before was read, as a broker answers one request after the other.
func TestFollowsFrames(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	g, peer := framedPair(t)
	in := bufio.NewReader(g) // as sarama reads
	for range 100 {
		frame := make([]byte, 4+sizeOf(rnd))
		for i := range frame {
			frame[i] = byte(rnd.Uint32())
		}
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		cuts := rnd.IntN(20)
		written := make(chan error, 1)
		go func() {
			rest := frame
			for range cuts {
				n := len(rest) / (1 + cuts/2)
				if _, err := peer.Write(rest[:n]); err != nil {
					written <- err
					return
				}
				rest = rest[n:]
			}
			_, err := peer.Write(rest)
			written <- err
		}()
		got := make([]byte, len(frame))
		for _, part := range [][]byte{got[:4], got[4:]} {
			if _, err := io.ReadFull(in, part); err != nil {
				t.Fatalf("a frame of %d bytes in %d pieces: %v", len(frame), cuts+1, err)
			}
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, frame) {
			t.Fatal("a frame came damaged")
		}
		if g.left != 0 || g.have != 0 || g.mark > 1 {
			t.Fatalf("after a frame: %d bytes to come, %d of a head, woken at %d", g.left, g.have, g.mark)
		}
	}
}

// A reader of a frame that has begun is woken for its rest, not for each piece.
func TestWakesForTheRestOfAFrame(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is told how much is to come")
	}
	for _, test := range []struct{ size, mark int }{{1000, 990}, {1 << 20, gatherMost}} {
		f, peer := framedPair(t)
		if _, err := peer.Write(append(binary.BigEndian.AppendUint32(nil, uint32(test.size)), make([]byte, 10)...)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(f, make([]byte, 14)); err != nil {
			t.Fatal(err)
		}
		var told int
		if err := f.raw.Control(func(fd uintptr) {
			told, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT)
		}); err != nil {
			t.Fatal(err)
		}
		if told != test.mark {
			t.Errorf("10 bytes of a frame of %d have come: woken at %d, want %d", test.size, told, test.mark)
		}
	}
}

func sizeOf(rnd *rand.Rand) int {
	switch rnd.IntN(3) {
	case 0:
		return rnd.IntN(64)
	case 1:
		return rnd.IntN(8192)
	default:
		return rnd.IntN(1 << 20)
	}
}

// The end of a connection is not waited for, however much was to come; nor is what comes after a length that is none.
func TestEndsOfFrames(t *testing.T) {
	for _, test := range []struct {
		name string
		sent []byte
	}{
		{"in a frame", append([]byte{0, 1, 0, 0}, make([]byte, 100)...)},
		{"in a length", []byte{0, 1}},
		{"after a negative length", []byte{0xff, 0xff, 0xff, 0xff, 1, 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, peer := framedPair(t)
			if _, err := peer.Write(test.sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(test.sent))
			if _, err := io.ReadFull(g, got); err != nil || !bytes.Equal(got, test.sent) {
				t.Fatalf("read %x, %v", got, err)
			}
			if err := peer.Close(); err != nil {
				t.Fatal(err)
			}
			if n, err := g.Read(got); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("read %d, %v; want the end", n, err)
			}
		})
	}
}

func framedPair(t *testing.T) (*framed, net.Conn) {
	t.Helper()
	c, peer := pair(t)
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return Framed(c).(*framed), peer
}
