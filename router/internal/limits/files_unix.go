//go:build unix

package limits

import (
	"fmt"
	"syscall"
)

// RaiseOpenFiles raises the limit of open files to the hard one and returns what holds then.
func RaiseOpenFiles() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if l.Cur < l.Max {
		before := l.Cur
		l.Cur = l.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			return uint64(before), fmt.Errorf("raise the limit of open files to %d: %w", l.Max, err) //nolint:unconvert // it is signed on FreeBSD
		}
	}
	return uint64(l.Cur), nil //nolint:unconvert // it is signed on FreeBSD
}

// OpenFiles is the limit in force.
func OpenFiles() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return uint64(l.Cur), nil //nolint:unconvert // it is signed on FreeBSD
}
