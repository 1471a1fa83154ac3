package kafka

import (
	"encoding/binary"
	"net"
	"syscall"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

// A broker sends an answer in as many pieces as it has partitions with records, and each piece that arrives would wake
// this process: most of what a fetch cost. So the kernel is told how much is still to come of an answer that has begun.

// gatherMost bounds how much the kernel is asked to gather, in bytes: more would need larger socket buffers.
const gatherMost = 64 << 10

// gatherer reads a plain connection and follows its frames, each a length of four bytes and as many bytes.
type gatherer struct {
	net.Conn
	raw  syscall.RawConn // nil where the kernel cannot be told
	head [4]byte         // of a frame whose length is not known yet
	have int             // bytes in head
	left int             // bytes that are still to come of the current frame
	mark int             // what the kernel was told; 0 is as good as 1
}

func newGatherer(c net.Conn) *gatherer {
	g := &gatherer{Conn: c}
	if s, ok := c.(syscall.Conn); ok {
		g.raw, _ = s.SyscallConn() // without it, every piece is read as it comes
	}
	return g
}

func (g *gatherer) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.raw != nil {
		g.follow(p[:n])
		g.tell(min(g.left, gatherMost))
	}
	return n, err
}

// follow keeps account of what was read.
func (g *gatherer) follow(p []byte) {
	for len(p) > 0 {
		if g.left > 0 {
			n := min(g.left, len(p))
			g.left -= n
			p = p[n:]
			continue
		}
		n := copy(g.head[g.have:], p)
		g.have += n
		p = p[n:]
		if g.have == len(g.head) {
			// A length that is none is for the reader to complain of: it sees every byte.
			g.left, g.have = max(0, int(int32(binary.BigEndian.Uint32(g.head[:])))), 0
		}
	}
}

// tell lets the kernel wake the reader when so much has come. It never asks for more than is to come: the reader would
// wait for ever.
func (g *gatherer) tell(mark int) {
	if mark == g.mark || mark <= 1 && g.mark <= 1 {
		return
	}
	told := false
	err := g.raw.Control(func(fd uintptr) { told = nonblock.WakeAt(fd, max(1, mark)) == nil })
	if told && err == nil {
		g.mark = mark
	}
}
