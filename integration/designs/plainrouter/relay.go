package plainrouter

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

// buffers are shared by all connections: one holds a buffer only while bytes are on their way from one socket to the
// other.
type buffers struct{ pool sync.Pool }

const bufferSize = 8 << 10

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, bufferSize)
	return &p
}

func (b *buffers) put(p *[]byte) { b.pool.Put(p) }

// relay copies both ways until one end closes.
func (r *Router) relay(client, node net.Conn, early []byte) {
	defer r.open.Done()
	if _, err := node.Write(early); err != nil {
		_ = client.Close()
	}
	var up sync.WaitGroup
	up.Go(func() {
		_ = r.buffers.copy(node, client, nil) // however it ends, the pair ends
		closeWrite(node)
	})
	_ = r.buffers.copy(client, node, func(n int) { r.toward.Add(float64(n)) })
	// The node said its last: the client gets it, and the end behind it.
	closeWrite(client)
	_ = client.SetReadDeadline(time.Now().Add(time.Second))
	up.Wait()
	_, _ = client.Close(), node.Close()
	r.mu.Lock()
	delete(r.pairs, client)
	r.mu.Unlock()
}

// copy copies until the source ends or something breaks. It waits for the source without a buffer. io.Copy would have
// the kernel move the bytes through a pipe, and hold that while it waits: four descriptors for each client beside its
// two sockets.
func (b *buffers) copy(dst io.Writer, src net.Conn, copied func(n int)) error {
	sc, ok := src.(syscall.Conn)
	if !ok {
		_, err := io.Copy(dst, src)
		return err
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if c, ok := dst.(net.Conn); ok {
		dst = nonblock.Wrap(c)
	}
	for {
		var buf *[]byte
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) (done bool) {
			buf = b.get()
			n, failed = nonblock.Read(fd, *buf)
			if errors.Is(failed, syscall.EAGAIN) {
				b.put(buf)
				buf = nil
				return false
			}
			return true
		})
		if buf == nil {
			return fmt.Errorf("relay: %w", err)
		}
		if failed == nil && n > 0 {
			_, failed = dst.Write((*buf)[:n])
		}
		b.put(buf)
		switch {
		case failed != nil || err != nil:
			return fmt.Errorf("relay: %w", errors.Join(failed, err))
		case n <= 0:
			return nil
		}
		if copied != nil {
			copied(n)
		}
	}
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite() // the other side may be gone already
	}
}
