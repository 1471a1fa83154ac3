package nonblock

import (
	"syscall"
	"unsafe"
)

// WakeAt has the reader of a socket woken when n bytes are there to be read, or when no more will come.
func WakeAt(fd uintptr, n int) error {
	v := int32(n)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
