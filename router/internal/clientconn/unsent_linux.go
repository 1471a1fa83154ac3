package clientconn

import (
	"syscall"
	"unsafe"
)

// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall does not name.
const tcpNotsentLowat = 25

// limitUnsent bounds what the kernel keeps for a client beyond what is on its way. Without it a client that does not
// read costs some megabytes of kernel memory, which no budget of ours sees.
func limitUnsent(raw syscall.RawConn, bytes int) {
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, bytes) // an old kernel does without
	})
}

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
