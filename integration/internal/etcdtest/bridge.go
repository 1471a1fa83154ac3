package etcdtest

import (
	"fmt"
	"net"
	"sync"
)

// bridge carries TCP connections from a public address to etcd's own, so that they can be broken at once, refused or
// held still, as a crash and a network do. (etcd itself ends in order: with open watches that takes it seconds.)
type bridge struct {
	addr   string // public
	target string

	mu     sync.Mutex
	moved  *sync.Cond // held or epoch changed
	ln     net.Listener
	conns  map[net.Conn]struct{}
	held   bool
	copies sync.WaitGroup
}

func newBridge(addr, target string) *bridge {
	b := &bridge{addr: addr, target: target, conns: map[net.Conn]struct{}{}}
	b.moved = sync.NewCond(&b.mu)
	return b
}

// open begins to accept.
func (b *bridge) open() error {
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		return fmt.Errorf("listen for etcd clients: %w", err)
	}
	b.mu.Lock()
	b.ln = ln
	b.mu.Unlock()
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

// shut refuses new connections and breaks all others.
func (b *bridge) shut() {
	b.mu.Lock()
	if b.ln != nil {
		b.ln.Close()
		b.ln = nil
	}
	b.held = false
	b.breakLocked()
	b.mu.Unlock()
	b.copies.Wait()
}

// breakLocked closes every connection. b.mu must be held.
func (b *bridge) breakLocked() {
	for c := range b.conns {
		c.Close()
	}
	clear(b.conns)
	b.moved.Broadcast()
}

// hold keeps connections open and lets nothing through until it is called with false.
func (b *bridge) hold(held bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = held
	b.moved.Broadcast()
}

// carry copies between c, accepted by ln, and the target, in goroutines of the bridge.
func (b *bridge) carry(ln net.Listener, c net.Conn) {
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

func (b *bridge) copy(dst, src net.Conn) {
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
