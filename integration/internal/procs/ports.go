package procs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports hands out loopback ports that stay reserved until Close: a process that restarts finds its own again,
// and other test processes on the machine keep away. The kernel never gives them to outgoing connections, since
// they lie below its ephemeral range.
type Ports struct {
	mu    sync.Mutex
	locks []*os.File // guarded by mu
}

const (
	firstPort = 20000
	lastPort  = 29999 // below net.ipv4.ip_local_port_range, which starts at 32768
)

// Take reserves a port and returns it as 127.0.0.1:port.
func (p *Ports) Take() (string, error) {
	var last error
	for range 1000 {
		addr, err := p.reserve(firstPort + rand.IntN(lastPort-firstPort+1))
		if err == nil {
			return addr, nil
		}
		last = err
	}
	return "", fmt.Errorf("reserve a port: none of 1000 was free: %w", last)
}

// Prefer is Take of the given port where that one is free.
func (p *Ports) Prefer(port int) (string, error) {
	if addr, err := p.reserve(port); err == nil {
		return addr, nil
	}
	return p.Take()
}

// reserve takes one port, or says why it cannot be had.
func (p *Ports) reserve(port int) (string, error) {
	dir := filepath.Join(os.TempDir(), "pointsman-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return "", err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", errors.Join(err, lock.Close())
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err != nil { // somebody else's
		return "", errors.Join(err, lock.Close())
	}
	if err := l.Close(); err != nil {
		return "", errors.Join(err, lock.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.locks = append(p.locks, lock)
	return addr, nil
}

// Close gives all ports back.
func (p *Ports) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, lock := range p.locks {
		errs = append(errs, lock.Close())
	}
	p.locks = nil
	return errors.Join(errs...)
}
