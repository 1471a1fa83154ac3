package nonblock

import (
	"encoding/binary"
	"net"
	"syscall"
)

// gatherMost bounds how much the kernel is asked to gather, in bytes: half of the window that a new connection offers, so
// that a sender that finds no room for its next piece has always sent enough to wake the reader. (Linux wakes a reader
// whose window is full, however little has come, since 5.10 and in the long-term kernels of that time.)
const gatherMost = 32 << 10

// Framed is Wrap for a connection on which frames come, each a length of four bytes and as many bytes. A Kafka broker
// sends one in as many pieces as it has partitions with records, and each piece that arrives would wake this process:
// most of what a fetch cost. So the kernel is told how much is still to come of a frame that has begun.
func Framed(c net.Conn) net.Conn {
	w, ok := Wrap(c).(*conn)
	if !ok {
		return c
	}
	return &framed{Conn: w, raw: w.raw}
}

type framed struct {
	net.Conn
	raw  syscall.RawConn
	head [4]byte // of a frame whose length is not known yet
	have int     // bytes in head
	left int     // bytes that are still to come of the current frame
	mark int     // what the kernel was told; 0 is as good as 1
}

func (f *framed) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.follow(p[:n])
	f.tell(min(f.left, gatherMost))
	return n, err
}

// follow keeps account of what was read.
func (f *framed) follow(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.head[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == len(f.head) {
			// A length that is none is for the reader to complain of: it sees every byte.
			f.left, f.have = max(0, int(int32(binary.BigEndian.Uint32(f.head[:])))), 0
		}
	}
}

// tell lets the kernel wake the reader when so much has come. It never asks for more than is to come: the reader would
// wait for ever.
func (f *framed) tell(mark int) {
	if mark == f.mark || mark <= 1 && f.mark <= 1 {
		return
	}
	told := false
	err := f.raw.Control(func(fd uintptr) { told = WakeAt(fd, max(1, mark)) == nil })
	if told && err == nil {
		f.mark = mark
	}
}
