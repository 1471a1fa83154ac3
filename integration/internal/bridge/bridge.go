// Package bridge carries TCP connections from one loopback address to another, so that tests can break them,
// refuse them or hold them still, as a crash and a network do.
package bridge

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// Bridge is one such way. Its methods may be called from several goroutines.
type Bridge struct {
	// Static after New.
	addr   string // where callers connect
	target string // where they get to

	mu     sync.Mutex
	moved  *sync.Cond            // held changed, or connections were broken
	ln     net.Listener          // guarded by mu; nil while shut
	conns  map[net.Conn]struct{} // guarded by mu
	held   bool                  // guarded by mu
	copies sync.WaitGroup
}

// New returns a bridge that Open opens.
func New(addr, target string) *Bridge {
	b := &Bridge{addr: addr, target: target, conns: map[net.Conn]struct{}{}}
	b.moved = sync.NewCond(&b.mu)
	return b
}

// Open begins to accept.
func (b *Bridge) Open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ln != nil {
		return errors.New("open bridge: it is open already")
	}
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		return fmt.Errorf("open bridge: %w", err)
	}
	b.ln = ln
	b.copies.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.carry(ln, c)
		}
	})
	return nil
}

// Shut refuses new connections, breaks all others and returns when nothing of them is left.
func (b *Bridge) Shut() {
	b.mu.Lock()
	if b.ln != nil {
		b.ln.Close()
		b.ln = nil
	}
	b.held = false
	for c := range b.conns {
		c.Close()
	}
	clear(b.conns)
	b.moved.Broadcast()
	b.mu.Unlock()
	b.copies.Wait()
}

// Hold keeps connections open and lets nothing through until it is called with false.
func (b *Bridge) Hold(held bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = held
	b.moved.Broadcast()
}

// carry copies between c, accepted by ln, and the target, in goroutines of the bridge.
func (b *Bridge) carry(ln net.Listener, c net.Conn) {
	t, err := net.Dial("tcp", b.target)
	if err != nil {
		c.Close()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ln != ln { // shut meanwhile
		c.Close()
		t.Close()
		return
	}
	b.conns[c], b.conns[t] = struct{}{}, struct{}{}
	b.copies.Go(func() { b.copy(c, t) })
	b.copies.Go(func() { b.copy(t, c) })
}

func (b *Bridge) copy(dst, src net.Conn) {
	defer func() {
		b.mu.Lock()
		delete(b.conns, dst)
		delete(b.conns, src)
		b.mu.Unlock()
		dst.Close()
		src.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		b.mu.Lock()
		for b.held {
			if _, open := b.conns[src]; !open {
				break
			}
			b.moved.Wait()
		}
		b.mu.Unlock()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
