//go:build !race

package nonblock

import (
	"syscall"
	"unsafe"
)

const supported = true

// Read is one read of a descriptor that does not block. 0 without an error is the end. It returns syscall.EAGAIN when
// there is nothing to read.
func Read(fd uintptr, p []byte) (int, error) { return once(syscall.SYS_READ, fd, p) }

// Write is one write to a descriptor that does not block; it may take a part. It returns syscall.EAGAIN when nothing is
// taken.
func Write(fd uintptr, p []byte) (int, error) { return once(syscall.SYS_WRITE, fd, p) }

func once(call, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
