//go:build unix

package clientconn

import (
	"errors"
	"io"
	"syscall"

	"github.com/pointsmanhq/pointsman/pkg/nonblock"
)

// canAttempt: descriptors here are non-blocking, so that a write can be attempted without a goroutine waiting.
const canAttempt = true

// attempt is one write that may take anything from nothing to all. It is pooled with its closure, so that an
// attempt allocates nothing.
type attempt struct {
	b   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

func newAttempt() *attempt {
	a := &attempt{}
	a.try = func(fd uintptr) bool {
		a.n, a.err = writeOnce(int(fd), a.b)
		return true
	}
	return a
}

func writeOnce(fd int, b []byte) (int, error) {
	for {
		n, err := nonblock.Write(uintptr(fd), b)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		case err != nil:
			return 0, err
		}
		return n, nil
	}
}

func (s *Shared) attempt(raw syscall.RawConn, b []byte) (int, error) {
	a, ok := s.attempts.Get().(*attempt)
	if !ok {
		a = newAttempt()
	}
	a.b = b
	err := raw.Write(a.try)
	n, tried := a.n, a.err
	a.b, a.n, a.err = nil, 0, nil
	s.attempts.Put(a)
	if err != nil {
		return 0, err
	}
	return n, tried
}

// waitWrite waits until the socket takes bytes.
func waitWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	waited := raw.Write(func(fd uintptr) bool {
		n, err = writeOnce(int(fd), b)
		return n > 0 || err != nil
	})
	if err == nil {
		err = waited
	}
	if err == nil && n == 0 {
		err = io.ErrNoProgress
	}
	return n, err
}
