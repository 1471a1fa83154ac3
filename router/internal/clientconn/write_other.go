//go:build !unix

package clientconn

import (
	"errors"
	"syscall"
)

const canAttempt = false

var errNoDescriptor = errors.New("writes cannot be attempted on this system")

func (s *Shared) attempt(syscall.RawConn, []byte) (int, error) { return 0, errNoDescriptor }

func waitWrite(syscall.RawConn, []byte) (int, error) { return 0, errNoDescriptor }
