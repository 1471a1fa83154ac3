//go:build unix && (!linux || race)

// Under the race detector the standard library's calls are used: they tell it that what a peer does after it has read
// something comes after what was done before that was written.

package nonblock

import (
	"errors"
	"syscall"
)

const supported = true

// Read is as on Linux, but through the scheduler.
func Read(fd uintptr, p []byte) (int, error) { return again(syscall.Read, fd, p) }

// Write is as on Linux, but through the scheduler.
func Write(fd uintptr, p []byte) (int, error) { return again(syscall.Write, fd, p) }

func again(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		n, err := call(int(fd), p)
		if !errors.Is(err, syscall.EINTR) {
			return max(0, n), err
		}
	}
}
