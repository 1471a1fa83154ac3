package clientconn

import "sync"

// Buffers come in powers of two from a pool, so that a client holds one only while something waits for it. Larger
// ones than the largest class are left to the garbage collector.
const (
	minClass   = 9  // 512 B
	maxClass   = 20 // 1 MiB
	maxSharing = 1 << maxClass
)

// buffer is a pooled byte slice; the pointer is what makes pooling free of allocations.
type buffer struct{ b []byte }

type bufferPool struct {
	classes [maxClass - minClass + 1]sync.Pool
}

// get returns an empty buffer with room for n bytes.
func (p *bufferPool) get(n int) *buffer {
	if n > maxSharing {
		return &buffer{b: make([]byte, 0, n)}
	}
	class := 0
	for 1<<(minClass+class) < n {
		class++
	}
	if b, ok := p.classes[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 1<<(minClass+class))}
}

func (p *bufferPool) put(b *buffer) {
	if b == nil || cap(b.b) > maxSharing {
		return
	}
	for class := range p.classes {
		if 1<<(minClass+class) == cap(b.b) {
			b.b = b.b[:0]
			p.classes[class].Put(b)
			return
		}
	}
}

// extend returns a buffer with room for n more bytes: b itself, or a larger one with b's bytes from off on.
func (p *bufferPool) extend(b *buffer, off, n int) (_ *buffer, newOff int) {
	if len(b.b)+n <= cap(b.b) {
		return b, off
	}
	// Doubling keeps the copying linear; a window that holds one huge record goes above the classes.
	next := p.get(max(len(b.b)-off+n, min(2*cap(b.b), 4*(len(b.b)-off+n))))
	next.b = append(next.b, b.b[off:]...)
	p.put(b)
	return next, 0
}
