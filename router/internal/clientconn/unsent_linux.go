package clientconn

import (
	"syscall"
	"unsafe"
)

// unsent is how many bytes the kernel holds that the peer has not acknowledged.
func unsent(raw syscall.RawConn) (n int, ok bool) {
	if raw == nil {
		return 0, false
	}
	var held int32
	err := raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&held)))
		ok = errno == 0
	})
	return int(held), ok && err == nil
}
