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
	dir := filepath.Join(os.TempDir(), "pointsman-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("reserve a port: %w", err)
	}
	var last error
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666)
		if err != nil {
			return "", fmt.Errorf("reserve a port: %w", err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			last = errors.Join(err, lock.Close())
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil { // somebody else's
			last = errors.Join(err, lock.Close())
			continue
		}
		if err := l.Close(); err != nil {
			return "", errors.Join(err, lock.Close())
		}
		p.mu.Lock()
		p.locks = append(p.locks, lock)
		p.mu.Unlock()
		return addr, nil
	}
	return "", fmt.Errorf("reserve a port: none of 1000 was free: %w", last)
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
